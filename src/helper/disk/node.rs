//! Device nodes: `/dev` has them where udev or devtmpfs is; elsewhere one is made in root's own
//! folder for the moment it takes to open it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, major, makedev, minor, mknodat, unlinkat};

use super::BlockDevice;
use crate::os::own_folder::OwnFolder;

/// Opens the node at `path`, which must be the device `wanted`, or one made for it.
pub fn open(folder: &OwnFolder, path: &str, kind: FileType, wanted: BlockDevice) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(node) if is(&node, kind, wanted)? => Ok(node),
        Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => open_own(folder, kind, wanted),
        Err(e) => Err(e.into()),
    }
}

fn open_own(folder: &OwnFolder, kind: FileType, wanted: BlockDevice) -> io::Result<OwnedFd> {
    let name = format!(".node.{:x}", crate::os::random::number());
    mknodat(&folder.directory, &name, kind, Mode::RUSR | Mode::WUSR, makedev(wanted.major, wanted.minor))?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = rustix::fs::openat(&folder.directory, &name, flags, Mode::empty());
    unlinkat(&folder.directory, &name, AtFlags::empty())?;
    Ok(opened?)
}

fn is(node: &OwnedFd, kind: FileType, wanted: BlockDevice) -> io::Result<bool> {
    let seen = fstat(node)?;
    let device = BlockDevice { major: major(seen.st_rdev), minor: minor(seen.st_rdev) };
    Ok(FileType::from_raw_mode(seen.st_mode) == kind && device == wanted)
}

/// Whether an error says that this device is not for whoever asks, or not there at all.
pub fn is_forbidden(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let known = [Errno::PERM, Errno::ACCESS, Errno::NXIO, Errno::NODEV].map(|e| Some(e.raw_os_error()));
    known.contains(&error.raw_os_error())
}

/// Reads `MAJOR:MINOR`, as a `dev` file of sysfs has it.
pub fn parse_device(text: &str) -> Option<BlockDevice> {
    let (major, minor) = text.trim_end().split_once(':')?;
    Some(BlockDevice { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_and_nonsense_is_not() {
        assert_eq!(parse_device("7:12\n"), Some(BlockDevice { major: 7, minor: 12 }));
        for text in ["", ":", "7", "7:", "-1:2", "7:2:3"] {
            assert_eq!(parse_device(text), None, "{text}");
        }
    }
}
