//! How a virtual machine monitor is asked, driven and told to stop.
//!
//! A [`Vmm`] turns a VM's files into what the helper needs for one boot, and speaks to the running
//! monitor through the control socket that the helper hands back. It never starts a process and
//! needs no privilege. What the guest itself does is the agent's matter, not the monitor's.

/// Waiting with a limit.
pub mod deadline;
/// The monitor of the tests.
pub mod fake;
/// Firecracker in its jail.
pub mod firecracker;
/// An image and what was written over it, as one.
mod flat;
/// QEMU's microvm machine.
pub mod qemu;
/// QEMU's monitor protocol, the way to talk to QEMU (and to the fake monitor).
mod qmp;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use smol::future::Boxed;

use crate::model::choice::{Accel, VmmKind};
use crate::model::launch::{FakeFailure, KernelArgs, Launch};
use crate::model::{MacAddr, Mib, VmSpec};
use crate::os::files::named;

/// Something about a monitor failed.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// A file of the boot.
    #[error("{0}")]
    File(#[from] io::Error),
    /// A program that is needed.
    #[error("{program} is not installed; `apt-get install {package}` brings it")]
    Missing {
        /// The program.
        program: &'static str,
        /// The distribution's package.
        package: &'static str,
    },
    /// A program failed.
    #[error("{program} failed: {said}")]
    Program {
        /// The program.
        program: &'static str,
        /// Its last words.
        said: String,
    },
    /// The VM's disk is not as banger made it.
    #[error("{path} is not a disk that banger made: {why}")]
    ForeignDisk {
        /// The disk.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The monitor did not want what it was told.
    #[error("the monitor refuses {path}: {said}")]
    Refused {
        /// What of its interface.
        path: String,
        /// Its own words.
        said: String,
    },
    /// The control socket said something else than its protocol allows, or ended.
    #[error("the monitor's control socket: {0}")]
    Control(String),
}

/// The files of one boot, all of them the owner's.
#[derive(Debug)]
pub struct BootFiles {
    /// Uncompressed ELF kernel.
    pub kernel: PathBuf,
    /// The drive with its modules, if it has one.
    pub modules: Option<PathBuf>,
    /// The initramfs with the identity appended, sealed.
    pub initramfs: OwnedFd,
    /// The image under the disk.
    pub image: PathBuf,
    /// The VM's disk, as [`Vmm::make_disk`] made it; nothing is there where the helper keeps it.
    pub disk: PathBuf,
    /// The console's log.
    pub console: OwnedFd,
    /// When what stands in it has come.
    pub marks: OwnedFd,
}

/// What is asked of one boot.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The VM.
    pub spec: &'a VmSpec,
    /// What executes the guest.
    pub accel: Accel,
    /// The kernel's own arguments.
    pub boot_args: &'a KernelArgs,
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// Devices that not every kernel wants.
    pub devices: Devices,
    /// Its files.
    pub files: BootFiles,
    /// For the fake monitor.
    pub fail: Option<FakeFailure>,
}

/// Devices that not every kernel wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    /// The host's random numbers.
    pub entropy: bool,
    /// Gives memory that the guest frees back to the host.
    pub balloon: bool,
}

/// A disk that is to be made.
pub struct NewDisk<'a> {
    /// Where, if it is a file of the owner's.
    pub path: &'a Path,
    /// What the guest sees.
    pub size: Mib,
    /// What it begins with.
    pub image: &'a Path,
    /// What executes the guest.
    pub accel: Accel,
    /// Whether the helper can make snapshots.
    pub snapshots: bool,
    /// Told before something takes long.
    pub tell: &'a dyn Fn(String),
}

/// Does something while nobody writes to a disk; the guest stands still for as long as it takes.
pub type Still<'a> = &'a dyn Fn(&mut dyn FnMut() -> Result<(), VmmError>) -> Result<(), VmmError>;

/// A disk that is to be copied, for a short time.
pub struct DiskCopy<'a> {
    /// The disk, as [`Vmm::make_disk`] made it; nothing is there where the helper keeps it.
    pub disk: &'a Path,
    /// What the helper keeps of it.
    pub kept: Option<File>,
    /// The image under it.
    pub image: &'a Path,
    /// What the guest sees.
    pub size: Mib,
    /// Where the copy shall be.
    pub to: &'a Path,
    /// What must see the disk as it is at one moment is done through this.
    pub still: Still<'a>,
}

