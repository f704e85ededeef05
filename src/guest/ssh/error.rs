//! Why a session ends before its client says goodbye.

use std::io;

/// Each ends the connection, and nothing else.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The system refused something.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The client does not keep to the protocol.
    #[error("the client is not understood: {0}")]
    Protocol(&'static str),
    /// Client and server have nothing in common.
    #[error("no common {what}: this server has {ours}")]
    NothingInCommon {
        /// Of what kind.
        what: &'static str,
        /// The names that were offered.
        ours: String,
    },
    /// A packet was changed on its way, or its key is another one.
    #[error("a packet does not bear its key's mark")]
    Forged,
    /// Nobody proved in time who they are.
    #[error("nobody logged in within {0} s")]
    Late(u64),
    /// Too many keys were tried.
    #[error("no key of {0} was the right one")]
    TooManyAttempts(u32),
    /// The keys of this server cannot be used.
    #[error("the host key cannot be used")]
    HostKey(#[source] ssh_key::Error),
    /// The host key is not of the kind that this server uses.
    #[error("the host key is no ed25519 key")]
    HostKeyKind,
    /// The library refused what it always accepts.
    #[error("cannot {0}")]
    Crypto(&'static str),
}

impl SessionError {
    /// Adds what was being done to an error of the system.
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// The reason that is told to the client (RFC 4253, section 11.1).
    pub fn reason(&self) -> u32 {
        match self {
            Self::Protocol(_) => 2,
            Self::NothingInCommon { .. } => 3,
            Self::Forged => 5,
            Self::Late(_) | Self::TooManyAttempts(_) => 14,
            Self::Io { .. } | Self::HostKey(_) | Self::HostKeyKind | Self::Crypto(_) => 11,
        }
    }
}
