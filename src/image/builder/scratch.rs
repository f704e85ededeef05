//! Folders that go away.

use std::path::{Path, PathBuf};

use crate::os::files::{ensure_dir, remove_tree};

use super::super::ImageError;

/// A folder of this process alone, removed with all in it when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder in `parent`, which is made if it is missing.
    pub(super) fn create(parent: &Path) -> Result<Self, ImageError> {
        std::fs::create_dir_all(parent).map_err(crate::os::files::named("create folder", parent))?;
        let path = parent.join(format!("build-{:x}", crate::os::random::number()));
        ensure_dir(&path, 0o700)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            log::warn!("{error}");
        }
    }
}
