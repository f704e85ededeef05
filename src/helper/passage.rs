//! Where guests may go: what is asked for is checked, the host made to let it through, and the rules set.

use super::authority::Root;
use super::conntrack::Which;
use super::error::{HelperError, Result};
use super::folder::Folder;
use super::ledger::Record;
use super::site::Site;
use super::{conntrack, firewalls, forwarding, rules};
use crate::model::egress::{Egress, Opening, Passage};
use crate::model::traffic::Traffic;
use crate::model::{PublishedPort, Secret, Slot, scope};
use crate::net::listing;
use crate::net::rules::passage as lines;
use crate::net::rules::{self as text, Guest};
use crate::os::netlink::Netlink;
use crate::protocol::root::Deed;

/// Refuses more grants and ports than a VM may have.
pub fn check(passage: &Passage) -> Result<()> {
    let diverted = passage.diverted.len();
    if diverted > Secret::MAX_HOSTS || passage.diverted.contains(&0) {
        return Err(HelperError::Passage(format!("{diverted} ports lead to secrets, or none of them a port")));
    }
    match passage.nets.len() {
        0..=Egress::MAX_GRANTS => Ok(()),
        count => Err(HelperError::Passage(format!("{count} networks are granted, {} at most", Egress::MAX_GRANTS))),
    }
}

/// Has the host forward, where anything shall pass, and other firewalls let guests ask it and pass.
pub fn prepare(site: &Site<'_>, passage: &Passage, ports: &[PublishedPort]) -> Result<()> {
    let forwards = !passage.is_closed() || !ports.iter().all(PublishedPort::is_local);
    if forwards && forwarding::ensure(site.root, site.folder)? == Deed::Changed {
        log::info!("[{}] the host forwards packets from now on", site.op);
    }
    if firewalls::ensure_passage(site.root, forwards)? == Deed::Changed {
        log::info!("[{}] iptables drops what it does not know: guests are let past it", site.op);
    }
    Ok(())
}

/// Takes back what [`prepare`] did.
pub fn withdraw(root: &Root, folder: &Folder, netlink: &mut Netlink) -> Result<()> {
    // Each, whatever becomes of the other.
    let withdrawn = firewalls::withdraw_passage(root);
    forwarding::restore(root, folder, netlink)?;
    withdrawn.map(drop)
}

/// Lets a guest that runs go where `passage` says, and nowhere else: not on connections that it has, either.
pub fn set(site: &Site<'_>, guest: Guest, passage: &Passage) -> Result<()> {
    // What closes must not wait for other firewalls.
    rules::apply(site.root, &text::pass(guest, passage), "set where a guest may go")?;
    conntrack::forget(site.root, guest.address, Which::Begun)?;
    prepare(site, passage, &[])
}

/// Opens what names lead to. Whoever asks has looked at the addresses; so does this.
pub fn open(root: &Root, record: &Record, openings: &[Opening]) -> Result<()> {
    if openings.len() > Opening::MAX_AT_ONCE {
        return Err(HelperError::Passage(format!("{} addresses at once", openings.len())));
    }
    if !record.passage.names {
        return Err(HelperError::Passage(format!("no name was granted to VM {}", record.id)));
    }
    for Opening { address, seconds, .. } in openings {
        if !scope::is_public(*address) || !(1..=Opening::MAX_SECONDS).contains(seconds) {
            return Err(HelperError::Passage(format!("{address} for {seconds} s")));
        }
    }
    rules::apply(root, &lines::open(record.slot, openings), "open what a name leads to")
}

/// Where the guest in `slot` went, and where it was refused to go.
pub fn traffic(root: &Root, slot: Slot) -> Result<Traffic> {
    let doing = "see where a guest went";
    let said =
        lines::listing(slot).iter().map(|command| rules::list(root, command, doing)).collect::<Result<String>>()?;
    listing::traffic(&said).map_err(|e| HelperError::Program { doing: doing.to_owned(), said: e.to_string() })
}
