//! Finding everything again after a start: running VMs go on, half-made ones are taken back,
//! nothing is left that nobody owns.

use std::collections::HashSet;
use std::sync::Arc;

use log::{info, warn};

use super::operation::Op;
use super::{Daemon, keeper, lifecycle, steps};
use crate::model::plan::{Step, Wanted};
use crate::model::{VmId, VmRecord, VmState};
use crate::os::files::{remove_file, remove_tree};
use crate::os::process::is_alive;
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind};

/// At the daemon's start: what needs no helper, then the rest, if the helper answers.
pub(super) async fn at_start(daemon: &Arc<Daemon>) {
    if let Err(fault) = sweep_files(daemon).await {
        warn!("cannot sweep what an earlier daemon left: {fault}");
    }
    if let Err(fault) = ensure(daemon).await {
        warn!("virtual machines are found again once the helper answers: {fault}");
    }
}

/// Reconciles once; tried again at each call until the helper has answered.
pub(super) async fn ensure(daemon: &Arc<Daemon>) -> Result<(), Fault> {
    let mut done = daemon.reconciled.lock().await;
    if *done {
        return Ok(());
    }
    let op = Op::background();
    let known = release_unknown(daemon, &op).await?;
    for vm in daemon.stored(|s| s.vms()).await? {
        let name = vm.spec.name.clone();
        if let Err(fault) = find_again(daemon, &op, vm, &known).await {
            warn!("VM {name} cannot be reconciled: {fault}");
        }
    }
    *done = true;
    Ok(())
}

/// Has the helper take back what belongs to no VM; gives what it knows of those that exist.
async fn release_unknown(daemon: &Arc<Daemon>, op: &Op) -> Result<HashSet<VmId>, Fault> {
    let rows: HashSet<VmId> = daemon.stored(|s| s.vms()).await?.into_iter().map(|vm| vm.id).collect();
    let entries = match daemon.helper.call_again(op.id, RootRequest::Inventory).await? {
        (RootReply::Inventory(entries), _) => entries,
        (other, _) => {
            return Err(Fault::new(FaultKind::OperationFailed, "the root helper answered something else")
                .cause(format!("{other:?}")));
        }
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
    Ok(known)
}

async fn find_again(daemon: &Arc<Daemon>, op: &Op, vm: VmRecord, known: &HashSet<VmId>) -> Result<(), Fault> {
    let machine = daemon.machine(&vm.id);
    let turn = machine.turn.lock().await;
    let alive = vm.process.is_some_and(is_alive);
    match vm.state {
        VmState::Creating => {
            info!("VM {} was half-made: taken back", vm.spec.name);
            steps::perform(daemon, op, &vm.id, Step::RemoveFiles).await?;
            return steps::perform(daemon, op, &vm.id, Step::Forget).await;
        }
        VmState::Running | VmState::Error if alive => attach(daemon, op, &vm).await?,
        VmState::Starting if alive => {
            attach(daemon, op, &vm).await?;
            finish_start(daemon, vm.id.clone());
        }
        VmState::Starting | VmState::Running => {
            let reason = "it ended while the daemon was not running".to_owned();
            settle_dead(daemon, op, &vm, reason).await?;
        }
        VmState::Stopping => settle_dead(daemon, op, &vm, "it was being stopped".to_owned()).await?,
        VmState::Created | VmState::Stopped | VmState::Error => {
            if known.contains(&vm.id) {
                steps::perform(daemon, op, &vm.id, Step::Release).await?;
            }
        }
    }
    drop(turn);
    if let Some(process) = vm.keeper {
        // After the lock, and in a task: it may want to delete the VM at once.
        keeper::watch(daemon, vm.id, process);
    }
    Ok(())
}

async fn attach(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord) -> Result<(), Fault> {
    let (reply, files) = daemon.helper.call_again(op.id, RootRequest::AttachVm { id: vm.id.clone() }).await?;
    steps::go_live(daemon, op, &vm.id, reply, files).await?;
    info!("VM {} is found again", vm.spec.name);
    Ok(())
}

/// A boot that the earlier daemon had begun: its asker is gone, the VM need not be.
fn finish_start(daemon: &Arc<Daemon>, id: VmId) {
    let daemon = daemon.clone();
    daemon.clone().spawn(async move {
        let op = Op::background();
        let machine = daemon.machine(&id);
        let _turn = machine.turn.lock().await;
        let _making = machine.begin_making(op.cancel.clone());
        let ready = steps::perform(&daemon, &op, &id, Step::AwaitReady).await;
        let settled = match ready {
            Ok(()) => steps::perform(&daemon, &op, &id, Step::Mark(VmState::Running)).await,
            // Whoever interrupted it wants the VM otherwise and is waiting for the lock.
            Err(fault) if matches!(fault.kind, FaultKind::NotFound | FaultKind::Cancelled) => Ok(()),
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
    let swept = smol::unblock(move || {
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
