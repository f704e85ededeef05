//! What can go wrong; nothing is changed but where the variant says so.

use std::path::PathBuf;

use super::choose::Refusal;
use super::digest::Digest;
use super::download::DownloadError;
use super::journal::JournalError;
use super::key::KeyError;
use super::manifest::ManifestError;
use super::proof::ProofError;
use super::site::Trouble;
use super::sums::SumsError;
use super::swap::{RecoverError, SwapError};
use super::unpack::UnpackError;
use super::version::Version;
use crate::os::own_folder::FolderError;

/// Why there is no update. Only [`Self::Recover`] and [`Self::Swap`] come after something was changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The releases leave nothing to do that may be done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A key, or what it does not vouch for.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file did not come.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The sums.
    #[error(transparent)]
    Sums(#[from] SumsError),
    /// The archive.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The archive is another.
    #[error("{what} is sha256 {found}, not {expected} as its release says: not used")]
    Digest {
        /// Which.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// The new binary does not do.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// What an interrupted update left cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another update or install is at work.
    #[error("another update or install is at work here")]
    Busy,
    /// Nobody said where releases are.
    #[error("this build of banger does not know where its releases are announced")]
    NoAddress,
    /// Nothing is installed: whoever runs banger from a folder replaces it there.
    #[error("banger is not installed on this system, so there is nothing to update")]
    NotInstalled,
    /// The binary is a package's.
    #[error("{} belongs to a package, and its manager would not know another", .0.display())]
    Packaged(PathBuf),
    /// An update is to be brought to an end first.
    #[error("an update to v{0} was interrupted, and is to be brought to an end first")]
    Interrupted(Version),
    /// Somebody waits for the daemon.
    #[error("operations are under way ({0}), which the restart of the daemon would cut short")]
    Operations(u32),
    /// This host cannot be asked.
    #[error(transparent)]
    Host(#[from] Trouble),
    /// An interrupted update.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// It was begun, and did not go well.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// The staging folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file of this machine; the message names it.
    #[error(transparent)]
    File(#[from] std::io::Error),
}
