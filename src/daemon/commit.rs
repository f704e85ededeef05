//! Making an image of a VM's disk.
//!
//! The disk is copied, for a VM of its own that nobody asked for: what was written over the image, while the VM does
//! not run or is paused. That copy boots once, not as a VM but to have removed from it what makes a guest a particular
//! one (`guest/init/seal.rs`): a filesystem that a guest has written is never read by the host. Then disk and image
//! become one file. The copy ends with whoever asked, as `--rm` does, so that nothing stays of one that is cut short.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::blocking::unblock;
use super::catalogue::{begin, note_image, turn_of_new};
use super::creation::{self, Asked};
use super::machine::{Live, Original};
use super::operation::Op;
use super::steps::{files_of, load, monitor_of, perform, set_clock_later};
use super::{Daemon, disks, lifecycle, reconcile, register};
use crate::model::identity::{SEALED, Seal};
use crate::model::image::ImageRecord;
use crate::model::plan::{Step, Wanted};
use crate::model::size::human;
use crate::model::{Egress, ImageName, Mib, TimeSpan, VmId, VmName, VmRecord, VmSpec, VmState};
use crate::os::clock::unix_seconds;
use crate::os::files::free_bytes;
use crate::os::socket::Peer;
use crate::protocol::guest::{GuestRequest, PROTOCOL_SYNC};
use crate::protocol::{Event, Fault, FaultKind};
use crate::vmm::deadline::within;
use crate::vmm::{DiskCopy, VmmError};

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
    let made = make(daemon, op, peer, &vm.id, &target).await.map(|Made { spec, used_bytes }| ImageRecord {
        name,
        size: spec.disk,
        used_bytes,
        digest: String::new(),
        source: format!("disk of VM '{}', made from {}", vm.spec.name, image.name).chars().take(80).collect(),
        init: spec.init.unwrap_or(image.init),
        created_at: unix_seconds(),
        reference: None,
        config: image.config,
        kernel: image.kernel,
        place: None,
    });
    note_image(daemon, op, made, &target).await
}

/// What came of it.
struct Made {
    /// Of the VM when its disk was copied.
    spec: VmSpec,
    /// What the file takes.
    used_bytes: u64,
}

/// Writes the file `target`.
async fn make(daemon: &Arc<Daemon>, op: &Op, peer: Peer, id: &VmId, target: &Path) -> Result<Made, Fault> {
    op.stage("copying the disk");
    let copy = copy(daemon, op, peer, id).await?;
    let made = async {
        op.stage("removing the identity");
        seal(daemon, op, &copy).await?;
        op.safe_point()?;
        op.stage("writing the image");
        let used_bytes = flatten(daemon, &copy, target).await?;
        op.safe_point()?;
        Ok(Made { spec: copy.spec.clone(), used_bytes })
    };
    let made = made.await;
    // Whatever came of it. What cannot be removed now goes with whoever asked, or at the end of its lifetime.
    if let Err(fault) = lifecycle::reach(daemon, &Op::background(), &copy.id, Wanted::Gone).await {
        warn!("[{}] the copy {} cannot be deleted yet: {fault}", op.id, copy.spec.name);
    }
    made
}

/// A VM with a copy of the disk.
async fn copy(daemon: &Arc<Daemon>, op: &Op, peer: Peer, id: &VmId) -> Result<VmRecord, Fault> {
    let machine = daemon.machine(id);
    let _turn = op.unless_cancelled(machine.turn.lock()).await.ok_or_else(Op::cancelled)?;
    let vm = load(daemon, id).await?;
    if matches!(vm.state, VmState::Creating | VmState::Starting | VmState::Stopping) {
        let fault = Fault::new(FaultKind::InUse, format!("VM '{}' is {}", vm.spec.name, vm.state));
        return Err(fault.hint(format!("banger vm show {}", vm.spec.name)));
    }
    let alive = lifecycle::monitor_lives(daemon, &vm)?;
    if !reconcile::attach_again(daemon, op, &vm, alive).await && alive {
        let message = format!("VM '{}' runs and its monitor does not answer: its disk cannot be copied", vm.spec.name);
        return Err(Fault::new(FaultKind::OperationFailed, message).hint(format!("banger vm stop {}", vm.spec.name)));
    }
    refuse_without_room(daemon, &vm).await?;
    let (files, name) = (files_of(daemon, id), vm.spec.name.clone());
    let keys = unblock(move || files.keys()).await;
    let keys = keys.map_err(|e| Fault::failed(format!("cannot read the keys of VM '{name}'"), &e))?;
    let seal = Seal { name: vm.spec.name.clone(), authorized_key: keys.client_public };
    creation::create(daemon, &op.as_part(), asked_for(Original { vm, seal }, peer)?).await
}

fn asked_for(original: Original, peer: Peer) -> Result<Asked, Fault> {
    let name: Result<VmName, _> = format!("commit-{:08x}", crate::os::random::number() as u32).parse();
    let name = name.map_err(|e| Fault::of(FaultKind::OperationFailed, &e))?;
    let of = &original.vm.spec;
    let spec = VmSpec {
        name,
        vcpus: 1,
        memory: of.memory.min(MEMORY),
        // Nothing in it has anywhere to go.
        egress: Egress::default(),
        ports: Vec::new(),
        secrets: Vec::new(),
        environment: Vec::new(),
        idle_stop: None,
        ..of.clone()
    };
    let copy_of = Some(Box::new(original));
    Ok(Asked { spec, start: false, keeper: Some(peer), ttl: Some(LIFETIME), values: Vec::new(), fail: None, copy_of })
}

