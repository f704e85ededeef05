//! One file's content into another: shared where the filesystem can, else what is no hole copied.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use super::files::{named, remove_file};

/// Bytes that are copied at a time.
const STEP: u64 = 64 << 20;

/// How much is moved at once where the kernel does not copy.
const PIECE: usize = 1 << 20;

/// Copies the file at `from` to `to`, `size` bytes long (as long as it is, where not given), for its owner alone; what is
/// no hole at least, shared where that can be. `to` has its name once it is whole. `before_copying` is told of a file whose
/// bytes have to be copied.
pub fn replicate(
    from: &Path,
    to: &Path,
    size: Option<u64>,
    before_copying: &dyn Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    replicate_while(from, to, size, before_copying, &|| Ok(()))
}

/// [`replicate`] for as long as `go_on` allows it, which is asked before each [`STEP`] and once more when all is there:
/// its error is given back as it is. Of what fails nothing stays.
pub fn replicate_while(
    from: &Path,
    to: &Path,
    size: Option<u64>,
    before_copying: &dyn Fn(&File) -> io::Result<()>,
    go_on: &dyn Fn() -> io::Result<()>,
) -> io::Result<()> {
    let part = to.with_extension("part");
    let replicated = fill(from, &part, size, before_copying, go_on)
        .and_then(|()| std::fs::rename(&part, to).map_err(named("rename to", to)));
    if replicated.is_err() {
        // The error that matters is the first.
        let _ = remove_file(&part);
    }
    replicated
}

fn fill(
    from: &Path,
    part: &Path,
    size: Option<u64>,
    before_copying: &dyn Fn(&File) -> io::Result<()>,
    go_on: &dyn Fn() -> io::Result<()>,
) -> io::Result<()> {
    let source = File::open(from).map_err(named("open", from))?;
    let copy = create(part)?;
    if !share(&source, &copy) {
        before_copying(&source)?;
        copy_data(&source, &copy, part, go_on)?;
    }
    let size = size.map_or_else(|| source.metadata().map(|about| about.len()), Ok)?;
    copy.set_len(size).and_then(|()| copy.sync_all()).map_err(named("finish", part))?;
    go_on()
}

/// Copies the file at `from` to `to` like [`replicate`], but for a short time: nobody waits until it is on the disk.
pub fn borrow(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from).map_err(named("open", from))?;
    let copy = create(to)?;
    if !share(&source, &copy) {
        copy_data(&source, &copy, to, &|| Ok(()))?;
        let length = source.metadata()?.len();
        copy.set_len(length).map_err(named("finish", to))?;
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.map_err(named("create", path))
}

/// Has `to` share all blocks of `from` (`FICLONE`, ioctl_ficlone(2)); false where that cannot be.
fn share(from: &File, to: &File) -> bool {
    ioctl_ficlone(to, from).is_ok()
}

/// Copies what is not a hole (lseek(2), `SEEK_DATA`); `path` is what `to` is called.
fn copy_data(from: &File, to: &File, path: &Path, go_on: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
    let failed = |e: Errno| named("copy to", path)(e.into());
    let mut at = 0;
    loop {
        let begin = match seek(from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // No data behind here.
            Err(Errno::NXIO) => return Ok(()),
            Err(e) => return Err(failed(e)),
        };
        let end = seek(from, SeekFrom::Hole(begin)).map_err(failed)?;
        go_on()?;
        at = end.min(begin + STEP);
        copy_range(from, to, begin, at).map_err(named("copy to", path))?;
    }
}

fn copy_range(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut there = at;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX);
        // Both positions move on.
        match copy_file_range(from, Some(&mut at), to, Some(&mut there), most) {
            Ok(0) => return Err(shorter()),
            Ok(_) => {}
            // Not between these two filesystems (copy_file_range(2)).
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => return copy_bytes(from, to, at, end),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    while at < end {
        let most = PIECE.min(usize::try_from(end - at).unwrap_or(PIECE));
        let count = from.read_at(&mut piece[..most], at)?;
        if count == 0 {
            return Err(shorter());
        }
        to.write_all_at(&piece[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter meanwhile")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_ends_when_it_may_not_go_on_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, b"content").expect("written");
        // Copying or sharing, it is asked at the end at least.
        let stopped = replicate_while(&from, &to, None, &|_| Ok(()), &|| Err(io::Error::other("enough")));
        assert_eq!(stopped.expect_err("stopped").to_string(), "enough");
        let refused = replicate(&from, &to, None, &|_| Err(io::Error::other("no room")));
        assert!(refused.is_err() || to.exists(), "shared");
        std::fs::remove_file(&from).expect("removed");
        assert!(replicate(&from, &to, None, &|_| Ok(())).is_err());
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").flatten().map(|e| e.path()).collect();
        assert!(left.iter().all(|path| *path == to), "{left:?}");
    }

    #[test]
    fn holes_stay_holes() {
        let (mut from, mut to) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        from.set_len(64 << 20).expect("grown");
        from.seek(io::SeekFrom::Start(32 << 20)).and_then(|_| from.write_all(b"here")).expect("written");
        copy_data(&from, &to, Path::new("to"), &|| Ok(())).expect("copied");
        to.set_len(64 << 20).expect("grown");
        assert!(to.metadata().expect("there").blocks() * 512 < 2 << 20);
        let mut found = [0; 4];
        to.seek(io::SeekFrom::Start(32 << 20)).and_then(|_| to.read_exact(&mut found)).expect("read");
        assert_eq!(&found, b"here");
    }

    #[test]
    fn it_copies_between_filesystems_too() {
        let memory = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (memory.path().join("from"), folder.path().join("to"));
        let content: Vec<u8> = (0..3 << 20).map(|n| (n % 251) as u8).collect();
        std::fs::write(&from, &content).expect("written");
        replicate(&from, &to, Some(4 << 20), &|_| Ok(())).expect("copied");
        assert!(std::fs::read(&to).expect("read")[..3 << 20] == content);
        borrow(&from, &to).expect("copied");
        assert!(std::fs::read(&to).expect("read") == content);
        let (source, target) = (File::open(&from).expect("opened"), create(&to).expect("made"));
        copy_bytes(&source, &target, 1 << 20, 3 << 20).expect("copied");
        assert!(std::fs::read(&to).expect("read")[1 << 20..] == content[1 << 20..]);
        assert!(copy_bytes(&source, &target, 0, 4 << 20).is_err(), "it ends before");
    }
}
