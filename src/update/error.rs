//! What can go wrong before anything is changed.

use std::path::PathBuf;

use super::choose::Refusal;
use super::digest::Digest;
use super::download::DownloadError;
use super::journal::JournalError;
use super::key::KeyError;
use super::manifest::ManifestError;
use super::proof::ProofError;
use super::sums::SumsError;
use super::unpack::UnpackError;
use crate::os::own_folder::FolderError;

/// Why there is no update. Nothing was changed.
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
    /// The installed binary is not a file that can be replaced.
    #[error("{} {reason}", binary.display())]
    Binary {
        /// Where it should be.
        binary: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The staging folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file of this machine; the message names it.
    #[error(transparent)]
    File(#[from] std::io::Error),
}
