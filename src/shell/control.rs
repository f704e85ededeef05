//! This process's signals, as events for a running command.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::os::tty;

use super::{Control, ControlEvent};

/// Hears SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGWINCH. From its making on they do not end this
/// process, also after it was dropped: `signal-hook` keeps its handler. Keep it as long as you run.
pub struct HostSignals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    terminal: OwnedFd,
    waiting: VecDeque<i32>,
}

impl HostSignals {
    /// Begins to listen; window changes are those of `terminal`, which may be something else.
    pub fn listen(terminal: impl AsFd) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH];
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, signals)?;
        Ok(Self { delivery, terminal: terminal.as_fd().try_clone_to_owned()?, waiting: VecDeque::new() })
    }

    fn event(&self, signal: i32) -> Option<ControlEvent> {
        if signal != SIGWINCH {
            return Some(ControlEvent::Signal(signal));
        }
        tty::size(self.terminal.as_fd()).map(|(cols, rows)| ControlEvent::Resize { cols, rows })
    }
}

impl Control for HostSignals {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }

    fn next(&mut self) -> Option<ControlEvent> {
        self.waiting.extend(self.delivery.pending());
        while let Some(signal) = self.waiting.pop_front() {
            if let Some(event) = self.event(signal) {
                return Some(event);
            }
        }
        None
    }

    fn end_asked_for(&mut self) -> Option<i32> {
        self.waiting.extend(self.delivery.pending());
        self.waiting.iter().copied().find(|signal| *signal != SIGWINCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::streams::is_ready;
    use rustix::event::PollFlags;

    #[test]
    fn a_signal_makes_the_descriptor_readable_and_is_told_once() {
        let terminal = std::fs::File::open("/dev/null").expect("the null device");
        let mut signals = HostSignals::listen(&terminal).expect("listens");
        assert_eq!(signals.next(), None);
        for signal in [SIGWINCH, SIGHUP] {
            signal_hook::low_level::raise(signal).expect("raised");
        }
        assert!(is_ready(signals.descriptor(), PollFlags::IN));
        assert_eq!(signals.end_asked_for(), Some(SIGHUP), "and it stays");
        assert_eq!(signals.next(), Some(ControlEvent::Signal(SIGHUP)), "no terminal, no size");
        assert_eq!(signals.next(), None);
        assert!(!is_ready(signals.descriptor(), PollFlags::IN));
    }
}
