//! Telling pid 1 to end this guest, in the words that it understands.

use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::stats;
use crate::guest::console::say;
use crate::guest::init::{PID1_NAME, handover};
use crate::guest::{power, sys};

/// systemd makes this socket in its folder after it has taken over its signals (`manager_startup`).
/// A signal that comes before reaches nobody: the kernel drops what pid 1 has no handler for.
const LISTENING: (&str, &str) = ("/run/systemd", "private");

/// How long systemd may take until then; some seconds under software emulation.
const LIMIT: Duration = Duration::from_secs(60);

/// Begins the end of this guest.
pub fn begin() {
    let told = if stats::init_name() == PID1_NAME {
        kill_process(Pid::INIT, Signal::TERM).map_err(io::Error::from)
    } else if handover::image_has_systemd() {
        wait_until_systemd_listens().and_then(|()| sys::tell_systemd_to_end(power::by_reset()))
    } else {
        // What any other init brings along for its administrator.
        let program = if power::by_reset() { "reboot" } else { "poweroff" };
        Command::new(program).env_clear().env("PATH", handover::PATH).status().map(|_| ())
    };
    if let Err(error) = told {
        say(&format!("trouble: cannot tell pid 1 to shut down: {error}"));
    }
}

/// At the limit it is told all the same.
fn wait_until_systemd_listens() -> io::Result<()> {
    let (folder, name) = LISTENING;
    wait_for_file(Path::new(folder), name, LIMIT).map(|_| ())
}

/// Waits until `name` is in `folder`; false at the limit.
fn wait_for_file(folder: &Path, name: &str, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    let watcher = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watcher, folder, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
    while !folder.join(name).exists() {
        let rest = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
        match poll(&mut [PollFd::new(&watcher, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => drain(&watcher)?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

/// What the events say is not read: each is a reason to look again.
fn drain(watcher: impl std::os::fd::AsFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watcher, &mut buffer);
    loop {
        match reader.next() {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_comes_later_is_seen_and_one_that_never_comes_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        assert!(!wait_for_file(&path, "private", Duration::from_millis(5)).expect("works"));
        std::fs::write(path.join("other"), "").expect("written");
        let later = path.clone();
        let writer = std::thread::spawn(move || std::fs::write(later.join("private"), ""));
        assert!(wait_for_file(&path, "private", Duration::from_secs(10)).expect("works"));
        writer.join().expect("joined").expect("written");
    }
}
