//! Secrets that stay out of guests. To a guest, the hosts of its secrets lie at the host's own address in the
//! guests' network, DNS says so; there the daemon takes its requests, in the hosts' names, by a certificate that
//! this guest alone trusts. It puts the secrets into the requests' heads and sends them on to the real hosts,
//! whose certificates it verifies.

/// One connection.
mod exchange;
/// A VM's secrets, ready for use.
mod keep;
/// The way to the host.
mod upstream;
/// What is kept of them.
mod vault;

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::LazyConfigAcceptor;
use futures_rustls::server::TlsStream;
use log::{debug, info, warn};
use rustls::server::Acceptor;
use smol::future::FutureExt;
use smol::io::AsyncWriteExt;
use smol::{Async, Task, Timer};

use self::exchange::{Exchange, Requests, Trouble};
pub(super) use self::keep::Keep;
use self::upstream::Trust;
pub(super) use self::vault::Vault;
use super::blocking::unblock;
use super::dns::{self, Guest};
use super::helper::unexpected;
use super::operation::Op;
use super::places::Places;
use super::{Daemon, steps};
use crate::model::{Subnet, VmRecord};
use crate::net::http::Refusal;
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind};
use crate::vmm::deadline::within;

/// Connections at the same time, of everybody and of one guest: each costs about 100 KiB.
const CONNECTIONS: usize = 256;
const CONNECTIONS_OF_ONE: usize = 64;

/// How long a guest may take to agree upon TLS, and to say its first request.
const HANDSHAKE: Duration = Duration::from_secs(15);
const FIRST_REQUEST: Duration = Duration::from_secs(60);

/// The service.
pub(super) struct Secrets {
    serving: smol::lock::Mutex<Option<Serving>>,
    trust: Trust,
}

/// What listens for one network.
struct Serving {
    subnet: Subnet,
    task: Task<()>,
}

impl Secrets {
    /// Nothing listens yet.
    pub fn new() -> Self {
        Self { serving: smol::lock::Mutex::new(None), trust: Trust::default() }
    }
}

/// Makes sure that requests from `subnet`, which is there, are taken, where `vm` has secrets.
pub(super) async fn ensure(daemon: &Arc<Daemon>, op: &Op, subnet: Subnet, vm: &VmRecord) -> Result<(), Fault> {
    if vm.spec.secrets.is_empty() {
        return Ok(());
    }
    let mut serving = daemon.secrets.serving.lock().await;
    if serving.as_ref().is_some_and(|serving| serving.subnet == subnet) {
        return Ok(());
    }
    if let Some(old) = serving.take() {
        old.task.cancel().await;
    }
    let listener = match daemon.helper.call_again(op.id, RootRequest::ListenSecrets).await? {
        (RootReply::SecretsSocket, files) => <[OwnedFd; 1]>::try_from(files),
        (other, _) => return Err(unexpected(&other)),
    };
    let Ok([listener]) = listener else {
        return Err(Fault::new(FaultKind::OperationFailed, "the root helper handed over no socket for secrets"));
    };
    let listener = Async::new(TcpListener::from(listener)).map_err(|e| Fault::failed("cannot take requests", &e))?;
    *serving = Some(Serving { subnet, task: daemon.executor.spawn(serve(daemon.clone(), subnet, listener)) });
    info!("[{}] requests with secrets are taken for {subnet}", op.id);
    Ok(())
}

