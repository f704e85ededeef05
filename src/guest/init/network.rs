//! Link, address, route: static, from the identity; no DHCP, no waiting.

use crate::guest::error::{Doing, GuestError};
use crate::model::identity::IdentityV1;
use crate::os::netlink::Netlink;

/// Configures the loopback link and the card that the identity names.
pub fn configure(identity: &IdentityV1) -> Result<(), GuestError> {
    let mut netlink = Netlink::open().doing(|| "open rtnetlink".into())?;
    let links = netlink.links().doing(|| "list the links".into())?;
    if let Some(lo) = links.iter().find(|l| l.name == "lo") {
        netlink.set_up(lo.index).doing(|| "bring lo up".into())?;
    }
    let card = links.iter().find(|l| l.mac == Some(identity.mac.0)).ok_or(GuestError::NoLink(identity.mac))?;
    let (name, address, prefix) = (&card.name, identity.address, identity.prefix);
    netlink.add_address(card.index, address, prefix).doing(|| format!("give {name} the address {address}/{prefix}"))?;
    netlink.set_up(card.index).doing(|| format!("bring {name} up"))?;
    netlink.add_default_route(identity.gateway).doing(|| format!("route through {}", identity.gateway))
}
