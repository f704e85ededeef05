//! The monitor of the tests: boots at once and can be told to fail. The helper makes everything
//! for it that it makes for a real one; only the process is another.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use smol::future::Boxed;

use super::qmp::Qmp;
use super::{Boot, Control, Patience, Prepared, Vmm, VmmError};
use crate::model::Mib;
use crate::model::choice::{Accel, VmmKind};
use crate::model::launch::{FakeLaunch, Launch};
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

    fn make_disk(&self, path: &Path, _size: Mib) -> Result<(), VmmError> {
        Ok(write_atomic(path, b"", 0o600)?)
    }

    fn grow_disk(&self, _path: &Path, _size: Mib) -> Result<(), VmmError> {
        Ok(())
    }

    fn prepare(&self, boot: Boot<'_>) -> Result<Prepared, VmmError> {
        let launch = Launch::Fake(FakeLaunch { fail: boot.fail });
        Ok(Prepared { launch, files: vec![boot.files.console] })
    }

    fn control(&self, socket: OwnedFd, spawn: &dyn Fn(Boxed<()>)) -> Result<Arc<dyn Control>, VmmError> {
        Ok(Qmp::connect(socket, spawn)?)
    }
}
