//! Opening what is in a folder and nothing else: no link, no mount and no way up leads there.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

/// Opens `name`, one name, in the folder `from` (openat2(2)). `flags` must not create anything.
pub fn open(from: impl AsFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let guard = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&from, name, flags, Mode::empty(), guard) {
        // A filter that cannot see what is opened there forbids it altogether (systemd.exec(5), RestrictSUIDSGID=).
        Err(Errno::NOSYS) => open_and_compare(from, name, flags),
        other => other,
    }
}

/// The same for one name: a link is not followed, and what was opened must be of the folder's own mount.
fn open_and_compare(from: impl AsFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    if name.is_empty() || name == b".." || name.contains(&b'/') {
        return Err(Errno::XDEV);
    }
    let opened = rustix::fs::openat(&from, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    if mount_of(&from)? != mount_of(&opened)? {
        return Err(Errno::XDEV);
    }
    let is_link = rustix::fs::fstat(&opened)?.st_mode & rustix::fs::FileType::Symlink.as_raw_mode();
    match is_link == rustix::fs::FileType::Symlink.as_raw_mode() {
        true => Err(Errno::LOOP),
        false => Ok(opened),
    }
}

/// The mount that a file is reached by (statx(2), `STATX_MNT_ID`).
fn mount_of(file: impl AsFd) -> Result<u64, Errno> {
    let seen = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let has = seen.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    has.then_some(seen.stx_mnt_id).ok_or(Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    type Opens = fn(&File, &[u8], OFlags) -> Result<OwnedFd, Errno>;

    const BOTH: [Opens; 2] =
        [|from, name, flags| open(from, name, flags), |from, name, flags| open_and_compare(from, name, flags)];

    #[test]
    fn both_ways_open_what_is_there_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("folder")).expect("made");
        std::fs::write(folder.path().join("file"), "x").expect("written");
        symlink("/etc", folder.path().join("link")).expect("laid");
        symlink("file", folder.path().join("near")).expect("laid");
        let from = File::open(folder.path()).expect("opened");
        for open in BOTH {
            for flags in [OFlags::RDONLY, OFlags::PATH] {
                let opened = |name: &str| open(&from, name.as_bytes(), flags | OFlags::CLOEXEC).map(drop);
                for there in ["file", "folder", "."] {
                    assert_eq!(opened(there), Ok(()), "{there}");
                }
                for link in ["link", "near"] {
                    assert_eq!(opened(link), Err(Errno::LOOP), "{link}");
                }
                for elsewhere in ["..", "../x", "/etc"] {
                    assert_eq!(opened(elsewhere), Err(Errno::XDEV), "{elsewhere}");
                }
                assert_eq!(opened("missing"), Err(Errno::NOENT));
            }
        }
    }

    #[test]
    fn both_ways_refuse_another_mount() {
        let root = File::open("/").expect("opened");
        for open in BOTH {
            assert_eq!(open(&root, b"proc", OFlags::PATH | OFlags::CLOEXEC).map(drop), Err(Errno::XDEV));
        }
    }
}
