//! Filesystems of the kernel, and the modules drive.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

use crate::guest::error::{Doing, GuestError};

/// The drive with the kernel's modules; the second one.
const MODULES_DRIVE: &str = "/dev/vdb";

struct Filesystem {
    kind: &'static str,
    at: &'static str,
    flags: MountFlags,
    options: &'static str,
}

const NOTHING: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What init itself needs. devtmpfs may be mounted by the kernel already.
const EARLY: [Filesystem; 3] = [
    Filesystem { kind: "devtmpfs", at: "/dev", flags: MountFlags::NOSUID, options: "mode=755" },
    Filesystem { kind: "proc", at: "/proc", flags: NOTHING, options: "" },
    Filesystem { kind: "sysfs", at: "/sys", flags: NOTHING, options: "" },
];

/// What a login needs before the image's init has run: the same mounts with the same options as
/// systemd's (src/shared/mount-setup.c), which leaves those that are there alone.
const LATE: [Filesystem; 4] = [
    Filesystem {
        kind: "tmpfs",
        at: "/run",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: "mode=755,size=20%,nr_inodes=800k",
    },
    Filesystem {
        kind: "devpts",
        at: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: "mode=620,gid=5,ptmxmode=666",
    },
    Filesystem {
        kind: "tmpfs",
        at: "/dev/shm",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: "mode=1777",
    },
    Filesystem { kind: "cgroup2", at: "/sys/fs/cgroup", flags: NOTHING, options: "nsdelegate,memory_recursiveprot" },
];

/// `/dev`, `/proc`, `/sys` of the initramfs.
pub fn mount_early() -> Result<(), GuestError> {
    EARLY.iter().try_for_each(Filesystem::mount)
}

/// The rest, in the mounted root. All are tried; the first failure is returned.
pub fn mount_late() -> Result<(), GuestError> {
    LATE.iter().map(Filesystem::mount).fold(Ok(()), Result::and)
}

/// The modules of kernel `release` at `/lib/modules/RELEASE`.
pub fn mount_modules(release: &str) -> Result<(), GuestError> {
    // `/lib` may be a link; this is after chroot(2), so it cannot lead out of the guest's root.
    let at = Path::new("/lib/modules").join(release);
    fs::create_dir_all(&at).doing(|| format!("create {}", at.display()))?;
    mount_at(MODULES_DRIVE, &at, "ext4", MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID, "")
}

impl Filesystem {
    fn mount(&self) -> Result<(), GuestError> {
        let at = Path::new(self.at);
        fs::create_dir_all(at).doing(|| format!("create {}", self.at))?;
        mount_at(self.kind, at, self.kind, self.flags, self.options)
    }
}

/// One mount; done when something of the kind is there already (`EBUSY`).
pub fn mount_at(what: &str, at: &Path, kind: &str, flags: MountFlags, options: &str) -> Result<(), GuestError> {
    let options = CString::new(options).unwrap_or_default();
    match mount(what, at, kind, flags, options.as_c_str()) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(e) => Err(e).doing(|| format!("mount {what} on {}", at.display())),
    }
}
