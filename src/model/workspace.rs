//! A repository of the host's in a VM: where it is there, and what of it was last brought in.

use std::fmt;
use std::str::FromStr;

use super::checked_string_codec;

/// Why something is no part of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkspaceError {
    /// Not what git calls its objects.
    #[error("{0:?} is not the name of a git object: 40 or 64 hexadecimal digits")]
    Object(String),
    /// Not a folder of a guest.
    #[error("{0:?} is not a folder of a guest: it begins with '/', has no '..', and at most {max} bytes", max = GuestFolder::MAX)]
    Folder(String),
}

/// The name of a git object: SHA-1 or SHA-256, gitglossary(7).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(String);

impl ObjectId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As people see it.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for ObjectId {
    type Err = WorkspaceError;
    fn from_str(text: &str) -> Result<Self, WorkspaceError> {
        let is_hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if is_hex && matches!(text.len(), 40 | 64) {
            Ok(Self(text.to_owned()))
        } else {
            Err(WorkspaceError::Object(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
checked_string_codec!(ObjectId);

/// A folder in a guest, an absolute path of text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestFolder(String);

impl GuestFolder {
    /// Most bytes.
    pub const MAX: usize = 1024;

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GuestFolder {
    type Err = WorkspaceError;
    fn from_str(text: &str) -> Result<Self, WorkspaceError> {
        let parts = || text.split('/').skip(1);
        let is_fine = text.starts_with('/')
            && text.len() <= Self::MAX
            && !text.chars().any(char::is_control)
            && parts().all(|part| !matches!(part, "" | "." | ".."));
        if is_fine { Ok(Self(text.to_owned())) } else { Err(WorkspaceError::Folder(text.chars().take(80).collect())) }
    }
}

impl fmt::Display for GuestFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
checked_string_codec!(GuestFolder);

/// What was asked for when a repository was brought in, for the next time.
#[derive(Debug, Clone, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Wanted {
    /// A branch of the guest's own.
    pub branch: Option<String>,
    /// The commit that it began from; `HEAD` where there is none.
    pub from: Option<String>,
    /// Untracked files too.
    pub untracked: bool,
    /// Files and folders that went in whatever git thinks of them, below the top.
    pub include: Vec<Vec<u8>>,
    /// Without the repositories in it.
    pub no_submodules: bool,
}

/// What is kept of a workspace in a VM.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Workspace {
    /// The repository's folder in the guest.
    pub folder: GuestFolder,
    /// Where commands run: that folder, or the one in it that was named.
    pub runs_in: GuestFolder,
    /// The repository's top folder on the host, bytes of a path.
    pub source: Vec<u8>,
    /// The host's `HEAD` when it was brought in; `None` before the first commit.
    pub head: Option<ObjectId>,
    /// The commit that the guest began from: `head`, or what `--from` named.
    pub base: Option<ObjectId>,
    /// What was asked for.
    pub wanted: Wanted,
    /// Whether the guest has a repository; without git it has only files.
    pub has_history: bool,
    /// Whether it names tools of mise's, so that commands are run with them.
    pub has_tools: bool,
    /// Unix seconds of when it was last brought in.
    pub prepared_at: u64,
    /// Exit code of the last command that was run in it.
    pub last_exit: Option<u8>,
}

impl Workspace {
    /// Most bytes of [`Workspace::source`], `PATH_MAX` of Linux.
    pub const MAX_SOURCE: usize = 4096;

    /// Whether the source is a path at all.
    pub fn has_source(&self) -> bool {
        self.source.first() == Some(&b'/') && self.source.len() <= Self::MAX_SOURCE && !self.source.contains(&0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_forty_or_sixty_four_digits() {
        for good in ["0".repeat(40), "f".repeat(64)] {
            assert_eq!(good.parse::<ObjectId>().expect("an id").as_str(), good);
        }
        for bad in [String::new(), "0".repeat(39), "0".repeat(41), "F".repeat(40), format!("-{}", "0".repeat(39))] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_of_a_guest_is_absolute_and_plain() {
        for good in ["/root/repo", "/root/a b", "/w"] {
            assert!(good.parse::<GuestFolder>().is_ok(), "{good}");
        }
        for bad in ["", "root", "/", "/root/", "/root/../etc", "/a//b", "/./a", "/a\nb"] {
            assert!(bad.parse::<GuestFolder>().is_err(), "{bad}");
        }
    }
}
