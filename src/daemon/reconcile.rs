//! Finding everything again after a start: running VMs go on, half-made ones are taken back,
//! nothing is left that nobody owns.

use std::collections::HashSet;
use std::sync::Arc;

use log::{info, warn};
use smol::Timer;
use smol::channel::Sender;

use super::blocking::unblock;
use super::helper::unexpected;
use super::operation::Op;
use super::vm_files::VmFiles;
use super::{Daemon, disks, egress, expiry, idle, keeper, lifecycle, steps};
use crate::model::choice::VmmKind;
use crate::model::plan::{Step, Wanted};
use crate::model::{VmId, VmRecord, VmState};
use crate::os::files::{remove_file, remove_tree};
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind};

/// At the daemon's start: what needs no helper, then the rest, if the helper answers. `settled` is
/// dropped once every VM was found again or given up.
pub(super) async fn at_start(daemon: Arc<Daemon>, settled: Sender<()>) {
    if let Err(fault) = sweep_files(&daemon).await {
        warn!("cannot sweep what an earlier daemon left: {fault}");
    }
    if let Err(fault) = ensure_telling(&daemon, Some(settled)).await {
        warn!("virtual machines are found again once the helper answers: {fault}");
    }
}

/// Reconciles once; tried again at each call until the helper has answered.
pub(super) async fn ensure(daemon: &Arc<Daemon>) -> Result<(), Fault> {
    ensure_telling(daemon, None).await
}

/// Each VM is looked after in a task of its own that holds its turn from here on: one monitor that
/// does not answer holds up nobody but whoever wants something of that VM.
async fn ensure_telling(daemon: &Arc<Daemon>, settled: Option<Sender<()>>) -> Result<(), Fault> {
    let mut done = daemon.reconciled.lock().await;
    if *done {
        return Ok(());
    }
    let op = Op::background();
    let known = release_unknown(daemon, &op).await?;
    for vm in daemon.stored(|s| s.vms()).await? {
        let turn = daemon.machine(&vm.id).turn.lock_arc().await;
        let (daemon, op, settled) = (daemon.clone(), op.clone(), settled.clone());
        let held = known.contains(&vm.id);
        daemon.clone().spawn(async move {
            if let Err(fault) = find_again(&daemon, &op, &vm, held).await {
                warn!("VM {} cannot be reconciled: {fault}", vm.spec.name);
            }
            drop(turn);
            if vm.state != VmState::Creating {
                expiry::watch(&daemon, &vm.id, vm.expires_at);
                idle::watch(&daemon, &vm);
            }
            if let Some(process) = vm.keeper {
                // After the turn: it may want to delete the VM at once.
                keeper::watch(&daemon, vm.id, process);
            }
            drop(settled);
        });
    }
    *done = true;
    drop(settled);
    let (daemon, op) = (daemon.clone(), op.clone());
    daemon.clone().spawn(async move {
        if let Err(fault) = resume_egress(&daemon, &op).await {
            warn!("guests that run are not answered by DNS before the next start of a VM: {fault}");
        }
    });
    Ok(())
}

async fn resume_egress(daemon: &Arc<Daemon>, op: &Op) -> Result<(), Fault> {
    let running = daemon.stored(|s| s.vms()).await?.into_iter().filter(VmRecord::may_hold_resources);
    let mut found = Vec::new();
    for vm in running {
        // Once it was found again, or taken for dead.
        let _turn = daemon.machine(&vm.id).turn.lock_arc().await;
        if daemon.machine(&vm.id).live().is_some() {
            found.push(vm);
        }
    }
    egress::resume(daemon, op, &found).await
}

/// Has the helper take back what belongs to no VM; gives what it knows of those that exist.
async fn release_unknown(daemon: &Arc<Daemon>, op: &Op) -> Result<HashSet<VmId>, Fault> {
    let rows: HashSet<VmId> = daemon.stored(|s| s.vms()).await?.into_iter().map(|vm| vm.id).collect();
    let entries = match daemon.helper.call_again(op.id, RootRequest::Inventory).await? {
        (RootReply::Inventory(entries), _) => entries,
        (other, _) => return Err(unexpected(&other)),
    };
    let mut known = HashSet::new();
    for entry in entries {
        if rows.contains(&entry.id) {
            known.insert(entry.id);
            continue;
        }
        info!("VM {} is in no row: released", entry.id);
        daemon.helper.call_again(op.id, RootRequest::ReleaseVm { id: entry.id }).await?;
    }
    disks::tell_of_unknown(daemon, op, &rows).await?;
    Ok(known)
}

