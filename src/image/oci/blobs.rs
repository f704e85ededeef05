//! Blobs that were pulled, by digest: `sha256/HEX` is whole and was verified, `sha256/HEX.part` is on its way.
//!
//! Whoever writes a part holds an exclusive lock on it (flock(2)); whoever uses a whole blob a shared one. A lock
//! is on the file, not on its name: after waiting for one, the name is looked at again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::os::files::{ensure_dir, named};

use super::digest::{Digest, Hasher};
use super::error::OciError;

/// A folder of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    pub(super) folder: PathBuf,
}

/// A blob that somebody wants.
pub(super) enum Claim {
    /// It is there.
    Whole(Arc<File>),
    /// It is to be fetched, all of it or the rest.
    Part(Part),
}

impl Blobs {
    /// The cache at `folder`, which is made if it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        ensure_dir(folder, 0o700)?;
        ensure_dir(&folder.join("sha256"), 0o700)?;
        Ok(Self { folder: folder.to_owned() })
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("sha256").join(digest.hex())
    }

    /// The blob if it is whole. What has another size is damaged and removed, unless it is the size that is wrong.
    pub(super) fn whole(&self, digest: &Digest, size: u64) -> Result<Option<File>, OciError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(named("open", &path)(e).into()),
        };
        let found = file.metadata().map_err(named("look at", &path))?.len();
        if found != size {
            let mut hasher = Hasher::new();
            hasher.take_all(&mut &file).map_err(named("read", &path))?;
            if hasher.digest() == *digest {
                return Err(OciError::Size { what: format!("blob {digest}"), expected: size, found });
            }
            self.remove(digest)?;
            return Ok(None);
        }
        // Who cleans up at this moment has the lock; the file is there for as long as it is open.
        let _ = flock(&file, FlockOperation::NonBlockingLockShared);
        Ok(Some(file))
    }

    /// Takes a damaged blob out of the cache.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        crate::os::files::remove_file(&self.path(digest))
    }

    /// The blob, or the sole right to fetch it; waits while another process does.
    pub(super) fn claim(&self, digest: &Digest, size: u64) -> Result<Claim, OciError> {
        let path = self.path(digest).with_extension("part");
        loop {
            if let Some(file) = self.whole(digest, size)? {
                return Ok(Claim::Whole(Arc::new(file)));
            }
            let file = open_part(&path)?;
            if !lock_or_wait(&file).map_err(named("lock", &path))? {
                continue;
            }
            // Whoever had it before may have finished it or thrown it away.
            if is_at(&file, &path)? {
                let part = Part { file: Arc::new(file), whole: self.path(digest), path, digest: digest.clone(), size };
                return Ok(Claim::Part(part));
            }
        }
    }

    /// A small blob, if it is there and is what it should be.
    pub(super) fn small(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, OciError> {
        let path = self.path(digest);
        let Ok(file) = File::open(&path) else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(named("read", &path))?;
        if Digest::of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
        self.remove(digest)?;
        Ok(None)
    }

    /// Keeps a small blob.
    pub(super) fn keep_small(&self, digest: &Digest, bytes: &[u8]) -> Result<(), OciError> {
        match self.claim(digest, bytes.len() as u64)? {
            Claim::Whole(_) => Ok(()),
            Claim::Part(part) => {
                part.restart()?;
                part.write(bytes, 0)?;
                part.keep()
            }
        }
    }
}

/// True with the exclusive lock; false when whoever had it is done with it.
///
/// What is waited for is a shared lock, which a writer that has finished lets others have while it keeps its own:
/// two pulls of which each waited for the other to be done with a finished blob would wait for ever.
fn lock_or_wait(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            flock(file, FlockOperation::LockShared)?;
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

fn open_part(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // A link leads to a file whose name is another: it could never be the part, and would be waited for without end.
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options.open(path).map_err(named("open", path))
}

/// Whether `path` still names `file`.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata().map_err(named("look at", path))?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(named("look at", path)(e)),
    }
}

/// A blob on its way, which nobody else writes.
pub(super) struct Part {
    pub(super) file: Arc<File>,
    path: PathBuf,
    whole: PathBuf,
    digest: Digest,
    size: u64,
}

