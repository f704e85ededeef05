//! Files, links and folders of an installation: each is made so that a reader sees the old or the new, says whether
//! anything has changed, and can be taken back.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{SystemError, failed};
use crate::os::files::{read_limited, remove_file, sync_folder_of, write_atomic};

/// The running program, even when its file was replaced meanwhile.
const SELF: &str = "/proc/self/exe";

/// Longest file, beside programs, that is kept for the way back, in bytes.
const LIMIT: u64 = 1 << 20;

/// Something that belongs to an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A folder, readable by all.
    Folder(PathBuf),
    /// The program that runs, copied here.
    Program(PathBuf),
    /// A symbolic link.
    Link {
        /// Where it lies.
        at: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A file of text, readable by all.
    File {
        /// Where it lies.
        path: PathBuf,
        /// What it says.
        text: String,
    },
}

/// How something was before.
#[derive(Debug)]
enum Before {
    Absent,
    /// As it is now.
    Same,
    Text(Vec<u8>),
    Link(PathBuf),
    /// Its file is kept under this name.
    Kept(PathBuf),
}

impl Deed {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Program(path) | Self::Link { at: path, .. } | Self::File { path, .. } => path,
        }
    }

    fn make(&self) -> io::Result<Before> {
        match self {
            Self::Folder(path) => make_folder(path),
            Self::Program(path) => copy_self(path),
            Self::Link { at, target } => lay_link(at, target),
            Self::File { path, text } => write_text(path, text),
        }
    }
}

/// What was done, for the way back.
#[derive(Debug, Default)]
pub struct Done(Vec<(PathBuf, Before)>);

impl Done {
    /// Makes all of `deeds`. What was made before a failure is still to be taken back.
    pub fn make(&mut self, deeds: &[Deed]) -> Result<(), SystemError> {
        for deed in deeds {
            let before = deed.make().map_err(failed(format!("make {}", deed.path().display())))?;
            self.0.push((deed.path().to_owned(), before));
        }
        Ok(())
    }

    /// Whether anything is otherwise than it was.
    pub fn has_changed(&self) -> bool {
        self.0.iter().any(|(_, before)| !matches!(before, Before::Same))
    }

    /// Takes all back, the last first, and goes on after a failure; what failed.
    pub fn take_back(self) -> Vec<SystemError> {
        let undone = self.0.into_iter().rev().map(|(path, before)| {
            restore(&path, before).map_err(failed(format!("put {} back as it was", path.display())))
        });
        undone.filter_map(Result::err).collect()
    }

    /// Lets go of what was kept for the way back.
    pub fn keep(self) -> Result<(), SystemError> {
        for (_, before) in self.0 {
            if let Before::Kept(kept) = before {
                remove_file(&kept).map_err(failed("let go of the old program"))?;
            }
        }
        Ok(())
    }
}

/// Removes what an installation has made; a folder only when nothing of somebody else's is in it. Done when it is gone
/// already.
pub fn remove(path: &Path) -> Result<(), SystemError> {
    let removed = match path.symlink_metadata() {
        Ok(about) if about.is_dir() => remove_empty_folder(path),
        Ok(_) => remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    };
    removed.map_err(failed(format!("remove {}", path.display())))
}

fn remove_empty_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}

