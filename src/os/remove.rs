//! Removing a tree, whatever is in it, and nothing else.
//!
//! Every step is relative to a descriptor and of one name: folders are opened by openat2(2), which
//! refuses links, mounts and ways up, and all else is only ever unlinked. What cannot be removed, a
//! mount above all, is left alone and named, and the rest goes all the same. Neither the number of
//! entries nor their depth costs memory: what lies deeper than [`DEPTH`] is moved to the top first.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, IFlags, Mode, OFlags};
use rustix::io::Errno;

/// Folders that are open at the same time.
const DEPTH: usize = 32;

/// Failures that are told; of more, the number.
const TOLD: usize = 8;

/// Removes the tree at `path` without following links below its parent; done when it is gone already.
pub fn tree(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => remove(parent.as_fd(), path),
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(super::files::named("open the folder of", path)(e.into())),
    }
}

/// Removes the tree at `below`, which is reached from `folder` without a link, a mount or a way up;
/// done when it is gone already.
pub fn tree_below(folder: impl AsFd, below: &Path) -> io::Result<()> {
    let Some(parent) = below.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return remove(folder.as_fd(), below);
    };
    match enter(folder.as_fd(), parent.as_os_str().as_bytes()) {
        Ok(parent) => remove(parent.as_fd(), below),
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(super::files::named("open the folder of", below)(e.into())),
    }
}

/// Removes the last part of `shown`, which lies in `parent`.
fn remove(parent: BorrowedFd<'_>, shown: &Path) -> io::Result<()> {
    let name = shown.file_name().and_then(|name| CString::new(name.as_bytes()).ok());
    let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput));
    let name = name.map_err(super::files::named("remove", shown))?;
    let mut walk = Walk { parent, shown, levels: Vec::new(), moved: 0, failures: Vec::new(), untold: 0 };
    walk.entry(&name, FileType::Unknown);
    while !walk.levels.is_empty() {
        walk.step();
    }
    walk.result()
}

/// A folder that is being emptied.
struct Level {
    name: CString,
    list: Dir,
    /// Something in it went since its list was begun.
    progress: bool,
    /// Something in it stays.
    stays: bool,
}

struct Walk<'a> {
    parent: BorrowedFd<'a>,
    shown: &'a Path,
    levels: Vec<Level>,
    /// How many folders were moved to the top.
    moved: u64,
    failures: Vec<String>,
    untold: u64,
}

impl Walk<'_> {
    /// One entry of the innermost folder, or its end.
    fn step(&mut self) {
        let Some(level) = self.levels.last_mut() else { return };
        match level.list.read() {
            Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Some(Ok(entry)) => {
                let (name, kind) = (entry.file_name().to_owned(), entry.file_type());
                self.entry(&name, kind);
            }
            Some(Err(e)) => {
                self.fail(None, e);
                self.leave();
            }
            None => self.leave(),
        }
    }

    /// Removes `name` from the innermost folder, or goes into it.
    fn entry(&mut self, name: &CStr, kind: FileType) {
        let removed = match kind {
            FileType::Directory | FileType::Unknown => match enter(self.here(), name.to_bytes()) {
                Ok(folder) => return self.descend(name, folder),
                // No folder: what cannot be entered may still be unlinked.
                Err(Errno::NOTDIR | Errno::LOOP) => self.unlink(name, AtFlags::empty()),
                Err(e) => Err(e),
            },
            _ => self.unlink(name, AtFlags::empty()),
        };
        self.note(name, removed);
    }

    fn descend(&mut self, name: &CStr, folder: OwnedFd) {
        if self.levels.len() >= DEPTH {
            let moved = self.move_up(name);
            return self.note(name, moved);
        }
        match Dir::new(folder) {
            Ok(list) => self.levels.push(Level { name: name.to_owned(), list, progress: false, stays: false }),
            Err(e) => self.note(name, Err(e)),
        }
    }

    /// Moves the folder `name` to the top of the tree, where its turn comes.
    fn move_up(&mut self, name: &CStr) -> Result<(), Errno> {
        let Some(top) = self.levels.first().and_then(|level| level.list.fd().ok()) else { return Err(Errno::BADF) };
        self.moved += 1;
        let new = format!(".banger-deep-{}-{:x}", self.moved, super::random::number());
        let here = self.here();
        let attempt = || rustix::fs::renameat(here, name, top, new.as_str());
        let moved = match attempt() {
            Err(Errno::PERM) => {
                let freed = [clear(here), clear(top), clear_entry(here, name).map(|_| ())];
                if freed.iter().any(Result::is_ok) { attempt() } else { Err(Errno::PERM) }
            }
            other => other,
        };
        moved?;
        if let Some(level) = self.levels.first_mut() {
            level.progress = true;
        }
        Ok(())
    }

    /// The innermost folder is at its end: it goes, or is read again when something in it went.
    fn leave(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        match self.unlink(&level.name, AtFlags::REMOVEDIR) {
            // Entries may be passed over while others are removed.
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.progress => {
                let mut level = Level { progress: false, stays: false, ..level };
                level.list.rewind();
                self.levels.push(level);
            }
            // Why is told by what is in it.
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.stays => self.keep(),
            removed => self.note(&level.name, removed),
        }
    }

    /// Unlinks `name`; a flag that forbids it (chattr(1): immutable, append only) is taken off.
    fn unlink(&self, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
        let folder = self.here();
        let attempt = || rustix::fs::unlinkat(folder, name, flags);
        match attempt() {
            Err(Errno::PERM) => {}
            other => return other,
        }
        // What the tree lies in is not of the tree.
        let of_folder = if self.levels.is_empty() { Err(Errno::PERM) } else { clear(folder) };
        let own = clear_entry(folder, name);
        if own.is_err() && of_folder.is_err() {
            return Err(Errno::PERM);
        }
        let removed = attempt();
        // Another name of the same file, outside the tree, keeps what protects it.
        if let Ok((file, was)) = own
            && rustix::fs::fstat(&file)
                .is_ok_and(|about| about.st_nlink > 0 && FileType::from_raw_mode(about.st_mode).is_file())
        {
            let _ = rustix::fs::ioctl_setflags(&file, was);
        }
        removed
    }

    fn note(&mut self, name: &CStr, removed: Result<(), Errno>) {
        match (removed, self.levels.last_mut()) {
            (Ok(()), Some(level)) => level.progress = true,
            // Not by this walk: a name that cannot be looked up would else be tried for ever.
            (Ok(()) | Err(Errno::NOENT), _) => {}
            (Err(e), _) => self.fail(Some(name), e),
        }
    }

    fn keep(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.stays = true;
        }
    }

    fn fail(&mut self, name: Option<&CStr>, error: Errno) {
        self.keep();
        let path = self.path(name);
        let line = match error {
            Errno::XDEV | Errno::BUSY => format!("{} is a mount point and was left alone", path.display()),
            other => format!("{}: {}", path.display(), io::Error::from(other)),
        };
        if self.failures.len() < TOLD && !self.failures.contains(&line) {
            self.failures.push(line);
        } else if !self.failures.contains(&line) {
            self.untold += 1;
        }
    }

    fn path(&self, name: Option<&CStr>) -> PathBuf {
        let parent = self.shown.parent().unwrap_or(Path::new(""));
        let names = self.levels.iter().map(|level| level.name.as_c_str()).chain(name);
        names.fold(parent.to_owned(), |path, name| path.join(std::ffi::OsStr::from_bytes(name.to_bytes())))
    }

    fn here(&self) -> BorrowedFd<'_> {
        let innermost = self.levels.last().and_then(|level| level.list.fd().ok());
        innermost.unwrap_or(self.parent)
    }

    fn result(self) -> io::Result<()> {
        if self.failures.is_empty() {
            return Ok(());
        }
        let more = if self.untold > 0 { format!(", and more ({})", self.untold) } else { String::new() };
        let told = format!("cannot remove {}: {}{more}", self.shown.display(), self.failures.join("; "));
        Err(io::Error::other(told))
    }
}

