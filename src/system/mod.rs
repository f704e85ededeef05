//! Banger on this system: installing it and taking it away again, its services, and whether all that it needs is there.

use std::io;
use std::path::PathBuf;

/// What has shells complete.
pub mod completions;
/// Making and taking back files, so that a failure leaves what was there.
mod deeds;
/// What is wrong with this host.
pub mod doctor;
/// Installing, refreshing and uninstalling.
pub mod install;
/// What systemd is asked.
pub mod services;
/// `ssh NAME.vm`: banger's part of the user's ssh configuration.
pub mod ssh_config;
/// The units.
pub mod units;

/// Why an installation cannot be made, changed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The system refused.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// A program of this host is not there.
    #[error("{0} is not installed")]
    NoProgram(String),
    /// A program of this host failed.
    #[error("`{program}` failed: {said}")]
    Program {
        /// It and its arguments.
        program: String,
        /// The first that it said.
        said: String,
        /// The rest, and what else is known.
        details: Vec<String>,
    },
    /// Another account owns this host's installation.
    #[error("banger is installed for {installed}, and a host has one owner")]
    OtherOwner {
        /// Whose it is.
        installed: String,
    },
    /// What an earlier installation has left belongs to another account.
    #[error("{} belongs to uid {uid}: it is what an earlier installation has left", path.display())]
    OthersData {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Something is in the way.
    #[error("{} is there, and banger has not made it", path.display())]
    InTheWay {
        /// It.
        path: PathBuf,
    },
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> SystemError {
    |source| SystemError::Io { doing: doing.into(), source }
}
