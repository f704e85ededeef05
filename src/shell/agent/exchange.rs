//! One command's life on a channel, seen from the host.
//!
//! One thread, nothing blocks but the one poll(2) in [`Exchange::wait`]; each turn does all that can
//! be done without waiting. The channel is always read, because the guest sends no more of a stream
//! than there is room for here; a guest that does is cut off.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGKILL, SIGPIPE};

use super::AgentShell;
use crate::protocol::frame;
use crate::protocol::shell::{CHUNK, Ending, FromShell, Output, ToShell, WINDOW};
use crate::shell::{Attention, Beat, Heed, Inlet, Io, Outcome, Outlet, Pulse, Reader, ShellError};

/// Bytes read in one turn, so that a flood cannot starve the other direction.
const TURN: usize = 64 << 10;

/// How long a command that is given up may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where an output of the command goes, and what waits for it.
struct Sink<'io> {
    output: Output,
    outlet: Outlet<'io>,
    waiting: VecDeque<Vec<u8>>,
    /// Bytes that the guest was not yet told to be passed on.
    owed: usize,
    /// Bytes of those that were.
    passed: usize,
}

impl<'io> Sink<'io> {
    fn new(output: Output, outlet: Outlet<'io>) -> Self {
        Self { output, outlet, waiting: VecDeque::new(), owed: 0, passed: 0 }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.outlet.is_empty()
    }

    /// Writes as long as that does not wait.
    fn flush(&mut self) -> Result<Reader, ShellError> {
        loop {
            if self.outlet.flush()? == Reader::Gone {
                return Ok(Reader::Gone);
            }
            if !self.outlet.is_empty() {
                return Ok(Reader::Present);
            }
            let Some(bytes) = self.waiting.pop_front() else { return Ok(Reader::Present) };
            self.passed += bytes.len();
            self.outlet.put(bytes);
        }
    }

    /// What the guest is to be told now: half of the window, so that it never waits for a reader
    /// that keeps up.
    fn acknowledge(&mut self) -> Option<ToShell> {
        if self.passed < WINDOW / 2 {
            return None;
        }
        let bytes = std::mem::take(&mut self.passed);
        self.owed -= bytes;
        Some(ToShell::Passed { output: self.output, bytes: bytes as u32 })
    }
}

struct Abandoned {
    signal: i32,
    deadline: Instant,
}

/// One command under way.
pub(super) struct Exchange<'s, 'io> {
    shell: &'s mut AgentShell,
    stdin: Inlet<'io>,
    /// How much more input the guest takes.
    credit: usize,
    input_ended: bool,
    sinks: [Sink<'io>; 2],
    attention: Attention<'io>,
    pulse: Pulse,
    begun: Instant,
    ending: Option<Ending>,
    abandoned: Option<Abandoned>,
    /// Why nothing more will come.
    broken: Option<String>,
    /// More is there than one turn reads.
    has_more: bool,
    /// Ended by us: the channel is in an unknown state.
    pub(super) is_cut_off: bool,
}

impl<'s, 'io> Exchange<'s, 'io> {
    pub(super) fn new(shell: &'s mut AgentShell, has_pty: bool, io: Io<'io>) -> Self {
        Self {
            stdin: Inlet::new(io.stdin),
            credit: WINDOW,
            input_ended: false,
            sinks: [
                Sink::new(Output::Stdout, Outlet::new(io.stdout, "stdout")),
                Sink::new(Output::Stderr, Outlet::new(io.stderr, "stderr")),
            ],
            attention: Attention::new(io.control, has_pty),
            pulse: Pulse::new(shell.timeouts),
            begun: Instant::now(),
            ending: None,
            abandoned: None,
            broken: None,
            has_more: false,
            is_cut_off: false,
            shell,
        }
    }

    /// Until the command has ended.
    pub(super) fn run(&mut self) -> Result<Outcome, ShellError> {
        loop {
            if let Some(outcome) = self.turn()? {
                return Ok(outcome);
            }
            self.wait()?;
        }
    }