/// Opens a folder below `from`: no link, no mount and no way up leads there.
fn enter(from: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    open_beneath(from, name, OFlags::DIRECTORY)
}

fn open_beneath(from: BorrowedFd<'_>, name: &[u8], more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    super::beneath::open(from, name, flags)
}

/// Takes the forbidding flags off an entry; the entry, and the flags it had. Only a file or a folder
/// has them, and only these are opened.
fn clear_entry(folder: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, IFlags), Errno> {
    let about = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(about.st_mode);
    if !kind.is_file() && !kind.is_dir() {
        return Err(Errno::INVAL);
    }
    let file = open_beneath(folder, name.to_bytes(), OFlags::empty())?;
    let was = rustix::fs::ioctl_getflags(&file)?;
    clear(file.as_fd())?;
    Ok((file, was))
}

/// Takes the forbidding flags off; an error when there are none.
fn clear(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let forbidding = IFlags::IMMUTABLE | IFlags::APPEND;
    let was = rustix::fs::ioctl_getflags(file)?;
    if !was.intersects(forbidding) {
        return Err(Errno::NOENT);
    }
    rustix::fs::ioctl_setflags(file, was.difference(forbidding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_links_lead_to_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outside, inside) = (folder.path().join("outside"), folder.path().join("inside"));
        fs::create_dir_all(outside.join("kept")).expect("made");
        fs::create_dir_all(inside.join("a/b")).expect("made");
        for (target, link) in [("/", "root"), ("../outside", "up"), ("missing", "a/dangling"), (".", "a/b/itself")] {
            symlink(target, inside.join(link)).expect("linked");
        }
        tree(&inside).expect("removed");
        tree(&inside).expect("gone already");
        tree(&inside.join("a/b")).expect("its parent, too");
        assert!(!inside.exists() && outside.join("kept").exists());
        symlink(&outside, &inside).expect("linked");
        tree(&inside).expect("the link goes");
        assert!(inside.symlink_metadata().is_err() && outside.join("kept").exists());
    }

    #[test]
    fn ten_thousand_files_and_five_thousand_levels_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let many = folder.path().join("many");
        fs::create_dir(&many).expect("made");
        (0..10_000).for_each(|n| drop(fs::File::create(many.join(n.to_string())).expect("made")));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut deepest = rustix::fs::open(&many, flags, Mode::empty()).expect("opened");
        for _ in 0..5_000 {
            rustix::fs::mkdirat(&deepest, "d", Mode::RWXU).expect("made");
            deepest = rustix::fs::openat(&deepest, "d", flags, Mode::empty()).expect("opened");
        }
        drop(deepest);
        tree(&many).expect("removed");
        assert!(!many.exists());
    }

    #[test]
    fn no_way_up_is_taken_and_no_link_on_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("own")).expect("made");
        fs::create_dir_all(folder.path().join("foreign/x")).expect("made");
        symlink("../foreign", folder.path().join("own/link")).expect("linked");
        let own = fs::File::open(folder.path().join("own")).expect("opened");
        for below in ["../foreign/x", "link/x", "/etc/x", "..", ""] {
            assert!(tree_below(&own, Path::new(below)).is_err(), "{below}");
        }
        tree_below(&own, Path::new("missing/x")).expect("nothing to remove");
        assert!(folder.path().join("foreign/x").exists());
    }
}
