//! Making an image of a VM's disk.
//!
//! The disk is copied, for a VM of its own that nobody asked for: what was written over the image, while the VM does
//! not run or is paused. That copy boots once, not as a VM but to have removed from it what makes a guest a particular
//! one (`guest/init/seal.rs`): a filesystem that a guest has written is never read by the host. Then disk and image
//! become one file. The copy ends with whoever asked, as `--rm` does, so that nothing stays of one that is cut short.

use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};

use super::blocking::unblock;
use super::catalogue::{begin, note_image, turn_of_new};
use super::creation::{self, Asked};
use super::machine::Live;
use super::operation::Op;
use super::steps::{files_of, monitor_of, perform};
use super::{Daemon, lifecycle, reconcile, register};
use crate::model::identity::SEALED;
use crate::model::image::ImageRecord;
use crate::model::plan::{Step, Wanted};
use crate::model::{Egress, ImageName, Mib, TimeSpan, VmName, VmRecord, VmSpec, VmState};
use crate::os::clock::{unix_nanos, unix_seconds};
use crate::os::socket::Peer;
use crate::protocol::guest::{GuestRequest, PROTOCOL_SYNC};
use crate::protocol::{Event, Fault, FaultKind};
use crate::vmm::deadline::within;

/// Memory of the machine that removes an identity: a kernel and one program.
const MEMORY: Mib = Mib(256);

/// After this it goes even if whoever asked lives on and the daemon that worked for him does not.
const LIFETIME: TimeSpan = TimeSpan::HOUR;

/// Makes the image `name` of the disk of `vm`.
pub(super) async fn commit(
    daemon: &Arc<Daemon>,
    op: &Op,
    peer: Peer,
    vm: &VmName,
    name: ImageName,
) -> Result<ImageRecord, Fault> {
    reconcile::ensure(daemon).await?;
    let _turn = turn_of_new(daemon, op, &name).await?;
    let vm = daemon.vm(vm).await?;
    let of = vm.spec.image.clone();
    let image = daemon.stored(move |s| s.image(&of)).await?;
    register::check(&image)?;
    begin(daemon, op, format!("image commit {} {name}", vm.spec.name)).await?;
    let target = daemon.paths.image(&name);
    let made = make(daemon, op, peer, &vm, &target).await.map(|used_bytes| ImageRecord {
        name,
        size: vm.spec.disk,
        used_bytes,
        digest: String::new(),
        source: format!("disk of VM '{}', made from {}", vm.spec.name, image.name).chars().take(80).collect(),
        init: vm.spec.init.unwrap_or(image.init),
        created_at: unix_seconds(),
        reference: None,
        config: image.config,
        kernel: image.kernel,
        place: None,
    });
    note_image(daemon, op, made, &target).await
}

/// Writes the file `target`; the bytes that it takes.
async fn make(
    daemon: &Arc<Daemon>,
    op: &Op,
    peer: Peer,
    vm: &VmRecord,
    target: &std::path::Path,
) -> Result<u64, Fault> {
    op.stage("copying the disk");
    let copy = copy(daemon, op, peer, vm).await?;
    let made = async {
        op.stage("removing the identity");
        seal(daemon, op, &copy).await?;
        op.safe_point()?;
        op.stage("writing the image");
        flatten(daemon, &copy, target).await
    };
    let made = made.await;
    // Whatever came of it. What cannot be removed now goes with whoever asked, or at the end of its lifetime.
    if let Err(fault) = lifecycle::reach(daemon, &Op::background(), &copy.id, Wanted::Gone).await {
        warn!("[{}] the copy {} cannot be deleted yet: {fault}", op.id, copy.spec.name);
    }
    made
}

/// A VM with a copy of the disk.
async fn copy(daemon: &Arc<Daemon>, op: &Op, peer: Peer, vm: &VmRecord) -> Result<VmRecord, Fault> {
    let machine = daemon.machine(&vm.id);
    let _turn = op.unless_cancelled(machine.turn.lock()).await.ok_or_else(Op::cancelled)?;
    let vm = daemon.vm(&vm.spec.name).await?;
    if matches!(vm.state, VmState::Creating | VmState::Starting | VmState::Stopping) {
        let fault = Fault::new(FaultKind::InUse, format!("VM '{}' is {}", vm.spec.name, vm.state));
        return Err(fault.hint(format!("banger vm show {}", vm.spec.name)));
    }
    let alive = lifecycle::monitor_lives(daemon, &vm)?;
    if !reconcile::attach_again(daemon, op, &vm, alive).await && alive {
        let message = format!("VM '{}' runs and its monitor does not answer: its disk cannot be copied", vm.spec.name);
        return Err(Fault::new(FaultKind::OperationFailed, message).hint(format!("banger vm stop {}", vm.spec.name)));
    }
    let live = machine.live().filter(|live| !live.has_ended());
    if let Some(live) = &live {
        halt(op, &vm, live).await?;
    }
    let made = creation::create(daemon, &op.untold(), asked_for(&vm, peer)?).await;
    // Before anything else can go wrong.
    let resumed = match &live {
        Some(live) => go_on(op, &vm, live).await,
        None => Ok(()),
    };
    match (made, resumed) {
        (Ok(copy), Err(fault)) => Err(creation::unmade(daemon, &copy.id, fault).await),
        (made, _) => made,
    }
}

