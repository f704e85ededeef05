//! Carrying out plans: one VM at a time under its lock, each step by name, undo backwards.

use std::sync::Arc;

use log::{info, warn};

use super::operation::Op;
use super::{Daemon, reconcile, steps};
use crate::model::plan::{Broken, Left, Seen, Step, Wanted, aftermath, plan};
use crate::model::{ProcessRef, VmId, VmName, VmRecord, VmState};
use crate::os::process::is_alive;
use crate::protocol::{Fault, FaultKind};

/// Brings the VM `id` to `wanted`; `None` when it is gone afterwards.
pub(super) async fn reach(daemon: &Arc<Daemon>, op: &Op, id: &VmId, wanted: Wanted) -> Result<Option<VmRecord>, Fault> {
    reconcile::ensure(daemon).await?;
    let machine = daemon.machine(id);
    if !is_making(wanted) {
        machine.interrupt();
    }
    let _turn = machine.turn.lock().await;
    let _making = is_making(wanted).then(|| machine.begin_making(op.cancel.clone()));
    reach_locked(daemon, op, id, wanted).await
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
    let seen = Seen { state: vm.state, alive: vm.process.is_some_and(is_alive) };
    let planned = plan(wanted, seen).map_err(|no| {
        Fault::new(FaultKind::InUse, format!("VM '{}' cannot be changed now", vm.spec.name)).cause(no.to_string())
    })?;
    info!("[{}] VM {} ({id}): {} → {wanted:?}", op.id, vm.spec.name, vm.state);
    let mut done = Vec::new();
    for step in planned {
        let begun = if is_making(wanted) { op.safe_point() } else { Ok(()) };
        let outcome = match begun {
            Ok(()) => steps::perform(daemon, op, id, step).await,
            Err(fault) => Err(fault),
        };
        done.push(step);
        if let Err(fault) = outcome {
            return Err(take_back(daemon, op, &vm, wanted, &done, fault).await);
        }
    }
    look(daemon, id).await
}

/// Making things can be given up; taking them away is brought to its end.
fn is_making(wanted: Wanted) -> bool {
    match wanted {
        Wanted::Created | Wanted::Running => true,
        Wanted::Stopped | Wanted::Killed | Wanted::Gone => false,
    }
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
    let aftermath = aftermath(wanted, done, how_it_broke(&fault));
    for step in aftermath.undo {
        if let Err(failed) = steps::perform(daemon, op, id, step).await {
            warn!("[{}] undo {step:?} of VM {name}: {failed}", op.id);
            fault.causes.push(format!("and taking it back failed: {failed}"));
        }
    }
    let settled = match aftermath.left {
        Left::Nothing => steps::perform(daemon, op, id, Step::Forget).await,
        Left::AsStopped => steps::settle(daemon, id, VmState::Stopped, None).await,
        Left::InError => steps::settle(daemon, id, VmState::Error, Some(fault.to_string())).await,
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
    let (state, reason) = steps::why_it_ended(daemon, &vm).await;
    info!("VM {} ({id}) ended by itself: {reason}", vm.spec.name);
    let op = Op::background();
    if let Err(fault) = steps::perform(daemon, &op, id, Step::Release).await {
        warn!("releasing VM {} failed: {fault}", vm.spec.name);
    }
    if let Err(fault) = steps::settle(daemon, id, state, Some(reason)).await {
        warn!("noting the end of VM {} failed: {fault}", vm.spec.name);
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