async fn serve(daemon: Arc<Daemon>, subnet: Subnet, listener: Async<TcpListener>) {
    let places = Places::new(CONNECTIONS, CONNECTIONS_OF_ONE);
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Out of descriptors or memory, which others give back; or the guest has left already.
            Err(e) => {
                warn!("a request with secrets cannot be accepted: {e}");
                Timer::after(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Other programs of this host reach the door too, and take no places.
        let IpAddr::V4(address) = from.ip() else { continue };
        if subnet.slot_of(address).is_none() {
            continue;
        }
        let Some(place) = places.enter(address) else {
            debug!("{address} has too many connections to the hosts of its secrets");
            continue;
        };
        let daemon = daemon.clone();
        daemon.clone().spawn(async move {
            if let Err(why) = attend(&daemon, subnet, address, stream).await {
                debug!("a connection of {address} to the host of a secret ended: {why}");
            }
            drop(place);
        });
    }
}

/// Serves one connection.
async fn attend(
    daemon: &Arc<Daemon>,
    subnet: Subnet,
    address: Ipv4Addr,
    stream: Async<TcpStream>,
) -> Result<(), Trouble> {
    let known = dns::guest_at(daemon, subnet, address).await.map_err(io::Error::other)?;
    let Some(guest) = known.filter(|guest| !guest.secrets.is_empty()) else {
        return Err(io::Error::other("it is no guest with secrets").into());
    };
    let keep = keep_of(daemon, &guest).await?;
    let (name, stream) = greet(&guest, &keep, stream).await?;
    let Some((host, swaps)) = keep.host(&name) else {
        return Err(io::Error::other("it asks for nobody's secret").into());
    };
    let count = |swapped| guest.machine.outward().count_request(host, swapped);
    let mut requests = Requests::new(stream);
    let first = match within(FIRST_REQUEST, requests.head(host, swaps)).await {
        Some(Ok(Some(first))) => first,
        Some(Ok(None)) | None => return Ok(()),
        Some(Err(Trouble::Refused(refusal))) => return refuse(&guest, host.name(), requests, refusal).await,
        Some(Err(other)) => return Err(other),
    };
    let upstream = match upstream::connect(daemon, &daemon.secrets.trust, host).await {
        Ok(upstream) => upstream,
        Err(refusal) => return refuse(&guest, host.name(), requests, refusal).await,
    };
    count(first.swapped);
    let mut to_guest = None;
    let requests = requests.go_on(|stream| {
        let (from, to) = smol::io::split(stream);
        to_guest = Some(to);
        from
    });
    let Some(to_guest) = to_guest else { return Ok(()) };
    let (from_host, to_host) = smol::io::split(upstream);
    let exchange = Exchange { requests, to_guest, from_host, to_host, host, swaps };
    let gone = async {
        // A guest whose monitor has ended says no goodbye.
        match guest.machine.live() {
            Some(live) => live.ended().await,
            None => std::future::pending().await,
        }
        Ok(())
    };
    let ended = exchange.run(first, count).or(gone).await;
    if let Err(Trouble::Refused(refusal)) = &ended {
        guest.machine.outward().count_failure(host.name(), &refusal.to_string());
    }
    ended
}

/// Agrees upon TLS in the name of the host that is asked for; which that is.
async fn greet(
    guest: &Guest,
    keep: &Keep,
    stream: Async<TcpStream>,
) -> Result<(String, TlsStream<Async<TcpStream>>), Trouble> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let begun = within(HANDSHAKE, LazyConfigAcceptor::new(Acceptor::default(), stream)).await.ok_or_else(late)??;
    let name = begun.client_hello().server_name().unwrap_or_default().to_owned();
    // Whoever is nobody's host is refused by the configuration.
    match within(HANDSHAKE, begun.into_stream(keep.tls.clone())).await.ok_or_else(late)? {
        Ok(stream) => Ok((name, stream)),
        Err(e) => {
            if keep.host(&name).is_some() {
                guest.machine.outward().count_failure(&name, &format!("the guest's program ends TLS: {e}"));
            }
            Err(e.into())
        }
    }
}

/// Says why a request does not go out, and ends the connection.
async fn refuse(
    guest: &Guest,
    host: &str,
    requests: Requests<TlsStream<Async<TcpStream>>>,
    refusal: Refusal,
) -> Result<(), Trouble> {
    guest.machine.outward().count_failure(host, &refusal.to_string());
    let mut stream = requests.into_inner();
    let answer = async {
        stream.write_all(&refusal.answer()).await?;
        stream.close().await
    };
    Ok(within(HANDSHAKE, answer).await.unwrap_or(Ok(()))?)
}

/// The secrets of a guest, read once.
async fn keep_of(daemon: &Daemon, guest: &Guest) -> io::Result<Arc<Keep>> {
    if let Some(keep) = guest.machine.keep() {
        return Ok(keep);
    }
    let (path, secrets) = (steps::files_of(daemon, &guest.id).secrets(), guest.secrets.clone());
    let keep = unblock(move || Keep::of(&secrets, Vault::read(&path)?)).await;
    let keep = Arc::new(keep.inspect_err(|e| warn!("the secrets of VM {} cannot be used: {e}", guest.id))?);
    guest.machine.set_keep(keep.clone());
    Ok(keep)
}
