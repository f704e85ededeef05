//! Firecracker: configured and started through its API, in a jail that the helper makes.
//!
//! The monitor finds its files in the jail by the names of `model::jail`; nothing here is a path of
//! the host. Its console is its standard output, its log a pipe (see `helper/jail.rs`).

/// The API: HTTP over the monitor's socket.
mod api;
/// The root disk where the kernel makes no snapshots.
mod disk;
/// What the API is told before the guest starts.
mod setup;
/// Reading what the helper keeps.
mod snapshot;
/// Connections to the guest's vsock.
pub mod vsock;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use smol::future::Boxed;

use super::flat::Flat;
use super::{
    AgentLine, Boot, Call, Control, DiskCopy, NewDisk, Patience, Prepared, Vmm, VmmError, read_only, read_write,
};
use crate::model::choice::{Accel, VmmKind};
use crate::model::launch::{JailDisk, JailLaunch, Launch};
use crate::model::{Mib, VmSpec};
use crate::os::content;

/// How long a guest may take until it answers.
const READY: Duration = Duration::from_secs(90);

/// How long it may take to shut down after being asked, and after ctrl-alt-del.
const SHUTDOWN: Duration = Duration::from_secs(30);
const POWER: Duration = Duration::from_secs(10);

/// Firecracker.
#[derive(Debug)]
pub struct Firecracker;

impl Vmm for Firecracker {
    fn kind(&self) -> VmmKind {
        VmmKind::Firecracker
    }

    fn patience(&self, _accel: Accel) -> Patience {
        Patience { ready: READY, shutdown: SHUTDOWN, power: POWER }
    }

    fn agent_line(&self) -> AgentLine {
        AgentLine::Vsock
    }

    fn is_jailed(&self, _accel: Accel) -> bool {
        true
    }

    fn make_disk(&self, disk: NewDisk<'_>) -> Result<(), VmmError> {
        make_jail_disk(&disk)
    }

    fn grow_disk(&self, path: &Path, size: Mib) -> Result<(), VmmError> {
        grow_jail_disk(path, size)
    }

    fn copy_disk(&self, copy: DiskCopy<'_>) -> Result<(), VmmError> {
        copy_jail_disk(copy)
    }

    fn flatten_disk(&self, disk: &Path, _image: &Path, size: Mib, to: &Path) -> Result<(), VmmError> {
        flatten_jail_disk(disk, size, to)
    }

    fn prepare(&self, boot: Boot<'_>) -> Result<Prepared, VmmError> {
        let setup = setup::calls(&boot);
        let (jail, files) = prepare_jail(boot)?;
        Ok(Prepared { launch: Launch::Firecracker(jail), files, setup })
    }

    fn control(
        &self,
        socket: OwnedFd,
        setup: Vec<Call>,
        _spawn: &dyn Fn(Boxed<()>),
    ) -> Result<Arc<dyn Control>, VmmError> {
        Ok(Arc::new(api::Api::new(socket, setup)?))
    }
}

/// A snapshot costs nothing here: the helper makes it when the VM starts.
pub(super) fn make_jail_disk(disk: &NewDisk<'_>) -> Result<(), VmmError> {
    if disk.snapshots { Ok(()) } else { Ok(disk::copy(disk.image, disk.path, disk.size, disk.tell)?) }
}

/// A snapshot grows when it is attached again.
pub(super) fn grow_jail_disk(path: &Path, size: Mib) -> Result<(), VmmError> {
    if path.try_exists()? { Ok(disk::grow(path, size)?) } else { Ok(()) }
}

/// The copy is a file of the owner's, whatever the disk is.
pub(super) fn copy_jail_disk(copy: DiskCopy<'_>) -> Result<(), VmmError> {
    let DiskCopy { disk, kept, image, size, to, still } = copy;
    if disk.try_exists()? {
        return still(&mut || Ok(content::borrow(disk, to)?));
    }
    let mut flat = Flat::begin(image, to, size)?;
    if let Some(kept) = &kept {
        still(&mut || Ok(snapshot::lay(kept, &mut flat)?))?;
    }
    Ok(flat.finish()?)
}

/// A disk of the owner's lies over nothing.
pub(super) fn flatten_jail_disk(disk: &Path, size: Mib, to: &Path) -> Result<(), VmmError> {
    Ok(content::replicate(disk, to, Some(size.bytes()), &|_| Ok(()))?)
}

/// What the helper needs to stage a jail. A disk of the VM's own that is there is its root disk.
pub(super) fn prepare_jail(boot: Boot<'_>) -> Result<(JailLaunch, Vec<OwnedFd>), VmmError> {
    let whole = boot.files.disk.try_exists()?;
    let VmSpec { vcpus, memory, disk: size, .. } = *boot.spec;
    let disk = if whole { JailDisk::Whole } else { JailDisk::Snapshot { size } };
    let mut files = vec![read_only(&boot.files.kernel)?, boot.files.initramfs, boot.files.console, boot.files.marks];
    files.push(if whole { read_write(&boot.files.disk)? } else { read_only(&boot.files.image)? });
    if let Some(modules) = &boot.files.modules {
        files.push(read_only(modules)?);
    }
    Ok((JailLaunch { vcpus, memory, disk, modules_drive: boot.files.modules.is_some() }, files))
}