    fn turn(&mut self) -> Result<Option<Outcome>, ShellError> {
        self.heed()?;
        self.read();
        if self.flush_sinks()? == Reader::Gone {
            // What ends a local program whose reader has gone; the guest hangs the command up.
            return Ok(Some(self.cut(SIGPIPE)));
        }
        self.feed()?;
        self.write();
        self.outcome()
    }

    fn heed(&mut self) -> Result<(), ShellError> {
        while let Some(heed) = self.attention.next_heed() {
            match heed {
                Heed::Resize { cols, rows } => self.shell.say(&ToShell::Resize { cols, rows })?,
                // The guest has not answered yet: there is nobody to be asked.
                Heed::Pass(signal) | Heed::Leave(signal) if self.shell.hunt.is_some() => self.leave(signal)?,
                Heed::Pass(signal) => self.shell.say(&ToShell::Signal(u8::try_from(signal).unwrap_or(0)))?,
                Heed::Leave(signal) => self.leave(signal)?,
            }
        }
        Ok(())
    }

    fn leave(&mut self, signal: i32) -> Result<(), ShellError> {
        if self.abandoned.is_some() {
            return Ok(());
        }
        let patience = if self.shell.hunt.is_some() { Duration::ZERO } else { FAREWELL };
        self.abandoned = Some(Abandoned { signal, deadline: Instant::now() + patience });
        self.shell.say(&ToShell::Signal(SIGKILL as u8))
    }

    fn read(&mut self) {
        let mut bytes = vec![0; TURN];
        let mut count = 0;
        while count < TURN && self.broken.is_none() {
            match self.shell.socket.read(&mut bytes[count..]) {
                Ok(0) => self.broken = Some("it was closed".to_owned()),
                Ok(more) => count += more,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => self.broken = Some(e.to_string()),
            }
        }
        self.has_more = count == TURN;
        if count > 0 {
            self.hear(&bytes[..count]);
        }
    }

    /// Takes what has come, also when nothing more will.
    fn hear(&mut self, bytes: &[u8]) {
        self.pulse.heard();
        match self.shell.hunt.as_mut().map(|hunt| hunt.hear(bytes)) {
            None => self.shell.heard.push(bytes),
            Some(None) => return,
            Some(Some(rest)) => {
                self.shell.hunt = None;
                self.shell.heard.push(&rest);
            }
        }
        loop {
            let next = self.shell.heard.next_body().and_then(|b| b.map(|body| frame::decode(&body)).transpose());
            let broken = match next {
                Ok(None) => return,
                Ok(Some(frame)) => self.take(frame),
                Err(e) => Err(e.to_string()),
            };
            if let Err(why) = broken {
                self.broken = Some(why);
                return;
            }
        }
    }

    /// Takes one thing that the guest says. What breaks the rules ends the conversation.
    fn take(&mut self, frame: FromShell) -> Result<(), String> {
        match frame {
            FromShell::Said { output, bytes } => {
                let sink = &mut self.sinks[usize::from(output == Output::Stderr)];
                sink.owed += bytes.len();
                if sink.owed > WINDOW || bytes.is_empty() {
                    return Err("the guest says more than there is room for".to_owned());
                }
                sink.waiting.push_back(bytes);
            }
            FromShell::Passed { bytes } => self.credit = WINDOW.min(self.credit.saturating_add(bytes as usize)),
            FromShell::InputClosed => self.input_ended = true,
            FromShell::Ended(ending) => {
                self.ending = Some(ending);
                self.attention.command_ended();
            }
            FromShell::Pong => {}
        }
        Ok(())
    }

    fn flush_sinks(&mut self) -> Result<Reader, ShellError> {
        for at in 0..self.sinks.len() {
            if self.sinks[at].flush()? == Reader::Gone {
                return Ok(Reader::Gone);
            }
            if let Some(passed) = self.sinks[at].acknowledge() {
                self.shell.say(&passed)?;
            }
        }
        Ok(Reader::Present)
    }

    fn takes_input(&self) -> bool {
        !self.input_ended && self.broken.is_none() && self.ending.is_none() && self.credit > 0
    }

