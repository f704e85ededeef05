//! Files that are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Adds verb and path to an error: `cannot open /x/y: permission denied`.
pub fn named<'a>(verb: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> io::Error + 'a {
    move |e| io::Error::new(e.kind(), format!("cannot {verb} {}: {e}", path.display()))
}

/// Makes `path` and its parents; the last gets `mode` even if it was there.
pub fn ensure_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(named("create folder", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(named("set the mode of", path))
}

/// Replaces `path` with `content`: a reader sees the old or the new, and it is on the disk when this
/// returns.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    replace(path, content, mode).and_then(|()| File::open(folder)?.sync_all()).map_err(named("write", path))
}

/// Puts on the disk what was done in `folder`: what was made, renamed or removed there.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(named("write", folder))
}

/// The same for the folder that `path` is in.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// Replaces several files of one folder, each as [`write_atomic`] does; not all of them at the same
/// moment. Their names go to the disk together: each trip there costs milliseconds.
pub fn write_all_atomic(folder: &Path, files: &[(&str, &[u8])], mode: u32) -> io::Result<()> {
    for (name, content) in files {
        let path = folder.join(name);
        replace(&path, content, mode).map_err(named("write", &path))?;
    }
    sync_folder(folder)
}

/// The content of `path` is on the disk when this returns, its name perhaps not yet.
fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{:x}", crate::os::random::number()));
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if result.is_err() {
        // The error that matters is the first; a leftover has a name that says what it was.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Reads at most `limit` bytes; more are an error.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path).map_err(named("open", path))?;
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(named("read", path))?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is larger than {limit} bytes", path.display()),
        ));
    }
    Ok(content)
}

/// Bytes that this process may still write to the filesystem of `path` (statvfs(3)).
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let about = rustix::fs::statvfs(path).map_err(io::Error::from).map_err(named("look at the filesystem of", path))?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

/// Removes a folder with all in it and nothing else; done when it is gone already.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    super::remove::tree(path)
}

/// Removes a file; done when it is gone already.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(named("remove", path)),
    }
}

/// An exclusive lock on a file, held until dropped or until the process ends (flock(2)).
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Lock {
    /// Waits for the lock at `path`, which is made if it is missing.
    pub fn wait(path: &Path) -> io::Result<Self> {
        let file = lock_file(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(Self(file))
    }

    /// `None` when another process holds it.
    pub fn attempt(path: &Path) -> io::Result<Option<Self>> {
        let file = lock_file(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// Whether somebody holds the [`Lock`] at `path`, by what the kernel tells of all locks (proc_locks(5)): nothing is opened,
/// and nobody who wants the lock meanwhile is in the way. For files of a filesystem that shows the same device to all, as
/// that of `/run` does.
pub fn is_locked(path: &Path) -> io::Result<bool> {
    let about = fs::metadata(path).map_err(named("look at", path))?;
    let (major, minor) = (rustix::fs::major(about.dev()), rustix::fs::minor(about.dev()));
    // `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`
    let file = format!("{major:02x}:{minor:02x}:{}", about.ino());
    let is_held = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words.nth(1) == Some("FLOCK") && words.nth(3) == Some(&file)
    };
    Ok(fs::read_to_string("/proc/locks").map_err(named("read", Path::new("/proc/locks")))?.lines().any(is_held))
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(named("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_without_being_taken() {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
        let (held, free) = (folder.path().join("held"), folder.path().join("free"));
        assert!(is_locked(&held).is_err());
        let _lock = Lock::wait(&held).expect("taken");
        fs::write(&free, "").expect("written");
        assert!(is_locked(&held).expect("looked at"));
        assert!(!is_locked(&free).expect("looked at"));
        assert!(Lock::attempt(&free).expect("attempted").is_some());
    }

    #[test]
    fn an_atomic_write_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        write_atomic(&path, b"one", 0o600).expect("written");
        write_atomic(&path, b"two", 0o600).expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_lock_is_held_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let held = Lock::attempt(&path).expect("works").expect("free");
        assert!(Lock::attempt(&path).expect("works").is_none());
        drop(held);
        assert!(Lock::attempt(&path).expect("works").is_some());
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("big");
        fs::write(&path, [0; 100]).expect("written");
        assert!(read_limited(&path, 99).is_err());
        assert_eq!(read_limited(&path, 100).expect("read").len(), 100);
    }
}
