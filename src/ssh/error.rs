//! What goes wrong before a command can run.

use std::io;
use std::path::PathBuf;

/// Why there is no session, key or known host.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Key generation failed.
    #[error("cannot generate an ssh key")]
    Key(#[source] ssh_key::Error),
    /// A public key line is not one.
    #[error("{what} is not a line of OpenSSH public key")]
    PublicKey {
        /// Whose key.
        what: String,
        /// The parser's words.
        #[source]
        source: ssh_key::Error,
    },
    /// A `known_hosts` file cannot be read or written; nothing is trusted then.
    #[error("cannot trust any host: {path} is unusable; repair it, or remove it and start the vm again")]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The peer did not get there in time.
    #[error("vm '{name}' did not {awaited} within {seconds} s: its sshd may be down, see `banger vm logs {name}`")]
    TimedOut {
        /// The VM.
        name: String,
        /// What was waited for.
        awaited: &'static str,
        /// How long.
        seconds: u64,
    },
    /// A signal asked for the end meanwhile.
    #[error("signal {signal} came before there was an ssh session to vm '{name}'")]
    Interrupted {
        /// The VM.
        name: String,
        /// The signal.
        signal: i32,
    },
    /// No agreement with the peer, or it is no ssh server.
    #[error("cannot open an ssh session to vm '{name}': the peer did not {awaited}")]
    Handshake {
        /// The VM.
        name: String,
        /// What was waited for.
        awaited: &'static str,
        /// libssh2's words.
        #[source]
        source: ssh2::Error,
    },
    /// Another host answers. Nothing secret was sent.
    #[error(
        "vm '{name}' shows host key {found}, but {pinned} is pinned: another machine answers at its address, or its key was changed; if that was you, `banger vm delete {name}` forgets the pinned key"
    )]
    HostKey {
        /// The VM.
        name: String,
        /// Fingerprint of the pinned key.
        pinned: String,
        /// Fingerprint of the key that was shown.
        found: String,
    },
    /// The key was refused.
    #[error("vm '{name}' refused banger's key for user '{user}': look at /root/.ssh/authorized_keys in the guest")]
    Login {
        /// The VM.
        name: String,
        /// Who wanted to log in.
        user: String,
        /// libssh2's words.
        #[source]
        source: ssh2::Error,
    },
    /// The local end failed.
    #[error("cannot use the connection to vm '{name}'")]
    Socket {
        /// The VM.
        name: String,
        /// The failure.
        #[source]
        source: io::Error,
    },
}
