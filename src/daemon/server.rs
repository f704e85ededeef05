//! Accepting and serving connections: who may speak, in which order, and what a closed connection
//! means.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use log::{debug, info, warn};
use smol::future::FutureExt;
use smol::{Async, Timer};

use super::crowd::{Crowd, Place};
use super::operation::Op;
use super::wire::{Wire, WireError};
use super::{Daemon, Ending, calls};
use crate::host::install::restart_command;
use crate::os::socket::{Peer, peer};
use crate::protocol::hello::{BUILD, PROTOCOL};
use crate::protocol::owner::{Answer, Call, OwnerReply, OwnerRequest};
use crate::protocol::{Event, Fault, FaultKind, Hello, frame};
use crate::vmm::deadline::within;

/// Most connections at once; one more takes the place of one that has not greeted, or is closed.
const MAX_CONNECTIONS: usize = 256;

/// A peer that has not greeted within this is closed.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// Events that may wait for a slow reader; more are dropped.
const EVENT_BACKLOG: usize = 64;

/// What a call ends in: a reply and the descriptors beside it.
pub(super) type Outcome = Result<(OwnerReply, Vec<OwnedFd>), Fault>;

/// Serves connections for ever.
pub(super) async fn accept(daemon: &Arc<Daemon>, listener: UnixListener) -> io::Result<()> {
    let listener = Async::new(listener)?;
    let crowd = Crowd::of_at_most(MAX_CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Out of descriptors or memory: serving those that are open frees some.
            Err(e) if is_shortage(&e) => {
                warn!("cannot accept: {e}");
                Timer::after(Duration::from_millis(100)).await;
                continue;
            }
            Err(e) => return Err(e),
        };
        let Some(place) = crowd.enter() else { continue };
        let daemon = daemon.clone();
        daemon.clone().spawn(async move {
            if let Err(e) = serve(&daemon, stream, place).await {
                debug!("a connection ended: {e}");
            }
        });
    }
}

fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::NFILE, Errno::MFILE, Errno::NOMEM, Errno::NOBUFS];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

async fn serve(daemon: &Arc<Daemon>, stream: Async<UnixStream>, mut place: Place) -> Result<(), WireError> {
    let mut wire = Wire::for_requests(stream.into_inner()?)?;
    let peer = peer(wire.socket())?;
    let owner = rustix::process::geteuid().as_raw();
    if peer.uid != owner && peer.uid != 0 {
        warn!("refused uid {} (pid {})", peer.uid, peer.pid);
        return Ok(());
    }
    let hello = within(GREETING_LIMIT, greeting(&mut wire, &place)).await.unwrap_or_else(late)?;
    if let Err(fault) = hello.check("the client", restart_command()) {
        return within(GREETING_LIMIT, serve_stranger(&mut wire, fault)).await.unwrap_or_else(late);
    }
    place.keep();
    while let Some((body, files)) = wire.receive().await? {
        match frame::decode::<Call>(&body) {
            Ok(call) if files.len() == call.request.files() => serve_call(daemon, &mut wire, call, files, peer).await?,
            Ok(call) => {
                let message = format!("{} descriptors came, {} belong here", files.len(), call.request.files());
                refuse(&wire, FaultKind::BadRequest, message).await?;
            }
            Err(e) => refuse(&wire, FaultKind::BadRequest, e.to_string()).await?,
        }
    }
    Ok(())
}

/// Both hellos, unless the place is given to somebody else meanwhile.
async fn greeting(wire: &mut Wire, place: &Place) -> Result<Hello, WireError> {
    let greeted = async {
        let (hello, _) = wire.receive_value::<Hello>().await?;
        wire.send(&Hello::ours(), &[]).await?;
        Ok(hello)
    };
    let displaced = async {
        place.displaced().await;
        Err(WireError::Closed)
    };
    greeted.or(displaced).await
}

fn late<T>() -> Result<T, WireError> {
    Err(WireError::Socket(io::ErrorKind::TimedOut.into()))
}

/// A client of another version is told who we are, and nothing else.
async fn serve_stranger(wire: &mut Wire, fault: Fault) -> Result<(), WireError> {
    let Some((body, _)) = wire.receive().await? else {
        return Ok(());
    };
    let reply = match frame::decode::<Call>(&body) {
        Ok(Call { request: OwnerRequest::Status, .. }) => Ok(status()),
        Ok(_) | Err(_) => Err(fault),
    };
    wire.send(&Answer::Reply(reply), &[]).await
}

/// The frozen answer.
pub(super) fn status() -> OwnerReply {
    OwnerReply::Status { build: BUILD.to_owned(), protocol: PROTOCOL, pid: std::process::id() as i32 }
}

async fn refuse(wire: &Wire, kind: FaultKind, message: String) -> Result<(), WireError> {
    wire.send(&Answer::Reply(Err(Fault::new(kind, message))), &[]).await
}

enum Next {
    Event(Event),
    Done(Outcome),
    Closed,
}

/// Runs one call as a task of its own, so that a closed connection ends it at a safe point, with
/// everything taken back, instead of anywhere.
async fn serve_call(
    daemon: &Arc<Daemon>,
    wire: &mut Wire,
    call: Call,
    files: Vec<OwnedFd>,
    peer: Peer,
) -> Result<(), WireError> {
    let (sender, events) = smol::channel::bounded(EVENT_BACKLOG);
    let op = Op::asked(call.op, sender);
    let (id, cancel) = (op.id, op.cancel.clone());
    let ends_the_daemon = matches!(call.request, OwnerRequest::Shutdown { .. });
    let work = call.request.is_operation().then(|| daemon.workload.begin());
    let answer = calls::answer(daemon.clone(), op, call.request, files, peer);
    let mut task = daemon.executor.spawn(async move {
        let outcome = answer.await;
        drop(work);
        outcome
    });
    let outcome = loop {
        let event = async {
            match events.recv().await {
                Ok(event) => Next::Event(event),
                Err(_) => std::future::pending().await,
            }
        };
        let done = async { Next::Done((&mut task).await) };
        let closed = async {
            wire.closed().await;
            Next::Closed
        };
        match event.or(done).or(closed).await {
            Next::Event(event) => {
                if wire.send(&Answer::Event(event), &[]).await.is_err() {
                    cancel.set();
                }
            }
            Next::Done(outcome) => break outcome,
            Next::Closed => {
                cancel.set();
                match task.await {
                    Ok(_) if ends_the_daemon => daemon.end(Ending::Asked),
                    Ok(_) => {}
                    Err(fault) => info!("[{id}] the client has left: {fault}"),
                }
                return Err(WireError::Closed);
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        wire.send(&Answer::Event(event), &[]).await?;
    }
    if let Err(fault) = &outcome {
        info!("[{id}] {fault}");
    }
    match outcome {
        Ok((reply, files)) => {
            let beside: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            let sent = wire.send(&Answer::Reply(Ok(reply)), &beside).await;
            if ends_the_daemon {
                // After the reply, or it would be lost.
                daemon.end(Ending::Asked);
            }
            sent
        }
        Err(fault) => wire.send(&Answer::Reply(Err(fault)), &[]).await,
    }
}
