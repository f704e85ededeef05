//! Emptying the cache while others may be pulling: what is locked is in use and stays.
//!
//! A blob is first renamed into `pruned/`, so that a reader sees all of it or nothing; what a prune that was
//! killed has left there goes with the next.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::os::files::{ensure_dir, named, remove_tree};

use super::blobs::{Blobs, is_at};
use super::digest::Digest;
use super::error::OciError;

/// What a prune removed, or would.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs, parts included.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Blobs {
    /// Removes all blobs that nobody uses; with `dry_run` it only counts them.
    pub fn prune(&self, dry_run: bool) -> Result<Pruned, OciError> {
        let mut pruned = Pruned::default();
        let aside = self.folder.join("pruned");
        let own = aside.join(format!("{:x}", crate::os::random::number()));
        if !dry_run {
            remove_tree(&aside)?;
            ensure_dir(&own, 0o700)?;
        }
        let folder = self.folder.join("sha256");
        for entry in fs::read_dir(&folder).map_err(named("list", &folder))? {
            let entry = entry.map_err(named("list", &folder))?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if !is_ours(&name) {
                continue;
            }
            let target = (!dry_run).then(|| own.join(&name));
            if let Some(bytes) = take_aside(&entry.path(), target.as_deref())? {
                pruned.blobs += 1;
                pruned.bytes += bytes;
            }
        }
        if !dry_run {
            remove_tree(&aside)?;
        }
        Ok(pruned)
    }
}

fn is_ours(name: &str) -> bool {
    Digest::from_hex(name.strip_suffix(".part").unwrap_or(name)).is_some()
}

/// Renames the blob at `path` unless it is in use; its bytes.
fn take_aside(path: &Path, target: Option<&Path>) -> io::Result<Option<u64>> {
    let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if gone(&e) => return Ok(None),
        Err(e) => return Err(named("open", path)(e)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(e) => return Err(named("lock", path)(e.into())),
    }
    // A part that became whole meanwhile is another's.
    if !is_at(&file, path)? {
        return Ok(None);
    }
    if let Some(target) = target {
        match fs::rename(path, target) {
            Err(e) if gone(&e) => return Ok(None),
            other => other.map_err(named("move aside", path))?,
        }
    }
    Ok(Some(file.metadata().map_err(named("look at", path))?.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oci::blobs::Claim;

    #[test]
    fn what_is_in_use_stays_and_the_rest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("a cache");
        for text in ["one", "three"] {
            blobs.keep_small(&Digest::of(text.as_bytes()), text.as_bytes()).expect("kept");
        }
        let stale = blobs.path(&Digest::of(b"stale")).with_extension("part");
        fs::write(&stale, "st").expect("written");
        fs::create_dir_all(folder.path().join("pruned/old")).expect("a leftover");
        fs::write(folder.path().join("sha256/README"), "not ours").expect("written");
        let used = blobs.whole(&Digest::of(b"one"), 3).expect("works").expect("there");
        let Claim::Part(running) = blobs.claim(&Digest::of(b"four"), 4).expect("claimed") else { panic!("new") };
        let expected = Pruned { blobs: 2, bytes: 7 };
        assert_eq!(blobs.prune(true).expect("counted"), expected);
        assert!(stale.exists());
        assert_eq!(blobs.prune(false).expect("pruned"), expected);
        assert!(!stale.exists() && !folder.path().join("pruned").exists());
        running.write(b"four", 0).expect("written");
        running.keep().expect("a running pull is not disturbed");
        drop((used, running));
        assert_eq!(blobs.prune(false).expect("pruned"), Pruned { blobs: 2, bytes: 7 });
        assert_eq!(blobs.prune(false).expect("pruned"), Pruned::default());
        assert!(folder.path().join("sha256/README").exists());
    }
}
