//! Messages both ways, whatever keys are in use: the first key exchange, and those that follow.
//!
//! Between our offer and our new keys nothing but the exchange may be said (RFC 4253, section 7.1), so
//! everything else is held back. Of a strict exchange (OpenSSH's PROTOCOL, 1.10) the first is nothing but
//! the exchange, and each begins to count packets anew.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::cipher::{Opener, Sealer};
use super::data::{Reader, Writer};
use super::error::SessionError;
use super::exchange::{self, Hash, Said, Secrets};
use super::keys::HostKey;
use super::negotiation::{self, Agreed, Traits};
use super::numbers::*;
use super::packets::{OUR_LINE, Packets};
use super::signatures;

/// Packets and bytes under the same keys, both ways together. A packet's number must never come again with a
/// key, and has 32 bits; 32 GiB are half of what OpenSSH allows itself.
pub const REKEY: (u64, u64) = (1 << 31, 32 << 30);

/// Most messages that are held back: some answers for each channel.
const MAX_HELD: usize = 4096;

/// How long a client that has said its line may keep its offer back until it gets ours without. What we offer
/// depends on who asks; but each side is to speak by itself (RFC 4253, section 7.1), and some clients wait for us.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where the present exchange is.
enum Exchange {
    /// There is none.
    None,
    /// We have offered this, to a client that is strict or may not be, and the client has not.
    Offered(Vec<u8>, bool),
    /// Both have: theirs and ours.
    Agreed(Agreed, Vec<u8>, Vec<u8>),
    /// Our keys are new, the client's come with its word.
    Renewed(Opener),
}

/// One connection's messages.
pub struct Transport {
    packets: Packets,
    host: HostKey,
    client_line: Option<Vec<u8>>,
    /// Until when its first offer is waited for.
    patience: Option<Instant>,
    traits: Option<Traits>,
    session: Option<Hash>,
    /// Whether the first exchange is over.
    is_opened: bool,
    exchange: Exchange,
    held: Vec<Vec<u8>>,
    rekey: (u64, u64),
    has_left: bool,
}

impl Transport {
    /// Over `socket`, which does not block. New keys after `rekey` packets or bytes.
    pub fn new(socket: File, host: HostKey, rekey: (u64, u64)) -> Self {
        let (packets, exchange, held) = (Packets::new(socket), Exchange::None, Vec::new());
        let (client_line, patience, traits, session) = (None, None, None, None);
        let (is_opened, has_left) = (false, false);
        Self { packets, host, client_line, patience, traits, session, is_opened, exchange, held, rekey, has_left }
    }

