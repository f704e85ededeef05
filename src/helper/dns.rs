//! The sockets that the daemon answers guests on: ports below 1024 are root's to give.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use super::authority::Root;
use super::error::{Doing, Result};
use crate::model::address::{DNS_LOOPBACK, SECRETS_PORT};

/// Sockets where both addresses could be had: UDP and TCP of each.
const BOTH_ADDRESSES: usize = 4;

/// The port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;

/// Sockets that were handed out, kept as long as their network is there: while the daemon is restarted questions wait
/// in them, instead of being refused.
#[derive(Debug, Default)]
pub struct Kept {
    gateway: Option<Ipv4Addr>,
    dns: Vec<OwnedFd>,
    secrets: Option<OwnedFd>,
}

impl Kept {
    /// Those of DNS on the gateway's address and on loopback; and why there are none on loopback.
    pub fn dns(&mut self, root: &Root, gateway: Ipv4Addr) -> Result<(Vec<OwnedFd>, Option<String>)> {
        self.keep_to(gateway);
        if self.dns.is_empty() {
            self.dns.extend(both(root, gateway)?);
        }
        let mut no_loopback = None;
        if self.dns.len() < BOTH_ADDRESSES {
            match both(root, DNS_LOOPBACK) {
                Ok(more) => self.dns.extend(more),
                Err(e) => no_loopback = Some(e.line()),
            }
        }
        let handed = self.dns.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>();
        Ok((handed.doing("hand out the sockets of DNS")?, no_loopback))
    }

    /// The one for requests with secrets.
    pub fn secrets(&mut self, root: &Root, gateway: Ipv4Addr) -> Result<OwnedFd> {
        self.keep_to(gateway);
        let kept = match self.secrets.take() {
            Some(kept) => kept,
            None => listen_for_secrets(root, gateway)?,
        };
        self.secrets.insert(kept).try_clone().doing("hand out the socket for requests with secrets")
    }

    fn keep_to(&mut self, gateway: Ipv4Addr) {
        if self.gateway != Some(gateway) {
            *self = Self { gateway: Some(gateway), ..Self::default() };
        }
    }

    /// Closes all of them.
    pub fn close(&mut self) {
        *self = Self::default();
    }
}

/// Where requests that carry secrets come in.
fn listen_for_secrets(_: &Root, gateway: Ipv4Addr) -> Result<OwnedFd> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_waits_while_the_daemon_is_restarted() {
        let Ok(root) = Root::claim() else { return };
        let own = std::thread::spawn(move || {
            super::super::sys::unshare(rustix::thread::UnshareFlags::NEWNET).expect("a network");
            let mut netlink = crate::os::netlink::Netlink::open().expect("opened");
            let index = netlink.link("lo").expect("looked").expect("there").index;
            netlink.set_up(index).expect("up");
            let gateway = Ipv4Addr::new(127, 0, 0, 9);
            let mut kept = Kept::default();
            let (first, no_loopback) = kept.dns(&root, gateway).expect("listens");
            assert!(first.len() == BOTH_ADDRESSES && no_loopback.is_none());
            drop((first, kept.secrets(&root, gateway).expect("listens")));
            let asker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
            asker.send_to(b"question", (gateway, PORT)).expect("sent");
            let (mut second, _) = kept.dns(&root, gateway).expect("handed out again");
            let mut buffer = [0; 16];
            let udp = UdpSocket::from(second.remove(0));
            assert_eq!(udp.recv(&mut buffer).expect("heard"), 8);
            drop(kept.secrets(&root, gateway).expect("handed out again"));
            kept.close();
            drop((udp, second));
            assert!(UdpSocket::bind((gateway, PORT)).is_ok(), "it is still taken");
        });
        own.join().expect("done");
    }
}
