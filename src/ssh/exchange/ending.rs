//! How a command ended, and how the channel is left behind.

use super::*;
use crate::shell::signal_number;

impl Exchange<'_, '_> {
    /// The outcome, once there is one and all output is written.
    pub(super) fn ended(&mut self) -> Result<Option<Outcome>, ShellError> {
        if let Some(Abandoned { signal, deadline }) = &self.abandoned
            && (self.broken.is_some() || !self.courier.is_busy() || Instant::now() >= *deadline)
        {
            return Ok(Some(self.cut(*signal)));
        }
        self.hear_close();
        if self.outputs.iter().any(|output| !output.outlet.is_empty()) {
            return Ok(None);
        }
        // Without the remote's close there is no exit status, and 0 would be read.
        if self.closed {
            return self.outcome().map(Some);
        }
        match self.broken.take() {
            Some(reason) => Err(self.shell.connection_lost(reason)),
            None => Ok(None),
        }
    }

    /// After the end of the output the streams read no more: only this call still hears the close, or
    /// the end of the session. Unread they would keep the socket readable while a slow reader is waited for.
    fn hear_close(&mut self) {
        if !self.closed && self.channel.eof() {
            let closed = done(self.channel.wait_close());
            self.closed = self.noted(closed).is_some();
            if self.closed {
                self.attention.command_ended();
            }
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
    pub(super) fn cut(&mut self, signal: i32) -> Outcome {
        self.cut_off = true;
        if self.broken.is_none() && self.has_room() {
            // The guest hangs up on the command; nobody waits for what else it does.
            let closed = done(self.channel.close());
            self.noted(closed);
        }
        Outcome::signaled(signal)
    }
}

/// The name is the guest's word, so it is checked before it is shown.
fn signaled(name: &str) -> Outcome {
    let is_name = (1..=16).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    let shown = if is_name { name } else { "?" };
    Outcome::Signaled { name: shown.to_owned(), number: signal_number(name).unwrap_or(0) }
}
