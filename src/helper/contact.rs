//! Fresh connections to a running monitor: its control socket, its guest's agent, its channels. Where
//! those are depends on the monitor.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::error::{Doing, HelperError, Result};
use super::jail::Inhabited;
use super::site::Site;
use crate::model::ProcessRef;
use crate::model::choice::VmmKind;
use crate::os::socket::connect_at_once;
use crate::protocol::shell::CHANNELS;

/// Names of the sockets in a VM's folder.
pub const CONTROL: &str = "qmp.sock";
/// The guest's agent.
pub const AGENT: &str = "agent.sock";

/// A channel for a command.
pub fn shell_socket(channel: u8) -> String {
    format!("shell-{channel}.sock")
}

/// Control socket and the agent's: connected, or, of Firecracker, a bell that the agent rings at.
pub fn connect(site: &Site<'_>) -> Result<[OwnedFd; 2]> {
    match kind_of(site)? {
        VmmKind::Qemu | VmmKind::Fake => Ok([connect_one(site, CONTROL)?, connect_one(site, AGENT)?]),
        VmmKind::Firecracker => {
            let jail = enter(site)?;
            Ok([jail.connect_api()?, jail.hang_bell(site.root)?.into()])
        }
    }
}

/// A channel for a command. Firecracker has one door for all.
pub fn connect_channel(site: &Site<'_>, channel: u8) -> Result<OwnedFd> {
    let (kind, id) = (kind_of(site)?, site.id.clone());
    match kind {
        VmmKind::Qemu | VmmKind::Fake if channel < CHANNELS => connect_one(site, &shell_socket(channel)),
        VmmKind::Firecracker if channel == 0 => enter(site)?.connect_vsock(),
        VmmKind::Qemu | VmmKind::Fake | VmmKind::Firecracker => Err(HelperError::NoChannel { id, channel }),
    }
}

fn kind_of(site: &Site<'_>) -> Result<VmmKind> {
    site.ledger.get(&site.id).map(|record| record.kind).ok_or_else(|| HelperError::NotRunning(site.id.clone()))
}

fn living<'s>(site: &'s Site<'_>) -> Result<(BorrowedFd<'s>, ProcessRef)> {
    site.monitors.monitor(&site.id).ok_or_else(|| HelperError::NotRunning(site.id.clone()))
}

fn enter(site: &Site<'_>) -> Result<Inhabited> {
    let (pidfd, process) = living(site)?;
    Inhabited::enter(site.root, process, pidfd)
}

/// A connection to a socket of the VM's folder.
pub fn connect_one(site: &Site<'_>, name: &str) -> Result<OwnedFd> {
    let doing = format!("connect to {name} of VM {}", site.id);
    // A monitor whose guest took it over may have filled its own queue, and every other VM needs this thread.
    connect_at_once(&site.folder.of_vm(&site.id, name)).doing(doing)
}
