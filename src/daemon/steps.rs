//! The steps that plans consist of: one function each, each may be repeated.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use log::{info, warn};

use super::agent::AgentLink;
use super::blocking::unblock;
use super::helper::unexpected;
use super::machine::Live;
use super::operation::Op;
use super::outward::Outward;
use super::secrets::Vault;
use super::vm_files::VmFiles;
use super::{Daemon, disks, dns, idle, lifecycle, readiness, reconcile, register, secrets, shutdown, vsock};
use crate::host::config::FirecrackerSetting;
use crate::model::identity::{Identity, IdentityV1, IdentityV2, IdentityV3, IdentityV4};
use crate::model::image::ImageRecord;
use crate::model::plan::Step;
use crate::model::{MacAddr, OpId, ProcessRef, Slot, Subnet, VmId, VmRecord, VmState};
use crate::os::clock::{unix_nanos, unix_seconds};
use crate::os::fault_point::Moment;
use crate::os::process;
use crate::protocol::guest::GuestRequest;
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind, frame};
use crate::ssh::KnownHosts;
use crate::vmm::{AgentLine, Boot, BootFiles, Call, Devices, Prepared, Vmm, VmmError, of_kind};

/// Carries out one step on the VM `id`. Done when it was so already.
pub(super) async fn perform(daemon: &Arc<Daemon>, op: &Op, id: &VmId, step: Step) -> Result<(), Fault> {
    pass(daemon, step, Moment::Before).await?;
    act(daemon, op, id, step).await?;
    pass(daemon, step, Moment::After).await
}

/// Passes one side of a step, where the tests of crashes may have armed a fault.
async fn pass(daemon: &Arc<Daemon>, step: Step, moment: Moment) -> Result<(), Fault> {
    if !daemon.faults.is_armed() {
        return Ok(());
    }
    let passing = daemon.clone();
    let passed = unblock(move || passing.faults.pass(&format!("{step:?}"), moment)).await;
    passed.map_err(|e| Fault::failed("cannot go on", &e))
}

async fn act(daemon: &Arc<Daemon>, op: &Op, id: &VmId, step: Step) -> Result<(), Fault> {
    if let Some(stage) = step.stage() {
        op.stage(stage);
    }
    match step {
        Step::Mark(state) => mark(daemon, id, state).await,
        Step::MakeFiles => make_files(daemon, id).await,
        Step::MakeDisk => disks::make(daemon, op, id).await,
        Step::Launch => launch(daemon, op, id).await,
        Step::AwaitReady => readiness::await_ready(daemon, op, id).await,
        Step::AskShutdown => shutdown::ask(daemon, op, id).await,
        Step::PressPower => shutdown::press_power(daemon, op, id).await,
        Step::Release => release(daemon, op, id).await,
        Step::RemoveFiles => remove_files(daemon, op, id).await,
        Step::Forget => forget(daemon, id).await,
    }
}

/// Writes a state with its reason.
pub(super) async fn settle(daemon: &Daemon, id: &VmId, state: VmState, reason: Option<String>) -> Result<(), Fault> {
    let change = move |vm: &mut VmRecord| {
        vm.state = state;
        vm.reason = reason;
        if state == VmState::Stopped {
            vm.process = None;
        }
        if state == VmState::Running {
            vm.started_at = Some(unix_seconds());
        }
    };
    update(daemon, id, change).await
}

/// Changes the VM's row, and tells whoever waits for its end.
async fn update(daemon: &Daemon, id: &VmId, change: impl FnOnce(&mut VmRecord) + Send + 'static) -> Result<(), Fault> {
    let changing = id.clone();
    daemon.stored(move |s| s.update_vm(&changing, change)).await?;
    daemon.machine(id).changed.notify(usize::MAX);
    Ok(())
}

/// Leaves the VM as it is for somebody to look at, in error, even when its asker ends.
pub(super) async fn keep(daemon: &Daemon, id: &VmId, reason: String) -> Result<(), Fault> {
    let change = move |vm: &mut VmRecord| {
        vm.state = VmState::Error;
        vm.reason = Some(reason);
        vm.keeper = None;
    };
    update(daemon, id, change).await
}

async fn mark(daemon: &Arc<Daemon>, id: &VmId, state: VmState) -> Result<(), Fault> {
    let reason = if state == VmState::Stopped { daemon.machine(id).take_stop_reason() } else { None };
    settle(daemon, id, state, reason).await?;
    if state == VmState::Running {
        idle::watch(daemon, &load(daemon, id).await?);
    }
    Ok(())
}

