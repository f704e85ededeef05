//! What somebody known asks for (RFC 4254): channels, and requests on them.

use std::collections::BTreeMap;
use std::time::Instant;

use rustix::event::PollFd;

use super::channel::{Channel, Work};
use super::command::Setup;
use super::data::{Reader, Writer};
use super::error::SessionError;
use super::forward::Connecting;
use super::numbers::*;
use super::transport::Transport;
use crate::guest::shell::child::Refusal;

/// Most channels at once: a browser behind `ssh -D` has some dozens.
const MAX_CHANNELS: usize = 128;

/// Why a channel is not opened (RFC 4254, section 5.1).
const CONNECT_FAILED: u32 = 2;
const UNKNOWN_KIND: u32 = 3;
const SHORTAGE: u32 = 4;

/// All channels of one connection.
#[derive(Default)]
pub struct Connection {
    channels: BTreeMap<u32, Channel>,
    /// Addresses of both ends, for the commands.
    addresses: Option<String>,
}

impl Connection {
    /// Between `addresses`.
    pub fn new(addresses: Option<String>) -> Self {
        Self { channels: BTreeMap::new(), addresses }
    }

    /// Acts on one message.
    pub fn hear(&mut self, message: &[u8], transport: &mut Transport) -> Result<(), SessionError> {
        let mut reader = Reader::new(message);
        match reader.byte()? {
            GLOBAL_REQUEST => refuse_global(reader, transport),
            CHANNEL_OPEN => self.open(reader, transport),
            CHANNEL_WINDOW_ADJUST => {
                let (number, by) = (reader.number()?, reader.number()?);
                // libssh2 still says how much it takes after it has closed a channel, as sshd suffers.
                self.channels.get_mut(&number).map_or(Ok(()), |channel| channel.widen(by))
            }
            CHANNEL_DATA => self.channel(&mut reader)?.take(reader.string()?),
            CHANNEL_EXTENDED_DATA => {
                let channel = self.channel(&mut reader)?;
                let _kind = reader.number()?;
                channel.drop_bytes(reader.string()?.len())
            }
            CHANNEL_EOF => {
                self.channel(&mut reader)?.end_input();
                Ok(())
            }
            CHANNEL_CLOSE => self.channel(&mut reader)?.hear_close(transport),
            CHANNEL_REQUEST => self.request(reader, transport),
            // Answers to what this server never asks, and late tries to log in.
            REQUEST_SUCCESS | REQUEST_FAILURE | CHANNEL_SUCCESS | CHANNEL_FAILURE | USERAUTH_REQUEST => Ok(()),
            _ => transport.send_unimplemented(),
        }
    }

    fn channel(&mut self, reader: &mut Reader<'_>) -> Result<&mut Channel, SessionError> {
        let number = reader.number()?;
        self.channels.get_mut(&number).ok_or(SessionError::Protocol("a channel that is not open"))
    }

    fn open(&mut self, mut reader: Reader<'_>, transport: &mut Transport) -> Result<(), SessionError> {
        let (kind, peer, window, max) = (reader.text()?, reader.number()?, reader.number()?, reader.number()?);
        let opened = if self.channels.len() >= MAX_CHANNELS {
            Err((SHORTAGE, format!("{MAX_CHANNELS} channels are open")))
        } else {
            self.begin(kind, reader)?
        };
        let work = match opened {
            Ok(work) => work,
            Err((reason, text)) => {
                let message = Writer::message(CHANNEL_OPEN_FAILURE).number(peer).number(reason);
                return transport.send(message.string(text).string("").done());
            }
        };
        let is_known = !matches!(work, Work::Connecting(_));
        // There is a free one below the most that there may be.
        let own = (0..).find(|number| !self.channels.contains_key(number)).unwrap_or_default();
        let channel = Channel::new(peer, window, max, work);
        if is_known {
            channel.confirm(own, transport)?;
        }
        self.channels.insert(own, channel);
        Ok(())
    }

