//! One command's life on a channel: bytes both ways, signals, and how it ended.
//!
//! One thread, nothing blocks but the one poll(2) in [`Session::wait`]; each turn does all that can
//! be done without waiting. What is left in the pipes when a command ends is its last word; what its
//! background processes say later is not waited for.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::child::{self, Refusal, Started};
use super::wire::{Wire, poll_until};
use crate::guest::agent;
use crate::protocol::shell::{Begin, CHUNK, Ending, FromShell, Output, ToShell, WINDOW};

/// A terminal's last words reach its other end a little after its command has ended; with somebody
/// else still holding it, no event says that they have.
const TERMINAL_LIMIT: Duration = Duration::from_millis(500);

/// `^D`, which ends the input of a terminal (termios(3), `VEOF`).
const END_OF_INPUT: &[u8] = &[4];

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

/// What comes out of the command.
struct Source {
    output: Output,
    /// `None` at its end.
    file: Option<File>,
    /// How much the host takes.
    credit: usize,
    /// How much is left in it of a command that has ended.
    rest: Option<usize>,
}

struct Session<'w> {
    wire: &'w mut Wire,
    child: Option<Child>,
    group: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    stdin: Option<File>,
    input: VecDeque<u8>,
    input_ended: bool,
    /// Passed on and not yet said so.
    passed: usize,
    sources: Vec<Source>,
    ending: Option<(Ending, Instant)>,
}

impl<'w> Session<'w> {
    fn new(wire: &'w mut Wire, started: Started) -> Self {
        let Started { child, pidfd, stdin, stdout, stderr, terminal } = started;
        let group = Pid::from_child(&child);
        let source = |output, file| Source { output, file: Some(file), credit: WINDOW, rest: None };
        let mut sources = vec![source(Output::Stdout, stdout)];
        sources.extend(stderr.map(|file| source(Output::Stderr, file)));
        let (child, stdin, input) = (Some(child), Some(stdin), VecDeque::new());
        let (input_ended, passed, ending) = (false, 0, None);
        Self { wire, child, group, pidfd, terminal, stdin, input, input_ended, passed, sources, ending }
    }

    /// Until the command has ended or the host has gone, which hangs the command up.
    fn run(mut self) -> io::Result<()> {
        let outcome = self.converse();
        if self.child.is_some() {
            self.hang_up();
        }
        outcome
    }

