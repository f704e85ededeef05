//! What each request does. One arm per request, no wildcard: a new request does not compile until
//! somebody decides here.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use log::info;
use smol::Async;

use super::blocking::unblock;
use super::catalogue::{self, NewImage, NewKernel};
use super::operation::Op;
use super::server::{Outcome, status};
use super::vm_files::VmFiles;
use super::{Daemon, keeper, lifecycle, reconcile};
use crate::host::choose::{DEFAULT_IMAGE, DEFAULT_KERNEL, choose_vmm, default_sizes};
use crate::host::facts::Facts;
use crate::model::choice::{Accel, VmmChoice, VmmKind};
use crate::model::launch::FakeFailure;
use crate::model::plan::Wanted;
use crate::model::{VmId, VmName, VmRecord, VmSpec, VmState};
use crate::os::clock::unix_seconds;
use crate::os::process;
use crate::os::socket::Peer;
use crate::protocol::guest::GuestRequest;
use crate::protocol::hello::BUILD;
use crate::protocol::owner::{AgentQuestion, Overview, OwnerReply, OwnerRequest, ShellAccess, VmDefaults};
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind};
use crate::vmm::deadline::within;

/// Port of ssh in a guest.
const SSH_PORT: u16 = 22;

/// A guest on the same host answers a connection at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How often it is tried while the host says that the guest cannot be reached.
const CONNECT_ATTEMPTS: u32 = 3;

/// Answers one request.
pub(super) async fn answer(
    daemon: Arc<Daemon>,
    op: Op,
    request: OwnerRequest,
    mut files: Vec<OwnedFd>,
    peer: Peer,
) -> Outcome {
    let d = &daemon;
    match request {
        OwnerRequest::Status => plain(status()),
        OwnerRequest::Shutdown { helper } => shut_down(d, &op, helper).await,
        OwnerRequest::Overview => plain(OwnerReply::Overview(Box::new(overview(d, &op).await?))),
        OwnerRequest::CreateVm { spec, start, ephemeral, fail } => {
            let asked = Asked { spec, start, keeper: ephemeral.then_some(peer), fail };
            let vm = create(d, &op, asked).await?;
            plain(OwnerReply::Vm(Box::new(vm)))
        }
        OwnerRequest::StartVm { name } => one(lifecycle::reach_by_name(d, &op, &name, Wanted::Running).await?),
        OwnerRequest::StopVm { name, kill } => {
            let wanted = if kill { Wanted::Killed } else { Wanted::Stopped };
            one(lifecycle::reach_by_name(d, &op, &name, wanted).await?)
        }
        OwnerRequest::KeepVm { name } => done(keep(d, &name).await),
        OwnerRequest::DeleteVm { name } => one(lifecycle::reach_by_name(d, &op, &name, Wanted::Gone).await?),
        OwnerRequest::ListVms => plain(OwnerReply::Vms(d.stored(|s| s.vms()).await?)),
        OwnerRequest::ListRunning => plain(OwnerReply::Vms(d.stored(|s| s.running_vms()).await?)),
        OwnerRequest::ShowVm { name } => plain(OwnerReply::Vm(Box::new(d.vm(&name).await?))),
        OwnerRequest::OpenShell { name } => open_shell(d, &name).await,
        OwnerRequest::OpenConsole { name } => open_console(d, &name).await,
        OwnerRequest::AskAgent { name, question } => ask_agent(d, &op, &name, question).await,
        OwnerRequest::ListImages => plain(OwnerReply::Images(d.stored(|s| s.images()).await?)),
        OwnerRequest::DeleteImage { name } => done(catalogue::delete_image(d, &op, name).await),
        OwnerRequest::ImportImage { name, size, init, source } => {
            let new = NewImage { name, size, init, source };
            let image = catalogue::import_image(d, &op, new, only(&mut files)?).await?;
            plain(OwnerReply::Image(Box::new(image)))
        }
        OwnerRequest::ListKernels => plain(OwnerReply::Kernels(d.stored(|s| s.kernels()).await?)),
        OwnerRequest::DeleteKernel { name } => done(catalogue::delete_kernel(d, &op, name).await),
        OwnerRequest::ImportKernel { name, release, boot_args, source } => {
            let new = NewKernel { name, release, boot_args, source };
            let kernel = catalogue::add_kernel(d, &op, new, only(&mut files)?).await?;
            plain(OwnerReply::Kernel(Box::new(kernel)))
        }
    }
}

fn plain(reply: OwnerReply) -> Outcome {
    Ok((reply, Vec::new()))
}

fn done(outcome: Result<(), Fault>) -> Outcome {
    outcome.map(|()| (OwnerReply::Done, Vec::new()))
}

fn one(vm: Option<VmRecord>) -> Outcome {
    plain(vm.map_or(OwnerReply::Done, |vm| OwnerReply::Vm(Box::new(vm))))
}

