//! One channel (RFC 4254, section 5): what runs behind it, and how much each side may still send.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::PollFd;

use super::command::{Setup, characters};
use super::data::Writer;
use super::error::SessionError;
use super::forward::{Connecting, Tunnel};
use super::numbers::*;
use super::transport::Transport;
use super::{sftp, signals};
use crate::guest::agent;
use crate::guest::shell::child::{Refusal, Started};
use crate::guest::shell::running::Running;
use crate::guest::shell::streams::Input;
use crate::protocol::shell::{CHUNK, Ending, Output, WINDOW};

/// `SSH_EXTENDED_DATA_STDERR`.
const STDERR: u32 = 1;

/// `SSH_OPEN_CONNECT_FAILED`.
const CONNECT_FAILED: u32 = 2;

/// What a command that cannot be told ends with, as shells have it: this and the signal's number.
const SIGNALED: u8 = 128;

/// What is behind a channel.
pub enum Work {
    /// A session whose command has not begun.
    Setup(Setup),
    /// A command.
    Running(Box<Running>),
    /// A connection that is being made.
    Connecting(Connecting),
    /// A connection, or what this server does by itself; how that ended, once it has.
    Tunnel(Box<Tunnel>, Option<Ending>),
    /// Nothing any more.
    Over,
}

/// One channel.
pub struct Channel {
    /// The client's number of it.
    peer: u32,
    /// How much the client takes at present, and in one message.
    window: u32,
    max: u32,
    /// How much the client may still send.
    credit: usize,
    /// What it has sent and was passed on, and it was not told yet.
    passed: usize,
    work: Work,
    /// Whether the client was told that nothing follows.
    has_ended: bool,
    /// Whether we have closed it; whether the client has.
    closed: (bool, bool),
}

impl Channel {
    /// A channel that the client calls `peer`.
    pub fn new(peer: u32, window: u32, max: u32, work: Work) -> Self {
        Self { peer, window, max, credit: WINDOW, passed: 0, work, has_ended: false, closed: (false, false) }
    }

    /// Whether both sides have closed it.
    pub fn is_closed(&self) -> bool {
        self.closed == (true, true)
    }

    /// Whether we have closed it: then nothing more may be said of it (RFC 4254, section 5.3).
    pub fn has_closed(&self) -> bool {
        self.closed.0
    }

    /// Tells the client that it is open, as our number `own`.
    pub fn confirm(&self, own: u32, transport: &mut Transport) -> Result<(), SessionError> {
        let message = Writer::message(CHANNEL_OPEN_CONFIRMATION).number(self.peer).number(own);
        transport.send(message.number(WINDOW as u32).number(CHUNK as u32).done())
    }

    /// The client takes more.
    pub fn widen(&mut self, by: u32) -> Result<(), SessionError> {
        self.window = self.window.checked_add(by).ok_or(SessionError::Protocol("a window beyond all bounds"))?;
        Ok(())
    }

