//! What VMs use: of the host, as its kernel counts it, and of their guests, as their agents say.

use std::sync::Arc;

use log::warn;

use super::blocking::unblock;
use super::operation::Op;
use super::{Daemon, calls, reconcile};
use crate::model::{VmName, VmRecord, VmState};
use crate::os::cgroup::usage_of;
use crate::protocol::guest::{GuestReply, GuestRequest, GuestStats};
use crate::protocol::owner::VmStats;
use crate::protocol::{Fault, FaultKind};

/// Of the VMs called `names`, or of all that run. They are asked at once: one guest that is silent
/// does not hold up the numbers of the others.
pub(super) async fn stats(daemon: &Arc<Daemon>, op: &Op, names: &[VmName]) -> Result<Vec<VmStats>, Fault> {
    reconcile::ensure(daemon).await?;
    let vms = chosen(daemon, names).await?;
    let ask = |vm: VmRecord| daemon.executor.spawn(of_vm(daemon.clone(), op.clone(), vm));
    let asked: Vec<_> = vms.into_iter().map(ask).collect();
    let mut all = Vec::new();
    for answer in asked {
        match answer.await {
            Ok(stats) => all.push(stats),
            Err(fault) if names.is_empty() => warn!("[{}] {fault}", op.id),
            Err(fault) => return Err(fault),
        }
    }
    Ok(all)
}

async fn chosen(daemon: &Daemon, names: &[VmName]) -> Result<Vec<VmRecord>, Fault> {
    if names.is_empty() {
        let mut vms = daemon.stored(|s| s.vms()).await?;
        vms.retain(|vm| vm.state == VmState::Running);
        return Ok(vms);
    }
    let mut vms = Vec::new();
    for name in names {
        vms.push(calls::running(daemon, name).await?);
    }
    Ok(vms)
}

async fn of_vm(daemon: Arc<Daemon>, op: Op, vm: VmRecord) -> Result<VmStats, Fault> {
    let name = &vm.spec.name;
    let ended = || Fault::new(FaultKind::InUse, format!("VM '{name}' is not running")).cause("it has just ended");
    let process = vm.process.ok_or_else(ended)?;
    let group = vm.id.clone();
    let host = unblock(move || usage_of(process, group.as_str())).await;
    let host = host.map_err(|e| Fault::failed(format!("cannot measure VM '{name}'"), &e))?.ok_or_else(ended)?;
    let guest = ask_guest(&daemon, &op, &vm).await.map_err(|fault| fault.to_string());
    Ok(VmStats { name: name.clone(), vcpus: vm.spec.vcpus, host, guest })
}

async fn ask_guest(daemon: &Daemon, op: &Op, vm: &VmRecord) -> Result<GuestStats, Fault> {
    let Some(live) = daemon.machine(&vm.id).live() else {
        return Err(Fault::new(FaultKind::OperationFailed, "there is no connection to the guest's agent"));
    };
    match op.unless_cancelled(live.agent.ask(op.id, GuestRequest::Stats)).await.ok_or_else(Op::cancelled)?? {
        GuestReply::Stats(stats) => Ok(stats),
        GuestReply::Done
        | GuestReply::Health(_)
        | GuestReply::Ports(_)
        | GuestReply::Shell { .. }
        | GuestReply::ShellPort { .. }
        | GuestReply::Activity(_) => {
            Err(Fault::new(FaultKind::OperationFailed, "the guest's agent answered something else"))
        }
    }
}