fn only(files: &mut Vec<OwnedFd>) -> Result<OwnedFd, Fault> {
    files.pop().ok_or_else(|| Fault::new(FaultKind::BadRequest, "no stream came along"))
}

async fn shut_down(daemon: &Arc<Daemon>, op: &Op, helper: bool) -> Outcome {
    info!("[{}] told to end", op.id);
    if helper {
        match daemon.helper.call(op.id, RootRequest::Shutdown, Vec::new()).await {
            Ok(_) => {}
            // It is not there: so be it.
            Err(fault) if fault.kind == FaultKind::Unavailable => info!("[{}] {fault}", op.id),
            Err(fault) => return Err(fault),
        }
    }
    plain(OwnerReply::Done)
}

async fn overview(daemon: &Arc<Daemon>, op: &Op) -> Result<Overview, Fault> {
    let helper = match daemon.helper.call_again(op.id, RootRequest::Status).await {
        Ok((RootReply::Status { build, .. }, _)) => Ok(build),
        Ok((other, _)) => Err(format!("it answered {other:?}")),
        Err(fault) => Err(fault.to_string()),
    };
    // Asked only where there may be one: looking must not make a bridge.
    let vms = daemon.stored(|s| s.vms()).await?;
    let subnet = vms.iter().filter(|vm| vm.may_hold_resources()).find_map(|vm| vm.address);
    let subnet = subnet.and_then(|a| {
        let [x, y, z, _] = a.octets();
        crate::model::Subnet::new(std::net::Ipv4Addr::new(x, y, z, 0))
    });
    let facts = Facts::see();
    let vmm = choose(daemon, &facts).unwrap_or_else(|fault| VmmChoice {
        kind: VmmKind::Qemu,
        accel: Accel::Tcg,
        reason: fault.to_string(),
    });
    Ok(Overview {
        build: BUILD.to_owned(),
        pid: std::process::id() as i32,
        helper,
        subnet: subnet.map(|s| s.to_string()),
        dns: None,
        vmm,
        defaults: defaults(daemon, &facts)?,
        state_dir: daemon.paths.state.display().to_string(),
        socket: daemon.paths.socket().display().to_string(),
        helper_socket: daemon.paths.root_socket().display().to_string(),
        vms: vms.len().try_into().unwrap_or(u32::MAX),
    })
}

fn choose(daemon: &Daemon, facts: &Facts) -> Result<VmmChoice, Fault> {
    choose_vmm(&daemon.config, facts)
        .map_err(|no| Fault::new(FaultKind::OperationFailed, no.message.clone()).hint(no.hint))
}

fn defaults(daemon: &Daemon, facts: &Facts) -> Result<VmDefaults, Fault> {
    let (vcpus, memory, disk) = default_sizes(&daemon.config, facts);
    let bad = |e: crate::model::NameError| Fault::of(FaultKind::BadRequest, &e);
    let config = &daemon.config;
    Ok(VmDefaults {
        vcpus,
        memory,
        disk,
        image: config.default_image.clone().map_or_else(|| DEFAULT_IMAGE.parse().map_err(bad), Ok)?,
        kernel: config.default_kernel.clone().map_or_else(|| DEFAULT_KERNEL.parse().map_err(bad), Ok)?,
    })
}

/// A VM as asked for.
struct Asked {
    spec: VmSpec,
    start: bool,
    keeper: Option<Peer>,
    fail: Option<FakeFailure>,
}

async fn create(daemon: &Arc<Daemon>, op: &Op, asked: Asked) -> Result<VmRecord, Fault> {
    let Asked { spec, start, keeper, fail } = asked;
    spec.check().map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    reconcile::ensure(daemon).await?;
    let choice = choose(daemon, &Facts::see())?;
    let image = spec.image.clone();
    let image = daemon.stored(move |s| s.image(&image)).await.map_err(|f| f.hint("banger image list"))?;
    spec.check_against_image(image.size).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    let keeper = keeper.map(|peer| process::reference(peer.pid)).transpose();
    let keeper = keeper.map_err(|e| Fault::failed("the calling process is gone", &e))?;
    let vm = VmRecord {
        id: VmId::from_random(crate::os::random::number()),
        spec,
        slot: None,
        address: None,
        state: VmState::Creating,
        reason: None,
        vmm: choice.kind,
        accel: choice.accel,
        process: None,
        keeper,
        created_at: unix_seconds(),
        started_at: None,
    };
    let row = vm.clone();
    daemon.stored(move |s| s.insert_vm(&row)).await?;
    daemon.machine(&vm.id).set_fail(fail);
    let created = lifecycle::reach(daemon, op, &vm.id, Wanted::Created).await?;
    if let Some(keeper) = keeper {
        keeper::watch(daemon, vm.id.clone(), keeper);
    }
    let reached = if start { lifecycle::reach(daemon, op, &vm.id, Wanted::Running).await? } else { created };
    reached.ok_or_else(|| Fault::new(FaultKind::Cancelled, format!("VM '{}' was deleted meanwhile", vm.spec.name)))
}

