//! The descriptors that come with a launch: that the caller could open them proves the right to
//! them, so each must really have been opened, for what it will be used for.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};

use super::error::{Doing, HelperError, Result};
use crate::model::launch::LaunchFile;
use crate::os::memfd;

/// Most bytes that are copied into memory. It is root's memory, so no limit of the owner's holds it; an
/// initramfs has some 10 MiB.
const MAX_COPY: u64 = 512 << 20;

/// Checks `file` and makes it fit for another uid: QEMU opens kernel and initramfs by path, as the
/// VM's uid, so one that only its owner may read is copied into memory.
pub fn check(what: LaunchFile, file: OwnedFd) -> Result<OwnedFd> {
    let seen = fstat(&file).doing("look at a descriptor")?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
        return Err(HelperError::Files(format!("the descriptor for {what:?} is not a regular file")));
    }
    let flags = fcntl_getfl(&file).doing("look at a descriptor")?;
    if !opened_for(what, flags) {
        return Err(HelperError::Files(format!("the descriptor for {what:?} was opened for something else")));
    }
    let too_large = || HelperError::Files(format!("the file for {what:?} has more than {MAX_COPY} bytes"));
    match what {
        LaunchFile::Kernel | LaunchFile::Initramfs if seen.st_size as u64 > MAX_COPY => Err(too_large()),
        LaunchFile::Kernel | LaunchFile::Initramfs if seen.st_mode & 0o004 == 0 => {
            let copy = copied(file.as_fd().try_clone_to_owned().map(File::from)).doing("copy a file into memory")?;
            copy.ok_or_else(too_large)
        }
        LaunchFile::Kernel
        | LaunchFile::Initramfs
        | LaunchFile::Console
        | LaunchFile::ConsoleMarks
        | LaunchFile::Disk
        | LaunchFile::Image
        | LaunchFile::Modules => Ok(file),
    }
}

/// An `O_PATH` descriptor proves nothing: anybody may have one (open(2)).
fn opened_for(what: LaunchFile, flags: OFlags) -> bool {
    let access = flags & OFlags::RWMODE;
    if flags.contains(OFlags::PATH) {
        return false;
    }
    match what {
        LaunchFile::Kernel | LaunchFile::Initramfs => access == OFlags::RDONLY || access == OFlags::RDWR,
        LaunchFile::Console | LaunchFile::ConsoleMarks | LaunchFile::Disk => access == OFlags::RDWR,
        LaunchFile::Image | LaunchFile::Modules => access == OFlags::RDONLY,
    }
}

/// The file in memory; `None` when it has grown too large meanwhile.
fn copied(from: io::Result<File>) -> io::Result<Option<OwnedFd>> {
    let (from, mut to) = (from?, memfd::create("banger")?);
    let (mut buffer, mut at) = (vec![0; 1 << 20], 0);
    loop {
        match from.read_at(&mut buffer, at) {
            Ok(0) => break,
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                at += count as u64;
                if at > MAX_COPY {
                    return Ok(None);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    memfd::seal(&to)?;
    Ok(Some(to.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;
    use std::os::unix::fs::PermissionsExt;

    fn opened(flags: OFlags) -> OwnedFd {
        let file = tempfile::NamedTempFile::new().expect("a file");
        rustix::fs::open(file.path(), flags, Mode::empty()).expect("opens")
    }

    #[test]
    fn each_file_must_be_opened_for_its_use() {
        assert!(check(LaunchFile::Image, opened(OFlags::RDONLY)).is_ok());
        assert!(check(LaunchFile::Image, opened(OFlags::RDWR)).is_err());
        assert!(check(LaunchFile::Disk, opened(OFlags::RDONLY)).is_err());
        assert!(check(LaunchFile::Console, opened(OFlags::WRONLY)).is_err());
        for what in [LaunchFile::Kernel, LaunchFile::Disk, LaunchFile::Image] {
            assert!(check(what, opened(OFlags::PATH)).is_err());
        }
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused() {
        for path in ["/", "/dev/zero"] {
            let file = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).expect("opens");
            assert!(check(LaunchFile::Image, file).is_err(), "{path}");
        }
    }

    #[test]
    fn a_kernel_that_is_too_large_is_refused() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 40).expect("sparse");
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).expect("set");
        let refused = check(LaunchFile::Kernel, file.into());
        assert!(matches!(refused, Err(HelperError::Files(why)) if why.contains("more than")));
    }

    #[test]
    fn a_private_kernel_is_copied_for_the_monitor() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"kernel").expect("written");
        let private = check(LaunchFile::Kernel, File::open(file.path()).expect("opens").into()).expect("taken");
        let inode = |fd: &OwnedFd| fstat(fd).expect("seen").st_ino;
        let own = inode(&File::open(file.path()).expect("opens").into());
        assert_ne!(inode(&private), own);
        let mut content = [0; 6];
        File::from(private).read_exact_at(&mut content, 0).expect("read");
        assert_eq!(&content, b"kernel");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).expect("set");
        let public = check(LaunchFile::Kernel, File::open(file.path()).expect("opens").into()).expect("taken");
        assert_eq!(inode(&public), own);
    }
}
