//! The guest's agent behind a vsock: a line that looks to its end here like a port whose guest comes and
//! goes, made of one connection after the other.
//!
//! The agent rings when it listens, so nothing is tried again and again; one that has rung for an
//! earlier daemon is found by trying once.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, Timer};

use super::Daemon;
use crate::model::{OpId, VmId};
use crate::protocol::guest::{GuestHello, PREAMBLE, VSOCK_PORT};
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind, frame};
use crate::vmm::firecracker::vsock;

/// The one door of a monitor with a vsock.
const DOOR: u8 = 0;

/// Between two connections: a guest that rings without a pause must not have the helper for itself.
const PAUSE: Duration = Duration::from_millis(200);

/// Bytes that are carried at once.
const CHUNK: usize = 16 << 10;

/// A connection to vsock port `port` of the guest.
pub(super) async fn dial(daemon: &Daemon, op: OpId, id: &VmId, port: u32) -> Result<Async<UnixStream>, Fault> {
    let request = RootRequest::OpenChannel { id: id.clone(), channel: DOOR };
    let door: OwnedFd = match daemon.helper.call_again(op, request).await? {
        (RootReply::Channel, files) if files.len() == 1 => files.into_iter().next().ok_or_else(no_door)?,
        _ => return Err(no_door()),
    };
    vsock::connect(door, port).await.map_err(|e| Fault::failed("cannot reach the guest over vsock", &e))
}

fn no_door() -> Fault {
    Fault::new(FaultKind::OperationFailed, "the root helper opened no way to the guest's vsock")
}

/// What one end of the agent's line is kept by.
pub(super) struct Keeper {
    /// The VM.
    pub id: VmId,
    /// Where the agent rings.
    pub bell: OwnedFd,
    /// The end of the line that is kept.
    pub line: UnixStream,
    /// The monitor's pidfd.
    pub monitor: OwnedFd,
    /// Whether the agent may listen already: it rang for somebody else then.
    pub may_listen: bool,
}

/// Keeps the line until the monitor has ended, or nobody wants it any more.
pub(super) async fn keep(daemon: Arc<Daemon>, keeper: Keeper) {
    let id = keeper.id.clone();
    if let Err(e) = keep_open(&daemon, keeper).await {
        warn!("VM {id}: the line to its agent is lost: {e}");
    }
}

async fn keep_open(daemon: &Daemon, keeper: Keeper) -> io::Result<()> {
    let bell = Async::new(UnixListener::from(keeper.bell))?;
    let (line, monitor) = (Async::new(keeper.line)?, Async::new(keeper.monitor)?);
    let ended = async {
        monitor.readable().await?;
        Ok(End::Line)
    };
    let serving = async {
        let mut met_before = false;
        if !keeper.may_listen {
            bell.accept().await?;
        }
        loop {
            match dial(daemon, OpId::BACKGROUND, &keeper.id, VSOCK_PORT).await {
                Ok(guest) => {
                    if met_before {
                        greet(&guest).await?;
                    }
                    met_before = true;
                    if carry(&line, &guest).await == End::Line {
                        return Ok(End::Line);
                    }
                }
                Err(fault) => debug!("VM {}: its agent does not listen: {fault}", keeper.id),
            }
            bell.accept().await?;
            Timer::after(PAUSE).await;
        }
    };
    ended.or(serving).await.map(drop)
}

/// Another agent than the one that was greeted at the line's beginning, or another conversation with it.
async fn greet(mut guest: &Async<UnixStream>) -> io::Result<()> {
    let hello = frame::encode(&GuestHello::ours()).map_err(io::Error::other)?;
    // One that hangs up at once is no more than that.
    let _ = guest.write_all(&[PREAMBLE.as_slice(), &hello].concat()).await;
    Ok(())
}

/// Which side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Line,
    Guest,
}

/// Carries both ways until one side ends.
async fn carry(line: &Async<UnixStream>, guest: &Async<UnixStream>) -> End {
    let up = pump(guest, line);
    let down = pump(line, guest);
    let guest_ended = async { if up.await == Broken::Source { End::Guest } else { End::Line } };
    let line_ended = async { if down.await == Broken::Source { End::Line } else { End::Guest } };
    guest_ended.or(line_ended).await
}

/// Where a stream broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Source,
    Target,
}

async fn pump(mut from: &Async<UnixStream>, mut to: &Async<UnixStream>) -> Broken {
    let mut chunk = [0; CHUNK];
    loop {
        let count = match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return Broken::Source,
            Ok(count) => count,
        };
        if to.write_all(&chunk[..count]).await.is_err() {
            return Broken::Target;
        }
        // One guest that talks without a pause must not have a thread of the executor for itself.
        smol::future::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn bytes_are_carried_both_ways_and_the_side_that_ends_is_known() {
        let pair = || UnixStream::pair().expect("a pair");
        let ((line, mut near), (guest, mut far)) = (pair(), pair());
        let carried = std::thread::spawn(move || {
            let (line, guest) = (Async::new(line).expect("taken"), Async::new(guest).expect("taken"));
            let first = smol::block_on(carry(&line, &guest));
            let (other, gone) = UnixStream::pair().expect("a pair");
            drop(line);
            drop(gone);
            let (line, near) = UnixStream::pair().expect("a pair");
            let second = smol::block_on(carry(&Async::new(line).expect("taken"), &Async::new(other).expect("taken")));
            drop(near);
            (first, second)
        });
        near.write_all(b"down").expect("said");
        far.write_all(b"up").expect("said");
        let (mut down, mut up) = ([0; 4], [0; 2]);
        far.read_exact(&mut down).expect("heard");
        near.read_exact(&mut up).expect("heard");
        assert_eq!((&down, &up), (b"down", b"up"));
        drop(near);
        assert_eq!(carried.join().expect("ended"), (End::Line, End::Guest));
    }
}
