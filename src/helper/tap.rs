//! The tap of each VM: made by descriptor and never persistent, so that it disappears with the
//! process that holds it (Documentation/networking/tuntap.rst).

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use super::{bridge, sys};
use crate::model::TapName;
use crate::os::netlink::Netlink;

/// Makes `tap` a port of the bridge, isolated from the others, without IPv6, up. It lives as long
/// as the descriptor.
pub fn create(root: &Root, netlink: &mut Netlink, tap: TapName) -> Result<OwnedFd> {
    let doing = format!("create tap {tap}");
    let name = tap.to_string();
    let file = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).doing(&doing)?;
    sys::attach_tap(&file, &name).doing(&doing)?;
    bridge::set(root, &format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    let link = netlink.link(&name).doing(&doing)?.ok_or_else(|| gone(&doing))?;
    let bridge = bridge::index(netlink)?.ok_or_else(|| gone(&doing))?;
    netlink.set_master(link.index, bridge).doing(&doing)?;
    netlink.set_isolated(link.index, true).doing(&doing)?;
    netlink.set_up(link.index).doing(&doing)?;
    Ok(file)
}

/// Removes `tap` from `bridge`; done when it is gone. It mostly is: it went with its monitor. One that
/// hangs elsewhere is another installation's, or was never made a port and goes with its descriptor.
pub fn remove(_: &Root, netlink: &mut Netlink, tap: TapName, bridge: u32) -> Result<()> {
    let doing = format!("remove tap {tap}");
    match netlink.link(&tap.to_string()).doing(&doing)? {
        Some(link) if link.master == Some(bridge) => netlink.delete_link(link.index).doing(&doing),
        Some(_) | None => Ok(()),
    }
}

fn gone(doing: &str) -> HelperError {
    HelperError::Program { doing: doing.to_owned(), said: "it or the bridge vanished meanwhile".into() }
}
