//! What each request does. One arm per request, no wildcard: a new request does not compile until
//! somebody decides here.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use log::info;

use super::blocking::unblock;
use super::catalogue::{self, NewImage, NewKernel};
use super::creation::{self, Asked};
use super::operation::Op;
use super::server::{Outcome, status};
use super::vm_files::VmFiles;
use super::{Daemon, change, commit, disks, egress, lifecycle, reconcile, register, shells, stats};
use crate::host::choose::{DEFAULT_IMAGE, DEFAULT_KERNEL, choose_vmm, default_sizes};
use crate::host::facts::Facts;
use crate::model::choice::{Accel, VmmChoice, VmmKind};
use crate::model::plan::Wanted;
use crate::model::{Since, VmName, VmRecord, VmState, Workspace};
use crate::os::clock::unix_nanos;
use crate::os::socket::Peer;
use crate::protocol::guest::GuestRequest;
use crate::protocol::hello::BUILD;
use crate::protocol::owner::{AgentQuestion, Overview, OwnerReply, OwnerRequest, VmDefaults};
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind};

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
        OwnerRequest::CreateVm { spec, start, ephemeral, ttl, values, fail } => {
            let keeper = ephemeral.then_some(peer);
            let asked = Asked { spec, start, keeper, ttl, values, fail, copy_of: None };
            let vm = creation::create(d, &op, asked).await?;
            plain(OwnerReply::Vm(Box::new(vm)))
        }
        OwnerRequest::StartVm { name } => one(lifecycle::reach_by_name(d, &op, &name, Wanted::Running).await?),
        OwnerRequest::StopVm { name, kill } => {
            let wanted = if kill { Wanted::Killed } else { Wanted::Stopped };
            one(lifecycle::reach_by_name(d, &op, &name, wanted).await?)
        }
        OwnerRequest::Stats { names } => plain(OwnerReply::Stats(stats::stats(d, &op, &names).await?)),
        OwnerRequest::SetVm { name, change } => {
            plain(OwnerReply::Vm(Box::new(change::set(d, &op, &name, change).await?)))
        }
        OwnerRequest::RestartVm { name } => one(lifecycle::restart(d, &op, &name).await?),
        OwnerRequest::DeleteIdleVm { name } => done(lifecycle::delete_idle(d, &op, &name).await),
        OwnerRequest::WaitVm { name } => {
            let idle = op.unless_cancelled(lifecycle::wait_until_idle(d, &name)).await;
            one(idle.ok_or_else(Op::cancelled)??)
        }
        OwnerRequest::KeepVm { name } => done(keep(d, &name).await),
        OwnerRequest::SetWorkspace { name, workspace } => done(set_workspace(d, &name, workspace).await),
        OwnerRequest::NoteExit { name, code } => done(note_exit(d, &name, code).await),
        OwnerRequest::DeleteVm { name } => one(lifecycle::reach_by_name(d, &op, &name, Wanted::Gone).await?),
        OwnerRequest::ListVms => plain(OwnerReply::Vms(d.stored(|s| s.vms()).await?)),
        OwnerRequest::ListRunning => plain(OwnerReply::Vms(d.stored(|s| s.running_vms()).await?)),
        OwnerRequest::Checkup => plain(OwnerReply::Checkup(disks::checkup(d, &op).await?)),
        OwnerRequest::Egress { name } => plain(OwnerReply::Egress(Box::new(egress::report(d, &op, &name).await?))),
        OwnerRequest::ShowVm { name } => plain(OwnerReply::Vm(Box::new(d.vm(&name).await?))),
        OwnerRequest::OpenShell { name, carriers } => shells::open(d, &op, &name, &carriers).await,
        OwnerRequest::OpenConsole { name, since } => open_console(d, &name, since).await,
        OwnerRequest::AskAgent { name, question } => ask_agent(d, &op, &name, question).await,
        OwnerRequest::ListImages => plain(OwnerReply::Images(d.stored(|s| s.images()).await?)),
        OwnerRequest::DeleteImage { name } => done(catalogue::delete_image(d, &op, name).await),
        OwnerRequest::ImportImage { name, size, init, source } => {
            let new = NewImage { name, size, init, source };
            let image = catalogue::import_image(d, &op, new, only(&mut files)?).await?;
            plain(OwnerReply::Image(Box::new(image)))
        }
        OwnerRequest::ImportLayers(new) => {
            let image = catalogue::import_layers(d, &op, *new, only(&mut files)?).await?;
            plain(OwnerReply::Image(Box::new(image)))
        }
        OwnerRequest::RegisterImage(new) => {
            let image = register::register(d, &op, new, only(&mut files)?).await?;
            plain(OwnerReply::Image(Box::new(image)))
        }
        OwnerRequest::PromoteImage { name } => {
            plain(OwnerReply::Image(Box::new(register::promote(d, &op, name).await?)))
        }
        OwnerRequest::CommitImage { vm, name } => {
            plain(OwnerReply::Image(Box::new(commit::commit(d, &op, peer, &vm, name).await?)))
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
    let vms = daemon.stored(|s| s.vms()).await?;
    let subnet = daemon.dns.subnet().await;
    let facts = unblock(Facts::see).await;
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
        dns: subnet.map(|s| s.gateway()),
        vmm,
        defaults: defaults(daemon, &facts)?,
        state_dir: daemon.paths.state.display().to_string(),
        socket: daemon.paths.socket().display().to_string(),
        helper_socket: daemon.paths.root_socket().display().to_string(),
        vms: vms.len().try_into().unwrap_or(u32::MAX),
        operations: daemon.workload.count(),
    })
}

