//! The guest shell over ssh: start the command, exchange its streams, see how it ended.

use std::time::Instant;

use ssh2::Channel;

use super::exchange::{Exchange, FAREWELL};
use super::quote::command_line;
use super::session::SshShell;
use super::watchdog::{Cut, Watchdog};
use crate::shell::{Command, Control, GuestShell, Io, Outcome, Pty, ShellError};

impl GuestShell for SshShell {
    fn run(&mut self, command: &Command, mut io: Io<'_>) -> Result<Outcome, ShellError> {
        let line = command_line(command).map_err(|e| ShellError::Command(e.into()))?;
        if let Some(reason) = &self.lost {
            return Err(self.connection_lost(reason.clone()));
        }
        let control = io.control.as_mut().map(|control| &mut **control as &mut dyn Control);
        let channel = match self.start(line.as_deref(), command.pty.as_ref(), control)? {
            Started::Runs(channel) => channel,
            Started::Cut(signal) => return Ok(Outcome::signaled(signal)),
        };
        let mut exchange = Exchange::new(self, channel, command.pty.is_some(), io);
        let result = exchange.run();
        let is_cut_off = exchange.cut_off;
        drop(exchange);
        self.lost = match &result {
            Err(ShellError::ConnectionLost { reason, .. }) => Some(reason.clone()),
            Ok(_) if !is_cut_off => None,
            _ => Some(CUT_OFF.to_owned()),
        };
        result
    }
}

impl SshShell {
    pub(super) fn connection_lost(&self, reason: String) -> ShellError {
        ShellError::ConnectionLost { name: self.name.clone(), reason }
    }

    /// A channel on which the command runs. The watchdog is for a peer that never stops talking:
    /// libssh2 reads on for as long as there is something to read. A signal is the command's, unless
    /// that does not start soon.
    fn start(
        &mut self,
        line: Option<&str>,
        pty: Option<&Pty>,
        control: Option<&mut dyn Control>,
    ) -> Result<Started, ShellError> {
        let limit = self.timeouts.connect;
        let watchdog = Watchdog { limit, control, patience: FAREWELL };
        let open = || self.open_channel(line, pty, Instant::now() + limit);
        let (opened, cut) = watchdog
            .guard(&self.socket, open)
            .map_err(|e| self.connection_lost(format!("no thread to watch it: {e}")))?;
        match cut {
            None => opened.map(Started::Runs).map_err(|(what, e)| self.refusal(what, e)),
            Some(Cut::Signal(signal)) => {
                self.lost = Some(CUT_OFF.to_owned());
                Ok(Started::Cut(signal))
            }
            Some(Cut::Late) => {
                let reason = format!("no answer within {} s", limit.as_secs());
                self.lost = Some(reason.clone());
                Err(self.connection_lost(reason))
            }
        }
    }

    fn open_channel(&self, line: Option<&str>, pty: Option<&Pty>, deadline: Instant) -> Result<Channel, Failed> {
        let open = || self.session.channel_session();
        let mut channel = self.persist(deadline, open).map_err(|e| ("open a channel", e))?;
        if let Some(Pty { term, cols, rows }) = pty {
            let size = (u32::from(*cols), u32::from(*rows), 0, 0);
            let request = || channel.request_pty(term, None, Some(size));
            self.persist(deadline, request).map_err(|e| ("give the command a terminal", e))?;
        }
        let start = || match line {
            Some(line) => channel.exec(line),
            None => channel.shell(),
        };
        self.persist(deadline, start).map_err(|e| ("start the command", e))?;
        Ok(channel)
    }

    /// Whether the guest said no, or nothing.
    fn refusal(&mut self, what: &'static str, error: ssh2::Error) -> ShellError {
        if !REFUSALS.contains(&error.code()) {
            self.lost = Some(error.to_string());
            return self.connection_lost(error.to_string());
        }
        ShellError::Refused { name: self.name.clone(), what, source: Some(Box::new(error)) }
    }
}

/// `LIBSSH2_ERROR_CHANNEL_FAILURE` and `LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED` in libssh2.h.
const REFUSALS: [ssh2::ErrorCode; 2] = [ssh2::ErrorCode::Session(-21), ssh2::ErrorCode::Session(-22)];

/// Why a session cannot be used after a command that this side ended.
const CUT_OFF: &str = "its last command was cut off";

/// What came of starting a command.
enum Started {
    Runs(Channel),
    Cut(i32),
}

type Failed = (&'static str, ssh2::Error);
