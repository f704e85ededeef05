//! The host's own DNS servers, asked from a fresh port under a random number each time (RFC 5452).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use log::debug;
use smol::Async;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::daemon::blocking::unblock;
use crate::net::dns::TCP_LIMIT;
use crate::net::dns::foreign::{Inquiry, Unusable};
use crate::net::resolvers::{STUB, servers};
use crate::vmm::deadline::within;

/// How long one server may think.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most servers that are asked, one after another: a guest's own resolver waits five seconds.
const SERVERS: usize = 2;

/// Largest file that is read.
const FILE_LIMIT: u64 = 1 << 16;

/// The port of DNS.
const PORT: u16 = 53;

/// What the host asks itself, and what systemd-resolved asks where the host asks that.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Who is asked.
pub(super) struct Upstream {
    configured: Vec<IpAddr>,
}

impl Upstream {
    /// `servers` instead of the host's, where there are any.
    pub fn new(servers: &[IpAddr]) -> Self {
        Self { configured: servers.to_vec() }
    }

    /// What the first server that answers says.
    pub async fn ask(&self, inquiry: &Inquiry) -> Option<Vec<u8>> {
        for server in self.servers().await.into_iter().take(SERVERS) {
            let server = SocketAddr::new(server, PORT);
            match within(PATIENCE, over_udp(server, inquiry)).await {
                Some(Ok(Said::Whole(answer))) => return Some(answer),
                Some(Ok(Said::CutOff)) => match within(PATIENCE, over_tcp(server, inquiry)).await {
                    Some(Ok(answer)) => return Some(answer),
                    Some(Err(e)) => debug!("{server} does not answer over TCP: {e}"),
                    None => debug!("{server} does not answer over TCP in time"),
                },
                Some(Err(e)) => debug!("{server} does not answer: {e}"),
                None => debug!("{server} does not answer in time"),
            }
        }
        None
    }

    /// As the host has them now: a laptop changes its networks.
    async fn servers(&self) -> Vec<IpAddr> {
        if !self.configured.is_empty() {
            return self.configured.clone();
        }
        unblock(|| {
            let read = |path: &str| crate::os::files::read_limited(Path::new(path), FILE_LIMIT).unwrap_or_default();
            let first = servers(&read(FILES[0]));
            // The stub of systemd-resolved answers this host well, and knows of its VPNs no more than
            // those that it asks.
            let behind = if first == [IpAddr::V4(STUB)] { servers(&read(FILES[1])) } else { Vec::new() };
            if behind.is_empty() { first } else { behind }
        })
        .await
    }
}

/// What came over UDP.
enum Said {
    Whole(Vec<u8>),
    CutOff,
}

async fn over_udp(server: SocketAddr, inquiry: &Inquiry) -> io::Result<Said> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Async::<UdpSocket>::bind((any, 0))?;
    socket.get_ref().connect(server)?;
    socket.send(inquiry.bytes()).await?;
    let mut buffer = vec![0; TCP_LIMIT];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match inquiry.check(&buffer[..length]) {
            Ok(()) => return Ok(Said::Whole(buffer[..length].to_vec())),
            Err(Unusable::CutOff) => return Ok(Said::CutOff),
            Err(Unusable::Stray) => {}
        }
    }
}

async fn over_tcp(server: SocketAddr, inquiry: &Inquiry) -> io::Result<Vec<u8>> {
    let mut stream = Async::<TcpStream>::connect(server).await?;
    let length = u16::try_from(inquiry.bytes().len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], inquiry.bytes()].concat()).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    match inquiry.check(&answer) {
        Ok(()) => Ok(answer),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it answers something else")),
    }
}
