//! Programs that are run to their end, within bounds: time, and what they may say. What exceeds them ends the program
//! with all of its process group.
//!
//! Credentials belong to a thread (credentials(7)): to run something as somebody else, a thread of its own takes them on,
//! starts the program, and ends. So nothing here needs `unsafe`.

use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Gid, Pid, PidfdFlags, Signal, Uid, kill_process_group, pidfd_open};

use super::accounts::{Account, groups_of};
use super::memfd;

/// As whom a program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    gains_nothing: bool,
}

impl Credentials {
    /// Of `account`, with its groups.
    pub fn of(account: &Account) -> Self {
        let (uid, gid) = (account.uid, account.gid);
        let groups = std::iter::once(gid).chain(groups_of(&account.name)).collect();
        Self { uid, gid, groups, gains_nothing: false }
    }

    /// Of nobody: the overflow uid, which owns nothing (user_namespaces(7)), no group beside its own, and no program run
    /// from there gains anything (`PR_SET_NO_NEW_PRIVS`).
    pub fn nobody() -> Self {
        Self { uid: 65_534, gid: 65_534, groups: Vec::new(), gains_nothing: true }
    }

    /// Makes them this thread's. Leaving root behind clears all capabilities of the thread (capabilities(7)).
    fn take_on(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        if self.gains_nothing {
            rustix::thread::set_no_new_privs(true)?;
        }
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

/// Starts `command` with `credentials`; only root may do so.
pub fn spawn_as(command: &mut Command, credentials: &Credentials) -> io::Result<Child> {
    std::thread::scope(|scope| {
        let spawn = || -> io::Result<Child> {
            credentials.take_on()?;
            command.spawn()
        };
        scope.spawn(spawn).join().unwrap_or_else(|_| Err(io::Error::other("the starting thread ended")))
    })
}

/// What a program may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Until its end.
    pub time: Duration,
    /// Bytes on standard output, and as many on standard error.
    pub output: usize,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub output: Vec<u8>,
    /// What it wrote to standard error.
    pub errors: Vec<u8>,
}

/// Runs `command` with `input` on its standard input, in a process group of its own, so that no key of the terminal
/// reaches it.
pub fn run(
    command: &mut Command,
    credentials: Option<&Credentials>,
    input: &[u8],
    bounds: Bounds,
) -> io::Result<Ended> {
    let mut stdin = memfd::create("input")?;
    stdin.write_all(input)?;
    stdin.rewind()?;
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = match credentials {
        Some(credentials) => spawn_as(command, credentials)?,
        None => command.spawn()?,
    };
    let heard = listen(&mut child, bounds);
    if heard.is_err() {
        // It may have ended by itself; what counts is the first error.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait()?;
    let (output, errors) = heard?;
    Ok(Ended { status, output, errors })
}

/// All that it says until it ends.
fn listen(child: &mut Child, bounds: Bounds) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no standard output or error"));
    };
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = Instant::now() + bounds.time;
    let mut streams = [Stream::new(output.into())?, Stream::new(errors.into())?];
    loop {
        // Asked before what is there is read: whatever it said, it said before its end.
        let has_ended = wait(&streams, pidfd.as_fd(), deadline)?;
        for stream in &mut streams {
            stream.drain(bounds.output)?;
        }
        if has_ended {
            let [output, errors] = streams;
            return Ok((output.heard, errors.heard));
        }
    }
}

/// Waits until something can be read or the program has ended; whether it has.
fn wait(streams: &[Stream], pidfd: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    let rest = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
    let mut waited = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let open = streams.iter().filter(|stream| !stream.is_at_end);
    waited.extend(open.map(|stream| PollFd::from_borrowed_fd(stream.pipe.as_fd(), PollFlags::IN)));
    match poll(&mut waited, Some(&timeout)) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end in time")),
        Ok(_) => Ok(!waited[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// One end of a pipe, and what came out of it.
struct Stream {
    pipe: std::fs::File,
    heard: Vec<u8>,
    is_at_end: bool,
}

impl Stream {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe: pipe.into(), heard: Vec::new(), is_at_end: false })
    }

    /// Reads what is there.
    fn drain(&mut self, limit: usize) -> io::Result<()> {
        let mut piece = [0; 4096];
        while !self.is_at_end {
            match self.pipe.read(&mut piece) {
                Ok(0) => self.is_at_end = true,
                Ok(count) => self.heard.extend_from_slice(&piece[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if self.heard.len() > limit {
                return Err(io::Error::other("it says too much"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { time: Duration::from_secs(20), output: 1000 };

    fn sh(script: &str, bounds: Bounds) -> io::Result<Ended> {
        run(Command::new("/bin/sh").args(["-c", script]), None, b"in\n", bounds)
    }

    #[test]
    fn input_both_outputs_and_the_code_come_through() {
        let ended = sh("cat; echo err >&2; exit 3", BOUNDS).expect("ran");
        assert_eq!((ended.status.code(), ended.output, ended.errors), (Some(3), b"in\n".to_vec(), b"err\n".to_vec()));
    }

    #[test]
    fn what_never_ends_or_says_too_much_is_ended_with_its_children() {
        let began = Instant::now();
        let soon = Bounds { time: Duration::from_millis(200), ..BOUNDS };
        assert_eq!(sh("sleep 60 & wait", soon).expect_err("late").kind(), io::ErrorKind::TimedOut);
        assert!(sh("yes", BOUNDS).expect_err("loud").to_string().contains("too much"));
        // A child that holds the pipes is not waited for.
        assert!(sh("sleep 60 & echo said", BOUNDS).expect("ran").output.starts_with(b"said"));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn nobody_has_no_group_and_no_capability_and_gains_none() {
        if !crate::os::need::is_met("root", "run as root", rustix::process::geteuid().is_root()) {
            return;
        }
        let mut command = Command::new("/bin/cat");
        let ended = run(command.arg("/proc/self/status"), Some(&Credentials::nobody()), b"", BOUNDS.with(8000));
        let status = String::from_utf8(ended.expect("ran").output).expect("text");
        for line in ["Uid:\t65534\t65534\t65534\t65534", "Groups:\t \n", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"]
        {
            assert!(status.contains(line), "{line:?} in {status}");
        }
        let own = std::fs::read_to_string("/proc/self/status").expect("read");
        assert!(own.contains("Uid:\t0\t") && own.contains("NoNewPrivs:\t0"), "this process is what it was");
    }

    impl Bounds {
        fn with(self, output: usize) -> Self {
            Self { output, ..self }
        }
    }
}