/// Whoever calls holds the VM's turn; `held` says whether the helper holds something for it.
async fn find_again(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord, held: bool) -> Result<(), Fault> {
    match vm.state {
        VmState::Creating => {
            info!("VM {} was half-made: taken back", vm.spec.name);
            steps::perform(daemon, op, &vm.id, Step::RemoveFiles).await?;
            steps::perform(daemon, op, &vm.id, Step::Forget).await
        }
        VmState::Running | VmState::Error | VmState::Starting if lifecycle::monitor_lives(daemon, vm)? => {
            let is_ours = attach_again(daemon, op, vm, true).await;
            if vm.state == VmState::Starting && vm.vmm == VmmKind::Firecracker && !is_ours {
                // Its guest may not have been told to run, and nobody is left who knows what to tell.
                return settle_dead(daemon, op, vm, "its start was cut short".to_owned()).await;
            }
            if vm.state == VmState::Starting {
                finish_start(daemon, vm.id.clone());
            }
            Ok(())
        }
        VmState::Starting | VmState::Running => {
            settle_dead(daemon, op, vm, "it ended while the daemon was not running".to_owned()).await
        }
        VmState::Stopping if files_are_gone(daemon, &vm.id).await? => {
            info!("VM {} was being deleted: brought to its end", vm.spec.name);
            steps::perform(daemon, op, &vm.id, Step::Release).await?;
            // Of its files the disk that the helper keeps may be left.
            steps::perform(daemon, op, &vm.id, Step::RemoveFiles).await?;
            steps::perform(daemon, op, &vm.id, Step::Forget).await
        }
        VmState::Stopping => settle_dead(daemon, op, vm, "it was being stopped".to_owned()).await,
        VmState::Created | VmState::Stopped | VmState::Error if held => {
            steps::perform(daemon, op, &vm.id, Step::Release).await
        }
        VmState::Created | VmState::Stopped | VmState::Error => Ok(()),
    }
}

async fn files_are_gone(daemon: &Daemon, id: &VmId) -> Result<bool, Fault> {
    let files = VmFiles::new(&daemon.paths.vms(), id);
    let gone = unblock(move || files.are_gone()).await;
    gone.map_err(|e| Fault::failed("cannot look for the VM's files", &e))
}

/// Looks after a VM once more that the helper could not release now: it may have died over it, and
/// then it holds what is in no row, or a row says what is no longer so. Should it still not answer,
/// the release that fails again comes back here.
pub(super) fn find_again_later(daemon: &Arc<Daemon>, id: VmId) {
    let daemon = daemon.clone();
    daemon.clone().spawn(async move {
        Timer::after(keeper::AGAIN).await;
        let _turn = daemon.machine(&id).turn.lock_arc().await;
        let (op, wanted) = (Op::background(), id.clone());
        let found = match daemon.stored(move |s| s.vm_by_id(&wanted)).await {
            Ok(Some(vm)) => find_again(&daemon, &op, &vm, true).await,
            Ok(None) => {
                daemon.drop_machine(&id);
                Ok(())
            }
            Err(fault) => Err(fault),
        };
        if let Err(fault) = found {
            warn!("VM {id} cannot be released yet: {fault}");
        }
    });
}

/// Takes the ends of a living monitor into memory where they are not there. One that does not let
/// itself be taken is watched all the same: its end is noted, and the next request tries again. Whether they are in memory.
pub(super) async fn attach_again(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord, alive: bool) -> bool {
    if !alive || daemon.machine(&vm.id).live().is_some() {
        return alive;
    }
    match attach(daemon, op, vm).await {
        Ok(()) => {
            info!("VM {} is found again", vm.spec.name);
            true
        }
        Err(fault) => {
            warn!("[{}] VM {} runs and does not let itself be taken over: {fault}", op.id, vm.spec.name);
            if daemon.machine(&vm.id).live().is_none() {
                lifecycle::watch_process(daemon, vm);
            }
            false
        }
    }
}