/// A full filesystem would stop all VMs. Where files can share blocks, less is needed than is asked for here.
async fn refuse_without_room(daemon: &Daemon, vm: &VmRecord) -> Result<(), Fault> {
    let (image, disk) = (daemon.paths.image(&vm.spec.image), files_of(daemon, &vm.id).disk());
    let (state, name) = (daemon.paths.state.clone(), vm.spec.name.clone());
    let looked = unblock(move || -> std::io::Result<(u64, u64)> {
        // The disk is no file where the helper keeps it.
        let disk = std::fs::metadata(disk).map_or(0, |about| about.blocks() * 512);
        let image = std::fs::metadata(image)?.blocks() * 512;
        Ok((creation::LEAST_FREE + image + 2 * disk, free_bytes(&state)?))
    });
    let (needed, free) = looked.await.map_err(|e| Fault::failed("cannot tell how much room is needed", &e))?;
    if free >= needed {
        return Ok(());
    }
    let message = format!("an image of VM '{name}' needs {} of room, and {} are free", human(needed), human(free));
    Err(Fault::new(FaultKind::Refused, message).hint("banger vm prune      (deletes all VMs that do not run)"))
}

/// Copies the disk of `original`, whose turn is held, for `vm`. A guest that runs is halted for as long as what it has
/// written is copied.
pub(super) async fn copy_disk(daemon: &Arc<Daemon>, op: &Op, original: &VmRecord, vm: &VmRecord) -> Result<(), Fault> {
    let (monitor, disk, to) = (monitor_of(vm), files_of(daemon, &original.id).disk(), files_of(daemon, &vm.id).disk());
    let (image, size) = (daemon.paths.image(&vm.spec.image), vm.spec.disk);
    let jailed = monitor.is_jailed(original.accel);
    let kept = if jailed { disks::read_kept(daemon, op, &original.id).await? } else { None };
    let live = daemon.machine(&original.id).live().filter(|live| !live.has_ended());
    if let Some(live) = &live {
        write_out(op, original, live).await;
    }
    let (line, name) = (format!("[{}] VM {}", op.id, original.spec.name), original.spec.name.clone());
    let halted = live.clone();
    let copied = unblock(move || {
        let still = |work: &mut dyn FnMut() -> Result<(), VmmError>| match &halted {
            Some(live) => while_halted(&line, live, work),
            None => work(),
        };
        monitor.copy_disk(DiskCopy { disk: &disk, kept, image: &image, size, to: &to, still: &still })
    });
    let copied = copied.await.map_err(|e| Fault::failed(format!("cannot copy the disk of VM '{name}'"), &e));
    if let Some(live) = live {
        // Whatever came of the copy: it may be halted still.
        make_sure_it_runs(daemon, op, original, &live, copied.is_err()).await?;
        set_clock_later(daemon, original.id.clone(), live);
    }
    copied
}

/// Has the guest write out what it holds in memory.
async fn write_out(op: &Op, vm: &VmRecord, live: &Live) {
    let written = match live.agent.protocol().await {
        Some(PROTOCOL_SYNC..) => live.agent.ask(op.id, GuestRequest::Sync).await.map_err(|fault| fault.to_string()),
        Some(_) | None => Err("its agent is too old or does not answer".to_owned()),
    };
    if let Err(why) = written {
        let text = format!("VM '{}' could not write out what it holds in memory: {why}", vm.spec.name);
        op.tell(Event::Warning { text });
    }
}

fn while_halted(line: &str, live: &Live, work: &mut dyn FnMut() -> Result<(), VmmError>) -> Result<(), VmmError> {
    let begun = Instant::now();
    smol::block_on(live.control.pause())?;
    let worked = work();
    smol::block_on(live.control.resume())?;
    info!("{line} was paused for {} ms", begun.elapsed().as_millis());
    worked
}

/// A monitor that was told to halt, or to go on, and has not answered may do the one after all and not the other: it is
/// told once more, over another conversation where this one has ended.
async fn make_sure_it_runs(
    daemon: &Arc<Daemon>,
    op: &Op,
    vm: &VmRecord,
    live: &Live,
    in_doubt: bool,
) -> Result<(), Fault> {
    if !in_doubt || live.has_ended() {
        return Ok(());
    }
    let Err(error) = live.control.resume().await else { return Ok(()) };
    warn!("[{}] VM {} may be paused: {error}", op.id, vm.spec.name);
    daemon.machine(&vm.id).set_live(None);
    if reconcile::attach_again(daemon, op, vm, true).await {
        return Ok(());
    }
    let fault = Fault::failed(format!("VM '{}' was paused and does not go on", vm.spec.name), &error);
    Err(fault.hint(format!("banger vm restart {}", vm.spec.name)))
}

/// Boots the copy, which ends by itself; a fault unless it says that it has done its work.
async fn seal(daemon: &Arc<Daemon>, op: &Op, copy: &VmRecord) -> Result<(), Fault> {
    let machine = daemon.machine(&copy.id);
    {
        let _turn = machine.turn.lock().await;
        let op = op.as_part();
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

async fn flatten(daemon: &Arc<Daemon>, copy: &VmRecord, target: &Path) -> Result<u64, Fault> {
    let (monitor, disk, size) = (monitor_of(copy), files_of(daemon, &copy.id).disk(), copy.spec.disk);
    let (image, target) = (daemon.paths.image(&copy.spec.image), target.to_owned());
    let made = unblock(move || {
        monitor.flatten_disk(&disk, &image, size, &target)?;
        Ok::<_, VmmError>(std::fs::metadata(&target)?.blocks() * 512)
    });
    made.await.map_err(|e| Fault::failed("cannot write the image", &e))
}
