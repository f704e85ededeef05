//! Connections that a client makes through this guest (`ssh -L`, `-D`, `-J`, and editors).
//!
//! The connection is made in a thread, because a name or a host may take its time.

use std::fs::File;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::guest::agent;
use crate::guest::shell::streams::{End, Input, Source};
use crate::protocol::shell::Output;

/// How long a host may take to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection that is being made.
#[derive(Debug)]
pub struct Connecting {
    result: Receiver<io::Result<TcpStream>>,
    /// Its other end is dropped when there is a result.
    done: UnixStream,
}

impl Connecting {
    /// Begins to connect to `port` of `host`.
    pub fn begin(host: &str, port: u16) -> io::Result<Self> {
        let (done, doing) = UnixStream::pair()?;
        let (sender, result) = channel();
        let host = host.to_owned();
        let started = agent::start("ssh forward", move || {
            // Nobody hears it when the client has gone meanwhile.
            let _ = sender.send(connect(&host, port));
            drop(doing);
        });
        if started { Ok(Self { result, done }) } else { Err(io::Error::other("there is no thread for it")) }
    }

    /// What became of it, once that is known.
    pub fn poll(&self) -> Option<io::Result<Tunnel>> {
        match self.result.try_recv() {
            Ok(connected) => Some(connected.and_then(|stream| Tunnel::new(stream.into()))),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the thread is gone"))),
        }
    }

    /// What to wait for.
    pub fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.done, PollFlags::IN));
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(e) => error = e,
        }
    }
    Err(error)
}

/// A socket whose both directions are a channel's.
#[derive(Debug)]
pub struct Tunnel {
    /// Towards it.
    pub input: Input,
    /// From it.
    pub source: Source,
}

impl Tunnel {
    /// Over a connected socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let input = Input::new(File::from(socket.try_clone()?), End::Shutdown);
        Ok(Self { input, source: Source::new(Output::Stdout, File::from(socket)) })
    }
}
