//! The sockets that the daemon answers guests on: ports below 1024 are root's to give.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use super::authority::Root;
use super::error::{Doing, Result};
use crate::model::address::{DNS_LOOPBACK, SECRETS_PORT};

/// The port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;

/// UDP and TCP on the gateway's address, and on loopback unless somebody has that; and why not.
pub fn listen(root: &Root, gateway: Ipv4Addr) -> Result<(Vec<OwnedFd>, Option<String>)> {
    let mut sockets = Vec::from(both(root, gateway)?);
    match both(root, DNS_LOOPBACK) {
        Ok(more) => {
            sockets.extend(more);
            Ok((sockets, None))
        }
        Err(e) => Ok((sockets, Some(e.line()))),
    }
}

/// Where requests that carry secrets come in.
pub fn listen_for_secrets(_: &Root, gateway: Ipv4Addr) -> Result<OwnedFd> {
    let listener = TcpListener::bind((gateway, SECRETS_PORT)).map_err(taken);
    Ok(listener.doing(format!("listen for requests with secrets at {gateway} port {SECRETS_PORT}"))?.into())
}

/// Another server has the port on all addresses, as dnsmasq and others do unless told otherwise.
fn taken(error: io::Error) -> io::Error {
    let what = "another program has that port on every address (ss -lntup); have it listen on its own alone, \
                dnsmasq by `bind-dynamic` and `except-interface=br-banger`";
    match error.kind() {
        io::ErrorKind::AddrInUse => io::Error::new(io::ErrorKind::AddrInUse, what),
        _ => error,
    }
}

fn both(_: &Root, address: Ipv4Addr) -> Result<[OwnedFd; 2]> {
    let doing = || format!("listen for DNS on {address}");
    let udp = UdpSocket::bind((address, PORT)).map_err(taken).doing(doing())?;
    let tcp = TcpListener::bind((address, PORT)).map_err(taken).doing(doing())?;
    Ok([udp.into(), tcp.into()])
}
