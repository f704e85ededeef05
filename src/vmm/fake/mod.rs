//! The monitor of the tests: boots at once and can be told to fail. The helper makes everything
//! for it that it makes for a real one; only the process is another.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use smol::future::Boxed;

use super::firecracker::{copy_jail_disk, make_jail_disk, prepare_jail};
use super::qmp::Qmp;
use super::{AgentLine, Boot, Call, Control, DiskCopy, NewDisk, Patience, Prepared, Vmm, VmmError};
use crate::model::Mib;
use crate::model::choice::{Accel, VmmKind};
use crate::model::launch::{FakeLaunch, Launch};
use crate::os::content;
use crate::os::files::write_atomic;

/// The monitor of the tests.
#[derive(Debug)]
pub struct Fake;

impl Vmm for Fake {
    fn kind(&self) -> VmmKind {
        VmmKind::Fake
    }

    fn patience(&self, _accel: Accel) -> Patience {
        let short = Duration::from_secs(3);
        Patience { ready: short, shutdown: short, power: short }
    }

    fn agent_line(&self) -> AgentLine {
        AgentLine::Stream
    }

    /// On the CPU it is staged as Firecracker is, in software as QEMU is.
    fn is_jailed(&self, accel: Accel) -> bool {
        accel == Accel::Kvm
    }

    fn make_disk(&self, disk: NewDisk<'_>) -> Result<(), VmmError> {
        if self.is_jailed(disk.accel) { make_jail_disk(&disk) } else { Ok(write_atomic(disk.path, b"", 0o600)?) }
    }

    fn grow_disk(&self, _path: &Path, _size: Mib) -> Result<(), VmmError> {
        Ok(())
    }

    fn copy_disk(&self, copy: DiskCopy<'_>) -> Result<(), VmmError> {
        copy_jail_disk(copy)
    }

    /// Its guests write nothing.
    fn flatten_disk(&self, _disk: &Path, image: &Path, size: Mib, to: &Path) -> Result<(), VmmError> {
        Ok(content::replicate(image, to, Some(size.bytes()), &|_| Ok(()))?)
    }

    fn prepare(&self, boot: Boot<'_>) -> Result<Prepared, VmmError> {
        let fail = boot.fail;
        let (jail, files) = if self.is_jailed(boot.accel) {
            let (jail, files) = prepare_jail(boot)?;
            (Some(jail), files)
        } else {
            (None, vec![boot.files.console, boot.files.marks])
        };
        Ok(Prepared { launch: Launch::Fake(FakeLaunch { fail, jail }), files, setup: Vec::new() })
    }

    fn control(
        &self,
        socket: OwnedFd,
        _setup: Vec<Call>,
        spawn: &dyn Fn(Boxed<()>),
    ) -> Result<Arc<dyn Control>, VmmError> {
        Ok(Qmp::connect(socket, spawn)?)
    }
}
