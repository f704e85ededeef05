//! What an update is about to do, written before each step, so that whoever comes after a power cut or a kill knows what
//! to finish or to take back. A small file of root's; there is none while nothing is under way.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::plan::Step;
use super::version::Version;
use crate::os::files::{named, read_limited, remove_file, sync_folder_of, write_atomic};

/// The form that is written and read here.
const SCHEMA: u32 = 1;
/// Most bytes.
const MOST: u64 = 16 << 10;

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused; the message names the file.
    #[error(transparent)]
    File(#[from] io::Error),
    /// Not what an update writes.
    #[error("{} is not what an update writes: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// An update under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// What has begun and may be done, or not, or half.
    pub step: Step,
    /// What was installed.
    pub from: Version,
    /// What shall be.
    pub to: Version,
    /// Of the binary that was installed.
    pub old: Digest,
    /// Of the one that shall be.
    pub new: Digest,
    /// Where both are meant to lie.
    pub binary: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Written {
    schema: u32,
    step: String,
    from: String,
    to: String,
    old: String,
    new: String,
    binary: PathBuf,
}

impl Journal {
    /// The one at `path`; `None` where nothing is under way.
    pub fn read(path: &Path) -> Result<Option<Self>, JournalError> {
        let content = match read_limited(path, MOST) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let malformed = |reason: String| JournalError::Malformed { path: path.to_owned(), reason };
        let text = String::from_utf8(content).map_err(|e| malformed(e.to_string()))?;
        let written: Written = toml::from_str(&text).map_err(|e| malformed(e.message().to_owned()))?;
        if written.schema != SCHEMA {
            return Err(malformed(format!("it has schema {}, of a newer banger", written.schema)));
        }
        written.checked().map(Some).ok_or_else(|| malformed("a value is not as it should be".to_owned()))
    }

    /// On the disk when this returns.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let written = Written {
            schema: SCHEMA,
            step: self.step.name().to_owned(),
            from: self.from.to_string(),
            to: self.to.to_string(),
            old: self.old.to_string(),
            new: self.new.to_string(),
            binary: self.binary.clone(),
        };
        let values = toml::to_string(&written).map_err(io::Error::other)?;
        let text = format!("# An update is under way, or was interrupted: `banger update` goes on with it.\n{values}");
        write_atomic(path, text.as_bytes(), 0o600)
    }

    /// Nothing is under way any more; on the disk when this returns.
    pub fn remove(path: &Path) -> io::Result<()> {
        remove_file(path)?;
        sync_folder_of(path)
    }
}

impl Written {
    fn checked(self) -> Option<Journal> {
        Some(Journal {
            step: Step::named(&self.step)?,
            from: self.from.parse().ok()?,
            to: self.to.parse().ok()?,
            old: self.old.parse().ok()?,
            new: self.new.parse().ok()?,
            binary: Some(self.binary).filter(|binary| binary.is_absolute())?,
        })
    }
}

/// The turn of whoever changes the installation, held until dropped or until the process ends (flock(2)). It is on a
/// folder: nothing stays behind.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held, not read")] File);

impl Turn {
    /// The one on the folder of `in_folder`; `None` when another process has it.
    pub fn attempt(in_folder: &Path) -> io::Result<Option<Self>> {
        let folder = in_folder.parent().unwrap_or(Path::new("/"));
        let file = File::open(folder).map_err(named("open", folder))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(named("lock", folder)(e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        Journal {
            step: Step::Swap,
            from: "0.1.0".parse().expect("a version"),
            to: "0.2.0".parse().expect("a version"),
            old: Digest::of(b"old"),
            new: Digest::of(b"new"),
            binary: "/usr/local/bin/banger".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_then_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("update.toml");
        assert_eq!(Journal::read(&path).expect("read"), None);
        for step in Step::ALL {
            let journal = Journal { step, ..journal() };
            journal.write(&path).expect("written");
            assert_eq!(Journal::read(&path).expect("read"), Some(journal));
        }
        Journal::remove(&path).expect("removed");
        Journal::remove(&path).expect("gone already");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
    }

    #[test]
    fn anything_else_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("update.toml");
        journal().write(&path).expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        let cut = text[..text.len() / 2].to_owned();
        let changes = [("swap", "leap"), ("0.2.0", "0.2"), ("schema = 1", "schema = 2"), ("\"/usr", "\"usr")];
        let changed = changes.map(|(from, to)| text.replace(from, to));
        for bad in changed.into_iter().chain([cut, String::new(), "x".repeat(MOST as usize + 1)]) {
            std::fs::write(&path, &bad).expect("written");
            Journal::read(&path).expect_err(&bad);
        }
    }

    #[test]
    fn one_at_a_time_has_the_turn() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("update.toml");
        let held = Turn::attempt(&path).expect("works").expect("free");
        assert!(Turn::attempt(&path).expect("works").is_none());
        drop(held);
        assert!(Turn::attempt(&path).expect("works").is_some());
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "nothing stays");
    }
}