    fn feed(&mut self) -> Result<(), ShellError> {
        while self.takes_input() {
            self.stdin.refill()?;
            let pending = self.stdin.pending();
            if !pending.is_empty() {
                let bytes = pending[..pending.len().min(self.credit).min(CHUNK)].to_vec();
                self.credit -= bytes.len();
                self.stdin.advance(bytes.len());
                self.shell.say(&ToShell::Input(bytes))?;
            } else if self.stdin.has_ended() {
                self.input_ended = true;
                self.shell.say(&ToShell::InputEnd)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self) {
        while self.broken.is_none() && !self.shell.to_say.is_empty() {
            let (bytes, _) = self.shell.to_say.as_slices();
            match self.shell.socket.write(bytes) {
                Ok(count) => drop(self.shell.to_say.drain(..count)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // What the guest said last is still to be read: its end is noticed there.
                Err(_) => self.shell.to_say.clear(),
            }
        }
    }

    /// How it ended, once all that was said is written.
    fn outcome(&mut self) -> Result<Option<Outcome>, ShellError> {
        if let Some(Abandoned { signal, deadline }) = &self.abandoned
            && (self.ending.is_some() || self.broken.is_some() || Instant::now() >= *deadline)
        {
            return Ok(Some(self.cut(*signal)));
        }
        if !self.sinks.iter().all(Sink::is_empty) {
            return Ok(None);
        }
        match (self.ending, self.broken.take()) {
            (Some(Ending::Exited(code)), _) => Ok(Some(Outcome::Exited(code))),
            (Some(Ending::Signaled(signal)), _) => Ok(Some(Outcome::signaled(i32::from(signal)))),
            (None, Some(reason)) => Err(self.shell.connection_lost(reason)),
            (None, None) => Ok(None),
        }
    }

    fn cut(&mut self, signal: i32) -> Outcome {
        self.is_cut_off = true;
        Outcome::signaled(signal)
    }

    fn wait(&mut self) -> Result<(), ShellError> {
        if self.has_more {
            return Ok(());
        }
        let rest = self.deadline().saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
        let polled = poll(&mut self.watched(), Some(&timeout));
        match polled {
            Ok(0) => self.feel_pulse(),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(self.shell.connection_lost(format!("cannot wait for it: {e}"))),
        }
    }

    fn watched(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::with_capacity(5);
        if self.broken.is_none() {
            let writes = if self.shell.to_say.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(&self.shell.socket, PollFlags::IN | writes));
        }
        if self.takes_input() && !self.stdin.has_ended() && self.stdin.pending().is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.stdin.fd(), PollFlags::IN));
        }
        for sink in self.sinks.iter().filter(|sink| !sink.is_empty()) {
            fds.push(PollFd::from_borrowed_fd(sink.outlet.fd(), PollFlags::OUT));
        }
        fds.extend(self.attention.descriptor().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        fds
    }

    fn deadline(&self) -> Instant {
        let beat = match self.shell.hunt {
            // Only a local reader is waited for.
            _ if self.ending.is_some() || self.broken.is_some() => Instant::now() + self.shell.timeouts.silence,
            Some(_) => self.begun + self.shell.timeouts.connect,
            None => self.pulse.deadline(),
        };
        self.abandoned.as_ref().map_or(beat, |abandoned| abandoned.deadline.min(beat))
    }

    /// Nothing was heard until a deadline.
    fn feel_pulse(&mut self) -> Result<(), ShellError> {
        if self.broken.is_some() || self.ending.is_some() {
            return Ok(());
        }
        let shell = &self.shell;
        if shell.hunt.is_some() {
            let is_late = self.begun.elapsed() >= shell.timeouts.connect;
            self.broken = is_late.then(|| format!("no answer within {} s", shell.timeouts.connect.as_secs()));
            return Ok(());
        }
        match self.pulse.beat() {
            Beat::Wait => {}
            Beat::Ask => self.shell.say(&ToShell::Ping)?,
            Beat::Gone => {
                self.broken = Some(format!("it gave no sign of life for {} s", shell.timeouts.silence.as_secs()));
            }
        }
        Ok(())
    }
}
