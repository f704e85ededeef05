//! Folders that go away.
//!
//! A signal ends a process without dropping anything, so its folder would stay for ever. Each folder
//! therefore holds a file that is locked for as long as its process lives (flock(2)); whoever makes
//! the next folder removes those whose lock nobody holds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::os::files::{Lock, ensure_dir, named, remove_tree};

use super::super::ImageError;

const PREFIX: &str = "build-";
/// In a folder of ours, and in no other program's.
const LOCK: &str = ".banger-scratch";

/// A folder of this process alone, removed with all in it when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    _lock: Lock,
}

impl Scratch {
    /// A new folder in `parent`, which is made if it is missing. What ended processes left there goes.
    pub(super) fn create(parent: &Path) -> Result<Self, ImageError> {
        fs::create_dir_all(parent).map_err(named("create folder", parent))?;
        remove_abandoned(parent);
        let path = parent.join(format!("{PREFIX}{:x}", crate::os::random::number()));
        ensure_dir(&path, 0o700)?;
        // Locked before it has its name: nobody finds the lock free in between.
        let unnamed = path.join("new");
        let lock = Lock::wait(&unnamed)?;
        fs::rename(&unnamed, path.join(LOCK)).map_err(named("rename", &unnamed))?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            log::warn!("{error}");
        }
    }
}

/// What cannot be looked at or removed stays: it is not what the caller wants to know.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten().filter(is_own_scratch) {
        let path = entry.path();
        let Ok(Some(_held)) = Lock::attempt(&path.join(LOCK)) else { continue };
        if let Err(error) = remove_tree(&path) {
            log::warn!("{error}");
        }
    }
}

/// The parent may be everybody's: only a real folder of this user with the file in it is touched.
fn is_own_scratch(entry: &fs::DirEntry) -> bool {
    let is_own_folder = |m: fs::Metadata| m.is_dir() && m.uid() == rustix::process::geteuid().as_raw();
    entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
        && entry.metadata().is_ok_and(is_own_folder)
        && entry.path().join(LOCK).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ended_process_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().expect("a folder");
        let at = |name: &str| parent.path().join(name);
        for folder in ["build-left", "build-of-another-program", "elsewhere"] {
            fs::create_dir_all(at(folder).join("tree/usr")).expect("made");
        }
        // A process that was killed leaves its file, and no lock on it.
        fs::write(at("build-left").join(LOCK), "").expect("written");
        fs::write(at("elsewhere").join(LOCK), "").expect("written");
        std::os::unix::fs::symlink(at("elsewhere"), at("build-link")).expect("linked");
        let in_use = Scratch::create(parent.path()).expect("made");
        assert!(!at("build-left").exists());
        let other = Scratch::create(parent.path()).expect("made");
        assert!(in_use.path().exists() && other.path().exists() && in_use.path() != other.path());
        assert!(at("build-of-another-program").exists() && at("elsewhere/tree").exists() && at("build-link").exists());
        let path = in_use.path().to_owned();
        drop(in_use);
        assert!(!path.exists() && other.path().exists());
    }
}