/// The VM `id`, which must be there.
pub(super) async fn load(daemon: &Daemon, id: &VmId) -> Result<VmRecord, Fault> {
    let wanted = id.clone();
    let found = daemon.stored(move |s| s.vm_by_id(&wanted)).await?;
    found.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("VM {id} is gone")))
}

/// The monitor that drives `vm`.
pub(super) fn monitor_of(vm: &VmRecord) -> &'static dyn Vmm {
    of_kind(vm.vmm)
}

/// Its files.
pub(super) fn files_of(daemon: &Daemon, id: &VmId) -> VmFiles {
    VmFiles::new(&daemon.paths.vms(), id)
}

async fn make_files(daemon: &Daemon, id: &VmId) -> Result<(), Fault> {
    let (files, vm) = (files_of(daemon, id), load(daemon, id).await?);
    let values = daemon.machine(id).take_values();
    let made = unblock(move || {
        files.make()?;
        match vm.spec.secrets.as_slice() {
            [] => Ok(()),
            secrets => Vault::make(&vm.spec.name, secrets, values, unix_seconds())?.write(&files.secrets()),
        }
    });
    made.await.map_err(|e| Fault::failed("cannot make the VM's files", &e))
}

async fn remove_files(daemon: &Daemon, op: &Op, id: &VmId) -> Result<(), Fault> {
    let (files, known_hosts) = (files_of(daemon, id), known_hosts(daemon));
    let vm = load(daemon, id).await?;
    let name = vm.spec.name.clone();
    let unpinned = unblock(move || known_hosts.remove(&name)).await;
    let removed = unblock(move || files.remove()).await;
    unpinned.map_err(|e| Fault::failed("cannot forget the VM's host key", &e))?;
    removed.map_err(|e| Fault::failed("cannot remove the VM's files", &e))?;
    // Last: a VM whose folder is there is given back when this is cut short, and must have its disk.
    disks::remove_kept(daemon, op, &vm).await
}

fn known_hosts(daemon: &Daemon) -> KnownHosts {
    KnownHosts::at(daemon.paths.known_hosts())
}

/// Pins the host key under the VM's name and its present address.
async fn pin(daemon: &Daemon, vm: &VmRecord) -> Result<(), Fault> {
    let (known_hosts, files) = (known_hosts(daemon), files_of(daemon, &vm.id));
    let (name, address) = (vm.spec.name.clone(), vm.address);
    let pinned = unblock(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let key = files.keys()?.host_public;
        match address {
            Some(address) => Ok(known_hosts.pin(&name, address, &key)?),
            None => Err("the VM has no place yet".into()),
        }
    });
    pinned.await.map_err(|e| Fault::failed("cannot pin the VM's host key", e.as_ref()))
}

async fn forget(daemon: &Daemon, id: &VmId) -> Result<(), Fault> {
    let gone = id.clone();
    daemon.stored(move |s| s.remove_vm(&gone)).await?;
    daemon.machine(id).changed.notify(usize::MAX);
    daemon.drop_machine(id);
    Ok(())
}

async fn launch(daemon: &Arc<Daemon>, op: &Op, id: &VmId) -> Result<(), Fault> {
    let subnet = ensure_network(daemon, op).await?;
    dns::ensure(daemon, op, subnet).await?;
    let (reserving, limits) = (id.clone(), daemon.limits());
    let place = daemon.stored(move |s| s.reserve_slot(&reserving, subnet, &limits)).await?;
    let vm = load(daemon, id).await?;
    secrets::ensure(daemon, op, subnet, &vm).await?;
    pin(daemon, &vm).await?;
    let prepared = prepare(daemon, &vm, subnet).await?;
    let request = RootRequest::LaunchVm {
        id: id.clone(),
        slot: place.slot,
        launch: prepared.launch,
        passage: vm.spec.passage(),
        ports: vm.spec.ports.clone(),
    };
    // Of an earlier boot, with which all that was open and counted has ended.
    *daemon.machine(id).outward() = Outward::new();
    let (reply, files) = daemon.helper.call(op.id, request, prepared.files).await?;
    go_live(daemon, op, id, reply, files, prepared.setup).await
}

pub(super) async fn ensure_network(daemon: &Daemon, op: &Op) -> Result<Subnet, Fault> {
    let request = RootRequest::EnsureNetwork { prefer: daemon.config.network.subnet };
    match daemon.helper.call_again(op.id, request).await? {
        (RootReply::Network { subnet }, _) => Ok(subnet),
        (other, _) => Err(unexpected(&other)),
    }
}

