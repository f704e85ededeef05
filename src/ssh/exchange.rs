//! One command's life on a channel: bytes both ways, signals, and how it ended.
//!
//! One thread, nothing blocks but the one poll(2) in [`Exchange::wait`]. Each turn does all that
//! can be done without waiting. libssh2 wants a call that could not finish repeated unchanged, and
//! lets no other packet pass a half-sent one, so every turn repeats every unfinished call; packets
//! that libssh2 builds on its stack are sent only when the socket has room for all of them.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGKILL, SIGPIPE};
use ssh2::{BlockDirections, Channel, Stream};

use super::courier::Courier;
use super::pulse::{Beat, Pulse};
use super::session::{SshShell, done};
use super::shell::signal_number;
use super::streams::{Inlet, Outlet, Reader, is_ready};
use super::{Control, ControlEvent, Io, Outcome, ShellError};

/// Buffers moved per stream and turn, so that a flood in one direction cannot starve the other.
const ROUNDS: usize = 8;
/// The signal that ends the wait: one is asking, two is insisting, three is leaving.
const PATIENCE: u8 = 3;
/// How long a command that is given up may take to be told.
const FAREWELL: Duration = Duration::from_secs(2);

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
    control: Option<&'io mut dyn Control>,
    courier: Courier,
    pulse: Pulse,
    resize: Option<(u16, u16)>,
    signals: u8,
    eof_sent: bool,
    abandoned: Option<Abandoned>,
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
            control: io.control,
            courier: Courier::new(),
            pulse: Pulse::new(shell.timeouts),
            resize: None,
            signals: 0,
            eof_sent: false,
            abandoned: None,
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
        while let Some(event) = self.control.as_mut().and_then(|control| control.next()) {
            match event {
                ControlEvent::Resize { cols, rows } => self.resize = Some((cols, rows)),
                ControlEvent::Abandon(signal) => self.abandon(signal),
                ControlEvent::Signal(signal) => self.hear_signal(signal),
            }
        }
    }

    /// A terminal's own keys arrive as bytes: a signal beside them means this process is to end.
    fn hear_signal(&mut self, signal: i32) {
        self.signals = self.signals.saturating_add(1);
        if self.has_pty || self.signals >= PATIENCE {
            self.abandon(signal);
        } else {
            self.courier.accept(signal);
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

    fn takes_input(&self) -> bool {
        self.broken.is_none() && !self.eof_sent && self.channel.write_window().remaining > 0
    }

    /// Half-close: the command sees the end of its input, its outputs stay open.
    fn send_eof(&mut self) {
        if self.eof_sent || self.broken.is_some() || !self.stdin.has_ended() || !self.stdin.pending().is_empty() {
            return;
        }
        if self.has_room() {
            let sent = done(self.channel.send_eof());
            self.eof_sent = self.noted(sent).is_some();
        }
    }

    fn send_resize(&mut self) {
        let Some((cols, rows)) = self.resize else { return };
        if !self.has_pty || self.broken.is_some() {
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

    /// The outcome, once there is one and all output is written.
    fn ended(&mut self) -> Result<Option<Outcome>, ShellError> {
        if let Some(Abandoned { signal, deadline }) = &self.abandoned
            && (self.broken.is_some() || !self.courier.is_busy() || Instant::now() >= *deadline)
        {
            return Ok(Some(self.cut(*signal)));
        }
        if self.outputs.iter().any(|output| !output.outlet.is_empty()) {
            return Ok(None);
        }
        // Without the remote's close there is no exit status, and 0 would be read.
        if self.channel.eof() && matches!(done(self.channel.wait_close()), Ok(Some(()))) {
            return self.outcome().map(Some);
        }
        match self.broken.take() {
            Some(reason) => Err(self.shell.connection_lost(reason)),
            None => Ok(None),
        }
    }

    fn outcome(&mut self) -> Result<Outcome, ShellError> {
        let lost = |e: ssh2::Error| self.shell.connection_lost(e.to_string());
        let signal = self.channel.exit_signal().map_err(lost)?.exit_signal;
        let status = self.channel.exit_status().map_err(lost)?;
        self.cut_off = !self.settle();
        if let Some(abandoned) = &self.abandoned {
            return Ok(Outcome::signaled(abandoned.signal));
        }
        Ok(match signal {
            Some(name) => signaled(&name),
            // The protocol has 32 bits, Linux eight: another value must not become a success.
            None => Outcome::Exited(u8::try_from(status).unwrap_or(255)),
        })
    }

    /// Leaves the session ready for the next command. That the last packet of the channel could be
    /// sent proves that no other is half sent.
    fn settle(&mut self) -> bool {
        let deadline = Instant::now() + FAREWELL;
        loop {
            if !self.has_unfinished_write || self.write() {
                match done(self.channel.close()) {
                    Ok(Some(())) => return true,
                    Ok(None) => {}
                    Err(_) => return false,
                }
            }
            if self.broken.is_some() || !self.shell.wait_for(PollFlags::OUT, deadline) {
                return false;
            }
        }
    }

    /// Ends the command from this side.
    fn cut(&mut self, signal: i32) -> Outcome {
        self.cut_off = true;
        if self.broken.is_none() && self.has_room() {
            // The guest hangs up on the command; nobody waits for what else it does.
            let closed = done(self.channel.close());
            self.noted(closed);
        }
        Outcome::signaled(signal)
    }

    fn wait(&mut self) -> Result<(), ShellError> {
        let listens = self.listens();
        let timeout = self.timeout(listens);
        let mut fds = Vec::with_capacity(5);
        let mut socket = PollFlags::empty();
        socket.set(PollFlags::IN, listens);
        socket.set(PollFlags::OUT, self.wants_room && self.broken.is_none());
        if !socket.is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.socket(), socket));
        }
        self.watch_streams(&mut fds);
        let count = match poll(&mut fds, Some(&timeout)) {
            Ok(count) => count,
            Err(Errno::INTR) => return Ok(()),
            Err(e) => return Err(self.shell.connection_lost(format!("cannot wait for it: {e}"))),
        };
        let heard = !socket.is_empty() && fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        self.feel_pulse(!listens || heard, count == 0);
        Ok(())
    }

    fn watch_streams<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.takes_input() && !self.stdin.has_ended() && self.stdin.pending().is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.stdin.fd(), PollFlags::IN));
        }
        for Output { outlet, .. } in self.outputs.iter().filter(|output| !output.outlet.is_empty()) {
            fds.push(PollFd::from_borrowed_fd(outlet.fd(), PollFlags::OUT));
        }
        if let Some(control) = &self.control {
            fds.push(PollFd::from_borrowed_fd(control.descriptor(), PollFlags::IN));
        }
    }

    /// Whether there is a use for what the guest may say: room for its output, input that waits
    /// for its window, or a signal on its way. Otherwise the guest is held back.
    fn listens(&self) -> bool {
        let has_place = self.outputs.iter().any(|output| output.outlet.is_empty());
        self.broken.is_none() && (has_place || !self.stdin.pending().is_empty() || self.courier.is_busy())
    }

    fn timeout(&self, listens: bool) -> Timespec {
        if self.has_more {
            return Timespec::default();
        }
        let beat = if listens { self.pulse.deadline() } else { Instant::now() + self.shell.timeouts.silence };
        let deadline = self.abandoned.as_ref().map_or(beat, |abandoned| abandoned.deadline.min(beat));
        let rest = deadline.saturating_duration_since(Instant::now());
        Timespec { tv_sec: rest.as_secs().cast_signed(), tv_nsec: i64::from(rest.subsec_nanos()) }
    }

    fn feel_pulse(&mut self, heard: bool, silent: bool) {
        if heard {
            self.pulse.heard();
        } else if silent && !self.has_more {
            match self.pulse.beat() {
                Beat::Wait => {}
                Beat::Ask => self.ask(),
                Beat::Gone => {
                    let seconds = self.shell.timeouts.silence.as_secs();
                    self.broken = Some(format!("it gave no sign of life for {seconds} s"));
                }
            }
        }
    }

    /// A keepalive with an answer. A socket without room asks by itself: TCP repeats.
    fn ask(&mut self) {
        if is_ready(self.socket(), PollFlags::OUT) {
            let session = &self.shell.session;
            session.set_keepalive(true, 2);
            let sent = done(session.keepalive_send().map(|_| ()));
            // Off again: libssh2's own blocking calls would send them from their stack.
            session.set_keepalive(false, 0);
            self.noted(sent);
        }
    }

    fn socket(&self) -> BorrowedFd<'s> {
        self.shell.socket.as_fd()
    }
}

/// The name is the guest's word, so it is checked before it is shown.
fn signaled(name: &str) -> Outcome {
    let is_name = (1..=16).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    let shown = if is_name { name } else { "?" };
    Outcome::Signaled { name: shown.to_owned(), number: signal_number(name).unwrap_or(0) }
}
