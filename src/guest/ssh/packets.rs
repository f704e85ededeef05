//! Packets in and out of a socket that does not block (RFC 4253, sections 4.2 and 6).

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::cipher::{LENGTH, Opener, Sealer};
use super::error::SessionError;

/// What this server calls itself.
pub const OUR_LINE: &[u8] = b"SSH-2.0-banger";

/// Longest first line of a client, with its end.
const MAX_LINE: usize = 255;

/// Largest packet of somebody unknown (RFC 4253, section 6.1), and of somebody known: a command is one packet.
const MAX_UNKNOWN: usize = 35_000;
const MAX_KNOWN: usize = 256 << 10;

/// Bytes read in one turn, so that a flood cannot starve the commands' own streams.
const TURN: usize = 64 << 10;

/// With more than this waiting for the client, no more of a command's output is read.
const ENOUGH: usize = 128 << 10;

/// A client that lets more than this pile up asks without listening to the answers.
const TOO_MUCH: usize = 8 << 20;

/// Both directions of one connection.
pub struct Packets {
    socket: File,
    incoming: Vec<u8>,
    /// How much at the beginning of it was taken.
    taken: usize,
    outgoing: Vec<u8>,
    sent: usize,
    opener: Opener,
    sealer: Sealer,
    /// Number of the next packet, each way.
    numbers: (u32, u32),
    /// Packets and bytes, both ways together, under the present keys.
    used: (u64, u64),
    max: usize,
    is_gone: bool,
}

impl Packets {
    /// Over `socket`, which does not block. Says our first line.
    pub fn new(socket: File) -> Self {
        let outgoing = [OUR_LINE, b"\r\n"].concat();
        let (incoming, opener, sealer) = (Vec::new(), Opener::Plain, Sealer::Plain);
        let (numbers, used) = ((0, 0), (0, 0));
        let (taken, sent, max, is_gone) = (0, 0, MAX_UNKNOWN, false);
        Self { socket, incoming, taken, outgoing, sent, opener, sealer, numbers, used, max, is_gone }
    }

    /// What to wait at.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the client has closed the connection.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether something waits to be written.
    pub fn has_waiting(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Whether there is room for more of a command's output.
    pub fn has_room(&self) -> bool {
        self.outgoing.len() - self.sent < ENOUGH
    }

    /// From now on the client is somebody.
    pub fn trust(&mut self) {
        self.max = MAX_KNOWN;
    }

    /// Packets and bytes since the last keys.
    pub fn used(&self) -> (u64, u64) {
        self.used
    }

    /// Reads what is there. At most one turn; the kernel tells if there is more.
    pub fn fill(&mut self) {
        self.incoming.drain(..std::mem::take(&mut self.taken));
        let before = self.incoming.len();
        self.incoming.resize(before + TURN, 0);
        let read = loop {
            match self.socket.read(&mut self.incoming[before..]) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.incoming.truncate(before + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) => self.is_gone = true,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // Reset is a way of going.
            Err(_) => self.is_gone = true,
        }
    }

    /// The client's first line, without its end, once it is there.
    pub fn first_line(&mut self) -> Result<Option<Vec<u8>>, SessionError> {
        let seen = &self.incoming[..self.incoming.len().min(MAX_LINE)];
        let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
            let is_hopeless = seen.len() == MAX_LINE || !seen.starts_with(&b"SSH-"[..seen.len().min(4)]);
            return if is_hopeless { Err(SessionError::Protocol("it does not speak ssh")) } else { Ok(None) };
        };
        let line = seen[..end].strip_suffix(b"\r").unwrap_or(&seen[..end]).to_vec();
        if !line.starts_with(b"SSH-2.0-") || line.contains(&0) {
            return Err(SessionError::Protocol("it does not speak ssh 2.0"));
        }
        self.taken = end + 1;
        Ok(Some(line))
    }

