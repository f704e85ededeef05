//! DNS for VMs and for their host: `NAME.vm` from the store, and, for guests that may leave, what the
//! host's own servers say. The sockets are bound by the helper and asked for once per network.

/// Who is who.
mod directory;
/// Sockets, datagrams, streams.
mod listen;
/// What one question gets.
mod resolve;
/// The host's own servers.
mod upstream;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use log::{info, warn};
use smol::Task;

use self::directory::Directory;
pub(super) use self::directory::Guest;
use self::upstream::Upstream;
use super::Daemon;
use super::helper::unexpected;
use super::operation::Op;
use crate::model::Subnet;
use crate::net::dns::foreign::{self, Inquiry};
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind};

/// The service, and what it remembers.
pub(super) struct Dns {
    serving: smol::lock::Mutex<Option<Serving>>,
    /// Read again when the store has changed.
    directory: Mutex<Arc<Directory>>,
    upstream: Upstream,
}

/// What listens for one network.
struct Serving {
    subnet: Subnet,
    tasks: Vec<Task<()>>,
}

impl Dns {
    /// Nothing listens yet. `servers` are asked instead of the host's, where there are any.
    pub fn new(servers: &[std::net::IpAddr]) -> Self {
        Self { serving: smol::lock::Mutex::new(None), directory: Mutex::default(), upstream: Upstream::new(servers) }
    }

    /// The network that is served.
    pub async fn subnet(&self) -> Option<Subnet> {
        self.serving.lock().await.as_ref().map(|serving| serving.subnet)
    }

    fn known(&self) -> Arc<Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The VM with this address in `subnet`.
pub(super) async fn guest_at(
    daemon: &Arc<Daemon>,
    subnet: Subnet,
    address: Ipv4Addr,
) -> Result<Option<Arc<Guest>>, Fault> {
    Ok(directory::present(daemon, subnet).await?.guest(address).cloned())
}

/// The addresses of the host called `name`, as the host's own servers say; empty when there are none.
pub(super) async fn addresses(daemon: &Daemon, name: &str) -> Option<Vec<Ipv4Addr>> {
    let id = (crate::os::random::number() & 0xffff) as u16;
    let answer = daemon.dns.upstream.ask(&Inquiry::of_name(name, id)?).await?;
    let (_, given) = foreign::addresses(&answer, name)?;
    Some(given.into_iter().map(|(address, _)| address).collect())
}

/// Makes sure that questions from `subnet`, which is there, are answered.
pub(super) async fn ensure(daemon: &Arc<Daemon>, op: &Op, subnet: Subnet) -> Result<(), Fault> {
    let mut serving = daemon.dns.serving.lock().await;
    if serving.as_ref().is_some_and(|serving| serving.subnet == subnet) {
        return Ok(());
    }
    // Closed before they are asked for again: loopback is the same in every network.
    for task in serving.take().map(|old| old.tasks).unwrap_or_default() {
        task.cancel().await;
    }
    let (no_loopback, files) = match daemon.helper.call_again(op.id, RootRequest::ListenDns).await? {
        (RootReply::DnsSockets { no_loopback }, files) => (no_loopback, files),
        (other, _) => return Err(unexpected(&other)),
    };
    if let Some(why) = no_loopback {
        warn!("[{}] names of VMs are answered on the bridge alone: {why}", op.id);
    }
    *serving = Some(Serving { subnet, tasks: listen(daemon, subnet, files)? });
    info!("[{}] DNS is answered for {subnet}", op.id);
    Ok(())
}

/// Pairs of UDP and TCP.
fn listen(daemon: &Arc<Daemon>, subnet: Subnet, files: Vec<OwnedFd>) -> Result<Vec<Task<()>>, Fault> {
    let mut tasks = Vec::new();
    let mut files = files.into_iter();
    while let (Some(udp), Some(tcp)) = (files.next(), files.next()) {
        let started = listen::start(daemon, subnet, udp, tcp);
        tasks.extend(started.map_err(|e| Fault::failed("cannot listen for DNS", &e))?);
    }
    match tasks.is_empty() {
        false => Ok(tasks),
        true => Err(Fault::new(FaultKind::OperationFailed, "the root helper handed over no sockets for DNS")),
    }
}
