//! Disks of VMs: files of the owner's, or snapshots that the helper keeps for monitors in jails.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use log::{info, warn};

use super::blocking::unblock;
use super::helper::unexpected;
use super::operation::Op;
use super::steps::{files_of, load, monitor_of};
use super::{Daemon, commit};
use crate::model::{Mib, VmId, VmRecord};
use crate::protocol::owner::Checkup;
use crate::protocol::root::{KeptDisk, RootReply, RootRequest};
use crate::protocol::{Event, Fault, FaultKind};
use crate::vmm::NewDisk;

/// Makes the copy-on-write disk of a new VM.
pub(super) async fn make(daemon: &Arc<Daemon>, op: &Op, id: &VmId) -> Result<(), Fault> {
    let vm = load(daemon, id).await?;
    if let Some(original) = daemon.machine(id).copy_of() {
        return commit::copy_disk(daemon, op, &original.vm, &vm).await;
    }
    let (monitor, path) = (monitor_of(&vm), files_of(daemon, id).disk());
    let image = daemon.paths.image(&vm.spec.image);
    let (size, accel) = (vm.spec.disk, vm.accel);
    let snapshots = monitor.is_jailed(accel) && snapshots(daemon, op).await?;
    let teller = op.clone();
    let made = unblock(move || {
        let tell = |text| teller.tell(Event::Warning { text });
        monitor.make_disk(NewDisk { path: &path, size, image: &image, accel, snapshots, tell: &tell })
    });
    made.await.map_err(|e| Fault::failed("cannot make the VM's disk", &e))
}

/// What the helper keeps of a VM's disk; nothing where the disk is a file of the owner's, or nothing was written.
pub(super) async fn read_kept(daemon: &Daemon, op: &Op, id: &VmId) -> Result<Option<File>, Fault> {
    match daemon.helper.call_again(op.id, RootRequest::OpenDisk { id: id.clone() }).await? {
        (RootReply::Disk, files) => match <[OwnedFd; 1]>::try_from(files) {
            Ok([file]) => Ok(Some(file.into())),
            Err(_) => Err(Fault::new(FaultKind::OperationFailed, "the root helper handed over other descriptors")),
        },
        (RootReply::Done(_), _) => Ok(None),
        (other, _) => Err(unexpected(&other)),
    }
}

async fn snapshots(daemon: &Daemon, op: &Op) -> Result<bool, Fault> {
    match daemon.helper.call_again(op.id, RootRequest::Facilities).await? {
        (RootReply::Facilities { no_snapshots: None, .. }, _) => Ok(true),
        (RootReply::Facilities { no_snapshots: Some(why), .. }, _) => {
            info!("[{}] no disk snapshots: {why}", op.id);
            Ok(false)
        }
        (other, _) => Err(unexpected(&other)),
    }
}

/// Makes the disk of a VM that does not run larger.
pub(super) async fn grow(daemon: &Daemon, vm: &VmRecord, size: Mib) -> Result<(), Fault> {
    let (monitor, path) = (monitor_of(vm), files_of(daemon, &vm.id).disk());
    let grown = unblock(move || monitor.grow_disk(&path, size)).await;
    grown.map_err(|e| Fault::failed(format!("cannot grow the disk of VM '{}'", vm.spec.name), &e))
}

/// Has the helper remove what it keeps of a VM that is being deleted.
pub(super) async fn remove_kept(daemon: &Daemon, op: &Op, vm: &VmRecord) -> Result<(), Fault> {
    if !monitor_of(vm).is_jailed(vm.accel) {
        return Ok(());
    }
    daemon.helper.call_again(op.id, RootRequest::RemoveDisk { id: vm.id.clone() }).await.map(|_| ())
}

/// The disks that the helper keeps.
pub(super) async fn kept(daemon: &Daemon, op: &Op) -> Result<Vec<KeptDisk>, Fault> {
    match daemon.helper.call_again(op.id, RootRequest::Disks).await? {
        (RootReply::Disks(disks), _) => Ok(disks),
        (other, _) => Err(unexpected(&other)),
    }
}

/// What `doctor` asks. A helper that does not answer is another row's matter.
pub(super) async fn checkup(daemon: &Daemon, op: &Op) -> Result<Checkup, Fault> {
    let (no_snapshots, obstacles) = match daemon.helper.call_again(op.id, RootRequest::Facilities).await {
        Ok((RootReply::Facilities { no_snapshots, obstacles }, _)) => (no_snapshots, obstacles),
        Ok((other, _)) => return Err(unexpected(&other)),
        Err(fault) if fault.kind == FaultKind::Unavailable => (None, Vec::new()),
        Err(fault) => return Err(fault),
    };
    let kept = match kept(daemon, op).await {
        Err(fault) if fault.kind == FaultKind::Unavailable => Vec::new(),
        kept => kept?,
    };
    let vms = daemon.stored(|s| s.vms()).await?;
    let known = |disk: &KeptDisk| vms.iter().find(|vm| vm.id == disk.id);
    let unknown = kept.iter().filter(|disk| known(disk).is_none()).count();
    let named = |disk: &KeptDisk| Some((known(disk)?.spec.name.clone(), disk.fill?));
    let disks = kept.iter().filter_map(named).collect();
    let folder = daemon.paths.root_state.display().to_string();
    Ok(Checkup { no_snapshots, obstacles, disks, unknown: unknown.try_into().unwrap_or(u32::MAX), folder })
}

/// Says which disks belong to no VM of this store. They stay: a VM's disk goes before its row does, so
/// these are another store's, or this one was restored.
pub(super) async fn tell_of_unknown(daemon: &Arc<Daemon>, op: &Op, rows: &HashSet<VmId>) -> Result<(), Fault> {
    for disk in kept(daemon, op).await?.into_iter().filter(|disk| !rows.contains(&disk.id)) {
        warn!("the disk of VM {} belongs to no VM of this store; it is kept", disk.id);
    }
    Ok(())
}