    /// The next message, once it is whole.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, SessionError> {
        let incoming = &self.incoming[self.taken..];
        let Some(said) = incoming.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = self.opener.length(self.numbers.0, *said);
        // One byte says how much is padding, of which there are at least four.
        if length < 6 || length > self.max || !self.opener.is_aligned(length) {
            return Err(SessionError::Protocol("a packet has an impossible length"));
        }
        let whole = LENGTH + length + self.opener.overhead();
        let Some(packet) = incoming.get(..whole) else { return Ok(None) };
        let mut content = self.opener.open(self.numbers.0, packet.to_vec())?;
        self.taken += whole;
        self.numbers.0 = self.numbers.0.wrapping_add(1);
        self.count(whole);
        let padding = usize::from(content[0]);
        let end = content.len().checked_sub(padding).filter(|end| padding >= 4 && *end >= 2);
        content.truncate(end.ok_or(SessionError::Protocol("a packet is nothing but padding"))?);
        content.remove(0);
        Ok(Some(content))
    }

    /// The number of the packet that [`Packets::next`] gave last.
    pub fn last_number(&self) -> u32 {
        self.numbers.0.wrapping_sub(1)
    }

    /// Sends a message as soon as the client takes it.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SessionError> {
        if self.outgoing.len() - self.sent > TOO_MUCH {
            return Err(SessionError::Protocol("it does not listen"));
        }
        let padding = self.sealer.padding(message.len());
        let length = (1 + message.len() + usize::from(padding)) as u32;
        let mut packet = length.to_be_bytes().to_vec();
        packet.push(padding);
        packet.extend_from_slice(message);
        // Its content is sealed; before there are keys it hides nothing either.
        packet.resize(packet.len() + usize::from(padding), 0);
        self.sealer.seal(self.numbers.1, &mut packet)?;
        self.numbers.1 = self.numbers.1.wrapping_add(1);
        self.count(packet.len());
        self.outgoing.extend_from_slice(&packet);
        Ok(())
    }

    fn count(&mut self, bytes: usize) {
        self.used = (self.used.0 + 1, self.used.1 + bytes as u64);
    }

    /// The client's packets have these keys now. A strict exchange counts anew.
    pub fn open_with(&mut self, opener: Opener, strict: bool) {
        self.opener = opener;
        self.used = (0, 0);
        if strict {
            self.numbers.0 = 0;
        }
    }

    /// So have ours.
    pub fn seal_with(&mut self, sealer: Sealer, strict: bool) {
        self.sealer = sealer;
        if strict {
            self.numbers.1 = 0;
        }
    }

    /// Writes what is possible without waiting.
    pub fn flush(&mut self) {
        while self.has_waiting() {
            match self.socket.write(&self.outgoing[self.sent..]) {
                Ok(count) if count > 0 => self.sent += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {
                    self.is_gone = true;
                    return;
                }
            }
        }
        if !self.has_waiting() || self.sent > ENOUGH {
            self.outgoing.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &[u8]) -> Packets {
        let (near, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let mut packets = Packets::new(File::from(std::os::fd::OwnedFd::from(near)));
        packets.incoming.extend_from_slice(bytes);
        packets
    }

    #[test]
    fn only_ssh_begins_a_conversation() {
        assert_eq!(heard(b"SSH-2.0-a b\r\nrest").first_line().expect("read"), Some(b"SSH-2.0-a b".to_vec()));
        assert_eq!(heard(b"SSH-2").first_line().expect("waits"), None);
        for bad in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-1.99-x\n", b"x", &[0; 10_000], &[b'S'; 300], b"SSH-2.0-\0\n"] {
            assert!(heard(bad).first_line().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_packet_of_impossible_form_is_refused() {
        assert_eq!(heard(&[0, 0, 0, 12, 10, 2, 0, 0]).next().expect("waits"), None);
        let whole = [&[0, 0, 0, 12, 10, 2][..], &[0; 10]].concat();
        assert_eq!(heard(&whole).next().expect("read"), Some(vec![2]));
        for bad in [&[0xff; 4][..], &[0, 0, 0, 0], &[0, 0, 0, 5], &[0, 0, 0, 13], &[0, 1, 0, 4]] {
            assert!(heard(bad).next().is_err(), "{bad:?}");
        }
        for padding in [0, 3, 11, 12, 255] {
            let packet = [&[0, 0, 0, 12, padding, 2][..], &[0; 10]].concat();
            assert!(heard(&packet).next().is_err(), "{padding}");
        }
    }
}
