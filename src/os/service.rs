//! What systemd gives a service and wants to hear from it (sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)).
//!
//! None of it is there for a process that systemd has not started: then nothing is said, and nobody listens.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Where systemd hears its services.
const NOTIFY: &str = "NOTIFY_SOCKET";

/// How often a watchdog expects to hear something, in microseconds, and from whom.
const WATCHDOG: [&str; 2] = ["WATCHDOG_USEC", "WATCHDOG_PID"];

/// Whether systemd waits for this process to say that it answers.
pub fn is_one() -> bool {
    std::env::var_os(NOTIFY).is_some_and(|socket| !socket.is_empty())
}

/// Says that this service answers.
pub fn tell_ready() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready])
}

/// Says that this service ends because it was asked to.
pub fn tell_stopping() {
    // Its end is seen anyway.
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Listens at `path` with mode 0600, or takes the socket that systemd listens at for this service, which stays open
/// while it is restarted: whoever connects meanwhile waits.
pub fn listen(path: &Path) -> io::Result<Listener> {
    match ListenFd::from_env().take_unix_listener(0)? {
        Some(socket) => Ok(Listener { socket, is_own: false }),
        None => Ok(Listener { socket: super::socket::listen(path)?, is_own: true }),
    }
}

/// A socket that clients connect to.
#[derive(Debug)]
pub struct Listener {
    /// It.
    pub socket: UnixListener,
    /// Whether its file is this process's to give away and to remove.
    pub is_own: bool,
}

/// Tells systemd's watchdog that this process lives.
#[derive(Debug)]
pub struct Heartbeat {
    interval: Duration,
    last: Instant,
}

impl Heartbeat {
    /// Where there is a watchdog for this process: twice in the time that it waits.
    pub fn wanted() -> Option<Self> {
        let [interval, pid] = WATCHDOG.map(|name| std::env::var(name).ok());
        let interval = interval_for(interval.as_deref()?, pid.as_deref(), std::process::id())?;
        Some(Self { interval, last: Instant::now() })
    }

    /// When the next beat is due.
    pub fn due(&self) -> Instant {
        self.last + self.interval
    }

    /// Beats if it is due.
    pub fn beat(&mut self) {
        if Instant::now() < self.due() {
            return;
        }
        self.last = Instant::now();
        if let Err(e) = sd_notify::notify(&[NotifyState::Watchdog]) {
            log::warn!("systemd's watchdog cannot be told that this process lives: {e}");
        }
    }
}

/// Half of the time that the watchdog waits; `None` where it waits for another process, or not at all.
fn interval_for(microseconds: &str, pid: Option<&str>, own: u32) -> Option<Duration> {
    let waits: u64 = microseconds.parse().ok().filter(|waits| *waits > 1)?;
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    is_ours.then(|| Duration::from_micros(waits / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_hears_twice_in_the_time_that_it_waits() {
        assert_eq!(interval_for("3000000", None, 7), Some(Duration::from_millis(1500)));
        assert_eq!(interval_for("3000000", Some("7"), 7), Some(Duration::from_millis(1500)));
        for (microseconds, pid) in [("3000000", Some("8")), ("0", None), ("1", None), ("-1", None), ("", None)] {
            assert_eq!(interval_for(microseconds, pid, 7), None, "{microseconds} {pid:?}");
        }
    }

    #[test]
    fn a_beat_is_not_repeated_before_it_is_due() {
        let mut heart = Heartbeat { interval: Duration::from_secs(3600), last: Instant::now() };
        let due = heart.due();
        heart.beat();
        assert_eq!(heart.due(), due);
        heart.interval = Duration::ZERO;
        heart.beat();
        assert!(heart.due() < due);
    }

    #[test]
    fn where_systemd_listens_for_nobody_the_socket_is_our_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = listen(&folder.path().join("s")).expect("listens");
        assert!(listener.is_own && folder.path().join("s").exists());
    }
}
