//! The runtime directory: opened once, checked by its descriptor, and everything below it reached
//! through that, so that nobody who can rename a parent can put another in its place.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};

use super::authority::Root;
use super::error::{Doing, Result};
use crate::model::VmId;
use crate::os::own_folder::OwnFolder;

/// The file with the installation's number.
const INSTALLATION: &str = "installation";

/// The opened runtime directory.
#[derive(Debug)]
pub struct Folder {
    own: OwnFolder,
    path: PathBuf,
}

impl Folder {
    /// Opens the directory at `path`, which is made if it is missing; its parent must be there.
    pub fn open(_: &Root, path: &Path) -> Result<Self> {
        // Open to the owner's daemon, which must reach the socket.
        let folder = Self { own: OwnFolder::open(path, 0o755)?, path: path.to_owned() };
        folder.ensure("vms")?;
        Ok(folder)
    }

    /// A path below the directory that leads through its descriptor.
    pub fn at(&self, below: &str) -> PathBuf {
        self.own.at(below)
    }

    /// What tells this installation from others: a random number, made at its first start and kept
    /// as long as the directory is. A path would not: another container may have the same.
    pub fn installation(&self) -> Result<u64> {
        let (path, doing) = (self.at(INSTALLATION), "read the installation's number");
        let text = match crate::os::files::read_limited(&path, 64) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let number = crate::os::random::number();
                let text = format!("{number:016x}\n");
                crate::os::files::write_atomic(&path, text.as_bytes(), 0o600)
                    .doing("keep the installation's number")?;
                return Ok(number);
            }
            Err(e) => return Err(e).doing(doing),
        };
        let number = std::str::from_utf8(&text).ok().and_then(|t| u64::from_str_radix(t.trim_end(), 16).ok());
        let damaged = || io::Error::other(format!("{}/{INSTALLATION} is damaged: remove it", self.path.display()));
        number.ok_or_else(damaged).doing(doing)
    }

    /// A path in the folder of one VM.
    pub fn of_vm(&self, id: &VmId, file: &str) -> PathBuf {
        self.at(&format!("vms/{id}/{file}"))
    }

    /// Makes the folder of one VM, open to root alone.
    pub fn ensure_vm(&self, id: &VmId) -> Result<()> {
        self.ensure(&format!("vms/{id}"))
    }

    /// Removes the folder of one VM; done when it is gone.
    pub fn remove_vm(&self, id: &VmId) -> Result<()> {
        crate::os::files::remove_tree(&self.at(&format!("vms/{id}"))).doing(format!("remove the folder of VM {id}"))
    }

    /// The ids of all VMs that have a folder.
    pub fn vms(&self) -> Result<Vec<VmId>> {
        let entries = std::fs::read_dir(self.at("vms")).doing("list the VMs' folders")?;
        Ok(entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect())
    }

    /// Gives a file of the directory to `uid`.
    pub fn give(&self, name: &str, uid: u32) -> Result<()> {
        rustix::fs::chownat(
            &self.own.directory,
            name,
            Some(Uid::from_raw(uid)),
            None::<Gid>,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .doing(format!("give {name} to uid {uid}"))
    }

    fn ensure(&self, name: &str) -> Result<()> {
        match rustix::fs::mkdirat(&self.own.directory, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(e) => Err(io::Error::from(e)).doing(format!("create folder {}/{name}", self.path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> Option<Result<Folder>> {
        Root::claim().ok().map(|root| Folder::open(&root, path))
    }

    #[test]
    fn a_folder_of_its_own_is_made_and_found_again() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("root-run");
        let Some(folder) = opened(&path) else { return };
        let folder = folder.expect("made");
        let id = VmId::from_random(7);
        folder.ensure_vm(&id).expect("made");
        assert_eq!(folder.vms().expect("listed"), std::slice::from_ref(&id));
        folder.remove_vm(&id).expect("removed");
        folder.remove_vm(&id).expect("gone already");
        assert!(opened(&path).expect("root").is_ok());
    }
    #[test]
    fn an_installation_keeps_its_number_and_a_damaged_one_is_said() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("root-run");
        let Some(folder) = opened(&path) else { return };
        let folder = folder.expect("made");
        let number = folder.installation().expect("made");
        assert_eq!(folder.installation().expect("kept"), number);
        std::fs::write(path.join(INSTALLATION), "no number").expect("written");
        assert!(folder.installation().expect_err("damaged").line().contains("remove it"));
    }
}
