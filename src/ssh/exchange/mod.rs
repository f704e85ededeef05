//! One command's life on a channel: bytes both ways, signals, and how it ended.
//!
//! One thread, nothing blocks but the one poll(2) in [`Exchange::wait`]. Each turn does all that
//! can be done without waiting. libssh2 wants a call that could not finish repeated unchanged, and
//! lets no other packet pass a half-sent one, so every turn repeats every unfinished call; packets
//! that libssh2 builds on its stack are sent only when the socket has room for all of them.

mod ending;
mod waiting;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGKILL, SIGPIPE};
use ssh2::{BlockDirections, Channel, Stream};

use super::courier::Courier;
use super::session::{SshShell, done};
use crate::shell::{Attention, Heed, Inlet, Io, Outcome, Outlet, Pulse, Reader, ShellError, is_ready};

/// Buffers moved per stream and turn, so that a flood in one direction cannot starve the other.
const ROUNDS: usize = 8;
/// How long a command that is given up may take to be told.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

struct Output<'io> {
    outlet: Outlet<'io>,
    stream: Stream,
}

struct Abandoned {
    signal: i32,
    deadline: Instant,
}

pub(super) struct Exchange<'s, 'io> {
    shell: &'s SshShell,
    channel: Channel,
    has_pty: bool,
    stdin: Inlet<'io>,
    outputs: [Output<'io>; 2],
    attention: Attention<'io>,
    courier: Courier,
    pulse: Pulse,
    resize: Option<(u16, u16)>,
    eof_sent: bool,
    abandoned: Option<Abandoned>,
    /// The guest has closed the channel: it has said all, its exit status included.
    closed: bool,
    /// What the session said when it failed.
    broken: Option<String>,
    /// Some call waits for room in the socket.
    wants_room: bool,
    /// Some stream has more than one turn moves.
    has_more: bool,
    /// A write that libssh2 wants repeated, or no other packet will ever pass it.
    has_unfinished_write: bool,
    /// The session is in an unknown state: ended by us, or with a packet half sent.
    pub(super) cut_off: bool,
}

impl<'s, 'io> Exchange<'s, 'io> {
    pub(super) fn new(shell: &'s SshShell, channel: Channel, has_pty: bool, io: Io<'io>) -> Self {
        let outputs = [
            Output { outlet: Outlet::new(io.stdout, "stdout"), stream: channel.stream(0) },
            Output { outlet: Outlet::new(io.stderr, "stderr"), stream: channel.stderr() },
        ];
        Self {
            shell,
            channel,
            has_pty,
            stdin: Inlet::new(io.stdin),
            outputs,
            attention: Attention::new(io.control, has_pty),
            courier: Courier::new(),
            pulse: Pulse::new(shell.timeouts),
            resize: None,
            eof_sent: false,
            abandoned: None,
            closed: false,
            broken: None,
            wants_room: false,
            has_more: false,
            has_unfinished_write: false,
            cut_off: false,
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
        (self.wants_room, self.has_more) = (false, false);
        self.hear_control();
        self.advance_courier();
        if self.pump_outputs()? == Reader::Gone {
            // What ends a local program whose reader has gone.
            return Ok(Some(self.cut(SIGPIPE)));
        }
        if let Some(outcome) = self.ended()? {
            return Ok(Some(outcome));
        }
        self.pump_input()?;
        self.send_eof();
        self.send_resize();
        Ok(None)
    }

    fn hear_control(&mut self) {
        while let Some(heed) = self.attention.next_heed() {
            match heed {
                Heed::Resize { cols, rows } => self.resize = Some((cols, rows)),
                Heed::Leave(signal) => self.abandon(signal),
                Heed::Pass(signal) => self.courier.accept(signal),
            }
        }
    }

    /// A command without a terminal would survive its channel; one with a terminal is hung up on.
    fn abandon(&mut self, signal: i32) {
        if self.abandoned.is_none() {
            let patience = if self.has_pty { Duration::ZERO } else { FAREWELL };
            self.abandoned = Some(Abandoned { signal, deadline: Instant::now() + patience });
            self.courier.accept(SIGKILL);
        }
    }

    fn advance_courier(&mut self) {
        if self.broken.is_none() && self.courier.is_busy() {
            self.courier.advance(&self.shell.session);
            self.note_directions();
        }
    }

    fn pump_outputs(&mut self) -> Result<Reader, ShellError> {
        for at in 0..self.outputs.len() {
            if self.pump_output(at)? == Reader::Gone {
                return Ok(Reader::Gone);
            }
        }
        Ok(Reader::Present)
    }

    fn pump_output(&mut self, at: usize) -> Result<Reader, ShellError> {
        for _ in 0..ROUNDS {
            let Output { outlet, stream } = &mut self.outputs[at];
            if outlet.flush()? == Reader::Gone {
                return Ok(Reader::Gone);
            }
            if !outlet.is_empty() || self.broken.is_some() {
                return Ok(Reader::Present);
            }
            match outlet.fill(|buffer| stream.read(buffer)) {
                Ok(0) => return Ok(Reader::Present),
                Ok(_) => {}
                Err(e) => {
                    self.note(e);
                    return Ok(Reader::Present);
                }
            }
        }
        self.has_more = true;
        Ok(Reader::Present)
    }

    fn pump_input(&mut self) -> Result<(), ShellError> {
        for _ in 0..ROUNDS {
            if !self.takes_input() {
                return Ok(());
            }
            self.stdin.refill()?;
            if self.stdin.pending().is_empty() {
                return Ok(());
            }
            if !self.write() {
                return Ok(());
            }
        }
        self.has_more = true;
        Ok(())
    }

    /// Sends a packet of what is pending; whether that was finished.
    fn write(&mut self) -> bool {
        let written = self.channel.write(self.stdin.pending());
        self.has_unfinished_write = written.is_err();
        match written {
            Ok(count) => self.stdin.advance(count),
            Err(e) => self.note(e),
        }
        !self.has_unfinished_write
    }

    /// Whether the guest can still be told something.
    fn is_open(&self) -> bool {
        self.broken.is_none() && !self.closed
    }

    fn takes_input(&self) -> bool {
        self.is_open() && !self.eof_sent && self.channel.write_window().remaining > 0
    }

    /// Half-close: the command sees the end of its input, its outputs stay open.
    fn send_eof(&mut self) {
        if self.eof_sent || !self.is_open() || !self.stdin.has_ended() || !self.stdin.pending().is_empty() {
            return;
        }
        if self.has_room() {
            let sent = done(self.channel.send_eof());
            self.eof_sent = self.noted(sent).is_some();
        }
    }

    fn send_resize(&mut self) {
        let Some((cols, rows)) = self.resize else { return };
        if !self.has_pty || !self.is_open() {
            self.resize = None;
        } else if self.has_room() {
            let sent = done(self.channel.request_pty_size(cols.into(), rows.into(), None, None));
            if self.noted(sent).is_some() {
                self.resize = None;
            }
        }
    }

    /// Whether the socket takes a small packet whole; if not, wakes up when it does.
    fn has_room(&mut self) -> bool {
        let ready = is_ready(self.socket(), PollFlags::OUT);
        self.wants_room |= !ready;
        ready
    }

    fn noted<T>(&mut self, result: Result<Option<T>, ssh2::Error>) -> Option<T> {
        match result {
            Ok(Some(value)) => return Some(value),
            Ok(None) => self.note_directions(),
            Err(e) => self.broken = Some(e.to_string()),
        }
        None
    }

    /// An error of the session: either "not now" or its end.
    fn note(&mut self, error: io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.note_directions();
        } else {
            self.broken = Some(error.to_string());
        }
    }

    /// Right after a call that could not finish libssh2 knows what that call waits for.
    fn note_directions(&mut self) {
        let directions = self.shell.session.block_directions();
        self.wants_room |= matches!(directions, BlockDirections::Outbound | BlockDirections::Both);
    }

    fn socket(&self) -> BorrowedFd<'s> {
        self.shell.socket.as_fd()
    }
}
