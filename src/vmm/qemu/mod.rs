//! QEMU's microvm machine: a qcow2 overlay over the image, QMP for control.

/// An empty overlay.
mod qcow2;

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use smol::future::Boxed;

use super::qmp::Qmp;
use super::{Boot, Control, Patience, Prepared, Vmm, VmmError};
use crate::model::Mib;
use crate::model::choice::{Accel, VmmKind};
use crate::model::launch::{Launch, QemuLaunch};
use crate::os::files::named;

/// How long a guest may take until ssh answers: on the CPU, and in software.
const READY: Duration = Duration::from_secs(90);
const READY_EMULATED: Duration = Duration::from_secs(240);

/// How long it may take to shut down after being asked, and after its power button.
const SHUTDOWN: Duration = Duration::from_secs(30);
const POWER: Duration = Duration::from_secs(10);

/// QEMU's microvm machine.
#[derive(Debug)]
pub struct Qemu;

impl Vmm for Qemu {
    fn kind(&self) -> VmmKind {
        VmmKind::Qemu
    }

    fn patience(&self, accel: Accel) -> Patience {
        let ready = match accel {
            Accel::Kvm => READY,
            Accel::Tcg => READY_EMULATED,
        };
        Patience { ready, shutdown: SHUTDOWN, power: POWER }
    }

    fn make_disk(&self, path: &Path, size: Mib) -> Result<(), VmmError> {
        Ok(qcow2::create(path, size)?)
    }

    fn prepare(&self, boot: Boot<'_>) -> Result<Prepared, VmmError> {
        let mut files = vec![read_only(&boot.files.kernel)?, boot.files.initramfs, boot.files.console];
        files.push(read_write(&boot.files.disk)?);
        files.push(read_only(&boot.files.image)?);
        if let Some(modules) = &boot.files.modules {
            files.push(read_only(modules)?);
        }
        let launch = Launch::Qemu(QemuLaunch {
            accel: boot.accel,
            vcpus: boot.spec.vcpus,
            memory: boot.spec.memory,
            boot_args: boot.boot_args.clone(),
            modules_drive: boot.files.modules.is_some(),
        });
        Ok(Prepared { launch, files })
    }

    fn control(&self, socket: OwnedFd, spawn: &dyn Fn(Boxed<()>)) -> Result<Arc<dyn Control>, VmmError> {
        Ok(Qmp::connect(socket, spawn)?)
    }
}

fn read_only(path: &Path) -> std::io::Result<OwnedFd> {
    File::open(path).map(OwnedFd::from).map_err(named("open", path))
}

fn read_write(path: &Path) -> std::io::Result<OwnedFd> {
    OpenOptions::new().read(true).write(true).open(path).map(OwnedFd::from).map_err(named("open", path))
}
