//! The jail of a monitor that finds its files by name: a small filesystem in memory, made for one boot,
//! and seen by that monitor alone.
//!
//! The helper makes it as a mount that is attached nowhere (fsmount(2)) and fills it through its
//! descriptor; the stage attaches it in a mount namespace of its own, where the jailer, or the stage
//! itself, makes its innermost folder the root. So nothing of it is ever below a folder of the host: it
//! vanishes with its last process, whatever that has done in it, and there is no tree to remove, no
//! link or mount in it to follow, no id to be used twice.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fstat, inotify, makedev, mkdirat, mknodat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    move_mount,
};

use super::authority::Root;
use super::disk::BlockDevice;
use super::error::{Doing, HelperError, Result};
use super::user;
use crate::host::facts::FIRECRACKER;
use crate::model::jail::{API_SOCKET, INITRAMFS, KERNEL, LOG, MODULES_DISK, ROOT_DISK, VSOCK_SOCKET, bell_socket};
use crate::model::{ProcessRef, VmId};
use crate::os::socket::connect_at_once;
use crate::os::{beneath, process};
use crate::protocol::guest::VSOCK_PORT;

/// Where the stage attaches it: a folder that every host has and neither stage nor jailer needs.
pub const BASE: &str = "/tmp";

/// Room beside kernel and initramfs: the jailer's copy of the monitor, and what little that writes.
const ROOM: u64 = 64 << 20;

/// Most files.
const MAX_FILES: &str = "1024";

/// The jail as the jailer wants it: `BASE/PROGRAM/ID/root` (Firecracker, docs/jailer.md).
fn inner(id: &VmId) -> PathBuf {
    Path::new(FIRECRACKER).join(id.as_str()).join("root")
}

/// The jail's root as the stage sees it.
pub fn root_of(id: &VmId) -> PathBuf {
    Path::new(BASE).join(inner(id))
}

/// A jail that is being made.
#[derive(Debug)]
pub struct Jail {
    /// The mount; it is gone with this, unless the stage has attached it.
    pub mount: OwnedFd,
    /// What becomes the monitor's root.
    folder: OwnedFd,
    uid: u32,
}

impl Jail {
    /// Makes it for `uid`, with room for `content` bytes of files.
    pub fn make(_: &Root, id: &VmId, uid: u32, content: u64) -> Result<Self> {
        let doing = "make a jail";
        let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
        let size = (content + ROOM).to_string();
        for (option, value) in [("size", size.as_str()), ("nr_inodes", MAX_FILES), ("mode", "0755")] {
            fsconfig_set_string(&filesystem, option, value).doing(doing)?;
        }
        fsconfig_create(&filesystem).doing(doing)?;
        // Programs run and devices work in it, or there would be no monitor; nobody becomes anybody else.
        let mount = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID);
        let mount = mount.doing(doing)?;
        let folder = make_folders(&mount, &inner(id)).doing(doing)?;
        Ok(Self { mount, folder, uid })
    }

    /// Puts the block device of a disk in, for the monitor alone.
    pub fn add_disk(&self, root: &Root, modules: bool, device: BlockDevice) -> Result<()> {
        let (name, mode) = if modules { (MODULES_DISK, 0o400) } else { (ROOT_DISK, 0o600) };
        self.add_node(root, name, FileType::BlockDevice, mode, makedev(device.major, device.minor))
    }

    /// A pipe for the monitor's log: what it writes there and to its standard error; the end to read, and
    /// one to write.
    pub fn add_log(&self, root: &Root) -> Result<(OwnedFd, OwnedFd)> {
        self.add_node(root, LOG, FileType::Fifo, 0o600, 0)?;
        let open =
            |flags| rustix::fs::openat(&self.folder, LOG, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
        // In this order: one cannot be opened for writing that nobody reads (fifo(7)).
        let (read, write) = (open(OFlags::RDONLY).doing("open the log")?, open(OFlags::WRONLY).doing("open the log")?);
        for end in [&read, &write] {
            rustix::fs::fcntl_setfl(end, OFlags::empty()).doing("open the log")?;
        }
        Ok((read, write))
    }

    /// Listens for the guest's agent.
    pub fn add_bell(&self, root: &Root) -> Result<UnixListener> {
        hang_bell(root, &self.folder)
    }

    fn add_node(&self, _: &Root, name: &str, kind: FileType, mode: u32, device: u64) -> Result<()> {
        let doing = || format!("put {name} into the jail");
        let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.uid)));
        // The helper's umask leaves the owner's bits alone, and there are no others.
        mknodat(&self.folder, name, kind, Mode::from_raw_mode(mode), device).doing(doing())?;
        chownat(&self.folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).doing(doing())
    }

    /// Waits until the monitor listens for its API, and connects. `pidfd` is the monitor's.
    pub fn await_api(&self, pidfd: impl AsFd, limit: Duration) -> Result<Option<OwnedFd>> {
        let doing = "wait for the monitor's API";
        let watcher = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).doing(doing)?;
        let path = format!("/proc/self/fd/{}", self.folder.as_raw_fd());
        inotify::add_watch(&watcher, path, inotify::WatchFlags::CREATE).doing(doing)?;
        let deadline = Instant::now() + limit;
        loop {
            match connect_in(&self.folder, API_SOCKET) {
                Ok(socket) => return Ok(Some(socket)),
                // Not there; or there, and about to listen, for which there is no event.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    let listens_soon = e.kind() == io::ErrorKind::ConnectionRefused;
                    let moment = if listens_soon { Duration::from_millis(1) } else { limit };
                    let rest = deadline.saturating_duration_since(Instant::now());
                    if rest.is_zero() || ended_while_waiting(&watcher, &pidfd, rest.min(moment)).doing(doing)? {
                        return Ok(None);
                    }
                }
                Err(e) => return Err(e).doing(doing),
            }
        }
    }
}