async fn attach(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord) -> Result<(), Fault> {
    let (reply, files) = daemon.helper.call_again(op.id, RootRequest::AttachVm { id: vm.id.clone() }).await?;
    steps::go_live(daemon, op, &vm.id, reply, files, Vec::new()).await
}

/// A boot that the earlier daemon had begun: its asker is gone, the VM need not be.
fn finish_start(daemon: &Arc<Daemon>, id: VmId) {
    let daemon = daemon.clone();
    daemon.clone().spawn(async move {
        let op = Op::background();
        let machine = daemon.machine(&id);
        let _come = machine.come(Wanted::Running, op.cancel.clone());
        let _turn = machine.turn.lock().await;
        let ready = steps::perform(&daemon, &op, &id, Step::AwaitReady).await;
        let settled = match ready {
            Ok(()) => steps::perform(&daemon, &op, &id, Step::Mark(VmState::Running)).await,
            // Whoever interrupted it wants the VM otherwise and is waiting for the lock.
            Err(fault) if matches!(fault.kind, FaultKind::NotFound | FaultKind::Cancelled) => Ok(()),
            Err(fault) if fault.kind == FaultKind::NeverReady => steps::keep(&daemon, &id, fault.to_string()).await,
            Err(fault) => {
                let reason = fault.to_string();
                warn!("VM {id}: {reason}");
                match lifecycle::reach_locked(&daemon, &op, &id, Wanted::Killed).await {
                    Ok(_) => steps::settle(&daemon, &id, VmState::Error, Some(reason)).await,
                    Err(failed) => Err(failed),
                }
            }
        };
        if let Err(fault) = settled {
            warn!("VM {id}: {fault}");
        }
    });
}

async fn settle_dead(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord, reason: String) -> Result<(), Fault> {
    steps::perform(daemon, op, &vm.id, Step::Release).await?;
    steps::settle(daemon, &vm.id, VmState::Stopped, Some(reason)).await
}

/// Removes what an earlier daemon had begun and not finished: temporary names, folders without row.
async fn sweep_files(daemon: &Arc<Daemon>) -> Result<(), Fault> {
    for operation in daemon.stored(|s| s.take_operations()).await? {
        warn!("[{}] was cut short: {}", operation.op, operation.what);
    }
    let vms: HashSet<String> = daemon.stored(|s| s.vms()).await?.iter().map(|vm| vm.id.to_string()).collect();
    let images: HashSet<String> =
        daemon.stored(|s| s.images()).await?.iter().map(|image| format!("{}.ext4", image.name)).collect();
    let kernels: HashSet<String> = daemon.stored(|s| s.kernels()).await?.iter().map(|k| k.name.to_string()).collect();
    let paths = daemon.paths.clone();
    let swept = unblock(move || {
        sweep(&paths.vms(), &vms)?;
        sweep(&paths.images(), &images)?;
        sweep(&paths.kernels(), &kernels)
    });
    swept.await.map_err(|e| Fault::failed("cannot remove leftovers", &e))
}

/// Removes from `folder` what `known` does not name.
fn sweep(folder: &std::path::Path, known: &HashSet<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if known.contains(entry.file_name().to_string_lossy().as_ref()) {
            continue;
        }
        info!("{} belongs to nothing: removed", entry.path().display());
        if entry.file_type()?.is_dir() { remove_tree(&entry.path())? } else { remove_file(&entry.path())? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_knows_is_swept() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("kept.ext4"), "").expect("written");
        std::fs::write(folder.path().join(".kept.ext4.part"), "").expect("written");
        std::fs::create_dir(folder.path().join("gone")).expect("made");
        sweep(folder.path(), &HashSet::from(["kept.ext4".to_owned()])).expect("swept");
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").filter_map(|e| e.ok()).collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), "kept.ext4");
    }
}
