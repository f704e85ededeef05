//! Packets on their way: in the open until there are keys, then sealed.
//!
//! Each side of a connection has a direction's key of its own. With AES-GCM (RFC 5647) the length is
//! authenticated, not hidden; with ChaCha20-Poly1305 (OpenSSH's PROTOCOL.chacha20poly1305) it is both.

use ring::aead::chacha20_poly1305_openssh as chacha;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::error::SessionError;

/// Bytes of the length before each packet.
pub const LENGTH: usize = 4;

/// Bytes of the mark behind each sealed packet.
const TAG: usize = 16;

/// A cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `aes128-gcm@openssh.com`.
    Aes128Gcm,
    /// `aes256-gcm@openssh.com`.
    Aes256Gcm,
    /// `chacha20-poly1305@openssh.com`.
    ChaCha,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::ChaCha, Self::Aes256Gcm];

    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes128-gcm@openssh.com",
            Self::Aes256Gcm => "aes256-gcm@openssh.com",
            Self::ChaCha => "chacha20-poly1305@openssh.com",
        }
    }

    /// Whether its nonce is the number of the packet since the connection began.
    pub fn counts_packets(self) -> bool {
        self == Self::ChaCha
    }

    /// Bytes of a key.
    pub fn key_length(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
            Self::ChaCha => chacha::KEY_LEN,
        }
    }
}

/// AES-GCM and the nonce of its next packet.
pub struct Gcm {
    key: LessSafeKey,
    fixed: [u8; 4],
    counter: u64,
}

impl Gcm {
    fn new(algorithm: &'static Algorithm, key: &[u8], nonce: &[u8]) -> Result<Box<Self>, SessionError> {
        let key = UnboundKey::new(algorithm, key).map_err(|_| SessionError::Crypto("use a key"))?;
        let (fixed, counter) = nonce.split_at_checked(4).ok_or(SessionError::Crypto("use a nonce"))?;
        let counter = counter.first_chunk().ok_or(SessionError::Crypto("use a nonce"))?;
        let fixed = [fixed[0], fixed[1], fixed[2], fixed[3]];
        Ok(Box::new(Self { key: LessSafeKey::new(key), fixed, counter: u64::from_be_bytes(*counter) }))
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&self.fixed);
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The client's direction.
pub enum Opener {
    /// No keys yet.
    Plain,
    /// AES-GCM.
    Gcm(Box<Gcm>),
    /// ChaCha20-Poly1305.
    ChaCha(chacha::OpeningKey),
}

/// Our direction.
pub enum Sealer {
    /// No keys yet.
    Plain,
    /// AES-GCM.
    Gcm(Box<Gcm>),
    /// ChaCha20-Poly1305.
    ChaCha(chacha::SealingKey),
}

fn chacha_key(key: &[u8]) -> Result<&[u8; chacha::KEY_LEN], SessionError> {
    key.first_chunk().ok_or(SessionError::Crypto("use a key"))
}

impl Opener {
    /// With keys that were derived: at least as long as `kind` needs.
    pub fn new(kind: Kind, key: &[u8], nonce: &[u8]) -> Result<Self, SessionError> {
        Ok(match kind {
            Kind::Aes128Gcm => Self::Gcm(Gcm::new(&AES_128_GCM, key, nonce)?),
            Kind::Aes256Gcm => Self::Gcm(Gcm::new(&AES_256_GCM, key, nonce)?),
            Kind::ChaCha => Self::ChaCha(chacha::OpeningKey::new(chacha_key(key)?)),
        })
    }

    /// The length that packet `number` says it has; not proven yet.
    pub fn length(&self, number: u32, said: [u8; LENGTH]) -> usize {
        let length = match self {
            Self::Plain | Self::Gcm(_) => said,
            Self::ChaCha(key) => key.decrypt_packet_length(number, said),
        };
        u32::from_be_bytes(length) as usize
    }

    /// Bytes behind the packet that belong to it.
    pub fn overhead(&self) -> usize {
        if matches!(self, Self::Plain) { 0 } else { TAG }
    }

    /// Bytes that the rest of a packet after its length, or all of it, is a multiple of.
    pub fn is_aligned(&self, length: usize) -> bool {
        match self {
            Self::Plain => (length + LENGTH).is_multiple_of(8),
            Self::Gcm(_) => length.is_multiple_of(16),
            Self::ChaCha(_) => length.is_multiple_of(8),
        }
    }

