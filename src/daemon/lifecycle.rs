//! Carrying out plans: one VM at a time under its lock, each step by name, undo backwards.

use std::sync::Arc;

use log::{info, warn};

use super::operation::Op;
use super::{Daemon, ending, reconcile, steps};
use crate::model::plan::{Aftermath, Broken, Left, Seen, Step, Wanted, aftermath, plan};
use crate::model::{ProcessRef, VmId, VmName, VmRecord, VmState};
use crate::os::process;
use crate::protocol::{Fault, FaultKind};

/// Brings the VM `id` to `wanted`; `None` when it is gone afterwards.
pub(super) async fn reach(daemon: &Arc<Daemon>, op: &Op, id: &VmId, wanted: Wanted) -> Result<Option<VmRecord>, Fault> {
    reach_in_turn(daemon, op, id, &[wanted]).await
}

/// Brings the VM `id` to each of `goals`, one after the other, without anybody coming in between.
pub(super) async fn reach_in_turn(
    daemon: &Arc<Daemon>,
    op: &Op,
    id: &VmId,
    goals: &[Wanted],
) -> Result<Option<VmRecord>, Fault> {
    reconcile::ensure(daemon).await?;
    let machine = daemon.machine(id);
    let of = |goal: &Wanted| (*goal, if goal.is_making() { op.clone() } else { op.to_its_end() });
    let goals: Vec<(Wanted, Op)> = goals.iter().map(of).collect();
    let _come: Vec<_> = goals.iter().map(|(goal, op)| machine.come(*goal, op.cancel.clone())).collect();
    if machine.turn.try_lock().is_none()
        && let Some((_, op)) = goals.first()
    {
        op.stage("waiting for another command");
        op.waits_for("it is at work on the same VM");
    }
    let turn = machine.turn.lock();
    let _turn = match goals.first() {
        Some((Wanted::Running, op)) => op.unless_cancelled(turn).await.ok_or_else(Op::cancelled)?,
        // A creation that is given up still has its row to take back.
        Some((Wanted::Created | Wanted::Stopped | Wanted::Killed | Wanted::Gone, _)) | None => turn.await,
    };
    let mut reached = None;
    for (goal, op) in &goals {
        reached = reach_locked(daemon, op, id, *goal).await?;
    }
    Ok(reached)
}

/// Shuts the VM down and starts it again. Whoever asked may leave meanwhile: a VM that was to run
/// again does. Somebody else who wants it stopped is heeded.
pub(super) async fn restart(daemon: &Arc<Daemon>, op: &Op, name: &VmName) -> Result<Option<VmRecord>, Fault> {
    let vm = daemon.vm(name).await?;
    reach_in_turn(daemon, &op.to_its_end(), &vm.id, &[Wanted::Stopped, Wanted::Running]).await
}

/// Shuts the VM down for a `reason` of banger's own, unless `still` does not hold any more when its turn has come.
/// Whether that was done.
pub(super) async fn stop_because(
    daemon: &Arc<Daemon>,
    id: &VmId,
    reason: String,
    still: impl FnOnce(&VmRecord) -> bool,
) -> Result<bool, Fault> {
    let (machine, op) = (daemon.machine(id), Op::background());
    let _come = machine.come(Wanted::Stopped, op.cancel.clone());
    let _turn = machine.turn.lock().await;
    let Some(vm) = look(daemon, id).await?.filter(still) else { return Ok(false) };
    machine.set_stop_reason(Some(reason));
    let stopped = reach_locked(daemon, &op, &vm.id, Wanted::Stopped).await;
    // Of a stop that failed.
    machine.set_stop_reason(None);
    stopped.map(|_| true)
}

/// Deletes the VM unless it runs, boots, or is being made: what was true when somebody looked need
/// not be true any more.
pub(super) async fn delete_idle(daemon: &Arc<Daemon>, op: &Op, name: &VmName) -> Result<(), Fault> {
    reconcile::ensure(daemon).await?;
    let id = refuse_busy(daemon.vm(name).await?)?.id;
    let machine = daemon.machine(&id);
    let _turn = op.unless_cancelled(machine.turn.lock()).await.ok_or_else(Op::cancelled)?;
    if let Some(vm) = look(daemon, &id).await? {
        refuse_busy(vm)?;
        reach_locked(daemon, &op.to_its_end(), &id, Wanted::Gone).await?;
    }
    Ok(())
}

