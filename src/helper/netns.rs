//! A network namespace for a monitor that opens its tap by name: the tap, and a pair of links that
//! leads to the bridge. Nothing of the host's network is in it, so an escaped monitor reaches no
//! service of the host; what it sends arrives as its guest's would, at a port with the VM's rules.
//!
//! It has no name and lives as long as a process in it or a descriptor of it: tap and links go with
//! the monitor, whatever becomes of the helper (network_namespaces(7)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use super::{bridge, sys, tap};
use crate::model::TapName;
use crate::model::jail::TAP;
use crate::os::netlink::Netlink;

/// The network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// The bridge between the tap and the link that leads out, and that link.
const INNER_BRIDGE: &str = "br0";
const INNER_LINK: &str = "out0";

/// Of no guest and no bridge of the host's: nothing ever speaks to it.
const INNER_MAC: [u8; 6] = [0x02, 0x62, 0x67, 0xff, 0, 0];

/// Makes the namespace, with a tap for `uid`; `port` is the port of the host's bridge that it leads to.
pub fn create(root: &Root, netlink: &mut Netlink, port: TapName, uid: u32) -> Result<OwnedFd> {
    let made = elsewhere(root, |home| furnish(root, home, &port.to_string(), uid))?;
    bridge::join(root, netlink, &port.to_string())?;
    Ok(made)
}

/// Does `work` in a network namespace that is made for it, and comes back; the namespace. `work` is
/// given the one it came from. The helper is one thread, so nothing else runs there meanwhile.
fn elsewhere(_: &Root, work: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> Result<OwnedFd> {
    let doing = "make a network namespace";
    let home = open_own().doing(doing)?;
    sys::unshare(UnshareFlags::NEWNET).doing(doing)?;
    let made = open_own().doing(doing).and_then(|made| work(home.as_fd()).map(|()| made));
    if let Err(e) = move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)) {
        // Whatever this process did next it would do in the wrong network. VMs go on without it, and
        // the next helper finds them again.
        log::error!("cannot come back from a network namespace: {e}");
        std::process::abort();
    }
    made
}

fn open_own() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn furnish(root: &Root, home: BorrowedFd<'_>, port: &str, uid: u32) -> Result<()> {
    let doing = "furnish a network namespace";
    for which in ["all", "default"] {
        bridge::set(root, &format!("ipv6/conf/{which}/disable_ipv6"), "1")?;
    }
    let mut netlink = Netlink::open().doing(doing)?;
    tap::create_for(root, TAP, uid)?;
    netlink.create_bridge(INNER_BRIDGE, INNER_MAC).doing(doing)?;
    netlink.create_veth(INNER_LINK, port, home).doing(doing)?;
    let mut index = |name: &str| {
        let vanished = || HelperError::Program { doing: doing.to_owned(), said: format!("{name} vanished") };
        netlink.link(name).doing(doing)?.map(|link| link.index).ok_or_else(vanished)
    };
    let (inner, tap, link) = (index(INNER_BRIDGE)?, index(TAP)?, index(INNER_LINK)?);
    for port in [tap, link] {
        netlink.set_master(port, inner).doing(doing)?;
        netlink.set_up(port).doing(doing)?;
    }
    netlink.set_up(inner).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn own_number() -> u64 {
        std::fs::metadata(OWN).expect("there").ino()
    }

    #[test]
    fn a_namespace_is_furnished_and_goes_with_its_last_descriptor() {
        let Ok(root) = Root::claim() else { return };
        // In a namespace of its own, or the host would get a link.
        let host = elsewhere(&root, |_| Ok(())).expect("made");
        let home = open_own().expect("opens");
        move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
        let before = own_number();
        let made = elsewhere(&root, |home| furnish(&root, home, "bng-9", 1234)).expect("furnished");
        assert_eq!(own_number(), before, "did not come back");
        let mut netlink = Netlink::open().expect("opens");
        assert!(netlink.link("bng-9").expect("answers").is_some());
        assert!(netlink.link(TAP).expect("answers").is_none(), "the tap is here");
        let refused = elsewhere(&root, |home| furnish(&root, home, "bng-9", 1234)).expect_err("the name is taken");
        assert!(refused.line().contains("bng-9"), "{}", refused.line());
        assert_eq!(own_number(), before);
        drop(made);
        let index = netlink.link("bng-9").expect("answers").map(|link| link.index);
        // The kernel takes it away a moment later by itself.
        index.map_or(Ok(()), |index| netlink.delete_link(index)).expect("gone");
        move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).expect("left");
    }
}
