//! Which algorithms are agreed on, best first.
//!
//! The guest may be emulated in software, where every instruction of it costs twentyfold: what
//! counts is the guest's work, and the host's does not. `SSH.md` has the measurements.

use ssh2::{MethodType, Session};

/// Key exchange: one X25519 on each side is the cheapest of the safe ones.
pub(super) const KEX: &str = "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256";

/// Encryption. An emulated guest with all of QEMU's instructions does AES-GCM with the fewest cycles,
/// and so does one on real hardware.
pub(super) const CIPHERS: &str = "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr";

/// Integrity, for ciphers without their own.
const MACS: &str = "hmac-sha2-256-etm@openssh.com,hmac-sha2-256";

/// Never compressed: the link is memory, the processor is what is scarce.
const COMPRESSION: &str = "none";

/// Tells libssh2 what to offer, for a peer whose pinned key is of kind `host_key`.
pub(super) fn offer(session: &Session, host_key: &ssh_key::Algorithm) -> Result<(), ssh2::Error> {
    let table = [
        (MethodType::Kex, KEX),
        (MethodType::HostKey, signatures(host_key)),
        (MethodType::CryptCs, CIPHERS),
        (MethodType::CryptSc, CIPHERS),
        (MethodType::MacCs, MACS),
        (MethodType::MacSc, MACS),
        (MethodType::CompCs, COMPRESSION),
        (MethodType::CompSc, COMPRESSION),
    ];
    table.into_iter().try_for_each(|(kind, methods)| session.method_pref(kind, methods))
}

/// Only signatures by the pinned key are of use: a peer with several keys must show that one.
fn signatures(host_key: &ssh_key::Algorithm) -> &'static str {
    match host_key {
        ssh_key::Algorithm::Rsa { .. } => "rsa-sha2-512,rsa-sha2-256",
        ssh_key::Algorithm::Ecdsa { .. } => "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521",
        _ => "ssh-ed25519",
    }
}
