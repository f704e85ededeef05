//! SHA-256 digests: the only algorithm that registries use.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use super::error::OciError;
use crate::os::sha256::{self, Sha256};

/// `sha256:` and 64 lower-case hexadecimal digits (OCI image spec, descriptor.md, "Digests"); so it is also
/// the name of a file and a part of a URL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_hex(&sha256::hex_of(bytes))
    }

    /// The 64 digits.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn from_hex(hex: &str) -> Option<Self> {
        format!("sha256:{hex}").parse().ok()
    }

    fn of_hex(hex: &str) -> Self {
        Self(format!("sha256:{hex}"))
    }

    /// Fails unless it is the one of `found`, the digest of `what`.
    pub(super) fn check(&self, what: &str, found: Self) -> Result<(), OciError> {
        if *self == found {
            return Ok(());
        }
        Err(OciError::Digest { what: what.to_owned(), expected: self.clone(), found })
    }
}

impl FromStr for Digest {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if sha256::is_hex(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(OciError::DigestForm(text.chars().take(200).collect()))
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The digest of a stream.
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) fn new() -> Self {
        Self(Sha256::default())
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all so far; it can go on.
    pub(super) fn digest(&self) -> Digest {
        Digest::of_hex(&self.0.hex())
    }

    /// Takes in all of `stream`; how many bytes that were.
    pub(super) fn take_all(&mut self, stream: &mut dyn Read) -> io::Result<u64> {
        let mut buffer = vec![0; 1 << 18];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(count) => {
                    self.update(&buffer[..count]);
                    total += count as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_sha256_is_taken() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(empty.parse::<Digest>().expect("a digest"), Digest::of(b""));
        for bad in ["", "sha256:", &empty[..70], &format!("{empty}0"), &empty.to_uppercase(), "sha512:00", "../../etc"]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
