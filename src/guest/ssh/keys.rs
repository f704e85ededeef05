//! The keys of this server, and whose keys it lets in.
//!
//! An image without an ssh server is not given files of one: both lie in `/run`, for this boot, and are
//! root's. What root adds to `~/.ssh/authorized_keys` counts as well, as with sshd.

use std::io;
use std::path::Path;

use base64ct::{Base64Unpadded, Encoding};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::data::Writer;
use super::error::SessionError;
use super::negotiation::HOST_KEY as ED25519;
use super::signatures;
use crate::os::files::{ensure_dir, read_limited, write_atomic};

/// Where the host key is: OpenSSH's own format.
const HOST_KEY: &str = "/run/banger/ssh/host_key";

/// Whose keys are let in, one a line.
const AUTHORIZED: &str = "/run/banger/ssh/authorized_keys";

/// Largest file of keys that is read.
const LIMIT: u64 = 1 << 20;

/// Writes the keys of this boot down.
pub fn write(host_key: &str, authorized: &str) -> io::Result<()> {
    let path = Path::new(HOST_KEY);
    ensure_dir(path.parent().unwrap_or(Path::new("/run")), 0o700)?;
    write_atomic(Path::new(AUTHORIZED), format!("{}\n", authorized.trim_end()).as_bytes(), 0o600)?;
    // Last: where it is, everything is.
    write_atomic(path, format!("{}\n", host_key.trim_end()).as_bytes(), 0o600)
}

/// Whether `init` has written them: then this server is the one of this boot.
pub fn are_there() -> bool {
    Path::new(HOST_KEY).exists()
}

/// What this server is, and whom it lets in.
pub struct Keys {
    /// What proves to a client who this is.
    pub host: HostKey,
    /// Whom it lets in.
    pub authorized: Authorized,
}

/// Keys that are let in, as ssh writes them.
#[derive(Debug)]
pub struct Authorized(Vec<Vec<u8>>);

impl Authorized {
    /// Whether the key `blob` is let in.
    pub fn admit(&self, blob: &[u8]) -> bool {
        self.0.iter().any(|known| known == blob)
    }
}

impl Keys {
    /// From the texts of both files; lines that cannot be used are left out.
    pub fn new(host_key: &str, authorized: &str) -> Result<Self, SessionError> {
        let authorized = Authorized(authorized.lines().filter_map(of_line).collect());
        Ok(Self { host: HostKey::read(host_key)?, authorized })
    }

    /// Those of this boot, and what root has added at `home`.
    pub fn of_this_boot(home: &Path) -> Result<Self, SessionError> {
        let read = |path: &Path| read_limited(path, LIMIT).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let host_key = read(Path::new(HOST_KEY)).map_err(SessionError::io("read the host key"))?;
        let authorized = read(Path::new(AUTHORIZED)).map_err(SessionError::io("read the authorized keys"))?;
        // Root need not have any.
        let added = read(&home.join(".ssh/authorized_keys")).unwrap_or_default();
        Self::new(&host_key, &format!("{authorized}\n{added}"))
    }
}

/// The key of a line of `authorized_keys`. One with options says that its key may not do everything: as this
/// server knows no less than everything, such a key may do nothing.
fn of_line(line: &str) -> Option<Vec<u8>> {
    let mut words = line.split_whitespace();
    let kind = words.next().filter(|kind| signatures::KINDS.contains(kind))?;
    let blob = Base64Unpadded::decode_vec(words.next()?.trim_end_matches('=')).ok()?;
    // The blob begins with its kind; one that says something else was tampered with.
    blob.starts_with(&Writer::default().string(kind).done()).then_some(blob)
}

/// The key that proves who this server is.
pub struct HostKey(Ed25519KeyPair);

impl HostKey {
    fn read(text: &str) -> Result<Self, SessionError> {
        let key = ssh_key::PrivateKey::from_openssh(text).map_err(SessionError::HostKey)?;
        let pair = key.key_data().ed25519().ok_or(SessionError::HostKeyKind)?;
        let public = pair.public.as_ref();
        let pair = Ed25519KeyPair::from_seed_and_public_key(pair.private.as_ref(), public);
        pair.map(Self).map_err(|_| SessionError::HostKeyKind)
    }

    /// The public key as ssh writes it (RFC 8709).
    pub fn blob(&self) -> Vec<u8> {
        Writer::default().string(ED25519).string(self.0.public_key()).done()
    }

    /// A signature over `bytes` as ssh writes it.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        Writer::default().string(ED25519).string(self.0.sign(bytes)).done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn only_lines_that_restrict_nothing_let_somebody_in() {
        assert_eq!(of_line(&format!("ssh-ed25519 {KEY} me@here")).map(|blob| blob.len()), Some(51));
        for bad in [
            &*format!("command=\"ls\" ssh-ed25519 {KEY}"),
            &*format!("restrict ssh-ed25519 {KEY}"),
            &*format!("# ssh-ed25519 {KEY}"),
            &*format!("ssh-rsa {KEY}"),
            "ssh-ed25519 %%%",
            "ssh-ed25519",
            "",
        ] {
            assert_eq!(of_line(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_host_key_that_cannot_be_used_is_an_error() {
        assert!(Keys::new("no key", "").is_err());
        assert!(Keys::new("", "").is_err());
    }
}
