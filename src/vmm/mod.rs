//! How a virtual machine monitor is asked, driven and told to stop.
//!
//! A [`Vmm`] turns a VM's files into what the helper needs for one boot, and speaks to the running
//! monitor through the control socket that the helper hands back. It never starts a process and
//! needs no privilege. What the guest itself does is the agent's matter, not the monitor's.

/// Waiting with a limit.
pub mod deadline;
/// The monitor of the tests.
pub mod fake;
/// QEMU's microvm machine.
pub mod qemu;
/// QEMU's monitor protocol, the way to talk to QEMU (and to the fake monitor).
mod qmp;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use smol::future::Boxed;

use crate::model::choice::{Accel, VmmKind};
use crate::model::launch::{FakeFailure, KernelArgs, Launch};
use crate::model::{Mib, VmSpec};

/// Something about a monitor failed.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// A file of the boot.
    #[error("{0}")]
    File(#[from] io::Error),
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
    /// The VM's disk, as [`Vmm::make_disk`] made it.
    pub disk: PathBuf,
    /// The console's log.
    pub console: OwnedFd,
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
    /// Its files.
    pub files: BootFiles,
    /// For the fake monitor.
    pub fail: Option<FakeFailure>,
}

/// What the helper needs for one boot.
#[derive(Debug)]
pub struct Prepared {
    /// The typed specification.
    pub launch: Launch,
    /// The descriptors, in the order its `FILES` give.
    pub files: Vec<OwnedFd>,
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
    /// Finishes the handshake; the guest runs when this returns.
    fn begin(&self) -> Boxed<Result<(), VmmError>>;
    /// Presses the machine's power button.
    fn press_power(&self) -> Boxed<Result<(), VmmError>>;
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
    /// Makes the copy-on-write disk of `size` at `path`. Blocks; constant time.
    fn make_disk(&self, path: &Path, size: Mib) -> Result<(), VmmError>;
    /// Turns files into what the helper needs. Blocks; opens files.
    fn prepare(&self, boot: Boot<'_>) -> Result<Prepared, VmmError>;
    /// Speaks through the control socket that the helper handed back. `spawn` runs its reader.
    fn control(&self, socket: OwnedFd, spawn: &dyn Fn(Boxed<()>)) -> Result<std::sync::Arc<dyn Control>, VmmError>;
}

/// The monitor of this kind, if this build drives it.
pub fn of_kind(kind: VmmKind) -> Option<&'static dyn Vmm> {
    match kind {
        VmmKind::Qemu => Some(&qemu::Qemu),
        VmmKind::Fake => Some(&fake::Fake),
        VmmKind::Firecracker => None,
    }
}
