//! What a signal to this process means while a command runs: one is asking, two is insisting, three
//! is leaving.

use std::os::fd::BorrowedFd;

use super::{Control, ControlEvent};

/// The signal that ends the wait.
const PATIENCE: u8 = 3;

/// What a carrier has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heed {
    /// Pass this signal on to the command.
    Pass(i32),
    /// Tell the command's terminal its size.
    Resize {
        /// Width in characters.
        cols: u16,
        /// Height in characters.
        rows: u16,
    },
    /// Kill the command and end, as this signal would have ended it.
    Leave(i32),
}

/// Listens to a control, if there is one.
pub struct Attention<'io> {
    control: Option<&'io mut dyn Control>,
    has_pty: bool,
    signals: u8,
}

impl<'io> Attention<'io> {
    /// For a command with or without a terminal.
    pub fn new(control: Option<&'io mut dyn Control>, has_pty: bool) -> Self {
        Self { control, has_pty, signals: 0 }
    }

    /// What to wait on, where there is something.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.control.as_ref().map(|control| control.descriptor())
    }

    /// The next thing to do; `None` when there is none for now.
    pub fn next_heed(&mut self) -> Option<Heed> {
        Some(match self.control.as_mut()?.next()? {
            ControlEvent::Resize { cols, rows } => Heed::Resize { cols, rows },
            ControlEvent::Abandon(signal) => Heed::Leave(signal),
            ControlEvent::Signal(signal) => self.judge(signal),
        })
    }

    /// The command has ended.
    pub fn command_ended(&mut self) {
        if let Some(control) = &mut self.control {
            control.command_ended();
        }
    }

    /// A terminal's own keys arrive as bytes: a signal beside them means this process is to end.
    fn judge(&mut self, signal: i32) -> Heed {
        self.signals = self.signals.saturating_add(1);
        if self.has_pty || self.signals >= PATIENCE { Heed::Leave(signal) } else { Heed::Pass(signal) }
    }
}