    fn begin(&self, kind: &str, mut reader: Reader<'_>) -> Result<Result<Work, (u32, String)>, SessionError> {
        match kind {
            "session" => Ok(Ok(Work::Setup(Setup::new(self.addresses.as_deref())))),
            "direct-tcpip" => {
                let (host, port) = (reader.text()?, reader.number()?);
                let port = u16::try_from(port).map_err(|_| SessionError::Protocol("a port beyond all ports"))?;
                Ok(Connecting::begin(host, port).map(Work::Connecting).map_err(|e| (CONNECT_FAILED, e.to_string())))
            }
            _ => Ok(Err((UNKNOWN_KIND, "this server opens sessions and connections".to_owned()))),
        }
    }

    fn request(&mut self, mut reader: Reader<'_>, transport: &mut Transport) -> Result<(), SessionError> {
        let channel = self.channel(&mut reader)?;
        let (kind, wants_answer) = (reader.text()?, reader.boolean()?);
        let done = perform(channel, kind, reader)?;
        // With its last word a client forgets the channel, and PuTTY ends the connection over a later one.
        if wants_answer && !channel.has_closed() {
            let number = if matches!(done, Done::No) { CHANNEL_FAILURE } else { CHANNEL_SUCCESS };
            transport.send(Writer::message(number).number(channel.peer()).done())?;
        }
        match done {
            Done::Refused(refusal) => channel.refuse(&refusal, transport),
            Done::Yes | Done::No => Ok(()),
        }
    }

    /// Does what can be done without waiting, one channel after the other, until nothing is left or the
    /// client does not follow.
    pub fn turn(&mut self, transport: &mut Transport) -> Result<(), SessionError> {
        loop {
            let mut has_said = false;
            for (own, channel) in &mut self.channels {
                has_said |= channel.turn(*own, transport)?;
            }
            self.channels.retain(|_, channel| !channel.is_closed());
            if !has_said || !transport.has_room() {
                return Ok(());
            }
        }
    }

    /// Hangs up everything.
    pub fn hang_up(&mut self) {
        self.channels.values_mut().for_each(Channel::hang_up);
    }

    /// What to wait for.
    pub fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, has_room: bool) {
        self.channels.values().for_each(|channel| channel.watch(fds, has_room));
    }

    /// When to look again even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.channels.values().filter_map(Channel::deadline).min()
    }
}

/// This server does nothing of the kind (ports of the guest that lead to the client, for one).
fn refuse_global(mut reader: Reader<'_>, transport: &mut Transport) -> Result<(), SessionError> {
    let _kind = reader.string()?;
    if reader.boolean()? { transport.send(Writer::message(REQUEST_FAILURE).done()) } else { Ok(()) }
}

enum Done {
    Yes,
    No,
    /// Yes, and then it could not begin: so sshd answers as well, whose shell says why.
    Refused(Refusal),
}

impl From<bool> for Done {
    fn from(done: bool) -> Self {
        if done { Self::Yes } else { Self::No }
    }
}

impl From<Option<Result<(), Refusal>>> for Done {
    fn from(begun: Option<Result<(), Refusal>>) -> Self {
        match begun {
            Some(Ok(())) => Self::Yes,
            Some(Err(refusal)) => Self::Refused(refusal),
            None => Self::No,
        }
    }
}

fn perform(channel: &mut Channel, kind: &str, mut reader: Reader<'_>) -> Result<Done, SessionError> {
    Ok(match kind {
        "env" => {
            let (name, value) = (reader.string()?, reader.string()?);
            let text = std::str::from_utf8(name).ok().zip(std::str::from_utf8(value).ok());
            let added = channel.setup().zip(text).is_some_and(|(setup, (name, value))| setup.add_variable(name, value));
            added.into()
        }
        "pty-req" => {
            let (term, cols, rows) = (reader.text()?, reader.number()?, reader.number()?);
            channel.setup().is_some_and(|setup| setup.add_terminal(term, cols, rows)).into()
        }
        "shell" => channel.begin(Setup::start_shell).into(),
        "exec" => {
            let line = reader.string()?;
            channel.begin(|setup| setup.start_line(line)).into()
        }
        "subsystem" if reader.string()? == b"sftp" => channel.begin_sftp().into(),
        "window-change" => {
            channel.resize(reader.number()?, reader.number()?);
            Done::Yes
        }
        "signal" => channel.signal(reader.text()?).into(),
        _ => Done::No,
    })
}
