//! Processes that cannot be mistaken for others: pid and start time, then a pidfd (pidfd_open(2)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::model::ProcessRef;

/// A reference to the living process `pid`.
pub fn reference(pid: i32) -> io::Result<ProcessRef> {
    match stat(pid)? {
        Some(Stat { start_time, is_zombie: false }) => Ok(ProcessRef { pid, start_time, boot: boot_number()? }),
        Some(_) | None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no live process {pid}"))),
    }
}

/// A pidfd of exactly the process that `process` names; `None` when it is gone, a zombie included.
///
/// Fails where it cannot be told: `/proc` may hide the processes of other users (`hidepid`, proc(5)),
/// and one that is merely hidden must not be taken for dead.
pub fn open(process: ProcessRef) -> io::Result<Option<OwnedFd>> {
    if process.pid <= 0 {
        return Ok(None);
    }
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(None) };
    if process.boot != boot_number()? {
        return Ok(None);
    }
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    // Compared after the pidfd is held: from here on the pid cannot be taken by another.
    match stat(process.pid)? {
        Some(stat) if stat.start_time != process.start_time => Ok(None),
        // One whose first thread has ended is a zombie there while others still end: it is gone only
        // when its pidfd says so, and until then it holds what it held.
        Some(stat) if stat.is_zombie && wait_for_end(&pidfd, std::time::Duration::ZERO)? => Ok(None),
        Some(_) => Ok(Some(pidfd)),
        None if wait_for_end(&pidfd, std::time::Duration::ZERO)? => Ok(None),
        None => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("/proc hides process {}: it cannot be told whether it is the one", process.pid),
        )),
    }
}

/// Whether exactly this process lives, in tests alone: where it cannot be told, this says no.
#[cfg(test)]
pub fn is_alive(process: ProcessRef) -> bool {
    matches!(open(process), Ok(Some(_)))
}

/// Sends SIGKILL; done when the process is gone already.
pub fn kill(pidfd: impl AsFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Waits until the process of `pidfd` has ended, at most `limit`; true when it has.
pub fn wait_for_end(pidfd: impl AsFd, limit: std::time::Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let deadline = std::time::Instant::now() + limit;
    loop {
        let rest = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// What is looked at of `/proc/PID/stat` (proc(5)).
struct Stat {
    /// Field 22.
    start_time: u64,
    /// Field 3: dead, or its first thread is.
    is_zombie: bool,
}

/// `None` when the process is gone, or hidden.
fn stat(pid: i32) -> io::Result<Option<Stat>> {
    let text = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(3) => return Ok(None),
        Err(e) => return Err(e),
    };
    // The command name stands in parentheses and may itself hold any character.
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not as in proc(5)"));
    let (_, rest) = text.rsplit_once(')').ok_or_else(malformed)?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let is_zombie = matches!(fields.first(), Some(&"Z" | &"X" | &"x"));
    let start_time = fields.get(19).and_then(|f| f.parse().ok()).ok_or_else(malformed)?;
    Ok(Some(Stat { start_time, is_zombie }))
}

/// The leading 64 bits of `/proc/sys/kernel/random/boot_id` (random(4)).
pub fn boot_number() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "boot_id is not as in random(4)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_found_and_another_start_time_is_not() {
        let own = reference(std::process::id() as i32).expect("this process");
        assert!(is_alive(own));
        assert!(!is_alive(ProcessRef { start_time: own.start_time + 1, ..own }));
        assert!(!is_alive(ProcessRef { boot: own.boot ^ 1, ..own }));
        assert!(!is_alive(ProcessRef { pid: -1, ..own }));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let process = reference(child.id() as i32).expect("alive");
        let pidfd = open(process).expect("opens").expect("alive");
        kill(&pidfd).expect("killed");
        assert!(wait_for_end(&pidfd, std::time::Duration::from_secs(10)).expect("polls"));
        assert!(!is_alive(process));
        child.wait().expect("reaped");
    }
}
