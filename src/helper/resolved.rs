//! systemd-resolved, told that `~vm` and the network's addresses are answered at the bridge
//! (resolvectl(1); org.freedesktop.resolve1(5)). What it is told is the bridge's: it goes with it, at the
//! latest. A host without it goes on as it was.

use super::authority::Root;
use super::error::Result;
use super::programs::run;
use crate::host::facts::find_resolvectl;
use crate::model::Subnet;
use crate::model::egress::VM_DOMAIN;
use crate::net::dns::zone::reverse_domain;
use crate::net::rules::BRIDGE;

/// Points it at the gateway of `subnet`, for the names and addresses of VMs and nothing else; whether
/// it is there to be pointed.
pub fn point(root: &Root, subnet: Subnet) -> Result<bool> {
    let Some(program) = find_resolvectl() else { return Ok(false) };
    let (gateway, reverse) = (subnet.gateway().to_string(), format!("~{}", reverse_domain(subnet)));
    let domain = format!("~{VM_DOMAIN}");
    let orders: [&[&str]; 6] = [
        // Before there is a server: whatever fails after it, no other name is asked there.
        &["default-route", BRIDGE, "no"],
        &["domain", BRIDGE, &domain, &reverse],
        &["dns", BRIDGE, &gateway],
        // Nothing of this domain is signed, and nobody else on the bridge is to be asked.
        &["dnssec", BRIDGE, "no"],
        &["llmnr", BRIDGE, "no"],
        &["mdns", BRIDGE, "no"],
    ];
    orders.iter().try_for_each(|order| run(root, &program, order, "point systemd-resolved at the bridge"))?;
    Ok(true)
}

/// Has it forget the bridge.
pub fn revert(root: &Root) -> Result<()> {
    match find_resolvectl() {
        Some(program) => run(root, &program, &["revert", BRIDGE], "have systemd-resolved forget the bridge"),
        None => Ok(()),
    }
}
