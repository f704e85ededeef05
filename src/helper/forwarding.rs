//! Whether this host forwards packets: switched on while a guest may leave it, and back as it was with the
//! last guest. What it was is written down first.

use std::io;

use super::authority::Root;
use super::error::{Doing, Result};
use super::folder::Folder;
use crate::net::rules::BRIDGE;
use crate::os::netlink::Netlink;
use crate::protocol::root::Deed;

/// `ip_forward` of this network namespace (Documentation/networking/ip-sysctl.rst).
const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// The record: there while it was banger that switched it on.
const RECORD: &str = "forwarding";

/// Links whose owner needs a host that forwards.
const ROUTED: [&str; 4] = ["bridge", "tun", "wireguard", "macvlan"];

/// Switches it on.
pub fn ensure(_: &Root, folder: &Folder) -> Result<Deed> {
    if is_on()? {
        return Ok(Deed::Unchanged);
    }
    crate::os::files::write_atomic(&folder.at(RECORD), b"0\n", 0o600).doing("note that the host did not forward")?;
    std::fs::write(SWITCH, "1\n").doing("have the host forward")?;
    Ok(Deed::Changed)
}

/// Switches it off if it was banger that switched it on, and nobody else has come to need it.
pub fn restore(_: &Root, folder: &Folder, netlink: &mut Netlink) -> Result<Deed> {
    let record = folder.at(RECORD);
    if !record.exists() {
        return Ok(Deed::Unchanged);
    }
    let links = netlink.links().doing("look who else needs a host that forwards")?;
    let needs_it = |kind: &str| ROUTED.contains(&kind);
    let other = links.iter().find(|link| link.name != BRIDGE && link.kind.as_deref().is_some_and(needs_it));
    match other {
        Some(link) => log::info!("the host goes on forwarding: {} may need it", link.name),
        None => std::fs::write(SWITCH, "0\n").doing("have the host forward no more")?,
    }
    crate::os::files::remove_file(&record).doing("forget that the host did not forward")?;
    Ok(Deed::Changed)
}

fn is_on() -> Result<bool> {
    let read = || -> io::Result<bool> { Ok(std::fs::read_to_string(SWITCH)?.trim() != "0") };
    read().doing("see whether the host forwards")
}
