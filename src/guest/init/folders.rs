//! What every program expects to find, in an image that may be a single file: nothing that is there is changed.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::guest::error::{Doing, GuestError};

/// Folders with their modes: root's home, and where everybody may write.
const FOLDERS: [(&str, u32); 2] = [("root", 0o700), ("tmp", 0o1777)];

/// What the kernel's `/dev` lacks (its Documentation/admin-guide/devices.rst, "Compulsory links"); systemd
/// makes them too, and takes these for its own.
const LINKS: [(&str, &str); 4] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
];

/// Makes what is missing in the mounted root. All are tried; the first failure is returned.
pub fn make() -> Result<(), GuestError> {
    make_below(Path::new("/"))
}

fn make_below(root: &Path) -> Result<(), GuestError> {
    let folders = FOLDERS.iter().map(|(name, mode)| {
        let path = root.join(name);
        folder(&path, *mode).doing(|| format!("create {}", path.display()))
    });
    let links = LINKS.iter().map(|(name, target)| {
        let path = root.join(name);
        unless_there(symlink(target, &path)).doing(|| format!("create {}", path.display()))
    });
    folders.chain(links).fold(Ok(()), Result::and)
}

fn folder(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        // The mode of create_dir(2) would be cut by the umask.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        other => unless_there(other),
    }
}

fn unless_there(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_made_and_what_is_there_stays() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("dev")).expect("made");
        fs::create_dir(root.path().join("root")).expect("made");
        fs::write(root.path().join("dev/stdin"), "theirs").expect("written");
        let mode = |name: &str| fs::metadata(root.path().join(name)).expect("there").permissions().mode() & 0o7777;
        let before = mode("root");
        for _ in 0..2 {
            make_below(root.path()).expect("made");
        }
        assert_eq!((mode("root"), mode("tmp")), (before, 0o1777));
        assert_eq!(fs::read_link(root.path().join("dev/fd")).expect("a link"), Path::new("/proc/self/fd"));
        assert_eq!(fs::read(root.path().join("dev/stdin")).expect("there"), b"theirs");
    }
}