pub(super) fn choose(daemon: &Daemon, facts: &Facts) -> Result<VmmChoice, Fault> {
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

/// Lets a VM outlive the process that asked for it.
async fn keep(daemon: &Daemon, name: &VmName) -> Result<(), Fault> {
    let id = daemon.vm(name).await?.id;
    daemon.stored(move |s| s.update_vm(&id, |vm| vm.keeper = None)).await.map(|_| ())
}

/// Remembers the repository in a VM. Who asked has brought it there; the daemon only keeps what it is told.
async fn set_workspace(daemon: &Daemon, name: &VmName, workspace: Workspace) -> Result<(), Fault> {
    if !workspace.has_source() {
        return Err(Fault::new(FaultKind::BadRequest, "a workspace comes from an absolute path"));
    }
    let id = daemon.vm(name).await?.id;
    daemon.stored(move |s| s.update_vm(&id, |vm| vm.workspace = Some(workspace))).await.map(|_| ())
}

/// Remembers how the last command in a VM's repository ended.
async fn note_exit(daemon: &Daemon, name: &VmName, code: u8) -> Result<(), Fault> {
    let id = daemon.vm(name).await?.id;
    let note = move |vm: &mut VmRecord| {
        if let Some(workspace) = &mut vm.workspace {
            workspace.last_exit = Some(code);
        }
    };
    daemon.stored(move |s| s.update_vm(&id, note)).await.map(|_| ())
}

/// The VM called `name`, which must run.
pub(super) async fn running(daemon: &Daemon, name: &VmName) -> Result<VmRecord, Fault> {
    let vm = daemon.vm(name).await?;
    if vm.state == VmState::Running || (vm.state == VmState::Error && vm.process.is_some()) {
        return Ok(vm);
    }
    let fault = Fault::new(FaultKind::InUse, format!("VM '{name}' is not running"));
    Err(fault.cause(format!("it is {}", vm.state)).hint(format!("banger vm start {name}")))
}

async fn open_console(daemon: &Arc<Daemon>, name: &VmName, since: Option<Since>) -> Outcome {
    let vm = daemon.vm(name).await?;
    let files = VmFiles::new(&daemon.paths.vms(), &vm.id);
    let path = files.console();
    let file = match unblock(move || File::open(path)).await {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Fault::new(FaultKind::NotFound, format!("VM '{name}' has no console log yet"))
                .hint(format!("banger vm start {name}")));
        }
        Err(e) => return Err(Fault::failed("cannot open the console's log", &e)),
    };
    let start = match since {
        Some(since) => start_of(files, &file, since.unix_ms(unix_nanos() / 1_000_000), name).await?,
        None => 0,
    };
    Ok((OwnerReply::Console { start }, vec![file.into()]))
}

/// Where in the console's log that begins which has come since then.
async fn start_of(files: VmFiles, log: &File, since_ms: u64, name: &VmName) -> Result<u64, Fault> {
    let failed = |e: std::io::Error| Fault::failed("cannot tell when the console's log was written", &e);
    let no_times = || {
        let fault = Fault::new(FaultKind::OperationFailed, format!("the console of VM '{name}' has no times"));
        fault.cause("an older banger has started it").hint(format!("banger vm restart {name}"))
    };
    let marks = match unblock(move || files.read_console_marks()).await {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(no_times()),
        other => other.map_err(failed)?,
    };
    // After the marks: what has come since then stands behind them.
    let size = log.metadata().map_err(failed)?.len();
    if marks.is_empty() && size > 0 { Err(no_times()) } else { Ok(marks.start(since_ms, size)) }
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
    };
    plain(OwnerReply::Agent(live.agent.ask(op.id, request).await?))
}
