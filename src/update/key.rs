//! Whose releases are trusted: an ECDSA P-256 public key, and signatures as `cosign sign-blob` writes them: base64 of a
//! DER signature over the SHA-256 of a file's bytes (SEC 1, RFC 3279 section 2.2.3).
//!
//! Such signatures are malleable: one proves a content and identifies nothing.

use base64ct::{Base64, Encoding};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::digest::Digest;

/// The key that this build trusts, or the placeholder that says how to make one.
const EMBEDDED: &str = include_str!("../../release/update.pub");

/// Most bytes of a signature's file.
pub(super) const MOST_SIGNATURE: u64 = 1 << 10;
/// Most bytes of a key's file.
pub const MOST_KEY: u64 = 4 << 10;

/// What the SPKI of an uncompressed P-256 point begins with (RFC 5480 section 2.1: id-ecPublicKey, prime256v1, a bit
/// string of 66 bytes without unused bits); the point's 65 bytes follow.
const HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT: usize = 65;

/// Why a key is not used, or does not vouch for a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The build has none.
    #[error("this build of banger holds a placeholder where the key of its releases should be, so it can verify none")]
    Placeholder,
    /// A key of another kind, or none.
    #[error("{name} is no public key for updates: {reason}")]
    Key {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A signature that nobody could have made so.
    #[error("the signature of the {what} cannot be read: {reason}")]
    Form {
        /// What is signed.
        what: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key did not sign this.
    #[error("the {what} (sha256 {digest}) is not signed by the key {key}: not used")]
    Mismatch {
        /// What should be signed.
        what: String,
        /// Of what came.
        digest: Digest,
        /// [`Key::id`].
        key: String,
    },
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    spki: Vec<u8>,
}

impl Key {
    /// The one that this build trusts.
    pub fn of_this_build() -> Result<Self, KeyError> {
        if !EMBEDDED.contains("-----BEGIN") {
            return Err(KeyError::Placeholder);
        }
        Self::from_pem("release/update.pub", EMBEDDED.as_bytes())
    }

    /// What `text`, of the file `name`, holds: PEM of an SPKI, as `openssl ec -pubout` and `cosign` write it.
    pub fn from_pem(name: &str, text: &[u8]) -> Result<Self, KeyError> {
        let refused = |reason| KeyError::Key { name: name.to_owned(), reason };
        let (label, spki) = pem_rfc7468::decode_vec(text).map_err(|_| refused("it is not the PEM text of one"))?;
        if label == "EC PRIVATE KEY" || label == "PRIVATE KEY" {
            return Err(refused("it is a private one, which must not be here"));
        }
        if label != "PUBLIC KEY" {
            return Err(refused("it is something else in PEM"));
        }
        // 4: not compressed (SEC 1 section 2.3.3).
        let fine = spki.len() == HEAD.len() + POINT && spki.starts_with(&HEAD) && spki[HEAD.len()] == 4;
        if fine { Ok(Self { spki }) } else { Err(refused("it is not one of ECDSA P-256, uncompressed")) }
    }

    #[cfg(test)]
    pub(super) fn of_point(point: &[u8]) -> Self {
        Self { spki: [&HEAD, point].concat() }
    }

    /// The first half of its SHA-256, for people to compare.
    pub fn id(&self) -> String {
        Digest::of(&self.spki).hex()[..32].to_owned()
    }

    /// Whether it signed `content`, called `what`; `signature` is the text of the file beside it.
    pub fn verify(&self, what: &str, content: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let der = decode(what, signature)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.spki[HEAD.len()..]);
        key.verify(content, &der).map_err(|_| KeyError::Mismatch {
            what: what.to_owned(),
            digest: Digest::of(content),
            key: self.id(),
        })
    }
}

