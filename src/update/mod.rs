//! A newer banger in the place of this one: a signed manifest names releases, one is brought here, verified, tried as
//! nobody, and takes the installed binary's place; units and services follow, and on any failure all of it goes back.
//!
//! Everything up to the swap changes nothing outside of a folder of its own. From there on each step is written down before
//! it is taken, so that a kill or a power cut at any of them leaves the old banger or the new one, and the next update (or
//! install) brings the rest to an end. `UPDATE.md` beside this file is for people. What is asked of systemd and of the daemon
//! is behind [`Host`].

/// Which release.
mod choose;
/// SHA-256.
mod digest;
/// Files of releases.
mod download;
/// What can go wrong.
mod error;
/// What is under way.
pub mod journal;
/// Whose releases are trusted.
mod key;
/// Which releases there are.
mod manifest;
/// The steps as data.
mod plan;
/// The new binary shows what it is.
mod proof;
/// All of it in its order.
mod run;
/// What an update is done to.
mod site;
/// From a manifest to a binary.
mod stage;
/// `SHA256SUMS`.
mod sums;
/// One binary for another.
mod swap;
/// The one file in an archive.
mod unpack;
/// `1.2.3`.
mod version;

/// Parsers as one function each, for the fuzzer.
#[doc(hidden)]
pub mod fuzz;

/// Releases to try all of it with.
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use choose::{Refusal, Wish};
pub use digest::Digest;
pub use download::{DownloadError, Fetcher, Place};
pub use error::UpdateError;
pub use key::{Key, KeyError, MOST_KEY};
pub use manifest::Manifest;
pub use plan::{Back, Step};
pub use proof::{Proof, ProofError};
pub use run::{Asked, Ground, Outcome, standing, update};
pub use site::{Host, Installed, Site, Trouble};
pub use stage::Origin;
pub use swap::{Gate, RecoverError, Recovered, SwapError, Unrepaired, abandon, recover};
pub use version::{NoVersion, Version};

/// Where this build looks for a manifest unless told otherwise; lines that begin with `#` say nothing.
const EMBEDDED_URL: &str = include_str!("../../release/update.url");

/// The journal of a system install, beside its record.
pub const JOURNAL: &str = "/etc/banger/update.toml";

/// What is told while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// Something begins.
    Stage(&'a str),
    /// So much of it has come.
    Bytes {
        /// Bytes so far.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// An interrupted update was brought to an end.
    Recovered(&'a Recovered),
}

/// Where this build looks for a manifest; `None` where it was not told.
pub fn embedded_url() -> Option<&'static str> {
    EMBEDDED_URL.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The architecture of this build, as releases name it.
pub fn arch() -> &'static str {
    std::env::consts::ARCH
}

/// Whether the binary at this path is a package manager's, which would be surprised by another in its place.
pub fn is_packaged(binary: &Path) -> bool {
    let real: PathBuf = binary.canonicalize().unwrap_or_else(|_| binary.to_owned());
    [&real, binary].iter().any(|path| {
        let of_system = ["/usr", "/bin", "/sbin"].iter().any(|folder| path.starts_with(folder));
        of_system && !path.starts_with("/usr/local")
    })
}