    /// Opens `packet`: length, content, mark. What is left is the content.
    pub fn open(&mut self, number: u32, mut packet: Vec<u8>) -> Result<Vec<u8>, SessionError> {
        match self {
            Self::Plain => {}
            Self::Gcm(gcm) => {
                let nonce = gcm.next_nonce();
                let (length, content) = packet.split_at_mut(LENGTH);
                let opened = gcm.key.open_in_place(nonce, Aad::from(&*length), content);
                opened.map_err(|_| SessionError::Forged)?;
                packet.truncate(packet.len() - TAG);
            }
            Self::ChaCha(key) => {
                let end = packet.len() - TAG;
                let (sealed, tag) = packet.split_at_mut(end);
                let tag = tag.first_chunk().ok_or(SessionError::Forged)?;
                key.open_in_place(number, sealed, tag).map_err(|_| SessionError::Forged)?;
                packet.truncate(end);
            }
        }
        packet.drain(..LENGTH);
        Ok(packet)
    }
}

impl Sealer {
    /// With keys that were derived: at least as long as `kind` needs.
    pub fn new(kind: Kind, key: &[u8], nonce: &[u8]) -> Result<Self, SessionError> {
        Ok(match kind {
            Kind::Aes128Gcm => Self::Gcm(Gcm::new(&AES_128_GCM, key, nonce)?),
            Kind::Aes256Gcm => Self::Gcm(Gcm::new(&AES_256_GCM, key, nonce)?),
            Kind::ChaCha => Self::ChaCha(chacha::SealingKey::new(chacha_key(key)?)),
        })
    }

    /// Bytes of padding for a message of `length` bytes: at least four (RFC 4253, section 6).
    pub fn padding(&self, length: usize) -> u8 {
        let (block, before) = match self {
            Self::Plain => (8, LENGTH + 1),
            Self::Gcm(_) => (16, 1),
            Self::ChaCha(_) => (8, 1),
        };
        let short = block - (length + before) % block;
        (if short < 4 { short + block } else { short }) as u8
    }

    /// Seals packet `number`, length and content, and puts its mark behind it.
    pub fn seal(&mut self, number: u32, packet: &mut Vec<u8>) -> Result<(), SessionError> {
        match self {
            Self::Plain => {}
            Self::Gcm(gcm) => {
                let nonce = gcm.next_nonce();
                let (length, content) = packet.split_at_mut(LENGTH);
                let tag = gcm.key.seal_in_place_separate_tag(nonce, Aad::from(&*length), content);
                packet.extend_from_slice(tag.map_err(|_| SessionError::Crypto("seal a packet"))?.as_ref());
            }
            Self::ChaCha(key) => {
                let mut tag = [0; TAG];
                key.seal_in_place(number, packet, &mut tag);
                packet.extend_from_slice(&tag);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_and_what_was_changed_is_not() {
        for kind in Kind::ALL {
            let key = vec![7; kind.key_length()];
            let opener = || Opener::new(kind, &key, &[9; 12]).expect("an opener");
            let Ok(mut sealer) = Sealer::new(kind, &key, &[9; 12]) else { panic!("a sealer") };
            let mut packet = [&16_u32.to_be_bytes()[..], &[6], b"a message", &[0; 6]].concat();
            sealer.seal(3, &mut packet).expect("sealed");
            assert_eq!(opener().length(3, packet[..4].try_into().expect("four")), 16);
            assert_eq!(&opener().open(3, packet.clone()).expect("opened")[1..10], b"a message");
            for at in 0..packet.len() {
                let mut changed = packet.clone();
                changed[at] ^= 1;
                assert!(opener().open(3, changed).is_err(), "{kind:?}: {at}");
            }
        }
    }

    #[test]
    fn the_padding_fills_the_last_block() {
        for sealer in [Sealer::Plain, Sealer::new(Kind::ChaCha, &[0; 64], &[]).expect("a sealer")] {
            for length in 0..100 {
                let padding = usize::from(sealer.padding(length));
                let before = if matches!(sealer, Sealer::Plain) { 5 } else { 1 };
                assert!(padding >= 4 && (before + length + padding).is_multiple_of(8));
            }
        }
    }
}
