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

/// Hears SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGWINCH from its making until it is dropped; while
/// it lives they do not end this process.
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
}