/// The DER in the text of a signature.
pub(super) fn decode(what: &str, signature: &[u8]) -> Result<Vec<u8>, KeyError> {
    let refused = |reason| KeyError::Form { what: what.to_owned(), reason };
    if signature.len() as u64 > MOST_SIGNATURE {
        return Err(refused("it is too long"));
    }
    let text = std::str::from_utf8(signature).map_err(|_| refused("it is no text"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Base64::decode_vec(line).map_err(|_| refused("it is not one line of base64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::tests::vectors::{self, SIGNED};

    #[test]
    fn what_openssl_has_signed_verifies() {
        let key = vectors::key();
        for (content, signature) in SIGNED {
            key.verify("file", content, signature.as_bytes()).expect("signed");
            key.verify("file", content, format!("{signature}\n").as_bytes()).expect("a line has an end");
        }
        let (content, signature) = SIGNED[0];
        let foreign = Key::from_pem("other.pub", vectors::OTHER_KEY.as_bytes()).expect("a key");
        let error = foreign.verify("file", content, signature.as_bytes()).expect_err("not its own");
        assert!(error.to_string().contains(&foreign.id()), "{error}");
        key.verify("file", SIGNED[1].0, signature.as_bytes()).expect_err("of another file");
    }

    #[test]
    fn one_changed_byte_anywhere_is_enough() {
        let key = vectors::key();
        for (content, signature) in SIGNED {
            for at in 0..content.len() {
                for flip in [1, 0x20, 0x80] {
                    let mut changed = content.to_vec();
                    changed[at] ^= flip;
                    key.verify("file", &changed, signature.as_bytes()).expect_err("changed content");
                }
                key.verify("file", &content[..at], signature.as_bytes()).expect_err("cut content");
            }
            key.verify("file", &[content, b"\0".as_slice()].concat(), signature.as_bytes()).expect_err("more content");
            for at in 0..signature.len() {
                for byte in [b'A', b'B', b'/', b'=', b'\n', b' ', 0, 0xff] {
                    let mut changed = signature.as_bytes().to_vec();
                    if changed[at] != byte {
                        changed[at] = byte;
                        key.verify("file", content, &changed).expect_err("a changed signature");
                    }
                }
                key.verify("file", content, &signature.as_bytes()[..at]).expect_err("a cut signature");
            }
            for more in ["A", "=", "\n\n", " ", "AAAA"] {
                key.verify("file", content, format!("{signature}{more}").as_bytes()).expect_err("a longer signature");
            }
        }
    }

    #[test]
    fn one_changed_byte_of_the_key_makes_it_another_or_none() {
        let spki = vectors::key().spki;
        let (content, signature) = SIGNED[0];
        for at in 0..spki.len() {
            let mut changed = spki.clone();
            changed[at] ^= 1;
            let pem = pem_rfc7468::encode_string("PUBLIC KEY", pem_rfc7468::LineEnding::LF, &changed).expect("PEM");
            let verified =
                Key::from_pem("k", pem.as_bytes()).and_then(|k| k.verify("f", content, signature.as_bytes()));
            assert!(verified.is_err(), "byte {at}");
        }
    }

    #[test]
    fn other_keys_are_refused() {
        let private =
            pem_rfc7468::encode_string("EC PRIVATE KEY", pem_rfc7468::LineEnding::LF, b"secret").expect("PEM");
        let refused = |text: &str| Key::from_pem("k.pub", text.as_bytes()).expect_err("refused").to_string();
        for (text, word) in [
            ("", "not the PEM"),
            ("ssh-ed25519 AAAA", "not the PEM"),
            (&private, "private"),
            (vectors::P384_KEY, "P-256"),
            (vectors::ED25519_KEY, "P-256"),
        ] {
            assert!(refused(text).contains(word), "{}", refused(text));
        }
    }

    #[test]
    fn the_placeholder_is_refused_and_a_key_in_its_place_is_not() {
        match Key::of_this_build() {
            Ok(key) => assert_eq!(key.id().len(), 32),
            Err(error) => assert_eq!(error, KeyError::Placeholder),
        }
    }

    #[test]
    fn openssl_verifies_what_has_this_format() {
        // The other direction: what is made here (ring) is decoded and checked by openssl.
        use ring::rand::SystemRandom;
        use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
        if !crate::os::need::is_met(
            "openssl",
            "apt-get install openssl",
            std::path::Path::new("/usr/bin/openssl").exists(),
        ) {
            return;
        }
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("a pair");
        let spki = [&HEAD, pair.public_key().as_ref()].concat();
        let pem = pem_rfc7468::encode_string("PUBLIC KEY", pem_rfc7468::LineEnding::LF, &spki).expect("PEM");
        let content = b"what is signed\n";
        let signature = Base64::encode_string(pair.sign(&random, content).expect("signed").as_ref());
        Key::from_pem("k", pem.as_bytes())
            .and_then(|k| k.verify("f", content, signature.as_bytes()))
            .expect("verifies");
        assert!(vectors::openssl_verifies(&pem, content, &signature));
        assert!(!vectors::openssl_verifies(&pem, b"another", &signature));
    }
}