    /// More of the input.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.skip(bytes.len())?;
        let waiting = self.input().filter(|input| !input.is_over()).map(|input| input.give(bytes));
        // What nobody reads is passed on as well.
        self.passed += if waiting.is_none() { bytes.len() } else { 0 };
        Ok(())
    }

    /// Bytes that nobody is to read.
    pub fn drop_bytes(&mut self, count: usize) -> Result<(), SessionError> {
        self.skip(count)?;
        self.passed += count;
        Ok(())
    }

    fn skip(&mut self, count: usize) -> Result<(), SessionError> {
        let left = self.credit.checked_sub(count);
        self.credit = left.ok_or(SessionError::Protocol("more input than there is room for"))?;
        Ok(())
    }

    fn input(&mut self) -> Option<&mut Input> {
        match &mut self.work {
            Work::Running(running) => Some(&mut running.input),
            Work::Tunnel(tunnel, _) => Some(&mut tunnel.input),
            Work::Setup(_) | Work::Connecting(_) | Work::Over => None,
        }
    }

    /// The client sends no more.
    pub fn end_input(&mut self) {
        if let Some(input) = self.input() {
            input.end();
        }
    }

    /// The client has closed it: what runs is hung up.
    pub fn hear_close(&mut self, transport: &mut Transport) -> Result<(), SessionError> {
        self.closed.1 = true;
        self.close(transport)
    }

    /// Hangs up what runs.
    pub fn hang_up(&mut self) {
        if let Work::Running(running) = &mut self.work {
            running.hang_up();
        }
        self.work = Work::Over;
    }

    fn close(&mut self, transport: &mut Transport) -> Result<(), SessionError> {
        self.hang_up();
        if std::mem::replace(&mut self.closed.0, true) {
            return Ok(());
        }
        transport.send(Writer::message(CHANNEL_CLOSE).number(self.peer).done())
    }

    /// The setup of a session whose command has not begun.
    pub fn setup(&mut self) -> Option<&mut Setup> {
        if let Work::Setup(setup) = &mut self.work { Some(setup) } else { None }
    }

    /// Begins a command; false where one has begun already.
    pub fn begin(&mut self, start: impl FnOnce(Setup) -> Result<Started, Refusal>) -> Option<Result<(), Refusal>> {
        let Work::Setup(setup) = &mut self.work else { return None };
        match start(std::mem::take(setup)) {
            Ok(started) => {
                self.work = Work::Running(Box::new(Running::new(started)));
                Some(Ok(()))
            }
            Err(refusal) => Some(Err(refusal)),
        }
    }

    /// Begins to serve files; false where that cannot be.
    pub fn begin_sftp(&mut self) -> bool {
        if self.setup().is_none() {
            return false;
        }
        let begun = UnixStream::pair().and_then(|(near, far)| Ok((Tunnel::new(OwnedFd::from(near))?, far)));
        let Ok((tunnel, far)) = begun else { return false };
        let serving = agent::start("sftp", move || sftp::serve(&far));
        if serving {
            self.work = Work::Tunnel(Box::new(tunnel), Some(Ending::Exited(0)));
        }
        serving
    }

    /// Says why nothing was started, and ends.
    pub fn refuse(&mut self, refusal: &Refusal, transport: &mut Transport) -> Result<(), SessionError> {
        // A client that takes less than a line takes none.
        if self.window as usize >= refusal.text.len() {
            self.say(Output::Stderr, refusal.text.as_bytes(), transport)?;
        }
        self.finish(Some(Ending::Exited(refusal.code)), transport)
    }

    /// Sends a signal by its name; false for one that is none.
    pub fn signal(&self, name: &str) -> bool {
        match (&self.work, signals::number(name)) {
            (Work::Running(running), Some(number)) => {
                running.signal(number);
                true
            }
            _ => false,
        }
    }

    /// Gives the terminal another size.
    pub fn resize(&mut self, cols: u32, rows: u32) {
        match &mut self.work {
            Work::Running(running) => running.resize(characters(cols), characters(rows)),
            Work::Setup(setup) => setup.resize(cols, rows),
            Work::Connecting(_) | Work::Tunnel(..) | Work::Over => {}
        }
    }

    /// Does what can be done without waiting; whether something came out.
    pub fn turn(&mut self, own: u32, transport: &mut Transport) -> Result<bool, SessionError> {
        self.settle(own, transport)?;
        self.feed(transport)?;
        if let Work::Running(running) = &mut self.work {
            running.notice_end().map_err(SessionError::io("wait for a command"))?;
        }
        let has_said = self.collect(transport)?;
        // Each turn takes one piece: only where there was none may a terminal's silence count as its end.
        let was_silent = !has_said && transport.has_room() && self.window > 0;
        self.notice_end(was_silent, transport)?;
        Ok(has_said)
    }

    /// Opens a connection that was made.
    fn settle(&mut self, own: u32, transport: &mut Transport) -> Result<(), SessionError> {
        let Work::Connecting(connecting) = &self.work else { return Ok(()) };
        match connecting.poll() {
            None => Ok(()),
            Some(Ok(tunnel)) => {
                self.work = Work::Tunnel(Box::new(tunnel), None);
                self.confirm(own, transport)
            }
            Some(Err(error)) => {
                (self.work, self.closed) = (Work::Over, (true, true));
                let message = Writer::message(CHANNEL_OPEN_FAILURE).number(self.peer).number(CONNECT_FAILED);
                transport.send(message.string(error.to_string()).string("").done())
            }
        }
    }

    fn feed(&mut self, transport: &mut Transport) -> Result<(), SessionError> {
        if let Some(input) = self.input() {
            let before = input.waiting();
            input.feed();
            self.passed += before - self.input().map_or(0, |input| input.waiting());
        }
        if self.passed < WINDOW / 4 || self.closed != (false, false) {
            return Ok(());
        }
        let passed = std::mem::take(&mut self.passed);
        self.credit += passed;
        transport.send(Writer::message(CHANNEL_WINDOW_ADJUST).number(self.peer).number(passed as u32).done())
    }

    /// At most one message of each output, so that no channel starves another.
    fn collect(&mut self, transport: &mut Transport) -> Result<bool, SessionError> {
        let mut has_said = false;
        for output in [Output::Stdout, Output::Stderr] {
            if !transport.has_room() {
                break;
            }
            let most = self.window.min(self.max) as usize;
            let bytes = match &mut self.work {
                Work::Running(running) => running.read(output, most),
                Work::Tunnel(tunnel, _) if output == Output::Stdout => tunnel.source.read(most),
                Work::Tunnel(..) | Work::Setup(_) | Work::Connecting(_) | Work::Over => None,
            };
            if let Some(bytes) = bytes {
                self.say(output, &bytes, transport)?;
                has_said = true;
            }
        }
        Ok(has_said)
    }

    fn say(&mut self, output: Output, bytes: &[u8], transport: &mut Transport) -> Result<(), SessionError> {
        self.window = self.window.saturating_sub(bytes.len() as u32);
        let message = match output {
            Output::Stdout => Writer::message(CHANNEL_DATA).number(self.peer),
            Output::Stderr => Writer::message(CHANNEL_EXTENDED_DATA).number(self.peer).number(STDERR),
        };
        transport.send(message.string(bytes).done())
    }

    fn notice_end(&mut self, was_silent: bool, transport: &mut Transport) -> Result<(), SessionError> {
        match &self.work {
            Work::Running(running) => match running.ended(|_| was_silent) {
                Some(ending) => self.finish(Some(ending), transport),
                None => Ok(()),
            },
            Work::Tunnel(tunnel, Some(ending)) if tunnel.source.is_over() => self.finish(Some(*ending), transport),
            // The other direction may go on.
            Work::Tunnel(tunnel, None) if tunnel.source.is_over() => {
                let is_over = tunnel.input.is_over();
                self.end(transport)?;
                if is_over { self.close(transport) } else { Ok(()) }
            }
            Work::Tunnel(..) | Work::Setup(_) | Work::Connecting(_) | Work::Over => Ok(()),
        }
    }

    /// Says how it ended, and that nothing follows.
    fn finish(&mut self, ending: Option<Ending>, transport: &mut Transport) -> Result<(), SessionError> {
        let request = |kind: &str| Writer::message(CHANNEL_REQUEST).number(self.peer).string(kind).byte(false);
        let code = |code: u8| request("exit-status").number(code.into());
        let told = ending.map(|ending| match ending {
            Ending::Exited(number) => code(number),
            Ending::Signaled(number) => match signals::name(number) {
                Some(name) => request("exit-signal").string(name).byte(false).string("").string(""),
                None => code(SIGNALED.saturating_add(number)),
            },
        });
        if let Some(message) = told {
            transport.send(message.done())?;
        }
        self.end(transport)?;
        self.close(transport)
    }

    /// Says that nothing follows.
    fn end(&mut self, transport: &mut Transport) -> Result<(), SessionError> {
        if std::mem::replace(&mut self.has_ended, true) {
            return Ok(());
        }
        transport.send(Writer::message(CHANNEL_EOF).number(self.peer).done())
    }

    /// What to wait for.
    pub fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, has_room: bool) {
        let may_speak = has_room && self.window > 0 && self.max > 0;
        match &self.work {
            Work::Running(running) => running.watch(fds, |_| may_speak),
            Work::Connecting(connecting) => connecting.watch(fds),
            Work::Tunnel(tunnel, _) => {
                tunnel.input.watch(fds);
                if may_speak {
                    tunnel.source.watch(fds);
                }
            }
            Work::Setup(_) | Work::Over => {}
        }
    }

    /// When to look again even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        if let Work::Running(running) = &self.work { running.deadline() } else { None }
    }

    /// The client's number of it.
    pub fn peer(&self) -> u32 {
        self.peer
    }
}
