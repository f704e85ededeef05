//! The tap of each VM. A monitor that takes a descriptor gets one that is not persistent, so that it
//! disappears with the process that holds it (Documentation/networking/tuntap.rst); one that opens
//! its tap by name has it in a network namespace of its own, and it disappears with that.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::authority::Root;
use super::error::{Doing, Result};
use super::{bridge, sys};
use crate::model::TapName;
use crate::os::netlink::Netlink;

/// Makes `tap` a port of the bridge. It lives as long as the descriptor.
pub fn create(root: &Root, netlink: &mut Netlink, tap: TapName) -> Result<OwnedFd> {
    let name = tap.to_string();
    let file = open(root, &name)?;
    bridge::join(root, netlink, &name)?;
    Ok(file)
}

/// Makes the tap `name` of the present network namespace, which stays and which only `uid` may open.
pub fn create_for(root: &Root, name: &str, uid: u32) -> Result<()> {
    let file = open(root, name)?;
    sys::give_tap(&file, uid).doing(format!("give tap {name} to uid {uid}"))
}

fn open(_: &Root, name: &str) -> Result<OwnedFd> {
    let doing = format!("create tap {name}");
    let file = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).doing(&doing)?;
    sys::attach_tap(&file, name).doing(&doing)?;
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