/// What the helper needs for one boot.
#[derive(Debug)]
pub struct Prepared {
    /// The typed specification.
    pub launch: Launch,
    /// The descriptors, in the order of [`Launch::files`].
    pub files: Vec<OwnedFd>,
    /// What the monitor is told through its control socket before the guest starts.
    pub setup: Vec<Call>,
}

/// Something that a monitor is told through its control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What of its interface.
    pub path: String,
    /// JSON.
    pub body: String,
}

/// How the guest's agent is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentLine {
    /// The helper hands over a stream that stays for the monitor's whole life.
    Stream,
    /// The helper hands over a listening socket that the agent rings at; each connection is made
    /// anew through the monitor's vsock.
    Vsock,
}

/// Why a monitor ended, as far as it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The guest powered itself off.
    GuestShutdown,
    /// The guest asked for a reset, which ends a VM here.
    GuestReset,
    /// The guest's kernel panicked.
    GuestPanic,
    /// The monitor was told to end.
    HostRequest,
}

/// How long things may take with a monitor.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From its start until the guest answers.
    pub ready: Duration,
    /// For a guest that was asked to shut down.
    pub shutdown: Duration,
    /// For a guest whose power button was pressed after that.
    pub power: Duration,
}

/// A running monitor's control socket.
pub trait Control: Send + Sync {
    /// Finishes the handshake; the guest runs when this returns. Whether it had been halted until then.
    fn begin(&self) -> Boxed<Result<bool, VmmError>>;
    /// Presses the machine's power button.
    fn press_power(&self) -> Boxed<Result<(), VmmError>>;
    /// Halts the guest, with all that it has written to its disks in their files.
    fn pause(&self) -> Boxed<Result<(), VmmError>>;
    /// Has a halted guest go on; nothing happens to one that runs.
    fn resume(&self) -> Boxed<Result<(), VmmError>>;
    /// Ends when everything that the monitor said has been read, to the socket's end.
    fn drained(&self) -> Boxed<()>;
    /// Why it ended; `None` when it said nothing.
    fn end_reason(&self) -> Option<EndReason>;
}

/// A virtual machine monitor.
pub trait Vmm: Send + Sync {
    /// Which one.
    fn kind(&self) -> VmmKind;
    /// How long its guests may take.
    fn patience(&self, accel: Accel) -> Patience;
    /// How the guest's agent is reached.
    fn agent_line(&self) -> AgentLine;
    /// Whether it runs in a jail that the helper makes, with disks that the helper attaches.
    fn is_jailed(&self, accel: Accel) -> bool;
    /// Makes the copy-on-write disk. Blocks; constant time where the kernel or the filesystem can.
    fn make_disk(&self, disk: NewDisk<'_>) -> Result<(), VmmError>;
    /// Makes the disk at `path` larger; nobody may have it open. Blocks; constant time.
    fn grow_disk(&self, path: &Path, size: Mib) -> Result<(), VmmError>;
    /// Copies a disk for another VM of the same image and monitor. Blocks for as long as it takes to copy what
    /// was written.
    fn copy_disk(&self, copy: DiskCopy<'_>) -> Result<(), VmmError>;
    /// Makes an image of a disk that is a file of the owner's, and of the image under it. Blocks for as long as
    /// it takes to copy both.
    fn flatten_disk(&self, disk: &Path, image: &Path, size: Mib, to: &Path) -> Result<(), VmmError>;
    /// Turns files into what the helper needs. Blocks; opens files.
    fn prepare(&self, boot: Boot<'_>) -> Result<Prepared, VmmError>;
    /// Speaks through the control socket that the helper handed back; `setup` is empty for a monitor
    /// that was found again. `spawn` runs its reader.
    fn control(
        &self,
        socket: OwnedFd,
        setup: Vec<Call>,
        spawn: &dyn Fn(Boxed<()>),
    ) -> Result<std::sync::Arc<dyn Control>, VmmError>;
}

fn read_only(path: &Path) -> io::Result<OwnedFd> {
    File::open(path).map(OwnedFd::from).map_err(named("open", path))
}

fn read_write(path: &Path) -> io::Result<OwnedFd> {
    OpenOptions::new().read(true).write(true).open(path).map(OwnedFd::from).map_err(named("open", path))
}

/// The monitor of this kind.
pub fn of_kind(kind: VmmKind) -> &'static dyn Vmm {
    match kind {
        VmmKind::Qemu => &qemu::Qemu,
        VmmKind::Fake => &fake::Fake,
        VmmKind::Firecracker => &firecracker::Firecracker,
    }
}
