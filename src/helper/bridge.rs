//! The bridge and its address. Its alias says whose it is, so that two installations do not take
//! each other's for their own.

use std::net::Ipv4Addr;

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use crate::model::Subnet;
use crate::net::plan::choose_subnet;
use crate::net::rules::BRIDGE;
use crate::os::netlink::{Link, Netlink};
use crate::protocol::root::Deed;

/// The bridge's own Ethernet address: fixed, or it would change with its ports and guests would
/// speak to one that is gone. `02:62:67` as the guests', with the slot that no guest has.
const MAC: [u8; 6] = [0x02, 0x62, 0x67, 0, 0, 0];

/// What must be so on the bridge.
const SETTINGS: [(&str, &str); 8] = [
    // Its fe80 address would answer every guest.
    ("ipv6/conf/br-banger/disable_ipv6", "1"),
    // ARP for the bridge's address alone, not for others of the host.
    ("ipv4/conf/br-banger/arp_ignore", "1"),
    // Strict: what comes from the bridge must be answered through the bridge (RFC 3704).
    ("ipv4/conf/br-banger/rp_filter", "1"),
    // What a guest sends to others comes before the rules, which refuse it; without, it would vanish. No
    // other link of the host forwards because of this.
    ("ipv4/conf/br-banger/forwarding", "1"),
    // The host says that it is the way to every other guest (RFC 3069), where the rules refuse: a guest
    // that asks for a neighbour itself would hear nothing, for seconds.
    ("ipv4/conf/br-banger/proxy_arp_pvlan", "1"),
    ("ipv4/conf/br-banger/accept_redirects", "0"),
    ("ipv4/conf/br-banger/send_redirects", "0"),
    ("ipv4/conf/br-banger/accept_source_route", "0"),
];

/// Makes sure of the bridge. An address that it has is kept; `prefer` and the host's routes decide
/// about a new one.
pub fn ensure(root: &Root, netlink: &mut Netlink, alias: &str, prefer: Option<Subnet>) -> Result<(Subnet, Deed)> {
    let (bridge, made) = ensure_link(root, netlink, alias)?;
    let addresses = netlink.addresses(bridge.index).doing("look at the bridge")?;
    if let (Some(subnet), true, false) = (addresses.iter().find_map(|a| subnet_of(*a)), bridge.up, made) {
        return Ok((subnet, Deed::Unchanged));
    }
    for (name, value) in SETTINGS {
        set(root, name, value)?;
    }
    let subnet = match addresses.iter().find_map(|a| subnet_of(*a)) {
        Some(subnet) => subnet,
        None => give_address(root, netlink, &bridge, prefer)?,
    };
    netlink.set_up(bridge.index).doing("set up the bridge")?;
    Ok((subnet, Deed::Changed))
}

/// Whether there is a bridge that is this installation's to remove: its own, or one that was being
/// made when its maker was killed, before it could be named.
pub fn is_ours(netlink: &mut Netlink, alias: &str) -> Result<bool> {
    Ok(netlink.link(BRIDGE).doing("look at the bridge")?.is_some_and(|link| owns(&link, alias)))
}

fn owns(bridge: &Link, alias: &str) -> bool {
    match bridge.alias.as_deref() {
        Some(name) if !name.is_empty() => name == alias,
        // Made with this address in one message, and named in the next.
        _ => bridge.mac == Some(MAC),
    }
}

/// The network of this installation's bridge, if it is there.
pub fn present(netlink: &mut Netlink, alias: &str) -> Result<Option<Subnet>> {
    let doing = "look at the bridge";
    match netlink.link(BRIDGE).doing(doing)?.filter(|link| link.alias.as_deref() == Some(alias)) {
        Some(link) => Ok(netlink.addresses(link.index).doing(doing)?.into_iter().find_map(subnet_of)),
        None => Ok(None),
    }
}

