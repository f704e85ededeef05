//! The way into a guest for its owner's commands. The daemon finds it and steps out of it: what it
//! hands over is a connected socket, so its own end does not cut a command.

use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use log::info;
use smol::Async;

use super::blocking::unblock;
use super::calls::running;
use super::operation::Op;
use super::server::Outcome;
use super::vm_files::VmFiles;
use super::{Daemon, reconcile, vsock};
use crate::model::{VmName, VmRecord};
use crate::os::random;
use crate::protocol::guest::{GuestReply, GuestRequest, PROTOCOL_SHELL};
use crate::protocol::owner::{Carrier, OwnerReply, ShellAccess};
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::shell::TOKEN;
use crate::protocol::{Fault, FaultKind};
use crate::vmm::deadline::within;

/// Port of ssh in a guest.
const SSH_PORT: u16 = 22;

/// A guest on the same host answers a connection at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How often it is tried while the host says that the guest cannot be reached.
const CONNECT_ATTEMPTS: u32 = 3;

/// Most carriers that are tried.
const MAX_CARRIERS: usize = 2;

/// The first of `carriers` that reaches the guest; the fault of the last tells of the others too.
pub(super) async fn open(daemon: &Arc<Daemon>, op: &Op, name: &VmName, carriers: &[Carrier]) -> Outcome {
    reconcile::ensure(daemon).await?;
    let vm = running(daemon, name).await?;
    daemon.machine(&vm.id).enter();
    let mut failed: Option<Fault> = None;
    for carrier in carriers.iter().take(MAX_CARRIERS) {
        let opened = match carrier {
            Carrier::Agent => match over_agent(daemon, op, &vm).await {
                // The helper was restarted: it may have connected, so the channel is asked for anew.
                Err(fault) if fault.kind == FaultKind::Unavailable => over_agent(daemon, op, &vm).await,
                opened => opened,
            },
            Carrier::Ssh => over_ssh(daemon, &vm).await,
        };
        let fault = match opened {
            Ok(opened) => return Ok(opened),
            Err(fault) => fault,
        };
        info!("[{}] VM {name} is not reached by {carrier:?}: {fault}", op.id);
        failed = Some(match failed {
            Some(before) => fault.cause(format!("nor otherwise: {before}")),
            None => fault,
        });
    }
    Err(failed.unwrap_or_else(|| Fault::new(FaultKind::BadRequest, "no carrier was named")))
}

/// The agent is told what the next host of a channel will say, and says which channel that is.
async fn over_agent(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord) -> Outcome {
    let name = &vm.spec.name;
    let unable = || Fault::new(FaultKind::OperationFailed, format!("the agent of VM '{name}' cannot run commands"));
    let machine = daemon.machine(&vm.id);
    let mut found = machine.live();
    if found.is_none() {
        // A daemon that has just started is still finding it again, and holds its turn meanwhile.
        let _turn = machine.turn.lock().await;
        found = machine.live();
    }
    let live = found.ok_or_else(|| unable().cause("it has no connection to its agent"))?;
    if live.agent.protocol().await.is_none_or(|protocol| protocol < PROTOCOL_SHELL) {
        return Err(unable().cause("it is of an older banger").hint(format!("banger vm restart {name}")));
    }
    let mut token = [0; TOKEN];
    random::fill(&mut token);
    let channel = match live.agent.ask(op.id, GuestRequest::OpenShell { token }).await? {
        GuestReply::Shell { channel } => channel,
        GuestReply::ShellPort { port } => {
            let dialled = vsock::dial(daemon, op.id, &vm.id, port).await?;
            let socket = dialled.into_inner().map_err(|e| Fault::failed("cannot pass a connection on", &e))?;
            return Ok((OwnerReply::Channel { token }, vec![socket.into()]));
        }
        other => return Err(unable().cause(format!("it answered something else: {other:?}"))),
    };
    let request = RootRequest::OpenChannel { id: vm.id.clone(), channel };
    match daemon.helper.call(op.id, request, Vec::new()).await? {
        (RootReply::Channel, files) if files.len() == 1 => Ok((OwnerReply::Channel { token }, files)),
        (other, _) => Err(unable().cause(format!("the root helper answered something else: {other:?}"))),
    }
}

async fn over_ssh(daemon: &Arc<Daemon>, vm: &VmRecord) -> Outcome {
    let name = &vm.spec.name;
    if daemon.machine(&vm.id).live().and_then(|l| l.agent.ssh_answers()) == Some(false) {
        let fault = Fault::new(FaultKind::OperationFailed, format!("no ssh server could start in VM '{name}'"));
        return Err(fault.hint(format!("banger vm logs {name}")));
    }
    let Some(address) = vm.address else {
        return Err(Fault::new(FaultKind::OperationFailed, format!("VM '{name}' has no address")));
    };
    let socket = connect(address).await.map_err(|e| {
        Fault::failed(format!("VM '{name}' does not answer on ssh"), &e).hint(format!("banger vm logs {name}"))
    })?;
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
    Ok((OwnerReply::Shell(access), vec![socket]))
}

async fn connect(address: Ipv4Addr) -> std::io::Result<OwnedFd> {
    let connected = within(CONNECT_LIMIT, reach_guest(address)).await;
    let socket = connected.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()))?.into_inner()?;
    // What is typed shall travel at once, and whoever takes the socket expects it to block.
    socket.set_nodelay(true)?;
    socket.set_nonblocking(false)?;
    Ok(socket.into())
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
