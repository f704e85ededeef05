//! The sockets that the daemon answers guests on: ports below 1024 are root's to give.

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
    let listener = TcpListener::bind((gateway, SECRETS_PORT));
    Ok(listener.doing(format!("listen for requests with secrets at {gateway} port {SECRETS_PORT}"))?.into())
}

fn both(_: &Root, address: Ipv4Addr) -> Result<[OwnedFd; 2]> {
    let doing = || format!("listen for DNS on {address}");
    let udp = UdpSocket::bind((address, PORT)).doing(doing())?;
    let tcp = TcpListener::bind((address, PORT)).doing(doing())?;
    Ok([udp.into(), tcp.into()])
}
