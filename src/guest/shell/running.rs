//! A command that runs, whoever carries its streams: its input and outputs, signals, and how it ended.
//!
//! Nothing here waits. What is left in the pipes when a command ends is its last word; what its
//! background processes say later is not waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, kill_process_group};

use super::child::{self, Started};
use super::streams::{End, Input, Source};
use crate::guest::agent;
use crate::protocol::shell::{Ending, Output};

/// A terminal's last words reach its other end a little after its command has ended; with somebody
/// else still holding it, no event says that they have.
const TERMINAL_LIMIT: Duration = Duration::from_millis(500);

/// A command that runs, or has ended with something left to say.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    group: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    /// What it reads.
    pub input: Input,
    sources: Vec<Source>,
    ending: Option<(Ending, Instant)>,
}

impl Running {
    /// Takes over what was started.
    pub fn new(started: Started) -> Self {
        let Started { child, pidfd, stdin, stdout, stderr, terminal } = started;
        let group = Pid::from_child(&child);
        let input = Input::new(stdin, if terminal.is_some() { End::Character } else { End::Close });
        let mut sources = vec![Source::new(Output::Stdout, stdout)];
        sources.extend(stderr.map(|file| Source::new(Output::Stderr, file)));
        Self { child: Some(child), group, pidfd, terminal, input, sources, ending: None }
    }

    /// Which outputs there are: one with a terminal, else two.
    pub fn outputs(&self) -> Vec<Output> {
        self.sources.iter().map(|source| source.output).collect()
    }

    /// The next of what it says on `output`, at most `most` bytes, if it can be read.
    pub fn read(&mut self, output: Output, most: usize) -> Option<Vec<u8>> {
        self.sources.iter_mut().find(|source| source.output == output)?.read(most)
    }

    /// A number that Linux does not have needs no signal; a group whose leader was reaped may be
    /// another's by now.
    pub fn signal(&self, number: u8) {
        if let Some(signal) = Signal::from_named_raw(i32::from(number)).filter(|_| self.child.is_some()) {
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Gives its terminal, if it has one, another size.
    pub fn resize(&self, cols: u16, rows: u16) {
        if let Some(terminal) = &self.terminal {
            // A terminal that was hung up has no size.
            let _ = child::resize(terminal, cols, rows);
        }
    }

    /// Takes the command's end; what is in its pipes now is the rest of its words.
    pub fn notice_end(&mut self) -> io::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let Some(status) = child.try_wait()? else { return Ok(()) };
        self.child = None;
        self.ending = Some((ending_of(status), Instant::now() + TERMINAL_LIMIT));
        if self.terminal.is_none() {
            self.sources.iter_mut().try_for_each(Source::take_rest)?;
        }
        Ok(())
    }

    /// How it ended, once nothing of what it said is left here. `could` tells whether more of an output
    /// could have been taken until now: then a terminal's silence counts as its end.
    pub fn ended(&self, could: impl Fn(Output) -> bool) -> Option<Ending> {
        let (ending, limit) = self.ending?;
        let is_late = self.terminal.is_some() && Instant::now() >= limit;
        let is_done = |source: &Source| source.is_over() || is_late && could(source.output);
        self.sources.iter().all(is_done).then_some(ending)
    }

    /// What to wait for; of an output only where `may` says that it may speak.
    pub fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, may: impl Fn(Output) -> bool) {
        if self.child.is_some() {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        self.input.watch(fds);
        for source in self.sources.iter().filter(|source| may(source.output)) {
            source.watch(fds);
        }
    }

    /// When to look again even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let is_ahead = |limit: &Instant| self.terminal.is_some() && *limit > Instant::now();
        self.ending.map(|(_, limit)| limit).filter(is_ahead)
    }

    /// What the end of a terminal's line does to what runs on it; nothing, once it has ended. It is
    /// waited for elsewhere.
    pub fn hang_up(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        for signal in [Signal::HUP, Signal::CONT] {
            // Its group may have ended meanwhile.
            let _ = kill_process_group(self.group, signal);
        }
        // Only a zombie is left where no thread can be started.
        agent::start("reaper", move || drop(child.wait()));
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
