//! The guest shell over ssh: start the command, exchange its streams, see how it ended.

use ssh2::{Channel, Session};

use super::exchange::Exchange;
use super::quote::command_line;
use super::session::SshShell;
use super::watchdog::Watchdog;
use super::{Command, GuestShell, Io, Outcome, Pty, ShellError};

impl GuestShell for SshShell {
    fn run(&mut self, command: &Command, io: Io<'_>) -> Result<Outcome, ShellError> {
        let line = command_line(command)?;
        if let Some(reason) = &self.lost {
            return Err(self.connection_lost(reason.clone()));
        }
        let channel = self.start(line.as_deref(), command.pty.as_ref())?;
        let mut exchange = Exchange::new(self, channel, command.pty.is_some(), io);
        let result = exchange.run();
        let is_cut_off = exchange.cut_off;
        drop(exchange);
        self.lost = match &result {
            Err(ShellError::ConnectionLost { reason, .. }) => Some(reason.clone()),
            Ok(_) if !is_cut_off => None,
            _ => Some("its last command was cut off".to_owned()),
        };
        result
    }
}

impl SshShell {
    pub(super) fn connection_lost(&self, reason: String) -> ShellError {
        ShellError::ConnectionLost { name: self.name.clone(), reason }
    }

    /// A channel on which the command runs. The calls block, so a watchdog limits them.
    fn start(&mut self, line: Option<&str>, pty: Option<&Pty>) -> Result<Channel, ShellError> {
        let watchdog = Watchdog::set(&self.socket, self.timeouts.connect)
            .map_err(|e| self.connection_lost(format!("no thread to watch it: {e}")))?;
        self.session.set_blocking(true);
        let started = open_channel(&self.session, line, pty);
        self.session.set_blocking(false);
        if watchdog.call_off() {
            let reason = format!("no answer within {} s", self.timeouts.connect.as_secs());
            self.lost = Some(reason.clone());
            return Err(self.connection_lost(reason));
        }
        started.map_err(|(what, e)| self.refusal(what, e))
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

type Failed = (&'static str, ssh2::Error);

fn open_channel(session: &Session, line: Option<&str>, pty: Option<&Pty>) -> Result<Channel, Failed> {
    let mut channel = session.channel_session().map_err(|e| ("open a channel", e))?;
    if let Some(Pty { term, cols, rows }) = pty {
        let size = (u32::from(*cols), u32::from(*rows), 0, 0);
        channel.request_pty(term, None, Some(size)).map_err(|e| ("give the command a terminal", e))?;
    }
    match line {
        Some(line) => channel.exec(line).map_err(|e| ("run the command", e))?,
        None => channel.shell().map_err(|e| ("start the login shell", e))?,
    }
    Ok(channel)
}