impl Part {
    /// How much an earlier pull has left, and the hash over it. More than there should be is nothing.
    pub(super) fn resume(&self) -> Result<(u64, Hasher), OciError> {
        let mut hasher = Hasher::new();
        if self.file.metadata().map_err(named("look at", &self.path))?.len() > self.size {
            self.restart()?;
            return Ok((0, hasher));
        }
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(0)).map_err(named("read", &self.path))?;
        let length = hasher.take_all(&mut file).map_err(named("read", &self.path))?;
        Ok((length, hasher))
    }

    /// Throws away what there is.
    pub(super) fn restart(&self) -> io::Result<()> {
        self.file.set_len(0).map_err(named("empty", &self.path))
    }

    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at).map_err(named("write", &self.path))
    }

    /// Gives it its name, once it is on the disk; the caller has verified it.
    pub(super) fn keep(&self) -> Result<(), OciError> {
        self.file.set_len(self.size).map_err(named("write", &self.path))?;
        self.file.sync_all().map_err(named("sync", &self.path))?;
        fs::rename(&self.path, &self.whole).map_err(named("rename to", &self.whole))?;
        let folder = self.whole.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|f| f.sync_all()).map_err(named("sync", folder))?;
        // From now on others may use it too. Nothing is lost when that fails: they do not need the lock.
        let _ = flock(&*self.file, FlockOperation::NonBlockingLockShared);
        log::debug!("{} is in the cache", self.digest);
        Ok(())
    }

    /// Lets others have it: here it failed.
    pub(super) fn release(&self) {
        // Gone with the file anyway, which whoever follows it may hold for a while.
        let _ = flock(&*self.file, FlockOperation::Unlock);
    }

    /// Removes it: what is in it is wrong.
    pub(super) fn discard(&self) -> io::Result<()> {
        crate::os::files::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(&folder.path().join("blobs")).expect("a cache");
        (folder, blobs)
    }

    #[test]
    fn small_blobs_are_kept_and_damaged_ones_are_not_used() {
        let (_folder, blobs) = cache();
        let digest = Digest::of(b"hello");
        assert_eq!(blobs.small(&digest, 100).expect("works"), None);
        blobs.keep_small(&digest, b"hello").expect("kept");
        blobs.keep_small(&digest, b"hello").expect("kept already");
        assert_eq!(blobs.small(&digest, 100).expect("works").as_deref(), Some(&b"hello"[..]));
        fs::write(blobs.path(&digest), b"jello").expect("damaged");
        assert_eq!(blobs.small(&digest, 100).expect("works"), None);
        assert!(!blobs.path(&digest).exists());
        blobs.keep_small(&digest, b"hello").expect("kept");
        let error = blobs.whole(&digest, 6).expect_err("it is the size that is wrong").to_string();
        assert!(error.ends_with("has 5 bytes instead of 6: not used") && blobs.path(&digest).exists(), "{error}");
        fs::write(blobs.path(&digest), b"hell").expect("damaged");
        assert!(blobs.whole(&digest, 5).expect("works").is_none() && !blobs.path(&digest).exists());
    }

    #[test]
    fn a_link_is_no_part() {
        let (folder, blobs) = cache();
        let (digest, victim) = (Digest::of(b"hello"), folder.path().join("victim"));
        std::os::unix::fs::symlink(&victim, blobs.path(&digest).with_extension("part")).expect("laid");
        assert!(blobs.claim(&digest, 5).is_err());
        assert!(!victim.exists());
    }

    #[test]
    fn a_second_claim_waits_and_finds_it_whole() {
        let (_folder, blobs) = cache();
        let digest = Digest::of(b"hello");
        let Claim::Part(part) = blobs.claim(&digest, 5).expect("claimed") else { panic!("it is not there yet") };
        std::thread::scope(|scope| {
            let second = scope.spawn(|| matches!(blobs.claim(&digest, 5).expect("claimed"), Claim::Whole(_)));
            part.write(b"hello", 0).expect("written");
            part.keep().expect("kept");
            // The first goes on using it.
            assert!(second.join().expect("no panic"));
        });
    }

    #[test]
    fn a_part_is_resumed_unless_it_is_too_long() {
        let (_folder, blobs) = cache();
        let digest = Digest::of(b"hello");
        for (left, resumed) in [("hel", 3), ("hello", 5), ("hello!", 0)] {
            fs::write(blobs.path(&digest).with_extension("part"), left).expect("written");
            let Claim::Part(part) = blobs.claim(&digest, 5).expect("claimed") else { panic!("not whole") };
            assert_eq!(part.resume().expect("resumed").0, resumed);
        }
    }
}