    fn converse(&mut self) -> io::Result<()> {
        loop {
            self.wire.turn()?;
            while let Some(frame) = self.wire.next_frame().map_err(garbled)? {
                self.hear(frame)?;
            }
            self.feed();
            self.notice_end()?;
            self.collect();
            if let Some((ending, _)) = self.ending
                && self.has_said_all()
            {
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
            ToShell::Input(bytes) if self.input.len() + bytes.len() <= WINDOW => self.input.extend(bytes),
            ToShell::Input(_) => return Err(garbled(io::Error::other("more input than there is room for"))),
            ToShell::InputEnd => self.input_ended = true,
            ToShell::Passed { output, bytes } => {
                for source in self.sources.iter_mut().filter(|s| s.output == output) {
                    source.credit = WINDOW.min(source.credit.saturating_add(bytes as usize));
                }
            }
            ToShell::Signal(number) => self.signal(number),
            ToShell::Resize { cols, rows } => {
                if let Some(terminal) = &self.terminal {
                    // A terminal that was hung up has no size.
                    let _ = child::resize(terminal, cols, rows);
                }
            }
            ToShell::Ping => self.wire.say(&FromShell::Pong),
            ToShell::Begin(_) => return Err(garbled(io::Error::other("a command runs already"))),
        }
        Ok(())
    }

    /// A number that Linux does not have needs no signal; a group whose leader was reaped may be
    /// another's by now.
    fn signal(&self, number: u8) {
        if let Some(signal) = Signal::from_named_raw(i32::from(number)).filter(|_| self.child.is_some()) {
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Passes input on as far as the command takes it.
    fn feed(&mut self) {
        while let Some(stdin) = &mut self.stdin {
            let (bytes, _) = self.input.as_slices();
            if bytes.is_empty() {
                break;
            }
            match stdin.write(bytes) {
                Ok(count) => {
                    self.input.drain(..count);
                    self.passed += count;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // It reads no more.
                Err(_) => self.close_input(),
            }
        }
        if self.stdin.is_some() && self.input_ended && self.input.is_empty() {
            self.end_input();
        }
        if self.passed >= WINDOW / 4 {
            self.wire.say(&FromShell::Passed { bytes: self.passed as u32 });
            self.passed = 0;
        }
    }

    fn close_input(&mut self) {
        self.stdin = None;
        self.input.clear();
        self.wire.say(&FromShell::InputClosed);
    }

    fn end_input(&mut self) {
        if let Some(mut stdin) = self.stdin.take()
            && self.terminal.is_some()
        {
            // A terminal that takes nothing now has a program that reads nothing.
            let _ = stdin.write(END_OF_INPUT);
        }
    }

    /// Takes the command's end; what is in its pipes now is the rest of its words.
    fn notice_end(&mut self) -> io::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let Some(status) = child.try_wait()? else { return Ok(()) };
        self.child = None;
        self.ending = Some((ending_of(status), Instant::now() + TERMINAL_LIMIT));
        if self.terminal.is_none() {
            for source in &mut self.sources {
                let left = source.file.as_ref().map_or(Ok(0), rustix::io::ioctl_fionread)?;
                source.rest = Some(left as usize);
            }
        }
        Ok(())
    }

    fn collect(&mut self) {
        for source in &mut self.sources {
            while self.wire.has_room() {
                let Some(bytes) = source.read() else { break };
                self.wire.say(&FromShell::Said { output: source.output, bytes });
            }
        }
    }

    fn has_said_all(&self) -> bool {
        let late = self.ending.is_some_and(|(_, limit)| self.terminal.is_some() && Instant::now() >= limit);
        // Late counts where nothing but somebody's silence was in the way.
        let silent = |s: &Source| late && s.credit > 0 && self.wire.has_room();
        self.sources.iter().all(|s| s.file.is_none() || s.rest == Some(0) || silent(s))
    }

    fn wait(&self) -> io::Result<()> {
        if self.wire.has_more() {
            return Ok(());
        }
        let mut fds = vec![PollFd::from_borrowed_fd(self.wire.descriptor(), PollFlags::IN)];
        if self.child.is_some() {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        if let Some(stdin) = self.stdin.as_ref().filter(|_| !self.input.is_empty()) {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        // What has given its rest is hung up for good, and would end every wait.
        let may_speak = |s: &&Source| s.credit > 0 && s.rest != Some(0) && self.wire.has_room();
        for source in self.sources.iter().filter(may_speak) {
            fds.extend(source.file.as_ref().map(|file| PollFd::new(file, PollFlags::IN)));
        }
        // Once it is over, only the host's word can change anything.
        let is_ahead = |limit: &Instant| self.terminal.is_some() && *limit > Instant::now();
        let ending = self.ending.map(|(_, limit)| limit).filter(is_ahead);
        poll_until(&mut fds, ending.into_iter().chain(self.wire.deadline()).min())
    }

    /// What the end of a terminal's line does to what runs on it. It is waited for elsewhere.
    fn hang_up(&mut self) {
        for signal in [Signal::HUP, Signal::CONT] {
            // Its group may have ended meanwhile.
            let _ = kill_process_group(self.group, signal);
        }
        if let Some(mut child) = self.child.take() {
            // Only a zombie is left where no thread can be started.
            agent::start("reaper", move || drop(child.wait()));
        }
    }
}

impl Source {
    /// The next of what was said, if it can be read and sent.
    fn read(&mut self) -> Option<Vec<u8>> {
        let most = CHUNK.min(self.credit).min(self.rest.unwrap_or(CHUNK));
        let file = self.file.as_mut().filter(|_| most > 0)?;
        let mut bytes = vec![0; most];
        let count = loop {
            match file.read(&mut bytes) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
                Ok(0) => break 0,
                Ok(count) => break count,
                // What a terminal says when nobody holds its other end any more.
                Err(e) if Errno::from_io_error(&e) == Some(Errno::IO) => break 0,
                Err(_) => break 0,
            }
        };
        if count == 0 {
            self.file = None;
            return None;
        }
        bytes.truncate(count);
        self.credit -= count;
        self.rest = self.rest.map(|rest| rest - count);
        Some(bytes)
    }
}

/// What the kernel says of an ended process.
pub fn ending_of(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(code as u8),
        (None, Some(signal)) => Ending::Signaled(signal as u8),
        (None, None) => Ending::Exited(u8::MAX),
    }
}