/// The VM, unless it runs or somebody is making or changing it.
pub(super) fn refuse_busy(vm: VmRecord) -> Result<VmRecord, Fault> {
    if !vm.may_hold_resources() && vm.state != VmState::Creating {
        return Ok(vm);
    }
    let name = &vm.spec.name;
    let fault = Fault::new(FaultKind::InUse, format!("VM '{name}' is in use")).cause(format!("it is {}", vm.state));
    Err(fault.hint(format!("banger vm stop {name}")))
}

/// The same for whoever holds the VM's lock.
pub(super) async fn reach_locked(
    daemon: &Arc<Daemon>,
    op: &Op,
    id: &VmId,
    wanted: Wanted,
) -> Result<Option<VmRecord>, Fault> {
    let Some(vm) = look(daemon, id).await? else {
        return if wanted == Wanted::Gone { Ok(None) } else { Err(Fault::new(FaultKind::NotFound, "the VM is gone")) };
    };
    let seen = Seen { state: vm.state, alive: monitor_lives(daemon, &vm)? };
    reconcile::attach_again(daemon, op, &vm, seen.alive).await;
    let planned = plan(wanted, seen).map_err(|no| {
        Fault::new(FaultKind::InUse, format!("VM '{}' cannot be changed now", vm.spec.name)).cause(no.to_string())
    })?;
    if planned.contains(&Step::Launch) {
        admit_start(daemon, &vm).await?;
    }
    info!("[{}] VM {} ({id}): {} → {wanted:?}", op.id, vm.spec.name, vm.state);
    let mut done = Vec::new();
    for step in planned {
        let outcome = match if wanted.is_making() { op.safe_point() } else { Ok(()) } {
            Ok(()) => {
                // Before it is done: half of it may be there when it fails.
                done.push(step);
                steps::perform(daemon, op, id, step).await
            }
            Err(fault) => Err(fault),
        };
        if let Err(fault) = outcome {
            return Err(take_back(daemon, op, &vm, wanted, &done, fault).await);
        }
    }
    look(daemon, id).await
}

/// Refuses, before anything is touched, a start that exceeds the limits. Two at once may both come past
/// here; the store, which reserves, then refuses the second.
async fn admit_start(daemon: &Daemon, vm: &VmRecord) -> Result<(), Fault> {
    let mut others = daemon.stored(|s| s.vms()).await?;
    others.retain(|other| other.id != vm.id);
    daemon.limits().admit_start(vm.spec.memory, &others).map_err(|e| super::store_fault(&e.into()))
}

/// Whether the VM's monitor lives; a fault where that cannot be told, for a VM that is taken for
/// dead is released, which kills it.
pub(super) fn monitor_lives(daemon: &Daemon, vm: &VmRecord) -> Result<bool, Fault> {
    if let Some(live) = daemon.machine(&vm.id).live() {
        return Ok(!live.has_ended());
    }
    let Some(process) = vm.process else { return Ok(false) };
    let found = process::open(process);
    found
        .map(|pidfd| pidfd.is_some())
        .map_err(|e| Fault::failed(format!("cannot tell whether VM '{}' runs", vm.spec.name), &e))
}

/// Takes `done` back, going on after failures, and gives the fault that says all of it.
async fn take_back(
    daemon: &Arc<Daemon>,
    op: &Op,
    vm: &VmRecord,
    wanted: Wanted,
    done: &[Step],
    mut fault: Fault,
) -> Fault {
    let (id, name) = (&vm.id, &vm.spec.name);
    if done.is_empty() && wanted != Wanted::Created {
        // Nothing was touched: the VM is what it was.
        return fault;
    }
    let Aftermath { undo, mut left } = aftermath(wanted, done, how_it_broke(&fault));
    for step in undo {
        if let Err(failed) = steps::perform(daemon, op, id, step).await {
            warn!("[{}] undo {step:?} of VM {name}: {failed}", op.id);
            fault.causes.push(format!("and taking it back failed: {failed}"));
            // Something of it is still there: the row stays, and says so.
            left = Left::InError;
        }
    }
    let settled = match left {
        Left::Nothing => steps::perform(daemon, op, id, Step::Forget).await,
        Left::AsStopped => steps::settle(daemon, id, VmState::Stopped, None).await,
        Left::AsBefore => match vm.state {
            VmState::Created | VmState::Stopped | VmState::Error => {
                steps::settle(daemon, id, vm.state, vm.reason.clone()).await
            }
            VmState::Creating | VmState::Starting | VmState::Running | VmState::Stopping => {
                steps::settle(daemon, id, VmState::Stopped, None).await
            }
        },
        Left::InError => steps::settle(daemon, id, VmState::Error, Some(fault.to_string())).await,
        Left::Kept => steps::keep(daemon, id, fault.to_string()).await,
    };
    if let Err(failed) = settled {
        fault.causes.push(format!("and noting it failed: {failed}"));
    }
    fault
}

