//! QEMU's microvm machine: a qcow2 overlay over the image, QMP for control.

/// Reading an overlay.
mod overlay;
/// An empty overlay.
mod qcow2;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use smol::future::Boxed;

use super::flat::Flat;
use super::qmp::Qmp;
use super::{
    AgentLine, Boot, Call, Control, DiskCopy, NewDisk, Patience, Prepared, Vmm, VmmError, read_only, read_write,
};
use crate::host::facts::find_program;
use crate::model::Mib;
use crate::model::choice::{Accel, VmmKind};
use crate::model::launch::{Launch, QemuLaunch};
use crate::os::content;
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

    fn agent_line(&self) -> AgentLine {
        AgentLine::Stream
    }

    fn is_jailed(&self, _accel: Accel) -> bool {
        false
    }

    fn make_disk(&self, disk: NewDisk<'_>) -> Result<(), VmmError> {
        Ok(qcow2::create(disk.path, disk.size)?)
    }

    fn grow_disk(&self, path: &Path, size: Mib) -> Result<(), VmmError> {
        refuse_foreign(path)?;
        qemu_img(&["resize", "-q", "-f", "qcow2"], path, size)
    }

    fn copy_disk(&self, copy: DiskCopy<'_>) -> Result<(), VmmError> {
        (copy.still)(&mut || Ok(content::borrow(copy.disk, copy.to)?))
    }

    fn flatten_disk(&self, disk: &Path, image: &Path, size: Mib, to: &Path) -> Result<(), VmmError> {
        let mut flat = Flat::begin(image, to, size)?;
        overlay::lay(disk, &mut flat)?;
        Ok(flat.finish()?)
    }

    fn prepare(&self, boot: Boot<'_>) -> Result<Prepared, VmmError> {
        let mut files =
            vec![read_only(&boot.files.kernel)?, boot.files.initramfs, boot.files.console, boot.files.marks];
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
        Ok(Prepared { launch, files, setup: Vec::new() })
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

fn qemu_img(arguments: &[&str], path: &Path, size: Mib) -> Result<(), VmmError> {
    const MISSING: VmmError = VmmError::Missing { program: "qemu-img", package: "qemu-utils" };
    let program = find_program("qemu-img").ok_or(MISSING)?;
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .arg(size.bytes().to_string())
        .stdin(Stdio::null())
        .env_clear()
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
    Err(VmmError::Program { program: "qemu-img", said })
}

/// Refuses a disk that names other files: its monitor could write into it, and qemu-img, which runs as
/// the owner, would open them. (qcow2 specification, header: backing file at 8, features at 72.)
fn refuse_foreign(path: &Path) -> Result<(), VmmError> {
    // Dirty, corrupt, compression type, extended entries; not: the data in another file.
    const HARMLESS: u64 = 0b11011;
    let mut header = [0; 80];
    File::open(path).and_then(|mut file| file.read_exact(&mut header)).map_err(named("read", path))?;
    let foreign = |why| Err(VmmError::ForeignDisk { path: path.to_owned(), why });
    let number = |at: usize| header[at..at + 8].iter().fold(0, |n: u64, byte| n << 8 | u64::from(*byte));
    match (header.starts_with(qcow2::MAGIC), number(8), number(72) & !HARMLESS) {
        (true, 0, 0) => Ok(()),
        (false, ..) => foreign("it is not qcow2 of version 3"),
        (true, 0, _) => foreign("it has features that no disk of banger has"),
        (true, ..) => foreign("it names a file under it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_disk(path: &Path, size: Mib) -> NewDisk<'_> {
        NewDisk { path, size, image: Path::new("/no/such/image"), accel: Accel::Tcg, snapshots: false, tell: &|_| {} }
    }

    #[test]
    fn an_overlay_costs_the_same_whatever_its_size_and_names_no_file() {
        if find_program("qemu-img").is_none() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        for gib in [1, 50] {
            let path = folder.path().join(format!("{gib}.qcow2"));
            Qemu.make_disk(new_disk(&path, Mib(gib << 10))).expect("made");
            let content = std::fs::read(&path).expect("read");
            assert!(content.len() < 1 << 20);
            // Bytes 8..16: offset of the backing file's name (qcow2 specification, header).
            assert_eq!(content[8..16], [0; 8]);
        }
    }

    #[test]
    fn a_disk_grows_and_one_that_names_a_file_is_not_touched() {
        if find_program("qemu-img").is_none() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("root.disk");
        Qemu.make_disk(new_disk(&path, Mib(1024))).expect("made");
        Qemu.grow_disk(&path, Mib(3072)).expect("grown");
        let made = std::fs::read(&path).expect("read");
        // Bytes 24..32: the size that the guest sees.
        assert_eq!(made[24..32], (3072_u64 << 20).to_be_bytes());
        assert!(matches!(Qemu.grow_disk(&path, Mib(1024)), Err(VmmError::Program { .. })), "a disk shrank");
        // A backing file's name; data in another file; another format.
        for (at, byte) in [(15, 104), (79, 4), (0, 0)] {
            let mut forged = made.clone();
            forged[at] = byte;
            std::fs::write(&path, &forged).expect("written");
            let refused = Qemu.grow_disk(&path, Mib(4096));
            assert!(matches!(refused, Err(VmmError::ForeignDisk { .. })), "{at}: {refused:?}");
            assert_eq!(std::fs::read(&path).expect("read"), forged);
        }
    }
}