    /// What to wait at.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.packets.descriptor()
    }

    /// Whether the client has gone.
    pub fn is_gone(&self) -> bool {
        self.packets.is_gone() || self.has_left
    }

    /// Whether something waits to be written.
    pub fn has_waiting(&self) -> bool {
        self.packets.has_waiting()
    }

    /// Whether there is room for more of a command's output.
    pub fn has_room(&self) -> bool {
        self.packets.has_room() && !self.is_exchanging()
    }

    /// What names this session; empty before the first exchange, when nothing can be asked.
    pub fn session(&self) -> &[u8] {
        self.session.as_ref().map_or(&[], |hash| hash)
    }

    /// From now on the client is somebody.
    pub fn trust(&mut self) {
        self.packets.trust();
    }

    /// Reads what is there.
    pub fn fill(&mut self) {
        self.packets.fill();
    }

    /// Writes what is possible without waiting.
    pub fn flush(&mut self) {
        self.packets.flush();
    }

    /// The next message that is not the transport's own.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, SessionError> {
        if self.client_line.is_none() {
            self.client_line = self.packets.first_line()?;
            self.patience = self.client_line.as_ref().map(|_| Instant::now() + PATIENCE);
        }
        while self.client_line.is_some() && !self.has_left {
            let Some(message) = self.packets.next()? else { break };
            if !self.is_own(&message)? {
                return Ok(Some(message));
            }
        }
        self.offer_when_due()?;
        Ok(None)
    }

    /// When to look again even if the client says nothing.
    pub fn deadline(&self) -> Option<Instant> {
        let is_awaited = self.traits.is_none() && matches!(self.exchange, Exchange::None);
        self.patience.filter(|_| is_awaited)
    }

    /// Says it, once it may be said.
    pub fn send(&mut self, message: Vec<u8>) -> Result<(), SessionError> {
        if !self.is_exchanging() {
            return self.packets.send(&message);
        }
        if self.held.len() >= MAX_HELD {
            return Err(SessionError::Protocol("it asks on and on during a key exchange"));
        }
        self.held.push(message);
        Ok(())
    }

    /// Says that the last message has no meaning here.
    pub fn send_unimplemented(&mut self) -> Result<(), SessionError> {
        self.send(Writer::message(UNIMPLEMENTED).number(self.packets.last_number()).done())
    }

    /// Says why it ends, as far as that can still be said.
    pub fn send_disconnect(&mut self, error: &SessionError) {
        let message = Writer::message(DISCONNECT).number(error.reason()).string(error.to_string()).string("");
        // It ends in any case.
        let _ = self.packets.send(&message.done());
        self.packets.flush();
    }

    /// Whether our offer is said and our keys are old.
    fn is_exchanging(&self) -> bool {
        matches!(self.exchange, Exchange::Offered(..) | Exchange::Agreed(..))
    }

    fn is_strict(&self) -> bool {
        self.traits.is_some_and(|traits| traits.strict)
    }

    /// Acts on what is the transport's own.
    fn is_own(&mut self, message: &[u8]) -> Result<bool, SessionError> {
        let number = message.first().copied().unwrap_or_default();
        if !self.is_opened && self.is_strict() && !(KEXINIT..=KEX_ECDH_REPLY).contains(&number) && number != DISCONNECT
        {
            return Err(SessionError::Protocol("a message that a strict exchange does not have"));
        }
        match number {
            DISCONNECT => self.has_left = true,
            IGNORE | UNIMPLEMENTED | DEBUG | EXT_INFO => {}
            KEXINIT => self.hear_offer(message)?,
            NEWKEYS => self.hear_new_keys()?,
            30..=49 => self.hear_exchange(message)?,
            _ if self.is_opened && self.may_say_other() => return Ok(false),
            _ => return Err(SessionError::Protocol("a message during a key exchange")),
        }
        Ok(true)
    }

    /// After its offer a client says nothing else until its new keys.
    fn may_say_other(&self) -> bool {
        matches!(self.exchange, Exchange::None | Exchange::Offered(..))
    }

    fn hear_offer(&mut self, theirs: &[u8]) -> Result<(), SessionError> {
        if self.traits.is_none() {
            let traits = negotiation::traits(theirs)?;
            if traits.strict && self.packets.last_number() != 0 {
                return Err(SessionError::Protocol("a strict exchange that does not come first"));
            }
            self.traits = Some(traits);
        }
        if matches!(self.exchange, Exchange::None) {
            self.make_offer()?;
        }
        let Exchange::Offered(ours, to_strict) = std::mem::replace(&mut self.exchange, Exchange::None) else {
            return Err(SessionError::Protocol("a second offer in one key exchange"));
        };
        let agreed = negotiation::agree(theirs, to_strict)?;
        self.exchange = Exchange::Agreed(agreed, theirs.to_vec(), ours);
        Ok(())
    }

    fn make_offer(&mut self) -> Result<(), SessionError> {
        let ours = negotiation::offer(self.is_strict())?;
        self.packets.send(&ours)?;
        self.exchange = Exchange::Offered(ours, self.is_strict());
        Ok(())
    }

    fn hear_exchange(&mut self, message: &[u8]) -> Result<(), SessionError> {
        let Exchange::Agreed(agreed, theirs, ours) = &mut self.exchange else {
            return Err(SessionError::Protocol("a key exchange that nobody has begun"));
        };
        if std::mem::take(&mut agreed.skip_guess) {
            return Ok(());
        }
        let mut reader = Reader::new(message);
        if reader.byte()? != KEX_ECDH_INIT {
            return Err(SessionError::Protocol("a message of another key exchange"));
        }
        let client_line = self.client_line.as_deref().unwrap_or_default();
        let said = Said { client_line, server_line: OUR_LINE, client_offer: theirs, server_offer: ours };
        let (reply, secrets) = exchange::answer(&said, &self.host, reader.string()?)?;
        let agreed = *agreed;
        self.packets.send(&reply)?;
        self.packets.send(&Writer::message(NEWKEYS).done())?;
        self.renew(agreed, &secrets)
    }

    /// Our new keys, and then what was held back.
    fn renew(&mut self, agreed: Agreed, secrets: &Secrets) -> Result<(), SessionError> {
        let is_first = self.session.is_none();
        let session = *self.session.get_or_insert(secrets.hash);
        let derive = |letter, length| secrets.derive(letter, &session, length);
        let (incoming, outgoing) = (agreed.incoming, agreed.outgoing);
        let opener = Opener::new(incoming, &derive(b'C', incoming.key_length()), &derive(b'A', 12))?;
        let sealer = Sealer::new(outgoing, &derive(b'D', outgoing.key_length()), &derive(b'B', 12))?;
        self.packets.seal_with(sealer, self.is_strict());
        self.exchange = Exchange::Renewed(opener);
        if is_first && self.traits.is_some_and(|traits| traits.extensions) {
            let extension = Writer::message(EXT_INFO).number(1);
            self.packets.send(&extension.string("server-sig-algs").string(signatures::ALGORITHMS).done())?;
        }
        let held = std::mem::take(&mut self.held);
        held.iter().try_for_each(|message| self.packets.send(message))
    }

    fn hear_new_keys(&mut self) -> Result<(), SessionError> {
        let Exchange::Renewed(opener) = std::mem::replace(&mut self.exchange, Exchange::None) else {
            return Err(SessionError::Protocol("new keys that nobody has agreed on"));
        };
        self.packets.open_with(opener, self.is_strict());
        self.is_opened = true;
        Ok(())
    }

    fn offer_when_due(&mut self) -> Result<(), SessionError> {
        let (packets, bytes) = self.packets.used();
        let is_old = self.is_opened && (packets >= self.rekey.0 || bytes >= self.rekey.1);
        let is_due = is_old || self.deadline().is_some_and(|deadline| deadline <= Instant::now());
        if is_due && matches!(self.exchange, Exchange::None) { self.make_offer() } else { Ok(()) }
    }
}
