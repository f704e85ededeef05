//! `ssh NAME.vm`: a file of banger's own that tells ssh about VMs, and one marked `Include` of it in the user's
//! configuration. Each deed is done once however often it is asked for, and what is undone is undone to the byte.
//!
//! The own file comes first and goes last: an `Include` of what is not there says nothing (ssh_config(5)), so whatever
//! is interrupted leaves an ssh that works.

mod block;
mod text;
mod users_file;

use std::io;
use std::path::{Path, PathBuf};

use self::block::{Found, Made};
use self::users_file::{UsersFile, remove_empty};
use crate::os::files::{ensure_dir, read_limited, remove_file, write_atomic};

pub use text::{SUFFIX, Told};

/// Largest file of banger's own.
const LARGEST: u64 = 64 << 10;

/// Most links to keys that are removed with it: more than there can be VMs.
const MOST_LINKS: usize = 1 << 16;

/// Stands at the beginning of the own file, before the number of folders that were made for it.
const FOLDERS: &str = "# folders made for it: ";

/// Why the configuration could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SshConfigError {
    /// A file.
    #[error(transparent)]
    File(#[from] io::Error),
    /// A path that cannot be written down.
    #[error("the path {0:?} cannot stand in a configuration of ssh")]
    Path(PathBuf),
    /// The marked lines begin and do not end.
    #[error("{path}: banger's lines begin in line {line} and do not end: take them away by hand")]
    Unclosed {
        /// The user's file.
        path: PathBuf,
        /// Number of the line.
        line: usize,
    },
    /// The file has several names.
    #[error("{0} has several names (hard links), of which only one would change: add banger's lines by hand")]
    Names(PathBuf),
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// `ssh NAME.vm` works.
    Installed,
    /// Nothing of banger's is there.
    Absent,
    /// Something is, and it is not what it should be: why.
    Stale(&'static str),
}

/// What a deed has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Something was changed.
    Changed,
    /// All was as asked for.
    Unchanged,
}

/// The files that take part.
#[derive(Debug, Clone)]
pub struct Files {
    /// banger's own.
    pub own: PathBuf,
    /// The user's.
    pub users: PathBuf,
    /// The folder of links to keys.
    pub identities: PathBuf,
}

impl Files {
    /// How things stand, where banger's own file is to hold `text`.
    pub fn standing(&self, text: &str) -> Result<Standing, SshConfigError> {
        let file = UsersFile::read(&self.users)?;
        let found = self.without_block(file.content().unwrap_or_default())?.1;
        Ok(match (found, self.own_file()?) {
            (None, None) => Standing::Absent,
            (None, Some(_)) => Standing::Stale("it is not included in the user's configuration"),
            (Some(found), _) if Path::new(&found.path) != self.own => Standing::Stale("another file is included"),
            (Some(found), _) if found.is_limited => Standing::Stale("it is included below a Host or a Match"),
            (Some(_), None) => Standing::Stale("the file that is included is not there"),
            (Some(_), Some(own)) if own.text != text => Standing::Stale("it is of another banger or of another state"),
            (Some(_), Some(_)) => Standing::Installed,
        })
    }

    /// Has `ssh NAME.vm` work.
    pub fn install(&self, text: &str) -> Result<Deed, SshConfigError> {
        let path = text::plain(&self.own)?;
        if self.standing(text)? == Standing::Installed {
            return Ok(Deed::Unchanged);
        }
        let file = UsersFile::hold(&self.users, true)?;
        let included = self.include(&file, path, text);
        if included.is_err() && file.made_folder() {
            remove_empty(file.folder())?;
        }
        included.map(|()| Deed::Changed)
    }

    fn include(&self, file: &UsersFile, path: &str, text: &str) -> Result<(), SshConfigError> {
        file.check_names()?;
        let (rest, found) = self.without_block(file.content().unwrap_or_default())?;
        self.write_own(text)?;
        let made = match found {
            Some(Found { made, .. }) => made,
            None => Made { file: file.content().is_none(), folder: file.made_folder() },
        };
        let wanted = block::with(&rest, path, made);
        if file.content() == Some(&wanted) { Ok(()) } else { file.write(&wanted) }
    }

    /// Takes all of it away.
    pub fn uninstall(&self) -> Result<Deed, SshConfigError> {
        let file = UsersFile::hold(&self.users, false)?;
        let (rest, found) = self.without_block(file.content().unwrap_or_default())?;
        let was_there = found.is_some();
        if let Some(Found { made, .. }) = found {
            file.check_names()?;
            match rest.is_empty() && made.file {
                true => file.remove(made.folder)?,
                false => file.write(&rest)?,
            }
        }
        let own = self.own_file()?;
        if let Some(own) = &own {
            remove_file(&self.own)?;
            let folders = self.own.ancestors().skip(1).take(own.folders);
            for folder in folders {
                remove_empty(folder)?;
            }
        }
        self.remove_identities()?;
        Ok(if was_there || own.is_some() { Deed::Changed } else { Deed::Unchanged })
    }

    fn without_block(&self, content: &[u8]) -> Result<(Vec<u8>, Option<Found>), SshConfigError> {
        let path = || self.users.clone();
        block::without(content).map_err(|unclosed| SshConfigError::Unclosed { path: path(), line: unclosed.line })
    }

    fn own_file(&self) -> Result<Option<OwnFile>, SshConfigError> {
        match read_limited(&self.own, LARGEST) {
            Ok(content) => Ok(Some(OwnFile::of(&String::from_utf8_lossy(&content)))),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn write_own(&self, text: &str) -> Result<(), SshConfigError> {
        let folders = match self.own_file()? {
            Some(own) => own.folders,
            None => self.own.ancestors().skip(1).take_while(|folder| !folder.exists()).count(),
        };
        if let Some(folder) = self.own.parent().filter(|folder| !folder.exists()) {
            ensure_dir(folder, 0o700)?;
        }
        let content = format!("{FOLDERS}{folders}\n{text}");
        Ok(write_atomic(&self.own, content.as_bytes(), 0o600)?)
    }

    /// Only links are in it, and whatever else is stays.
    fn remove_identities(&self) -> Result<(), SshConfigError> {
        let entries = match std::fs::read_dir(&self.identities) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
            Err(e) => return Err(crate::os::files::named("list", &self.identities)(e).into()),
        };
        for entry in entries.take(MOST_LINKS) {
            let entry = entry?;
            if entry.file_type()?.is_symlink() {
                remove_file(&entry.path())?;
            }
        }
        remove_empty(&self.identities)?;
        Ok(())
    }
}

/// banger's own file as it was found.
struct OwnFile {
    folders: usize,
    text: String,
}

impl OwnFile {
    fn of(content: &str) -> Self {
        let first = content.split_once('\n').unwrap_or((content, ""));
        match first.0.strip_prefix(FOLDERS).and_then(|number| number.parse().ok()) {
            Some(folders) => Self { folders, text: first.1.to_owned() },
            None => Self { folders: 0, text: content.to_owned() },
        }
    }
}

#[cfg(test)]
mod tests;
