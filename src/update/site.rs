//! What an update is done to: the names of its files, and what it needs of the rest of this host, which is behind a trait
//! so that every failure and every cut can be played.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::digest::{Digest, Hasher};
use super::plan::Back;
use super::version::Version;
use crate::os::files::{named, remove_file, sync_folder_of};

/// Something that did not work, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The binary.
    pub binary: PathBuf,
    /// Its version.
    pub version: Version,
    /// The uid of the account that the VMs belong to.
    pub owner: u32,
}

/// What an update needs of this host. Everything is idempotent and bounded in time.
pub trait Host {
    /// What is installed; `None` where nothing is.
    fn installed(&self) -> Result<Option<Installed>, Trouble>;
    /// How many operations the daemon works at; none where it does not run.
    fn running_operations(&self) -> Result<u32, Trouble>;
    /// Has `binary` write its units and the record of the install, and the service manager read them.
    fn refresh_units(&self, binary: &Path) -> Result<(), Trouble>;
    /// Restarts helper, then daemon; done when both answer as `version`, the one of `binary`.
    fn restart(&self, binary: &Path, version: Version) -> Result<(), Trouble>;
    /// Whether daemon and helper answer as `version`.
    fn answers(&self, version: Version) -> Result<(), Trouble>;
    /// The checks that `binary`'s doctor finds failed.
    fn failed_checks(&self, binary: &Path) -> Result<Vec<String>, Trouble>;
    /// Gives `binary` the store that a newer one has brought up meanwhile as it was before, where it needs that.
    fn restore_store(&self, binary: &Path) -> Result<(), Trouble>;
}

/// The files of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The installed binary.
    pub binary: PathBuf,
    /// [`super::journal::Journal`].
    pub journal: PathBuf,
}

impl Site {
    /// The new binary before it is the installed one. In the same folder, so that it gets the label of programs there
    /// (SELinux), and a rename suffices.
    pub fn new_binary(&self) -> PathBuf {
        self.beside("new")
    }

    /// The second name of the old one.
    pub fn previous(&self) -> PathBuf {
        self.beside("previous")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.binary.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(suffix);
        self.binary.with_file_name(name)
    }

    /// What to type where `back` cannot be done here.
    pub fn by_hand(&self, back: Back) -> String {
        let (binary, previous) = (self.binary.display(), self.previous());
        match back {
            Back::File => format!("sudo mv -f {} {binary}", previous.display()),
            Back::Store => {
                format!("sudo -u OWNER {binary} --as bangerd --restore-store --system      (the VMs' owner)")
            }
            Back::Units => format!("sudo {binary} system install"),
            Back::Restart => format!("sudo {binary} system restart"),
            Back::Clear => format!("sudo {binary} update"),
        }
    }

    /// Puts what was done in the folder of the binaries on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_folder_of(&self.binary)
    }
}

/// The digest of the file at `path`; `None` where there is none, or no file.
pub(super) fn digest_of(path: &Path) -> io::Result<Option<Digest>> {
    match path.symlink_metadata() {
        Ok(about) if about.is_file() => {}
        Ok(_) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(named("look at", path)(e)),
    }
    let mut file = File::open(path).map_err(named("open", path))?;
    let mut hasher = Hasher::default();
    pour(&mut file, path, &mut |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(Some(hasher.finish()))
}

/// Copies the program at `from`, which must have `digest`, to `to`, on the disk when this returns. A leftover there goes.
pub(super) fn copy_program(from: &Path, to: &Path, digest: &Digest) -> io::Result<()> {
    remove_file(to)?;
    let mut source = File::open(from).map_err(named("open", from))?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o755).open(to).map_err(named("create", to))?;
    let mut hasher = Hasher::default();
    pour(&mut source, from, &mut |piece| {
        hasher.update(piece);
        copy.write_all(piece).map_err(named("write", to))
    })?;
    if hasher.finish() != *digest {
        return Err(io::Error::other(format!("{} has changed meanwhile", from.display())));
    }
    // Independent of the umask.
    rustix::fs::fchmod(&copy, rustix::fs::Mode::from_raw_mode(0o755)).map_err(io::Error::from)?;
    copy.sync_all().map_err(named("write", to))
}

fn pour(source: &mut File, path: &Path, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        match source.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&piece[..count])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(named("read", path)(e)),
        }
    }
}
