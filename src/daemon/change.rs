//! Changing a VM: its machine while it does not run, its lifetime at any time.

use std::sync::Arc;

use log::info;

use super::operation::Op;
use super::{Daemon, disks, egress, expiry, idle, lifecycle, reconcile};
use crate::model::{VmChange, VmName, VmRecord};
use crate::os::clock::unix_seconds;
use crate::protocol::{Event, Fault, FaultKind};

/// Changes the VM `name`.
pub(super) async fn set(daemon: &Arc<Daemon>, op: &Op, name: &VmName, change: VmChange) -> Result<VmRecord, Fault> {
    if change.is_empty() {
        return Err(Fault::new(FaultKind::BadRequest, format!("nothing to change about VM '{name}' was given")));
    }
    reconcile::ensure(daemon).await?;
    let vm = daemon.vm(name).await?;
    if let Some(grant) = change.never_granted(&vm.spec.egress) {
        let fault = Fault::new(FaultKind::NotFound, format!("'{grant}' is not granted to VM '{name}'"));
        return Err(fault.hint(format!("banger vm egress {name}")));
    }
    change.applied_to(&vm.spec).check().map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    if !change.touches_machine() {
        return write_live(daemon, op, &vm, change).await;
    }
    let vm = lifecycle::refuse_busy(vm)?;
    let machine = daemon.machine(&vm.id);
    let _turn = op.unless_cancelled(machine.turn.lock()).await.ok_or_else(Op::cancelled)?;
    // Somebody may have started it, or changed it, while this waited.
    let vm = lifecycle::refuse_busy(daemon.vm(name).await?)?;
    grow_disk(daemon, &vm, &change).await?;
    write(daemon, op, &vm, change).await
}

/// What can change while it runs. Whoever starts or stops it comes first: what they do heeds the row.
async fn write_live(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord, change: VmChange) -> Result<VmRecord, Fault> {
    if !change.touches_egress() {
        return write(daemon, op, vm, change).await;
    }
    let machine = daemon.machine(&vm.id);
    let _turn = op.unless_cancelled(machine.turn.lock()).await.ok_or_else(Op::cancelled)?;
    let vm = write(daemon, op, vm, change).await?;
    egress::apply(daemon, op, &vm).await?;
    Ok(vm)
}

/// First of all, and the row after it: a disk that is larger than its row says does no harm.
async fn grow_disk(daemon: &Arc<Daemon>, vm: &VmRecord, change: &VmChange) -> Result<(), Fault> {
    let wanted = change.applied_to(&vm.spec);
    vm.spec.check_change(&wanted).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    let mut others = daemon.stored(|s| s.vms()).await?;
    others.retain(|other| other.id != vm.id);
    daemon.limits().admit_change(&wanted, &others).map_err(|e| super::store_fault(&e.into()))?;
    if wanted.disk > vm.spec.disk { disks::grow(daemon, vm, wanted.disk).await } else { Ok(()) }
}

async fn write(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord, change: VmChange) -> Result<VmRecord, Fault> {
    let (id, limits) = (vm.id.clone(), daemon.limits());
    let (timed, idles) = (change.lifetime.is_some(), change.idle_stop.is_some());
    let vm = daemon.stored(move |s| s.change_vm(&id, &limits, &change, unix_seconds())).await?;
    if timed {
        expiry::watch(daemon, &vm.id, vm.expires_at);
    }
    if idles {
        idle::watch(daemon, &vm);
        warn_of_old_agent(daemon, op, &vm).await;
    }
    info!("[{}] VM {} ({}) was changed", op.id, vm.spec.name, vm.id);
    Ok(vm)
}

async fn warn_of_old_agent(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord) {
    if vm.spec.idle_stop.is_some() && idle::has_silent_agent(daemon, &vm.id).await {
        let name = &vm.spec.name;
        let text = format!(
            "the agent in VM '{name}' does not say whether it is used: it is not stopped before its next start"
        );
        op.tell(Event::Warning { text });
    }
}
