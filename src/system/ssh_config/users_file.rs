//! The user's own configuration of ssh: read and replaced whole, behind the link that it may be, with its mode and its
//! owner. Whoever else of banger wants to change it waits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::SshConfigError;
use crate::os::files::{named, read_limited, remove_file};
use crate::os::random;

/// More than anybody writes.
const LARGEST: u64 = 1 << 20;

/// Mode of a file that is made, and of its folder (ssh(1), FILES).
const NEW_FILE: u32 = 0o600;
const NEW_FOLDER: u32 = 0o700;

/// Links that are followed, as the kernel does (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The file, held while it is changed.
#[derive(Debug)]
pub struct UsersFile {
    /// Where it is, behind all links.
    path: PathBuf,
    content: Option<Vec<u8>>,
    /// Whether its folder was made just now.
    made_folder: bool,
    _lock: Option<File>,
}

impl UsersFile {
    /// Looks at the file at `path`.
    pub fn read(path: &Path) -> Result<Self, SshConfigError> {
        let path = behind_links(path)?;
        let content = match read_limited(&path, LARGEST) {
            Ok(content) => Some(content),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        Ok(Self { path, content, made_folder: false, _lock: None })
    }

    /// Takes hold of the file at `path`; with `make` its folder is made where it is missing.
    pub fn hold(path: &Path, make: bool) -> Result<Self, SshConfigError> {
        let folder = folder_of(path);
        let made_folder = make && make_folder(folder)?;
        let real = behind_links(path)?;
        let lock = match File::open(folder_of(&real)) {
            Ok(folder) => {
                rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).map_err(io::Error::from)?;
                Some(folder)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(named("open", folder_of(&real))(e).into()),
        };
        Ok(Self { made_folder, _lock: lock, ..Self::read(path)? })
    }

    /// What is in it; `None` where it is not there.
    pub fn content(&self) -> Option<&[u8]> {
        self.content.as_deref()
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        folder_of(&self.path)
    }

    /// Whether [`UsersFile::hold`] has made its folder.
    pub fn made_folder(&self) -> bool {
        self.made_folder
    }

    /// Replaces what is in it.
    pub fn write(&self, content: &[u8]) -> Result<(), SshConfigError> {
        let folder = folder_of(&self.path);
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = folder.join(format!(".{name}.{:x}", random::number()));
        let written = self.write_beside(&temporary, content);
        if written.is_err() {
            // The error that matters is the first; a leftover has a name that says what it was.
            let _ = remove_file(&temporary);
        }
        written.map_err(named("write", &self.path))?;
        Ok(())
    }

    fn write_beside(&self, temporary: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(NEW_FILE).open(temporary)?;
        file.write_all(content)?;
        if self.content.is_some() {
            let (before, now) = (fs::metadata(&self.path)?, file.metadata()?);
            if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
                std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
            }
            // Behind the owner: a change of that may take bits away (chown(2)).
            file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))?;
        }
        file.sync_all()?;
        fs::rename(temporary, &self.path)?;
        File::open(folder_of(&self.path))?.sync_all()
    }

    /// Removes it, and with `folder` the folder that it is in, if nothing else is in that.
    pub fn remove(&self, folder: bool) -> Result<(), SshConfigError> {
        remove_file(&self.path)?;
        if folder {
            remove_empty(folder_of(&self.path))?;
        }
        Ok(())
    }

    /// Refuses a file with several names: the others would go on leading to what it was.
    pub fn check_names(&self) -> Result<(), SshConfigError> {
        match self.content.as_ref().map(|_| fs::metadata(&self.path)).transpose() {
            Ok(Some(about)) if about.nlink() > 1 => Err(SshConfigError::Names(self.path.clone())),
            Ok(_) => Ok(()),
            Err(e) => Err(named("look at", &self.path)(e).into()),
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where `path` leads to; a link may lead to what is not there yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&at) {
            Ok(target) => at = folder_of(&at).join(target),
            // No link, or nothing.
            Err(_) => return Ok(at),
        }
    }
    Err(named("follow the links from", path)(rustix::io::Errno::LOOP.into()))
}

/// Whether `folder` was made.
fn make_folder(folder: &Path) -> io::Result<bool> {
    match fs::DirBuilder::new().mode(NEW_FOLDER).create(folder) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(named("create folder", folder)(e)),
    }
}

/// Removes `folder` if nothing is in it; whether that was so.
pub fn remove_empty(folder: &Path) -> io::Result<bool> {
    use io::ErrorKind::{DirectoryNotEmpty, NotFound};
    match fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), DirectoryNotEmpty | NotFound) => Ok(false),
        Err(e) => Err(named("remove", folder)(e)),
    }
}
