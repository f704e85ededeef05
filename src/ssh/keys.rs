//! Keys: one pair per installation for logging in, one per VM as its host key.

use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::SshError;

/// An ed25519 key in OpenSSH's formats.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The private half, PEM. Secret.
    pub private: String,
    /// The public half, one line without its newline: `ssh-ed25519 AAAA… banger`.
    pub public: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("private", &"(secret)").field("public", &self.public).finish()
    }
}

/// A new key pair from the kernel's random numbers.
pub fn generate() -> Result<KeyPair, SshError> {
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(SshError::Key)?;
    key.set_comment("banger");
    Ok(KeyPair {
        private: key.to_openssh(LineEnding::LF).map_err(SshError::Key)?.to_string(),
        public: key.public_key().to_openssh().map_err(SshError::Key)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_in_the_formats_of_openssh() {
        let pair = generate().expect("a pair");
        assert!(pair.private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert!(pair.public.starts_with("ssh-ed25519 AAAA"));
        assert!(pair.public.ends_with(" banger"));
        let private = PrivateKey::from_openssh(&pair.private).expect("parses");
        assert_eq!(private.public_key().to_openssh().expect("encodes"), pair.public);
    }

    #[test]
    fn no_two_pairs_are_equal_and_debug_hides_the_secret() {
        let (one, two) = (generate().expect("a pair"), generate().expect("a pair"));
        assert_ne!(one.private, two.private);
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }
}
