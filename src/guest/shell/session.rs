//! One command's life on a channel: bytes both ways, signals, and how it ended.
//!
//! One thread, nothing blocks but the one poll(2) in [`Session::wait`]; each turn does all that can
//! be done without waiting.

use std::io::{self, ErrorKind};

use rustix::event::{PollFd, PollFlags};

use super::child::{self, Refusal, Started};
use super::running::Running;
use super::wire::{Wire, poll_until};
use crate::protocol::shell::{Begin, Ending, FromShell, Output, ToShell, WINDOW};

/// Runs one command after the other until the host has gone.
pub fn serve(wire: &mut Wire) -> io::Result<()> {
    while let Some(begin) = next_command(wire)? {
        match child::start(&begin) {
            Ok(started) => Session::new(wire, started).run()?,
            Err(Refusal { code, text }) => {
                wire.say(&FromShell::Said { output: Output::Stderr, bytes: text.into_bytes() });
                wire.say(&FromShell::Ended(Ending::Exited(code)));
            }
        }
    }
    Ok(())
}

/// Waits for a command; what belonged to the last one and came too late is skipped.
fn next_command(wire: &mut Wire) -> io::Result<Option<Begin>> {
    loop {
        wire.turn()?;
        while let Some(frame) = wire.next_frame().map_err(garbled)? {
            match frame {
                ToShell::Begin(begin) => return Ok(Some(begin)),
                ToShell::Ping => wire.say(&FromShell::Pong),
                ToShell::Input(_)
                | ToShell::InputEnd
                | ToShell::Passed { .. }
                | ToShell::Signal(_)
                | ToShell::Resize { .. } => {}
            }
        }
        wire.flush()?;
        if wire.is_gone() {
            return Ok(None);
        }
        wire.wait_alone()?;
    }
}

fn garbled(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

struct Session<'w> {
    wire: &'w mut Wire,
    running: Running,
    /// Passed on and not yet said so.
    passed: usize,
    /// How much of each output the host takes.
    credit: [(Output, usize); 2],
}

impl<'w> Session<'w> {
    fn new(wire: &'w mut Wire, started: Started) -> Self {
        let credit = [(Output::Stdout, WINDOW), (Output::Stderr, WINDOW)];
        Self { wire, running: Running::new(started), passed: 0, credit }
    }

    /// Until the command has ended or the host has gone, which hangs the command up.
    fn run(mut self) -> io::Result<()> {
        let outcome = self.converse();
        self.running.hang_up();
        outcome
    }

    fn converse(&mut self) -> io::Result<()> {
        loop {
            self.wire.turn()?;
            while let Some(frame) = self.wire.next_frame().map_err(garbled)? {
                self.hear(frame)?;
            }
            self.feed();
            self.running.notice_end()?;
            self.collect();
            if let Some(ending) = self.running.ended(|output| self.has_room_for(output)) {
                self.wire.say(&FromShell::Ended(ending));
                return Ok(());
            }
            self.wire.flush()?;
            if self.wire.is_gone() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn hear(&mut self, frame: ToShell) -> io::Result<()> {
        match frame {
            ToShell::Input(bytes) if self.running.input.waiting() + bytes.len() <= WINDOW => {
                self.running.input.give(&bytes);
            }
            ToShell::Input(_) => return Err(garbled(io::Error::other("more input than there is room for"))),
            ToShell::InputEnd => self.running.input.end(),
            ToShell::Passed { output, bytes } => {
                for (_, credit) in self.credit.iter_mut().filter(|(of, _)| *of == output) {
                    *credit = WINDOW.min(credit.saturating_add(bytes as usize));
                }
            }
            ToShell::Signal(number) => self.running.signal(number),
            ToShell::Resize { cols, rows } => self.running.resize(cols, rows),
            ToShell::Ping => self.wire.say(&FromShell::Pong),
            ToShell::Begin(_) => return Err(garbled(io::Error::other("a command runs already"))),
        }
        Ok(())
    }

    /// Passes input on as far as the command takes it.
    fn feed(&mut self) {
        let fed = self.running.input.feed();
        self.passed += fed.passed;
        if fed.closed {
            self.wire.say(&FromShell::InputClosed);
        }
        if self.passed >= WINDOW / 4 {
            self.wire.say(&FromShell::Passed { bytes: self.passed as u32 });
            self.passed = 0;
        }
    }

    fn collect(&mut self) {
        for (output, credit) in &mut self.credit {
            while self.wire.has_room() {
                let Some(bytes) = self.running.read(*output, *credit) else { break };
                *credit -= bytes.len();
                self.wire.say(&FromShell::Said { output: *output, bytes });
            }
        }
    }

    fn has_room_for(&self, output: Output) -> bool {
        self.wire.has_room() && self.credit.iter().any(|(of, credit)| *of == output && *credit > 0)
    }

    fn wait(&self) -> io::Result<()> {
        if self.wire.has_more() {
            return Ok(());
        }
        let mut fds = vec![PollFd::from_borrowed_fd(self.wire.descriptor(), PollFlags::IN)];
        self.running.watch(&mut fds, |output| self.has_room_for(output));
        // Once it is over, only the host's word can change anything.
        poll_until(&mut fds, self.running.deadline().into_iter().chain(self.wire.deadline()).min())
    }
}