fn make_folder(path: &Path) -> io::Result<Before> {
    match fs::create_dir(path) {
        Ok(()) => {
            // Independent of the umask.
            fs::set_permissions(path, Permissions::from_mode(0o755))?;
            Ok(Before::Absent)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(Before::Same),
        Err(e) => Err(e),
    }
}

fn write_text(path: &Path, text: &str) -> io::Result<Before> {
    let before = match read_limited(path, LIMIT) {
        Ok(content) if content == text.as_bytes() => return Ok(Before::Same),
        Ok(content) => Before::Text(content),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Before::Absent,
        Err(e) => return Err(e),
    };
    write_readable(path, text.as_bytes())?;
    Ok(before)
}

/// Readable by all, whatever the umask is.
fn write_readable(path: &Path, content: &[u8]) -> io::Result<()> {
    write_atomic(path, content, 0o644)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

fn lay_link(at: &Path, target: &Path) -> io::Result<Before> {
    let before = match fs::read_link(at) {
        Ok(old) if old == target => return Ok(Before::Same),
        Ok(old) => Before::Link(old),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Before::Absent,
        Err(e) => return Err(e),
    };
    replace_link(at, target)?;
    Ok(before)
}

fn replace_link(at: &Path, target: &Path) -> io::Result<()> {
    let new = beside(at, "new");
    remove_file(&new)?;
    symlink(target, &new)?;
    fs::rename(new, at)
}

/// `.NAME.WHAT` in the same folder.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

/// A file that is made here, and not one that is moved here, has the label that its folder's files have
/// (restorecon(8)).
fn copy_self(path: &Path) -> io::Result<Before> {
    if is_self(path)? {
        return Ok(Before::Same);
    }
    let (new, kept) = (beside(path, "new"), beside(path, "old"));
    remove_file(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&new)?;
    let copied = io::copy(&mut File::open(SELF)?, &mut file).and_then(|_| {
        file.set_permissions(Permissions::from_mode(0o755))?;
        file.sync_all()
    });
    drop(file);
    if let Err(e) = copied {
        // The error that matters is the first.
        let _ = remove_file(&new);
        return Err(e);
    }
    remove_file(&kept)?;
    let before = match fs::hard_link(path, &kept) {
        Ok(()) => Before::Kept(kept),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Before::Absent,
        Err(e) => return Err(e),
    };
    fs::rename(new, path)?;
    sync_folder_of(path)?;
    Ok(before)
}

/// Whether `path` has the running program's bytes already.
fn is_self(path: &Path) -> io::Result<bool> {
    let own = File::open(SELF)?;
    let other = match File::open(path) {
        Ok(other) => other,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let is_plain = path.symlink_metadata()?.is_file();
    Ok(is_plain && own.metadata()?.len() == other.metadata()?.len() && is_equal(own, other)?)
}

fn is_equal(one: File, other: File) -> io::Result<bool> {
    use std::io::{BufRead, BufReader};
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let count = left.len().min(right.len());
        if count == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..count] != right[..count] {
            return Ok(false);
        }
        one.consume(count);
        other.consume(count);
    }
}

fn restore(path: &Path, before: Before) -> io::Result<()> {
    match before {
        Before::Same => Ok(()),
        Before::Absent if path.is_dir() && !path.is_symlink() => remove_empty_folder(path),
        Before::Absent => remove_file(path),
        Before::Text(content) => write_readable(path, &content),
        Before::Link(target) => replace_link(path, &target),
        Before::Kept(kept) => fs::rename(kept, path).and_then(|()| sync_folder_of(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn deeds(root: &Path) -> Vec<Deed> {
        vec![
            Deed::Folder(root.join("etc")),
            Deed::File { path: root.join("etc/install.toml"), text: "x = 1\n".into() },
            Deed::Program(root.join("banger")),
            Deed::Link { at: root.join("bangerd"), target: "banger".into() },
        ]
    }

    /// Every name with what is behind it.
    fn seen(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("listed").flatten() {
                let (path, about) = (entry.path(), entry.path().symlink_metadata().expect("there"));
                let content = match about {
                    about if about.is_symlink() => {
                        fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
                    }
                    about if about.is_dir() => Vec::new(),
                    _ => fs::read(&path).expect("read"),
                };
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                all.insert(path, content);
            }
        }
        all
    }

    #[test]
    fn what_is_made_is_whole_and_made_once() {
        let root = tempfile::tempdir().expect("a folder");
        let mut done = Done::default();
        done.make(&deeds(root.path())).expect("made");
        assert!(done.has_changed());
        done.keep().expect("kept");
        let own = fs::read(SELF).expect("read");
        assert_eq!(fs::read(root.path().join("bangerd")).expect("read through the link"), own);
        let mode = fs::metadata(root.path().join("banger")).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        let before = seen(root.path());
        let mut again = Done::default();
        again.make(&deeds(root.path())).expect("made");
        assert!(!again.has_changed());
        assert!(again.take_back().is_empty() && seen(root.path()) == before);
    }

    #[test]
    fn what_was_there_is_there_again_after_the_way_back_from_anywhere() {
        for had_something in [false, true] {
            for stop_after in 0..=4 {
                let root = tempfile::tempdir().expect("a folder");
                if had_something {
                    fs::create_dir(root.path().join("etc")).expect("made");
                    fs::write(root.path().join("etc/install.toml"), "x = 0\n").expect("written");
                    fs::write(root.path().join("banger"), "old").expect("written");
                    symlink("elsewhere", root.path().join("bangerd")).expect("laid");
                }
                let before = seen(root.path());
                let mut done = Done::default();
                done.make(&deeds(root.path())[..stop_after]).expect("made");
                assert!(done.take_back().is_empty());
                assert_eq!(seen(root.path()), before, "{had_something} {stop_after}");
            }
        }
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_left_alone_and_said() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("banger")).expect("made");
        fs::create_dir(root.path().join("bangerd")).expect("made");
        for deed in &deeds(root.path())[2..] {
            let mut done = Done::default();
            assert!(done.make(std::slice::from_ref(deed)).is_err(), "{deed:?}");
            assert!(done.take_back().is_empty());
        }
        assert!(root.path().join("banger").is_dir() && root.path().join("bangerd").is_dir());
    }

    #[test]
    fn a_folder_with_somebody_elses_file_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("etc");
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("catalogue.toml"), "").expect("written");
        remove(&folder).expect("left");
        assert!(folder.exists());
        fs::remove_file(folder.join("catalogue.toml")).expect("removed");
        remove(&folder).expect("removed");
        remove(&folder).expect("gone already");
        assert!(!folder.exists());
    }
}
