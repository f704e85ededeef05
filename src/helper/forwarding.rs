//! Whether this host forwards packets: switched on while a guest may leave it, and back as it was with the
//! last guest. What it was is written down first.

use std::io;
use std::path::Path;

use super::authority::Root;
use super::error::{Doing, Result};
use super::folder::Folder;
use crate::net::rules::BRIDGE;
use crate::os::netlink::Netlink;
use crate::protocol::frame;
use crate::protocol::root::Deed;

/// `ip_forward` of this network namespace (Documentation/networking/ip-sysctl.rst).
const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// The record: there while it was banger that switched it on.
const RECORD: &str = "forwarding";

/// Links whose owner needs a host that forwards.
const ROUTED: [&str; 12] =
    ["bridge", "tun", "wireguard", "macvlan", "macvtap", "ipvlan", "vxlan", "geneve", "gre", "ipip", "vrf", "ppp"];

/// Settings of all links and of each, which the kernel changes when it is switched (`inet_forward_change` in
/// net/ipv4/devinet.c).
const LINKS: &str = "/proc/sys/net/ipv4/conf";
const REDIRECTS: &str = "/proc/sys/net/ipv4/conf/all/accept_redirects";

/// Most bytes of the record, and of one setting.
const LIMIT: u64 = 64 << 10;

/// What was before it was switched on.
#[derive(Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Before {
    /// The boot during which it was: after the next, the host's own configuration holds.
    boot: u64,
    /// `conf/all/accept_redirects`.
    redirects: String,
    /// Links that forwarded all the same.
    forwarding: Vec<String>,
}

/// Switches it on.
pub fn ensure(_: &Root, folder: &Folder) -> Result<Deed> {
    let doing = "note that the host did not forward";
    if is_on()? {
        return Ok(Deed::Unchanged);
    }
    let record = frame::encode(&before().doing(doing)?).map_err(io::Error::other).doing(doing)?;
    crate::os::files::write_atomic(&folder.at(RECORD), &record[frame::HEADER..], 0o600).doing(doing)?;
    std::fs::write(SWITCH, "1\n").doing("have the host forward")?;
    Ok(Deed::Changed)
}

fn before() -> io::Result<Before> {
    let mut forwarding = Vec::new();
    for link in std::fs::read_dir(LINKS)? {
        let link = link?.file_name().to_string_lossy().into_owned();
        let is_one = !matches!(link.as_str(), "all" | "default") && link != BRIDGE;
        // One that has gone meanwhile needs nothing.
        if is_one && setting(&format!("{LINKS}/{link}/forwarding")).is_ok_and(|on| on != "0") {
            forwarding.push(link);
        }
    }
    Ok(Before { boot: crate::os::process::boot_number()?, redirects: setting(REDIRECTS)?, forwarding })
}

/// Switches it off if it was banger that switched it on, and nobody else has come to need it.
pub fn restore(_: &Root, folder: &Folder, netlink: &mut Netlink) -> Result<Deed> {
    let record = folder.at(RECORD);
    let Some(before) = read(&record)? else { return Ok(Deed::Unchanged) };
    let links = netlink.links().doing("look who else needs a host that forwards")?;
    let needs_it = |kind: &str| ROUTED.contains(&kind);
    let other = links.iter().find(|link| link.name != BRIDGE && link.kind.as_deref().is_some_and(needs_it));
    match other {
        _ if before.boot != crate::os::process::boot_number().doing("see which boot this is")? => {}
        Some(link) => log::info!("the host goes on forwarding: {} may need it", link.name),
        None => put_back(&before).doing("have the host forward no more")?,
    }
    crate::os::files::remove_file(&record).doing("forget that the host did not forward")?;
    Ok(Deed::Changed)
}

fn put_back(before: &Before) -> io::Result<()> {
    std::fs::write(SWITCH, "0\n")?;
    std::fs::write(REDIRECTS, &before.redirects)?;
    for link in &before.forwarding {
        match std::fs::write(format!("{LINKS}/{link}/forwarding"), "1\n") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// The record; what an earlier helper wrote says no more than that there was one.
fn read(path: &Path) -> Result<Option<Before>> {
    let doing = "see whether the host forwarded before";
    let bytes = match crate::os::files::read_limited(path, LIMIT) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).doing(doing),
    };
    match frame::decode(&bytes) {
        Ok(before) => Ok(Some(before)),
        Err(e) => {
            log::warn!("how the host forwarded before cannot be read ({e}): it forwards no more");
            let (boot, redirects) = (crate::os::process::boot_number().doing(doing)?, setting(REDIRECTS).doing(doing)?);
            Ok(Some(Before { boot, redirects, forwarding: Vec::new() }))
        }
    }
}

fn setting(path: &str) -> io::Result<String> {
    let bytes = crate::os::files::read_limited(Path::new(path), LIMIT)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn is_on() -> Result<bool> {
    let read = || -> io::Result<bool> { Ok(std::fs::read_to_string(SWITCH)?.trim() != "0") };
    read().doing("see whether the host forwards")
}
