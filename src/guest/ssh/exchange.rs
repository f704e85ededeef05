//! One key exchange: X25519 and what follows from it (RFC 8731; RFC 4253, sections 7.2 and 8).

use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::digest::{Context, SHA256};
use ring::rand::SystemRandom;

use super::data::Writer;
use super::error::SessionError;
use super::keys::HostKey;
use super::numbers::KEX_ECDH_REPLY;

/// Bytes of a hash.
const HASH: usize = 32;

/// What an exchange's hash is.
pub type Hash = [u8; HASH];

/// What both sides have said before, which the exchange's hash covers.
#[derive(Debug)]
pub struct Said<'a> {
    /// The client's first line, without its end.
    pub client_line: &'a [u8],
    /// Ours.
    pub server_line: &'a [u8],
    /// The client's `KEXINIT`.
    pub client_offer: &'a [u8],
    /// Ours.
    pub server_offer: &'a [u8],
}

/// What both sides know, and nobody else.
pub struct Secrets {
    shared: Vec<u8>,
    /// The hash of this exchange; of the first it names the session.
    pub hash: Hash,
}

/// Answers the client's public key: what to send, and what is known then.
pub fn answer(said: &Said<'_>, host: &HostKey, client_public: &[u8]) -> Result<(Vec<u8>, Secrets), SessionError> {
    let failed = |_| SessionError::Crypto("make a key for the exchange");
    let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(failed)?;
    let public = private.compute_public_key().map_err(failed)?;
    let peer = UnparsedPublicKey::new(&X25519, client_public);
    // Refuses points that make the secret zero (RFC 8731, section 3).
    let shared = agree_ephemeral(private, &peer, |secret| Writer::default().integer(secret).done());
    let shared = shared.map_err(|_| SessionError::Protocol("the client's public key is none"))?;
    let covered = [said.client_line, said.server_line, said.client_offer, said.server_offer];
    let covered = covered.into_iter().fold(Writer::default(), Writer::string);
    let covered = covered.string(host.blob()).string(client_public).string(&public).bytes(&shared).done();
    let hash = hash(&[&covered]);
    let reply = Writer::message(KEX_ECDH_REPLY).string(host.blob()).string(&public).string(host.sign(&hash)).done();
    Ok((reply, Secrets { shared, hash }))
}

impl Secrets {
    /// The secret of this letter, `length` bytes long, in the session that `session` names.
    pub fn derive(&self, letter: u8, session: &Hash, length: usize) -> Vec<u8> {
        let mut key = hash(&[&self.shared, &self.hash, &[letter], session]).to_vec();
        while key.len() < length {
            let more = hash(&[&self.shared, &self.hash, &key]);
            key.extend_from_slice(&more);
        }
        key.truncate(length);
        key
    }
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; HASH];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_secret_continues_a_short_one() {
        let secrets = Secrets { shared: vec![0, 0, 0, 1, 5], hash: [3; HASH] };
        let (short, long) = (secrets.derive(b'C', &[4; HASH], 16), secrets.derive(b'C', &[4; HASH], 64));
        assert_eq!((short.len(), long.len()), (16, 64));
        assert!(long.starts_with(&short));
        assert_ne!(secrets.derive(b'D', &[4; HASH], 16), short);
    }
}
