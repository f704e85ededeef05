//! From the initramfs to the root disk: what switch_root(8) does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::mount::mount_move;

use super::disk::NEW_ROOT;
use crate::guest::console::say;
use crate::guest::error::{Doing, GuestError};

/// Moves the kernel's filesystems over, empties the initramfs, and makes the disk the root.
pub fn switch_root() -> Result<(), GuestError> {
    for at in ["/dev", "/proc", "/sys"] {
        let target = format!("{NEW_ROOT}{at}");
        fs::create_dir_all(&target).doing(|| format!("create {target}"))?;
        mount_move(at, target.as_str()).doing(|| format!("move {at} to {target}"))?;
    }
    empty_initramfs();
    rustix::process::chdir(NEW_ROOT).doing(|| format!("enter {NEW_ROOT}"))?;
    mount_move(".", "/").doing(|| "move the root disk to /".into())?;
    rustix::process::chroot(".").doing(|| "make the root disk the root".into())?;
    rustix::process::chdir("/").doing(|| "enter /".into())?;
    say("on the root disk");
    Ok(())
}

/// Gives the memory of the initramfs back. What runs keeps running: this binary is held by its
/// processes. Never crosses into another filesystem.
fn empty_initramfs() {
    let Ok(root) = fs::metadata("/") else { return };
    // Memory that is not given back is no reason to stop.
    let _ = remove_below(Path::new("/"), root.dev());
}

fn remove_below(folder: &Path, device: u64) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.dev() != device {
            continue;
        }
        let _ = if found.is_dir() {
            remove_below(&path, device).and_then(|()| fs::remove_dir(&path))
        } else {
            fs::remove_file(&path)
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_stays_on_its_filesystem() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("a")).expect("made");
        fs::write(folder.path().join("a/file"), "x").expect("written");
        let device = fs::metadata(folder.path()).expect("there").dev();
        remove_below(folder.path(), device + 1).expect("works");
        assert!(folder.path().join("a/file").exists());
        remove_below(folder.path(), device).expect("works");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
    }
}