async fn prepare(daemon: &Daemon, vm: &VmRecord, subnet: Subnet) -> Result<Prepared, Fault> {
    let (image, kernel) = (vm.spec.image.clone(), vm.spec.kernel.clone());
    let image = daemon.stored(move |s| s.image(&image)).await?;
    register::check(&image)?;
    let kernel = daemon.stored(move |s| s.kernel(&kernel)).await?;
    let (monitor, paths, vm) = (monitor_of(vm), daemon.paths.clone(), vm.clone());
    let (fail, copy_of) = (daemon.machine(&vm.id).fail(), daemon.machine(&vm.id).copy_of());
    let FirecrackerSetting { entropy, balloon } = daemon.config.firecracker;
    let devices = Devices { entropy, balloon };
    let prepared = unblock(move || -> Result<Prepared, VmmError> {
        let files = VmFiles::new(&paths.vms(), &vm.id);
        let folder = paths.kernels().join(kernel.name.as_str());
        let identity = match &copy_of {
            Some(original) => encoded(&Identity::Seal(original.seal.clone()))?,
            None => identity(&vm, &files, subnet, &image)?,
        };
        let modules_cpio = folder.join("modules.cpio");
        let boot = BootFiles {
            kernel: folder.join("vmlinux"),
            modules: kernel.has_modules_drive.then(|| folder.join("modules.ext4")),
            initramfs: initramfs(&modules_cpio, &identity)?,
            image: paths.image(&image.name),
            disk: files.disk(),
            console: files.new_console()?.into(),
            marks: files.new_console_marks()?.into(),
        };
        let (spec, accel, boot_args) = (&vm.spec, vm.accel, &kernel.boot_args);
        monitor.prepare(Boot { spec, accel, boot_args, mac: MacAddr::of(place(&vm)?.0), devices, files: boot, fail })
    });
    prepared.await.map_err(|e| Fault::failed("cannot prepare the start", &e))
}

fn identity(vm: &VmRecord, files: &VmFiles, subnet: Subnet, image: &ImageRecord) -> std::io::Result<Vec<u8>> {
    let keys = files.keys()?;
    let (slot, address) = place(vm)?;
    let first = IdentityV1 {
        id: vm.id.clone(),
        name: vm.spec.name.clone(),
        mac: MacAddr::of(slot),
        address,
        prefix: 24,
        gateway: subnet.gateway(),
        authorized_key: keys.client_public,
        host_key: keys.host_private,
        init: vm.spec.init.unwrap_or(image.init),
        now_ns: unix_nanos(),
    };
    let secrets = vm.spec.secrets.as_slice();
    let authority = if secrets.is_empty() { String::new() } else { Vault::read(&files.secrets())?.authority };
    let environment = secrets.iter().map(|s| (s.name.clone(), s.placeholder.clone())).collect();
    let second = IdentityV2 { first, environment, authority };
    let third = IdentityV3 { second, variables: vm.spec.environment.clone() };
    let (environment, folder) = (image.config.env.clone(), image.config.folder.clone());
    encoded(&Identity::V4(IdentityV4 { third, environment, folder }))
}

fn encoded(identity: &Identity) -> std::io::Result<Vec<u8>> {
    let frame = frame::encode(identity).map_err(std::io::Error::other)?;
    Ok(frame[frame::HEADER..].to_vec())
}

fn place(vm: &VmRecord) -> std::io::Result<(Slot, Ipv4Addr)> {
    vm.slot.zip(vm.address).ok_or_else(|| std::io::Error::other("the VM has no place yet"))
}

/// The initramfs of one boot, in memory and sealed: this very binary as `/init`, the kernel's
/// modules, the identity.
fn initramfs(modules: &std::path::Path, identity: &[u8]) -> std::io::Result<OwnedFd> {
    use std::fs::File;
    let mut init = File::open("/proc/self/exe")?;
    let size = init.metadata()?.len();
    let mut modules = if modules.exists() { Some(File::open(modules)?) } else { None };
    let mut out = crate::os::memfd::create("initramfs")?;
    let modules = modules.as_mut().map(|m| m as &mut dyn std::io::Read);
    crate::image::write_initramfs(&mut out, &mut init, size, modules, identity).map_err(std::io::Error::other)?;
    crate::os::memfd::seal(&out)?;
    Ok(out.into())
}

