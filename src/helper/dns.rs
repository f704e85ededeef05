//! The sockets that the daemon answers DNS on: port 53 is root's to give.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use super::authority::Root;
use super::error::{Doing, Result};
use crate::model::address::DNS_LOOPBACK;

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

fn both(_: &Root, address: Ipv4Addr) -> Result<[OwnedFd; 2]> {
    let doing = || format!("listen for DNS on {address}");
    let udp = UdpSocket::bind((address, PORT)).doing(doing())?;
    let tcp = TcpListener::bind((address, PORT)).doing(doing())?;
    Ok([udp.into(), tcp.into()])
}
