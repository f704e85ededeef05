//! Making a VM: everything that may refuse it is asked before anything is made.

use std::path::Path;
use std::sync::Arc;

use super::blocking::unblock;
use super::machine::Original;
use super::operation::Op;
use super::{Daemon, calls, expiry, keeper, lifecycle, reconcile, register};
use crate::host::facts::Facts;
use crate::model::choice::VmmKind;
use crate::model::launch::FakeFailure;
use crate::model::plan::Wanted;
use crate::model::secret::SecretError;
use crate::model::size::human;
use crate::model::{Lifetime, ProcessRef, SecretValue, TimeSpan, VmId, VmRecord, VmSpec};
use crate::os::clock::unix_seconds;
use crate::os::files::free_bytes;
use crate::os::process;
use crate::os::socket::Peer;
use crate::protocol::root::RootRequest;
use crate::protocol::{Fault, FaultKind};

/// With less than this much room for the state nothing is made: a full filesystem stops all VMs.
pub(super) const LEAST_FREE: u64 = 512 << 20;

/// A VM as asked for.
pub(super) struct Asked {
    /// The VM.
    pub spec: VmSpec,
    /// Whether it shall run.
    pub start: bool,
    /// With whose end it ends.
    pub keeper: Option<Peer>,
    /// After what time it ends.
    pub ttl: Option<TimeSpan>,
    /// Values of the specification's secrets, in its order.
    pub values: Vec<SecretValue>,
    /// Only for the fake monitor.
    pub fail: Option<FakeFailure>,
    /// The VM whose disk it gets a copy of, and whose monitor.
    pub copy_of: Option<Box<Original>>,
}

/// Makes a VM and, where that was asked for, starts it.
pub(super) async fn create(daemon: &Arc<Daemon>, op: &Op, mut asked: Asked) -> Result<VmRecord, Fault> {
    let (start, fail, values) = (asked.start, asked.fail, std::mem::take(&mut asked.values));
    let copy_of = asked.copy_of.clone();
    if values.len() != asked.spec.secrets.len() {
        let error = SecretError::Values { values: values.len(), secrets: asked.spec.secrets.len() };
        return Err(Fault::of(FaultKind::BadRequest, &error));
    }
    let vm = admitted(daemon, op, asked).await?;
    let (row, limits) = (vm.clone(), daemon.limits());
    daemon.stored(move |s| s.insert_vm(&row, start, &limits)).await?;
    daemon.machine(&vm.id).set_fail(fail);
    daemon.machine(&vm.id).set_values(values);
    if let Some(original) = copy_of {
        daemon.machine(&vm.id).set_copy_of(*original);
    }
    expiry::watch(daemon, &vm.id, vm.expires_at);
    if let Some(keeper) = vm.keeper {
        keeper::watch(daemon, vm.id.clone(), keeper);
    }
    // In one turn: nobody shall take a VM that is about to start for one that is not used.
    let goals: &[Wanted] = if start { &[Wanted::Created, Wanted::Running] } else { &[Wanted::Created] };
    match lifecycle::reach_in_turn(daemon, op, &vm.id, goals).await {
        Ok(Some(vm)) => Ok(vm),
        Ok(None) => Err(Fault::new(FaultKind::Cancelled, format!("VM '{}' was deleted meanwhile", vm.spec.name))),
        // Another start has taken what was left: of one that was refused nothing stays.
        Err(fault) if fault.kind == FaultKind::Refused => Err(unmade(daemon, &vm.id, fault).await),
        Err(fault) => Err(fault),
    }
}

/// The row to be, once everything but the limits admits it.
async fn admitted(daemon: &Arc<Daemon>, op: &Op, asked: Asked) -> Result<VmRecord, Fault> {
    let spec = asked.spec;
    spec.check().map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    refuse_without_room(&daemon.paths.state)?;
    reconcile::ensure(daemon).await?;
    let (kind, accel) = match &asked.copy_of {
        Some(original) => (original.vm.vmm, original.vm.accel),
        None => {
            let choice = calls::choose(daemon, &unblock(Facts::see).await)?;
            (choice.kind, choice.accel)
        }
    };
    refuse_vcpus(&spec, kind)?;
    if kind == VmmKind::Firecracker && daemon.paths.root_state.exists() {
        // What its guest writes may be kept there.
        refuse_without_room(&daemon.paths.root_state)?;
    }
    refuse_taken_ports(daemon, op, &spec).await?;
    let image = spec.image.clone();
    let image = daemon.stored(move |s| s.image(&image)).await.map_err(|f| f.hint("banger image list"))?;
    register::check(&image)?;
    spec.check_against_image(image.size).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    let created_at = unix_seconds();
    let id = VmId::from_random(crate::os::random::number());
    Ok(VmRecord {
        keeper: asked.keeper.map(reference).transpose()?,
        expires_at: asked.ttl.and_then(|ttl| Lifetime::For(ttl).end(created_at)),
        ..VmRecord::asked_for(id, spec, kind, accel, created_at)
    })
}

/// A port of the host that another VM or another program has. The start may still find it taken.
async fn refuse_taken_ports(daemon: &Daemon, op: &Op, spec: &VmSpec) -> Result<(), Fault> {
    if spec.ports.is_empty() {
        return Ok(());
    }
    for other in daemon.stored(|s| s.vms()).await?.iter().filter(|vm| vm.may_hold_resources()) {
        let taken = spec.ports.iter().find(|port| other.spec.ports.iter().any(|theirs| theirs.meets(port)));
        if let Some(port) = taken {
            let message = format!("port {} of {} is published by VM '{}'", port.host, port.address, other.spec.name);
            return Err(Fault::new(FaultKind::InUse, message).hint(format!("banger vm ports {}", other.spec.name)));
        }
    }
    daemon.helper.call_again(op.id, RootRequest::CheckPorts { ports: spec.ports.clone() }).await.map(|_| ())
}

fn refuse_vcpus(spec: &VmSpec, kind: VmmKind) -> Result<(), Fault> {
    if spec.vcpus <= kind.max_vcpus() {
        return Ok(());
    }
    let message = format!("{} gives a VM at most {} virtual CPUs, not {}", kind.as_str(), kind.max_vcpus(), spec.vcpus);
    Err(Fault::new(FaultKind::BadRequest, message))
}

fn reference(peer: Peer) -> Result<ProcessRef, Fault> {
    process::reference(peer.pid).map_err(|e| Fault::failed("the calling process is gone", &e))
}

fn refuse_without_room(state: &Path) -> Result<(), Fault> {
    let free = free_bytes(state).map_err(|e| Fault::failed("cannot tell how much room there is", &e))?;
    if free >= LEAST_FREE {
        return Ok(());
    }
    let (free, least) = (human(free), human(LEAST_FREE));
    let message = format!("only {free} are free for {}: with less than {least} no VM is made", state.display());
    Err(Fault::new(FaultKind::Refused, message).hint("banger vm prune      (deletes all VMs that do not run)"))
}

/// Takes a VM back that is of no use to whoever asked for it; `fault` with what went wrong over it.
async fn unmade(daemon: &Arc<Daemon>, id: &VmId, mut fault: Fault) -> Fault {
    if let Err(failed) = lifecycle::reach(daemon, &Op::background(), id, Wanted::Gone).await {
        fault.causes.push(format!("and taking it back failed: {failed}"));
    }
    fault
}