/// Removes the bridge if it is this installation's and nothing hangs on it; done when it is gone.
pub fn remove(_: &Root, netlink: &mut Netlink, alias: &str) -> Result<Deed> {
    match netlink.link(BRIDGE).doing("look at the bridge")? {
        Some(link) if owns(&link, alias) => {
            refuse_in_use(netlink, &link)?;
            netlink.delete_link(link.index).doing("remove the bridge")?;
            Ok(Deed::Changed)
        }
        Some(_) | None => Ok(Deed::Unchanged),
    }
}

/// The number of this installation's bridge, if it is there.
pub fn own_index(netlink: &mut Netlink, alias: &str) -> Result<Option<u32>> {
    let link = netlink.link(BRIDGE).doing("look at the bridge")?;
    Ok(link.filter(|l| l.alias.as_deref() == Some(alias)).map(|l| l.index))
}

/// The bridge's number, if it is there.
pub fn index(netlink: &mut Netlink) -> Result<Option<u32>> {
    Ok(netlink.link(BRIDGE).doing("look at the bridge")?.map(|l| l.index))
}

/// Writes a setting of the network namespace, below `/proc/sys/net`; one that this kernel does not
/// have (built without IPv6) needs none.
pub fn set(_: &Root, name: &str, value: &str) -> Result<()> {
    match std::fs::write(format!("/proc/sys/net/{name}"), value) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.doing(format!("set net/{name} to {value}")),
    }
}

/// The link, and whether it was made or taken over.
fn ensure_link(_: &Root, netlink: &mut Netlink, alias: &str) -> Result<(Link, bool)> {
    let doing = "make the bridge";
    match netlink.link(BRIDGE).doing(doing)? {
        Some(link) if link.alias.as_deref() == Some(alias) => return Ok((link, false)),
        Some(link) => refuse_in_use(netlink, &link)?,
        None => netlink.create_bridge(BRIDGE, MAC).doing(doing)?,
    }
    let link = netlink.link(BRIDGE).doing(doing)?.ok_or(HelperError::BridgeTaken { bridge: BRIDGE })?;
    netlink.set_mac(link.index, MAC).doing(doing)?;
    netlink.set_alias(link.index, alias).doing(doing)?;
    Ok((link, true))
}

/// Another installation's bridge without ports is a leftover; one with ports is in use.
fn refuse_in_use(netlink: &mut Netlink, bridge: &Link) -> Result<()> {
    let links = netlink.links().doing("look at the bridge's ports")?;
    if links.iter().any(|l| l.master == Some(bridge.index)) {
        return Err(HelperError::BridgeTaken { bridge: BRIDGE });
    }
    Ok(())
}

fn give_address(_: &Root, netlink: &mut Netlink, bridge: &Link, prefer: Option<Subnet>) -> Result<Subnet> {
    let routes = netlink.routes().doing("look at the host's routes")?;
    let subnet = choose_subnet(prefer, &routes)?;
    netlink.add_address(bridge.index, subnet.gateway(), 24).doing("give the bridge its address")?;
    Ok(subnet)
}

/// Makes the link `name` a port of the bridge, isolated from the others, without IPv6, up.
pub fn join(root: &Root, netlink: &mut Netlink, name: &str) -> Result<()> {
    let doing = format!("make {name} a port of the bridge");
    let gone = || HelperError::Program { doing: doing.clone(), said: "it or the bridge vanished meanwhile".into() };
    set(root, &format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    let link = netlink.link(name).doing(&doing)?.ok_or_else(gone)?;
    let bridge = index(netlink)?.ok_or_else(gone)?;
    netlink.set_master(link.index, bridge).doing(&doing)?;
    netlink.set_isolated(link.index, true).doing(&doing)?;
    netlink.set_up(link.index).doing(&doing)
}

fn subnet_of((address, prefix): (Ipv4Addr, u8)) -> Option<Subnet> {
    let [a, b, c, _] = address.octets();
    let subnet = Subnet::new(Ipv4Addr::new(a, b, c, 0))?;
    (prefix == 24 && subnet.gateway() == address).then_some(subnet)
}
