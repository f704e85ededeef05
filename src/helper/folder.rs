//! The runtime directory: opened once, checked by its descriptor, and everything below it reached
//! through that, so that nobody who can rename a parent can put another in its place.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};

use super::authority::Root;
use super::error::{Doing, Result};
use crate::model::{Subnet, VmId};
use crate::os::own_folder::OwnFolder;

/// The file with the installation's number.
const INSTALLATION: &str = "installation";

/// The file with the network that there are rules for.
const NETWORK: &str = "network";

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

    /// Notes that there are rules for `subnet`: found there after whatever happens to the bridge.
    pub fn note_network(&self, subnet: Subnet) -> Result<()> {
        let text = format!("{subnet}\n");
        crate::os::files::write_atomic(&self.at(NETWORK), text.as_bytes(), 0o600).doing("note the guests' network")
    }

    /// The network that there are rules for, as noted last.
    pub fn noted_network(&self) -> Option<Subnet> {
        let text = crate::os::files::read_limited(&self.at(NETWORK), 64).ok()?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// Notes that there are no rules any more.
    pub fn forget_network(&self) -> Result<()> {
        crate::os::files::remove_file(&self.at(NETWORK)).doing("forget the guests' network")
    }

    /// A path in the folder of one VM.
    pub fn of_vm(&self, id: &VmId, file: &str) -> PathBuf {
        self.at(&format!("vms/{id}/{file}"))
    }

    /// Makes the folder of one VM, open to root alone.
    pub fn ensure_vm(&self, id: &VmId) -> Result<()> {
        self.ensure(&format!("vms/{id}"))
    }

    /// Removes the folder of one VM, whatever is in it, and nothing else; done when it is gone.
    pub fn remove_vm(&self, id: &VmId) -> Result<()> {
        let below = PathBuf::from(format!("vms/{id}"));
        crate::os::remove::tree_below(&self.own.directory, &below).doing(format!("remove the folder of VM {id}"))
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

    /// In a mount namespace of its own, which ends with its thread.
    fn in_private_mounts(test: impl FnOnce() + Send + 'static) {
        use rustix::mount::{MountPropagationFlags, mount_change};
        let thread = std::thread::spawn(|| {
            super::super::sys::unshare(rustix::thread::UnshareFlags::NEWNS).expect("a mount namespace");
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).expect("private");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn forbid(path: &Path) -> bool {
        let file = std::fs::File::open(path).expect("opened");
        rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::IMMUTABLE).is_ok()
    }

    #[test]
    fn a_jail_with_hostile_things_goes_and_nothing_else() {
        let parent = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let Some(folder) = opened(&parent.path().join("root-run")) else { return };
        let (folder, id) = (folder.expect("made"), VmId::from_random(9));
        let outside = parent.path().join("outside");
        std::fs::create_dir(&outside).expect("made");
        std::fs::write(outside.join("file"), "kept").expect("written");
        in_private_mounts(move || {
            folder.ensure_vm(&id).expect("made");
            let jail = parent.path().join(format!("root-run/vms/{id}"));
            for inside in ["etc", "many", "locked", "run"] {
                std::fs::create_dir(jail.join(inside)).expect("made");
            }
            (0..10_000).for_each(|n| std::fs::write(jail.join(format!("many/{n}")), "").expect("written"));
            std::os::unix::fs::symlink("/", jail.join("root")).expect("linked");
            std::os::unix::fs::symlink(&outside, jail.join("out")).expect("linked");
            std::fs::hard_link(outside.join("file"), jail.join("other-name")).expect("linked");
            for file in ["locked/file", "hosts"] {
                std::fs::write(jail.join(file), "").expect("written");
            }
            let forbids = ["other-name", "locked/file", "locked"].map(|path| forbid(&jail.join(path)));
            let cure = "use ext4 for /var/tmp, and CAP_LINUX_IMMUTABLE";
            let forbidding = crate::os::need::is_met("a filesystem with chattr +i", cure, forbids == [true; 3]);
            rustix::mount::mount_bind("/etc", jail.join("etc")).expect("bound");
            rustix::mount::mount_bind("/etc/hostname", jail.join("hosts")).expect("bound");
            let etc = || std::fs::read_dir("/etc").expect("listed").count();
            let before = etc();

            let told = folder.remove_vm(&id).expect_err("mounts stay").line();
            for mount in ["etc", "hosts"] {
                assert!(told.contains(&format!("{id}/{mount} is a mount point and was left alone")), "{told}");
            }
            let mut left: Vec<_> = std::fs::read_dir(&jail).expect("listed").flatten().map(|e| e.file_name()).collect();
            left.sort();
            assert_eq!(left, ["etc", "hosts"], "the rest goes");
            for mount in ["etc", "hosts"] {
                rustix::mount::unmount(jail.join(mount), rustix::mount::UnmountFlags::empty()).expect("unmounted");
            }
            folder.remove_vm(&id).expect("removed");
            assert!(!jail.exists() && etc() == before && Path::new("/bin/sh").exists());
            assert_eq!(std::fs::read(outside.join("file")).expect("read"), b"kept");
            if !forbidding {
                return;
            }
            // What the folder lies in keeps what protects it, too.
            folder.ensure_vm(&id).expect("made");
            let vms = parent.path().join("root-run/vms");
            assert!(forbid(&vms) && folder.remove_vm(&id).is_err() && jail.exists());
            let opened = std::fs::File::open(&vms).expect("opened");
            rustix::fs::ioctl_setflags(&opened, rustix::fs::IFlags::empty()).expect("cleared");
            // The other name kept what protects it.
            assert!(std::fs::remove_file(outside.join("file")).is_err());
            let file = std::fs::File::open(outside.join("file")).expect("opened");
            rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::empty()).expect("cleared");
        });
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
