//! What every conversation begins with, frozen for ever: each side says its protocol and build.

use super::fault::{Fault, FaultKind};

/// Version of the owner and root languages. Raised with any change to either.
pub const PROTOCOL: u32 = 11;

/// The build that is running: version and commit.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BANGER_COMMIT"), ")");

/// The first frame each way.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Hello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// [`BUILD`] of the sender.
    pub build: String,
}

impl Hello {
    /// What this build says.
    pub fn ours() -> Self {
        Self { protocol: PROTOCOL, build: BUILD.to_owned() }
    }

    /// Refuses a peer of another protocol. `peer` says who it is; `cure` is a command.
    pub fn check(&self, peer: &str, cure: &str) -> Result<(), Fault> {
        if self.protocol == PROTOCOL {
            return Ok(());
        }
        let message = format!(
            "{peer} is banger {} (protocol {}), this is banger {BUILD} (protocol {PROTOCOL})",
            self.build, self.protocol
        );
        Err(Fault::new(FaultKind::BadVersion, message).hint(cure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame;

    #[test]
    fn its_bytes_are_frozen() {
        let hello = Hello { protocol: 1, build: "b".into() };
        assert_eq!(frame::encode(&hello), Ok(vec![3, 0, 0, 0, 1, 1, b'b']));
    }

    #[test]
    fn another_protocol_is_refused_naming_both_builds() {
        let other = Hello { protocol: PROTOCOL + 1, build: "9.9".into() };
        let fault = other.check("the daemon", "banger daemon restart").expect_err("refused");
        assert_eq!(fault.kind, FaultKind::BadVersion);
        assert!(fault.message.contains("9.9") && fault.message.contains(BUILD));
    }
}