/// Waits for one of the two; whether the process has ended.
fn ended_while_waiting(watcher: &OwnedFd, pidfd: impl AsFd, limit: Duration) -> io::Result<bool> {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    let mut waited = [PollFd::new(watcher, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
    match poll(&mut waited, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    // What it says is not read: a reason to look again.
    let _ = rustix::io::read(watcher, &mut [0; 4096]);
    Ok(!waited[1].revents().is_empty())
}

fn make_folders(mount: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mut at = mount.try_clone()?;
    for name in path {
        mkdirat(&at, name, Mode::from_raw_mode(0o755))?;
        at = rustix::fs::openat(&at, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        // Whatever the umask is: the monitor must get through.
        fchmod(&at, Mode::from_raw_mode(0o755))?;
    }
    Ok(at)
}

/// Attaches the jail in the mount namespace of this process, which must be its own, and puts kernel and
/// initramfs in: root's, and for everybody there to read. In the stage, so that their pages count as
/// the VM's memory.
pub fn settle(_: &Root, id: &VmId, mount: &OwnedFd, kernel: OwnedFd, initramfs: OwnedFd) -> Result<()> {
    move_mount(mount, "", rustix::fs::CWD, BASE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).doing("attach the jail")?;
    for (name, from) in [(KERNEL, kernel), (INITRAMFS, initramfs)] {
        copy(&root_of(id).join(name), from).doing(format!("put {name} into the jail"))?;
    }
    Ok(())
}

fn copy(to: &Path, from: OwnedFd) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut to = File::from(rustix::fs::open(to, flags, Mode::from_raw_mode(0o444))?);
    fchmod(&to, Mode::from_raw_mode(0o444))?;
    let mut from = File::from(from);
    // The descriptor may have been read by whoever passed it.
    io::Seek::rewind(&mut from)?;
    io::copy(&mut from, &mut to).map(drop)
}

/// The jail of a running monitor, reached through its process. What is in it is the monitor's to change.
#[derive(Debug)]
pub struct Inhabited(OwnedFd);

impl Inhabited {
    /// Looks into the jail of `process`, whose pidfd is `pidfd`.
    pub fn enter(root: &Root, process: ProcessRef, pidfd: impl AsFd) -> Result<Self> {
        let doing = format!("look into the jail of {process}");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = format!("/proc/{}/root", process.pid);
        let open = || rustix::fs::open(&path, flags, Mode::empty()).map_err(io::Error::from);
        let folder = user::or_as_user_of(root, process.pid, open).doing(&doing)?;
        // After it is open: while the process lives nobody else has its pid.
        if process::wait_for_end(pidfd, Duration::ZERO).doing(&doing)? {
            return Err(HelperError::Program { doing, said: "it has just ended".into() });
        }
        Ok(Self(folder))
    }

    /// A fresh connection to the monitor's API.
    pub fn connect_api(&self) -> Result<OwnedFd> {
        connect_in(&self.0, API_SOCKET).doing("connect to the monitor's API")
    }

    /// A fresh connection to the monitor's vsock.
    pub fn connect_vsock(&self) -> Result<OwnedFd> {
        connect_in(&self.0, VSOCK_SOCKET).doing("connect to the monitor's vsock")
    }

    /// Listens for the guest's agent anew.
    pub fn hang_bell(&self, root: &Root) -> Result<UnixListener> {
        match rustix::fs::unlinkat(&self.0, bell_socket(VSOCK_PORT), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => hang_bell(root, &self.0),
            Err(e) => Err(e).doing("take the old bell down"),
        }
    }
}

/// Everybody in the jail may ring. bind(2) follows no link in the last part of a path.
fn hang_bell(_: &Root, folder: &OwnedFd) -> Result<UnixListener> {
    let path = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), bell_socket(VSOCK_PORT));
    let before = rustix::process::umask(Mode::empty());
    let made = UnixListener::bind(path);
    rustix::process::umask(before);
    let bell = made.doing("listen for the guest's agent")?;
    bell.set_nonblocking(true).doing("listen for the guest's agent")?;
    Ok(bell)
}

/// Connects to the socket `name` in `folder` and to nothing that a link there points at: a monitor that a
/// guest took over could have the helper connect to any socket of the host.
fn connect_in(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let found = beneath::open(folder, name.as_bytes(), OFlags::PATH | OFlags::CLOEXEC)?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a socket")));
    }
    // Through the descriptor it is exactly what was looked at.
    connect_at_once(Path::new(&format!("/proc/self/fd/{}", found.as_raw_fd())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

    const UID: u32 = 1_900_000_001;

    fn made() -> Option<(Root, Jail)> {
        let root = Root::claim().ok()?;
        let jail = Jail::make(&root, &VmId::from_random(7), UID, 1 << 20).expect("made");
        Some((root, jail))
    }

    fn inside(jail: &Jail, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", jail.folder.as_raw_fd()).into()
    }

    #[test]
    fn a_jail_is_below_no_folder_of_the_host_and_holds_what_is_put_in() {
        let Some((root, jail)) = made() else { return };
        jail.add_disk(&root, false, BlockDevice { major: 7, minor: 200 }).expect("added");
        jail.add_disk(&root, true, BlockDevice { major: 7, minor: 201 }).expect("added");
        let (read, write) = jail.add_log(&root).expect("added");
        rustix::io::write(&write, b"words").expect("written");
        let mut heard = [0; 5];
        rustix::io::read(&read, &mut heard).expect("read");
        assert_eq!(&heard, b"words");
        for (name, mode, minor) in [(ROOT_DISK, 0o600, 200), (MODULES_DISK, 0o400, 201)] {
            let seen = std::fs::symlink_metadata(inside(&jail, name)).expect("there");
            assert!(seen.file_type().is_block_device() && seen.rdev() == makedev(7, minor), "{name}");
            assert_eq!((seen.uid(), seen.gid(), seen.mode() & 0o777), (UID, UID, mode), "{name}");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read");
        assert!(!mounts.contains(FIRECRACKER), "{mounts}");
    }

    #[test]
    fn a_socket_is_reached_and_a_link_to_one_is_not() {
        let Some((root, jail)) = made() else { return };
        let outside = tempfile::tempdir().expect("a folder");
        let treasure = outside.path().join("root.sock");
        let _listener = UnixListener::bind(&treasure).expect("bound");
        symlink(&treasure, inside(&jail, API_SOCKET)).expect("linked");
        assert!(connect_in(&jail.folder, API_SOCKET).is_err(), "followed a link out of the jail");
        std::fs::write(inside(&jail, VSOCK_SOCKET), "").expect("written");
        assert!(connect_in(&jail.folder, VSOCK_SOCKET).is_err(), "connected to a file");
        let bell = jail.add_bell(&root).expect("hung");
        connect_in(&jail.folder, &bell_socket(VSOCK_PORT)).expect("rung");
        bell.accept().expect("heard");
    }

    #[test]
    fn a_bell_is_hung_anew_and_a_link_in_its_place_is_not_followed() {
        let Some((root, jail)) = made() else { return };
        let first = jail.add_bell(&root).expect("hung");
        let inhabited = Inhabited(jail.folder.try_clone().expect("cloned"));
        let second = inhabited.hang_bell(&root).expect("hung anew");
        drop(first);
        connect_in(&jail.folder, &bell_socket(VSOCK_PORT)).expect("rung");
        second.accept().expect("heard");
        let outside = tempfile::tempdir().expect("a folder");
        let target = outside.path().join("target");
        std::fs::remove_file(inside(&jail, &bell_socket(VSOCK_PORT))).expect("removed");
        symlink(&target, inside(&jail, &bell_socket(VSOCK_PORT))).expect("linked");
        inhabited.hang_bell(&root).expect("hung in its place");
        assert!(!target.exists(), "a socket was made outside of the jail");
    }

    #[test]
    fn an_api_that_comes_later_is_waited_for_and_one_that_never_comes_is_not() {
        let Some((_, jail)) = made() else { return };
        let own = process::reference(std::process::id() as i32).expect("lives");
        let pidfd = process::open(own).expect("opens").expect("lives");
        assert!(jail.await_api(&pidfd, Duration::from_millis(20)).expect("waited").is_none());
        let path = inside(&jail, API_SOCKET);
        let later = std::thread::spawn(move || UnixListener::bind(path).expect("bound"));
        assert!(jail.await_api(&pidfd, Duration::from_secs(10)).expect("waited").is_some());
        later.join().expect("joined");
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        let gone =
            rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), rustix::process::PidfdFlags::empty());
        let gone = gone.expect("opens");
        std::fs::remove_file(inside(&jail, API_SOCKET)).expect("removed");
        assert!(jail.await_api(&gone, Duration::from_secs(10)).expect("waited").is_none());
        child.wait().expect("reaped");
    }
}