/// Lets a VM outlive the process that asked for it.
async fn keep(daemon: &Daemon, name: &VmName) -> Result<(), Fault> {
    let id = daemon.vm(name).await?.id;
    daemon.stored(move |s| s.update_vm(&id, |vm| vm.keeper = None)).await.map(|_| ())
}

async fn running(daemon: &Daemon, name: &VmName) -> Result<VmRecord, Fault> {
    let vm = daemon.vm(name).await?;
    if vm.state == VmState::Running || (vm.state == VmState::Error && vm.process.is_some()) {
        return Ok(vm);
    }
    let fault = Fault::new(FaultKind::InUse, format!("VM '{name}' is not running"));
    Err(fault.cause(format!("it is {}", vm.state)).hint(format!("banger vm start {name}")))
}

async fn open_shell(daemon: &Arc<Daemon>, name: &VmName) -> Outcome {
    reconcile::ensure(daemon).await?;
    let vm = running(daemon, name).await?;
    if daemon.machine(&vm.id).live().and_then(|l| l.agent.ssh_answers()) == Some(false) {
        let fault = Fault::new(FaultKind::OperationFailed, format!("VM '{name}' has no ssh server"));
        return Err(fault.cause(format!("image '{}' brings none", vm.spec.image)));
    }
    let Some(address) = vm.address else {
        return Err(Fault::new(FaultKind::OperationFailed, format!("VM '{name}' has no address")));
    };
    let unreachable = |e: &std::io::Error| {
        Fault::failed(format!("VM '{name}' does not answer on ssh"), e).hint(format!("banger vm logs {name}"))
    };
    let connected =
        within(CONNECT_LIMIT, reach_guest(address)).await.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()));
    let socket = connected.map_err(|e| unreachable(&e))?;
    let socket = socket.into_inner().map_err(|e| unreachable(&e))?;
    // What is typed shall travel at once, and whoever takes the socket expects it to block.
    socket.set_nodelay(true).and_then(|()| socket.set_nonblocking(false)).map_err(|e| unreachable(&e))?;
    let files = VmFiles::new(&daemon.paths.vms(), &vm.id);
    let reading = files.clone();
    let keys = unblock(move || reading.keys()).await.map_err(|e| Fault::failed("cannot read the VM's keys", &e))?;
    let access = ShellAccess {
        name: name.clone(),
        address,
        port: SSH_PORT,
        user: "root".to_owned(),
        private_key: keys.client_private,
        host_key: keys.host_public,
        identity_file: files.identity().display().to_string(),
        known_hosts_file: daemon.paths.known_hosts().display().to_string(),
        vmm: vm.vmm,
    };
    Ok((OwnerReply::Shell(access), vec![socket.into()]))
}

/// A connection to the guest's ssh. The address may have been another guest's a moment ago: what was
/// still being sent to that one has the host look for it in vain, and the end of that search, some
/// seconds later, fails every connection that waits for it, this one too. The next begins a new one.
async fn reach_guest(address: Ipv4Addr) -> std::io::Result<Async<TcpStream>> {
    for _ in 1..CONNECT_ATTEMPTS {
        match Async::<TcpStream>::connect((address, SSH_PORT)).await {
            Err(e) if e.kind() == std::io::ErrorKind::HostUnreachable => {}
            other => return other,
        }
    }
    Async::<TcpStream>::connect((address, SSH_PORT)).await
}

async fn open_console(daemon: &Arc<Daemon>, name: &VmName) -> Outcome {
    let vm = daemon.vm(name).await?;
    let path = VmFiles::new(&daemon.paths.vms(), &vm.id).console();
    match unblock(move || File::open(path)).await {
        Ok(file) => Ok((OwnerReply::Console, vec![file.into()])),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Fault::new(FaultKind::NotFound, format!("VM '{name}' has no console log yet"))
                .hint(format!("banger vm start {name}")))
        }
        Err(e) => Err(Fault::failed("cannot open the console's log", &e)),
    }
}

async fn ask_agent(daemon: &Arc<Daemon>, op: &Op, name: &VmName, question: AgentQuestion) -> Outcome {
    reconcile::ensure(daemon).await?;
    let vm = running(daemon, name).await?;
    let Some(live) = daemon.machine(&vm.id).live() else {
        return Err(Fault::new(FaultKind::OperationFailed, format!("VM '{name}' has no agent connection")));
    };
    let request = match question {
        AgentQuestion::Ping => GuestRequest::Ping,
        AgentQuestion::Health => GuestRequest::Health,
        AgentQuestion::Ports => GuestRequest::Ports,
        AgentQuestion::Stats => GuestRequest::Stats,
    };
    plain(OwnerReply::Agent(live.agent.ask(op.id, request).await?))
}
