//! Whether the peer still lives: after some silence it is asked, and has so long to answer.
//!
//! Time passes only while it is listened to, and only while this process runs: a laptop that slept
//! finds the answer waiting in its socket.

use std::time::{Duration, Instant};

/// How long to wait for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a session, and for each command to start.
    pub connect: Duration,
    /// Silence after which the peer is asked whether it is there; two seconds at least.
    pub keepalive: Duration,
    /// Time without an answer after which the connection counts as lost.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), keepalive: Duration::from_secs(15), silence: Duration::from_secs(60) }
    }
}

/// libssh2 sends no two keepalives within this time.
const SHORTEST: Duration = Duration::from_secs(2);

/// What the silence means.
#[derive(Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing yet.
    Wait,
    /// Ask now.
    Ask,
    /// It did not answer.
    Gone,
}

/// Since when nothing was heard.
pub struct Pulse {
    keepalive: Duration,
    silence: Duration,
    heard: Instant,
    asked: Option<Instant>,
}

impl Pulse {
    /// Heard just now.
    pub fn new(timeouts: Timeouts) -> Self {
        Self {
            keepalive: timeouts.keepalive.max(SHORTEST),
            silence: timeouts.silence,
            heard: Instant::now(),
            asked: None,
        }
    }

    /// Something was heard.
    pub fn heard(&mut self) {
        (self.heard, self.asked) = (Instant::now(), None);
    }

    /// When to look again.
    pub fn deadline(&self) -> Instant {
        self.asked.map_or(self.heard + self.keepalive, |asked| asked + self.silence)
    }

    /// What to do after a wait in which nothing was heard.
    pub fn beat(&mut self) -> Beat {
        match self.asked {
            _ if Instant::now() < self.deadline() => Beat::Wait,
            Some(_) => Beat::Gone,
            None => {
                self.asked = Some(Instant::now());
                Beat::Ask
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_asked_about_once_and_then_ends() {
        let zero = Duration::ZERO;
        let mut pulse = Pulse { keepalive: zero, silence: zero, heard: Instant::now(), asked: None };
        assert_eq!(pulse.beat(), Beat::Ask);
        assert_eq!(pulse.beat(), Beat::Gone);
        pulse.heard();
        assert_eq!(pulse.beat(), Beat::Ask);
    }

    #[test]
    fn nothing_happens_before_its_time() {
        assert_eq!(Pulse::new(Timeouts::default()).beat(), Beat::Wait);
    }
}
