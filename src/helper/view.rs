//! The little that a monitor sees of the filesystem: an empty root of its own, read only, with what
//! programs and libraries need, three harmless devices, and `/proc` with its own processes alone.
//! Nothing of anybody's home, of `/etc`, `/run`, `/var` or `/tmp`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Dev, FileType, Gid, Mode, Uid, chownat, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};

use super::authority::Root;
use super::error::{Doing, Result};
use super::stage::View;

/// Where the new root is put together: a folder that every host has and nothing here needs. The
/// mount is in a namespace of its own and visible to nobody else.
const STAGING: &str = "/sys";

/// Folders of programs and libraries; on most hosts some are links into `/usr`.
const FOLDERS: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix"];

/// What the dynamic loader and alternatives read.
const FILES: [&str; 2] = ["/etc/ld.so.cache", "/etc/alternatives"];

const LOCKED: MountFlags = MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV);

/// Enters `view`. The process must be in a mount namespace of its own.
pub fn enter(root: &Root, view: View, uid: u32) -> Result<()> {
    make_private(root)?;
    // What is made here must be seen by another uid.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let new = Path::new(STAGING);
    mount("tmpfs", new, "tmpfs", MountFlags::NOSUID, Some(c"mode=0755,size=1m")).doing("mount an empty root")?;
    if view != View::Bare {
        system(root, new).doing("show programs and libraries")?;
        devices(root, new, view, uid).doing("show devices")?;
    }
    proc(root, new)?;
    turn(root, new).doing("turn to the new root")
}

/// What is mounted from here on nobody else sees, nor the other way round.
pub fn make_private(_: &Root) -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).doing("make its mounts its own")
}

/// Makes the jail at `root_folder`, which is attached already, the root, with a `/proc` in it.
pub fn enter_jail(root: &Root, root_folder: &Path) -> Result<()> {
    mount_bind(root_folder, root_folder).doing("show the jail")?;
    proc(root, root_folder)?;
    turn(root, root_folder).doing("turn to the jail")
}

fn system(_: &Root, new: &Path) -> io::Result<()> {
    for folder in FOLDERS.map(Path::new) {
        match fs::symlink_metadata(folder) {
            Ok(seen) if seen.is_symlink() => symlink(fs::read_link(folder)?, under(new, folder))?,
            Ok(seen) if seen.is_dir() => bind(folder, &under(new, folder))?,
            Ok(_) | Err(_) => {}
        }
    }
    fs::create_dir(new.join("etc"))?;
    for path in FILES.map(Path::new).into_iter().filter(|p| p.exists()) {
        bind(path, &under(new, path))?;
    }
    Ok(())
}

fn under(new: &Path, path: &Path) -> std::path::PathBuf {
    new.join(path.strip_prefix("/").unwrap_or(path))
}

/// Shows `from` at `to`, read only, without what is mounted below it.
fn bind(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir(to)?;
    } else {
        fs::write(to, "")?;
    }
    mount_bind(from, to)?;
    Ok(mount_remount(to, MountFlags::BIND | LOCKED, c"")?)
}

/// `/dev/kvm` is made anew and the VM's own: the host's is root's or a group's.
fn devices(root: &Root, new: &Path, view: View, uid: u32) -> io::Result<()> {
    fs::create_dir(new.join("dev"))?;
    for name in ["null", "zero", "urandom"] {
        device(root, new, name, 0o666, 0)?;
    }
    if view == View::SystemKvm {
        device(root, new, "kvm", 0o600, uid)?;
    }
    Ok(())
}

fn device(_: &Root, new: &Path, name: &str, mode: u32, uid: u32) -> io::Result<()> {
    let (from, to) = (Path::new("/dev").join(name), new.join("dev").join(name));
    let number: Dev = fs::metadata(&from)?.rdev();
    mknodat(CWD, &to, FileType::CharacterDevice, Mode::from_raw_mode(mode), number)?;
    rustix::fs::chmodat(CWD, &to, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty())?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    Ok(chownat(CWD, &to, Some(uid), Some(gid), rustix::fs::AtFlags::empty())?)
}

/// `/proc` with the own processes alone where the kernel can (Linux 5.8), else what can be had:
/// without one neither a descriptor can be opened by path nor the own state be looked at.
fn proc(_: &Root, new: &Path) -> Result<()> {
    let to = new.join("proc");
    fs::create_dir(&to).doing("make a folder for /proc")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for options in [c"hidepid=invisible,subset=pid", c"hidepid=2"] {
        match mount("proc", &to, "proc", flags, Some(options)) {
            Ok(()) => return Ok(()),
            Err(e) => note(&format!("/proc with {}: {e}", options.to_string_lossy())),
        }
    }
    // A container's runtime has covered parts of /proc, and the kernel refuses a fresh one.
    note("/proc of the host is shown, read only");
    mount_bind("/proc", &to).doing("show /proc")?;
    mount_remount(&to, MountFlags::BIND | LOCKED, c"").doing("make /proc read only")
}

/// The helper keeps what a stage writes with what its monitor writes.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "banger-stage: {text}");
}

/// Makes `new` the root and lets go of the old one (pivot_root(2), with both at one place).
fn turn(_: &Root, new: &Path) -> io::Result<()> {
    rustix::process::chdir(new)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID, c"")?)
}