fn how_it_broke(fault: &Fault) -> Broken {
    match fault.kind {
        FaultKind::Cancelled => Broken::Cancelled,
        FaultKind::NeverReady => Broken::NeverReady,
        FaultKind::Refused => Broken::Refused,
        _ => Broken::Failed,
    }
}

async fn look(daemon: &Daemon, id: &VmId) -> Result<Option<VmRecord>, Fault> {
    let id = id.clone();
    daemon.stored(move |s| s.vm_by_id(&id)).await
}

/// The monitor's process ended by itself: notes it and takes back what was made for it.
pub(super) async fn monitor_ended(daemon: &Arc<Daemon>, id: &VmId, process: ProcessRef) {
    let machine = daemon.machine(id);
    let _turn = machine.turn.lock().await;
    let vm = match look(daemon, id).await {
        Ok(Some(vm)) if vm.process == Some(process) => vm,
        // Somebody ended it on purpose and has noted it.
        Ok(_) => return,
        Err(fault) => {
            warn!("an ended VM cannot be looked up: {fault}");
            return;
        }
    };
    let (state, reason) = ending::why_it_ended(daemon, &vm).await;
    info!("VM {} ({id}) ended by itself: {reason}", vm.spec.name);
    let op = Op::background();
    if let Err(fault) = steps::perform(daemon, &op, id, Step::Release).await {
        warn!("releasing VM {} failed: {fault}", vm.spec.name);
    }
    if let Err(fault) = steps::settle(daemon, id, state, Some(reason)).await {
        warn!("noting the end of VM {} failed: {fault}", vm.spec.name);
    }
}

/// Waits for the end of a monitor of which nothing but its process is known.
pub(super) fn watch_process(daemon: &Arc<Daemon>, vm: &VmRecord) {
    let Some(process) = vm.process else { return };
    let (daemon, id) = (daemon.clone(), vm.id.clone());
    daemon.clone().spawn(async move {
        match wait_for_end(process).await {
            Ok(()) => monitor_ended(&daemon, &id, process).await,
            Err(e) => warn!("VM {id}: its {process} cannot be watched: {e}"),
        }
    });
}

/// Ends when `process` has ended; at once when it has already.
pub(super) async fn wait_for_end(process: ProcessRef) -> std::io::Result<()> {
    if let Some(pidfd) = process::open(process)? {
        smol::Async::new(pidfd)?.readable().await?;
    }
    Ok(())
}

/// Ends when the VM does not run and is not about to, with what is left of it; `None` when nothing is.
pub(super) async fn wait_until_idle(daemon: &Arc<Daemon>, name: &VmName) -> Result<Option<VmRecord>, Fault> {
    reconcile::ensure(daemon).await?;
    let id = daemon.vm(name).await?.id;
    let machine = daemon.machine(&id);
    loop {
        // Before it is looked at: what changes in between is told.
        let changed = machine.changed.listen();
        match look(daemon, &id).await? {
            Some(vm) if vm.may_hold_resources() || vm.state == VmState::Creating => changed.await,
            idle => return Ok(idle),
        }
    }
}

/// The id behind a name, and then `wanted`.
pub(super) async fn reach_by_name(
    daemon: &Arc<Daemon>,
    op: &Op,
    name: &VmName,
    wanted: Wanted,
) -> Result<Option<VmRecord>, Fault> {
    let vm = daemon.vm(name).await?;
    reach(daemon, op, &vm.id, wanted).await
}