fn asked_for(vm: &VmRecord, peer: Peer) -> Result<Asked, Fault> {
    let name: Result<VmName, _> = format!("commit-{:08x}", crate::os::random::number() as u32).parse();
    let name = name.map_err(|e| Fault::of(FaultKind::OperationFailed, &e))?;
    let spec = VmSpec {
        name,
        vcpus: 1,
        memory: vm.spec.memory.min(MEMORY),
        // Nothing in it has anywhere to go.
        egress: Egress::default(),
        ports: Vec::new(),
        secrets: Vec::new(),
        environment: Vec::new(),
        ..vm.spec.clone()
    };
    let copy_of = Some(Box::new(vm.clone()));
    Ok(Asked { spec, start: false, keeper: Some(peer), ttl: Some(LIFETIME), values: Vec::new(), fail: None, copy_of })
}

/// Has the guest write out what it holds in memory, then halts it.
async fn halt(op: &Op, vm: &VmRecord, live: &Live) -> Result<(), Fault> {
    let synced = match live.agent.protocol().await {
        Some(PROTOCOL_SYNC..) => live.agent.ask(op.id, GuestRequest::Sync).await.map_err(|fault| fault.to_string()),
        Some(_) | None => Err("its agent is too old or does not answer".to_owned()),
    };
    if let Err(why) = synced {
        let text = format!("VM '{}' could not write out what it holds in memory: {why}", vm.spec.name);
        op.tell(Event::Warning { text });
    }
    info!("[{}] VM {} is paused", op.id, vm.spec.name);
    live.control.pause().await.map_err(|e| Fault::failed(format!("cannot pause VM '{}'", vm.spec.name), &e))
}

/// Its clock has stood still meanwhile.
async fn go_on(op: &Op, vm: &VmRecord, live: &Live) -> Result<(), Fault> {
    let resumed = live.control.resume().await;
    resumed.map_err(|e| {
        let fault = Fault::failed(format!("VM '{}' was paused and does not go on", vm.spec.name), &e);
        fault.hint(format!("banger vm restart {}", vm.spec.name))
    })?;
    info!("[{}] VM {} goes on", op.id, vm.spec.name);
    if let Err(fault) = live.agent.ask(op.id, GuestRequest::SetClock { now_ns: unix_nanos() }).await {
        warn!("[{}] the clock of VM {} may be late: {fault}", op.id, vm.spec.name);
    }
    Ok(())
}

/// Boots the copy, which ends by itself; a fault unless it says that it has done its work.
async fn seal(daemon: &Arc<Daemon>, op: &Op, copy: &VmRecord) -> Result<(), Fault> {
    let machine = daemon.machine(&copy.id);
    {
        let _turn = machine.turn.lock().await;
        let op = op.untold();
        perform(daemon, &op, &copy.id, Step::Mark(VmState::Starting)).await?;
        perform(daemon, &op, &copy.id, Step::Launch).await?;
    }
    let limit: Duration = monitor_of(copy).patience(copy.accel).ready;
    let ended = within(limit, op.unless_cancelled(lifecycle::wait_until_idle(daemon, &copy.spec.name)));
    match ended.await {
        Some(Some(Ok(Some(vm)))) if vm.state == VmState::Stopped => {}
        Some(None) => return Err(Op::cancelled()),
        Some(Some(Err(fault))) => return Err(fault),
        Some(Some(Ok(vm))) => {
            return Err(unsealed(daemon, copy, vm.and_then(|vm| vm.reason).unwrap_or_else(|| "it was deleted".into())));
        }
        None => return Err(unsealed(daemon, copy, format!("it did not end within {} s", limit.as_secs()))),
    }
    let done = format!("banger: {SEALED}");
    if files_of(daemon, &copy.id).console_tail().iter().any(|line| line.ends_with(&done)) {
        return Ok(());
    }
    Err(unsealed(daemon, copy, "it ended before it had done its work".to_owned()))
}

fn unsealed(daemon: &Daemon, copy: &VmRecord, why: String) -> Fault {
    let fault =
        Fault::new(FaultKind::OperationFailed, "the identity cannot be removed from the copied disk").cause(why);
    match files_of(daemon, &copy.id).console_tail() {
        lines if lines.is_empty() => fault,
        lines => fault.cause(format!("the console of its boot ends with:\n{}", lines.join("\n"))),
    }
}

async fn flatten(daemon: &Arc<Daemon>, copy: &VmRecord, target: &std::path::Path) -> Result<u64, Fault> {
    let (monitor, disk, size) = (monitor_of(copy), files_of(daemon, &copy.id).disk(), copy.spec.disk);
    let (image, target) = (daemon.paths.image(&copy.spec.image), target.to_owned());
    let made = unblock(move || {
        monitor.flatten_disk(&disk, &image, size, &target)?;
        Ok::<_, crate::vmm::VmmError>(std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&target)?) * 512)
    });
    made.await.map_err(|e| Fault::failed("cannot write the image", &e))
}