/// Takes what the helper made into memory and the store, and watches it from here on.
pub(super) async fn go_live(
    daemon: &Arc<Daemon>,
    op: &Op,
    id: &VmId,
    reply: RootReply,
    files: Vec<OwnedFd>,
    setup: Vec<Call>,
) -> Result<(), Fault> {
    let RootReply::Monitor { process } = reply else {
        return Err(unexpected(&reply));
    };
    let Ok([pidfd, control, agent]) = <[OwnedFd; 3]>::try_from(files) else {
        return Err(Fault::new(FaultKind::OperationFailed, "the root helper handed over other descriptors"));
    };
    let noting = id.clone();
    daemon.stored(move |s| s.update_vm(&noting, |vm| vm.process = Some(process))).await?;
    let vm = load(daemon, id).await?;
    let spawn = daemon.spawner();
    let monitor = monitor_of(&vm);
    // Nothing is to be said to a monitor that was found again, and its guest may be up.
    let found_again = setup.is_empty();
    let control = monitor.control(control, setup, &spawn).map_err(|e| Fault::failed("cannot reach the monitor", &e))?;
    let attached = |e: &std::io::Error| Fault::failed("cannot take over the monitor", e);
    let line = match monitor.agent_line() {
        AgentLine::Stream => agent,
        AgentLine::Vsock => vsock_line(daemon, id, agent, &pidfd, found_again).map_err(|e| attached(&e))?,
    };
    let agent = AgentLink::connect(line, &spawn).map_err(|e| attached(&e))?;
    let live = Arc::new(Live::new(process, pidfd, control, agent).map_err(|e| attached(&e))?);
    daemon.machine(id).set_live(Some(live.clone()));
    watch(daemon, id.clone(), live.clone());
    let begun = live.control.begin();
    if begun.await.map_err(|e| Fault::failed("the monitor did not start", &e))? {
        set_clock_later(daemon, id.clone(), live);
    }
    info!("[{}] VM {} runs as {process}", op.id, vm.spec.name);
    Ok(())
}

/// The clock of a guest that was halted has stood still.
pub(super) fn set_clock_later(daemon: &Arc<Daemon>, id: VmId, live: Arc<Live>) {
    daemon.spawn(async move {
        if let Err(fault) = live.agent.ask(OpId::BACKGROUND, GuestRequest::SetClock { now_ns: unix_nanos() }).await {
            warn!("the clock of VM {id} may be late: {fault}");
        }
    });
}

/// Waits for the monitor's end, for as long as the daemon lives.
fn watch(daemon: &Arc<Daemon>, id: VmId, live: Arc<Live>) {
    let daemon = daemon.clone();
    daemon.clone().spawn(async move {
        live.ended().await;
        lifecycle::monitor_ended(&daemon, &id, live.process).await;
    });
}

/// The near end of a line to an agent that rings at `bell`.
fn vsock_line(
    daemon: &Arc<Daemon>,
    id: &VmId,
    bell: OwnedFd,
    monitor: &OwnedFd,
    may_listen: bool,
) -> std::io::Result<OwnedFd> {
    let (near, line) = UnixStream::pair()?;
    let keeper = vsock::Keeper { id: id.clone(), bell, line, monitor: monitor.try_clone()?, may_listen };
    daemon.spawn(vsock::keep(daemon.clone(), keeper));
    Ok(near.into())
}

async fn release(daemon: &Arc<Daemon>, op: &Op, id: &VmId) -> Result<(), Fault> {
    // Noted first, so that the watcher takes the coming end for what it is.
    let noting = id.clone();
    let ended: Option<ProcessRef> = daemon
        .stored(move |s| {
            let mut before = None;
            s.update_vm(&noting, |vm| before = vm.process.take())?;
            Ok(before)
        })
        .await?;
    let machine = daemon.machine(id);
    let live = machine.live();
    machine.set_live(None);
    machine.set_idle_watch(None);
    let outcome = daemon.helper.call_again(op.id, RootRequest::ReleaseVm { id: id.clone() }).await;
    if let (Err(_), Some(process)) = (&outcome, ended)
        && !matches!(process::open(process), Ok(None))
    {
        // It lives on, as far as can be told: record and memory must say so.
        let noting = id.clone();
        daemon.stored(move |s| s.update_vm(&noting, |vm| vm.process = ended)).await?;
        machine.set_live(live);
    }
    if outcome.is_err() {
        reconcile::find_again_later(daemon, id.clone());
    }
    outcome.map(|_| ())
}
