//! Ports of the host that lead into guests. The rules take them there; a socket that listens and is never
//! reached keeps everybody else from having the port meanwhile.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use super::authority::Root;
use super::bridge;
use super::error::{HelperError, Result};
use crate::model::VmId;
use crate::model::publish::{Protocol, PublishedPort};

/// The sockets of all VMs.
#[derive(Default)]
pub struct Ports {
    held: BTreeMap<VmId, Vec<OwnedFd>>,
}

impl Ports {
    /// Takes all of `ports` for a VM, or none. Idempotent.
    pub fn hold(&mut self, root: &Root, id: &VmId, ports: &[PublishedPort]) -> Result<()> {
        check(ports)?;
        if self.held.contains_key(id) || ports.is_empty() {
            return Ok(());
        }
        let sockets = ports.iter().map(|port| listen(root, port)).collect::<Result<_>>()?;
        if ports.iter().any(PublishedPort::is_local) {
            // What this host sends to itself there goes out through the bridge (ip-sysctl.rst). The rules
            // let nothing of a guest's in by that.
            bridge::set(root, "ipv4/conf/br-banger/route_localnet", "1")?;
        }
        self.held.insert(id.clone(), sockets);
        Ok(())
    }

    /// Gives a VM's ports back.
    pub fn give_back(&mut self, id: &VmId) {
        self.held.remove(id);
    }

    /// Whether all of `ports` could be had now.
    pub fn are_free(root: &Root, ports: &[PublishedPort]) -> Result<()> {
        check(ports)?;
        let sockets: Vec<OwnedFd> = ports.iter().map(|port| listen(root, port)).collect::<Result<_>>()?;
        drop(sockets);
        Ok(())
    }
}

fn check(ports: &[PublishedPort]) -> Result<()> {
    if ports.iter().any(|port| port.host == 0 || port.guest == 0) {
        return Err(HelperError::Passage("port 0".into()));
    }
    PublishedPort::check_all(ports).map_err(|e| HelperError::Passage(e.to_string()))
}

fn listen(_: &Root, port: &PublishedPort) -> Result<OwnedFd> {
    let place = (port.address, port.host);
    let bound = match port.protocol {
        Protocol::Tcp => TcpListener::bind(place).map(OwnedFd::from),
        Protocol::Udp => UdpSocket::bind(place).map(OwnedFd::from),
    };
    bound.map_err(|source| HelperError::Port { port: *port, source })
}
