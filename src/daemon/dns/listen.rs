//! Sockets, datagrams and streams of DNS (RFC 1035 section 4.2, RFC 7766). Guests are hostile: each asks so
//! much and no more, and a stream that says nothing is closed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use log::{debug, warn};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, Task, Timer};

use super::resolve::{self, Next};
use crate::daemon::Daemon;
use crate::daemon::places::Places;
use crate::model::Subnet;
use crate::net::dns::{Carrier, QUESTION_LIMIT, TCP_LIMIT};
use crate::vmm::deadline::within;

/// Streams at the same time, of everybody and of one asker.
const STREAMS: usize = 128;
const STREAMS_OF_ONE: usize = 8;

/// How long a stream may say nothing (RFC 7766 section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);

/// Questions that wait for others' answers at the same time, of everybody.
const WAITING: usize = 512;

/// Who may ask: the guests of this network, and this host.
#[derive(Debug, Clone, Copy)]
struct Askers(Subnet);

impl Askers {
    /// The asker's address, unless it is a stranger: a host that forwards is reached at its bridge's
    /// address by its neighbours, too.
    fn admit(self, from: SocketAddr) -> Option<Ipv4Addr> {
        let IpAddr::V4(address) = from.ip() else { return None };
        let is_ours = address == self.0.gateway() || self.0.slot_of(address).is_some() || address.is_loopback();
        is_ours.then_some(address)
    }
}

/// Serves both sockets.
pub(super) fn start(daemon: &Arc<Daemon>, subnet: Subnet, udp: OwnedFd, tcp: OwnedFd) -> io::Result<[Task<()>; 2]> {
    let askers = Askers(subnet);
    let udp = Arc::new(Async::new(UdpSocket::from(udp))?);
    let tcp = Async::new(TcpListener::from(tcp))?;
    let datagrams = daemon.executor.spawn(serve_datagrams(daemon.clone(), askers, udp));
    Ok([datagrams, daemon.executor.spawn(serve_streams(daemon.clone(), askers, tcp))])
}

async fn serve_datagrams(daemon: Arc<Daemon>, askers: Askers, socket: Arc<Async<UdpSocket>>) {
    let waiting = Arc::new(AtomicUsize::new(0));
    let mut buffer = [0; QUESTION_LIMIT + 1];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // Of an answer that nobody took (ECONNREFUSED and the like); it says nothing of this socket.
            Err(e) => {
                debug!("a datagram could not be read: {e}");
                continue;
            }
        };
        let Some(asker) = askers.admit(from) else { continue };
        let asked = &buffer[..length];
        match resolve::begin(&daemon, askers.0, asker, asked, Carrier::Udp).await {
            Next::Silence => {}
            Next::Answer(answer) => say(&socket, &answer, from).await,
            Next::Ask(question) => {
                let Some(place) = Waiting::enter(&waiting) else { continue };
                let (daemon, socket) = (daemon.clone(), socket.clone());
                daemon.clone().spawn(async move {
                    let answer = resolve::finish(&daemon, *question).await;
                    say(&socket, &answer, from).await;
                    drop(place);
                });
            }
        }
    }
}

/// A place among those that wait, given back when dropped.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn enter(count: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(count.clone());
        // Counted first; one too many gives its place back at once.
        (count.fetch_add(1, Ordering::AcqRel) < WAITING).then_some(place)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn say(socket: &Async<UdpSocket>, answer: &[u8], to: SocketAddr) {
    if let Err(e) = socket.send_to(answer, to).await {
        debug!("{to} gets no answer: {e}");
    }
}

async fn serve_streams(daemon: Arc<Daemon>, askers: Askers, listener: Async<TcpListener>) {
    let places = Places::new(STREAMS, STREAMS_OF_ONE);
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Out of descriptors or memory, which others give back; or the asker has left already.
            Err(e) => {
                warn!("a stream of DNS cannot be accepted: {e}");
                Timer::after(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(asker) = askers.admit(from) else { continue };
        let Some(place) = places.enter(asker) else { continue };
        let daemon = daemon.clone();
        daemon.clone().spawn(async move {
            if let Err(e) = converse(&daemon, askers.0, asker, stream).await {
                debug!("a stream of DNS with {asker} ended: {e}");
            }
            drop(place);
        });
    }
}

/// One question after another, each with its length before it.
async fn converse(
    daemon: &Arc<Daemon>,
    subnet: Subnet,
    asker: Ipv4Addr,
    mut stream: Async<TcpStream>,
) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        match within(IDLE, stream.read_exact(&mut length)).await {
            Some(Ok(())) => {}
            // It has said all that it had to say, or nothing for too long.
            Some(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Some(Err(e)) => return Err(e),
            None => return Ok(()),
        }
        let length = usize::from(u16::from_be_bytes(length));
        if length > QUESTION_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a question of {length} bytes")));
        }
        let mut asked = vec![0; length];
        within(IDLE, stream.read_exact(&mut asked)).await.ok_or(io::ErrorKind::TimedOut)??;
        let answer = match resolve::begin(daemon, subnet, asker, &asked, Carrier::Tcp).await {
            Next::Silence => return Ok(()),
            Next::Answer(answer) => answer,
            Next::Ask(question) => resolve::finish(daemon, *question).await,
        };
        let length = u16::try_from(answer.len().min(TCP_LIMIT)).unwrap_or(u16::MAX);
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        within(IDLE, stream.write_all(&framed)).await.ok_or(io::ErrorKind::TimedOut)??;
    }
}
