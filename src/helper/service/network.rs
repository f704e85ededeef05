//! The guests' network: bridge, rules, where each guest may go, names. Made for the first VM, gone with the last.

use super::{Outcome, Service};
use crate::helper::conntrack::{self, Which};
use crate::helper::error::{HelperError, Result};
use crate::helper::ledger::Record;
use crate::helper::site::guests;
use crate::helper::{bridge, launch, passage, resolved, rules};
use crate::model::egress::{Opening, Passage};
use crate::model::{OpId, Subnet, VmId};
use crate::net::rules::{self as text, Guest};
use crate::protocol::root::{Deed, RootReply};

impl Service {
    /// Somebody has changed rules: those that are gone are made again.
    pub fn notice_rules(&mut self) {
        if !self.vigil.a_table_is_gone() || self.ledger.all().next().is_none() {
            return;
        }
        let op = OpId::BACKGROUND;
        match self.ensure_network(op, self.last_subnet, true) {
            Ok(_) => log::debug!("[{op}] a table of rules was taken away: looked at banger's"),
            Err(e) => log::warn!("[{op}] {}", e.line()),
        }
    }

    /// Takes the network away with its last VM: nothing stays on a host without VMs.
    pub(super) fn leave_no_network(&mut self, op: OpId) -> Result<()> {
        if self.ledger.all().next().is_none() {
            self.remove_network(op)?;
        }
        Ok(())
    }

    /// `anew`: the rules are looked at even if this helper put them in place.
    pub(super) fn ensure_network(&mut self, op: OpId, prefer: Option<Subnet>, anew: bool) -> Result<RootReply> {
        self.claim.ensure(&self.root)?;
        let alias = launch::alias(self.installation);
        let ensured = bridge::ensure(&self.root, &mut self.netlink, &alias, prefer);
        if ensured.is_err() && self.ledger.all().next().is_none() {
            // Another installation shall not find a network taken that nobody has.
            self.claim.give_up();
        }
        let (subnet, deed) = ensured?;
        let doubtful = anew || deed == Deed::Changed || self.subnet != Some(subnet);
        // Rules that are as they shall be stay: they know what is open for names, and what was counted.
        if doubtful && !rules::are_there(&self.root, &text::presence(subnet)) {
            let guests = guests(&self.ledger, subnet, |_| true);
            self.folder.note_network(subnet)?;
            // Unknown until both are done: the next request that needs them looks again.
            self.subnet = None;
            rules::apply(&self.root, &text::base(subnet, &guests), "apply the rules")?;
            // What guests began while there were none.
            guests.iter().try_for_each(|g| conntrack::forget(&self.root, g.guest.address, Which::Begun))?;
            log::info!("[{op}] rules for {} guests are in place", guests.len());
        }
        if deed == Deed::Changed {
            log::info!("[{op}] the network of guests is {subnet}");
        }
        self.subnet = Some(subnet);
        self.last_subnet = Some(subnet);
        Ok(RootReply::Network { subnet })
    }

    pub(super) fn remove_network(&mut self, op: OpId) -> Result<RootReply> {
        let vms = self.ledger.all().count();
        if vms > 0 {
            return Err(HelperError::NetworkInUse(vms));
        }
        let alias = launch::alias(self.installation);
        // A bridge that somebody deleted leaves the rules that went with it.
        let bereft = self.folder.noted_network().is_some() && bridge::index(&mut self.netlink)?.is_none();
        if !bereft && !bridge::is_ours(&mut self.netlink, &alias)? {
            self.claim.give_up();
            return Ok(RootReply::Done(Deed::Unchanged));
        }
        // Another helper of this network namespace may have the same name for its own.
        self.claim.ensure(&self.root)?;
        self.stop_resolving(op);
        self.answering.close();
        // One that cannot be done does not keep the others.
        let withdrawn = passage::withdraw(&self.root, &self.folder, &mut self.netlink);
        rules::apply(&self.root, &text::removal(), "remove the rules")?;
        let deed = bridge::remove(&self.root, &mut self.netlink, &alias)?;
        withdrawn?;
        self.folder.forget_network()?;
        self.subnet = None;
        self.cgroups.remove_parents(&self.root);
        self.claim.give_up();
        log::info!("[{op}] the network of guests is gone");
        Ok(RootReply::Done(deed))
    }

    pub(super) fn set_passage(&mut self, op: OpId, id: VmId, wanted: Passage) -> Result<RootReply> {
        passage::check(&wanted)?;
        let record = self.running(&id)?;
        self.ensure_network(op, self.last_subnet, true)?;
        let subnet = self.subnet.ok_or(HelperError::NetworkTaken)?;
        if record.passage == wanted && record.is_applied {
            return Ok(RootReply::Done(Deed::Unchanged));
        }
        let slot = record.slot;
        // Written first: rules that have to be made anew are made from it. Whatever dies or fails from here on,
        // whoever asks again has it done.
        let record = Record { passage: wanted.clone(), is_applied: false, ..record };
        self.ledger.write(&self.folder, record.clone())?;
        passage::set(&self.site(op, id, Some(slot)), Guest::new(subnet, slot), &wanted)?;
        self.ledger.write(&self.folder, Record { is_applied: true, ..record })?;
        Ok(RootReply::Done(Deed::Changed))
    }

    pub(super) fn open_addresses(&mut self, id: &VmId, openings: &[Opening]) -> Result<RootReply> {
        passage::open(&self.root, &self.running(id)?, openings)?;
        Ok(RootReply::Done(Deed::Changed))
    }

    pub(super) fn traffic(&self, id: &VmId) -> Result<RootReply> {
        passage::traffic(&self.root, self.running(id)?.slot).map(RootReply::Traffic)
    }

    pub(super) fn listen_dns(&mut self, op: OpId) -> Outcome {
        let subnet = self.subnet.ok_or(HelperError::NetworkTaken)?;
        let (sockets, no_loopback) = self.answering.dns(&self.root, subnet.gateway())?;
        self.resolved = true;
        match resolved::point(&self.root, subnet) {
            Ok(pointed) => self.resolved = pointed,
            // Names are answered all the same to whoever asks the bridge.
            Err(e) => {
                log::warn!("[{op}] {}", e.line());
                self.stop_resolving(op);
            }
        }
        Ok((RootReply::DnsSockets { no_loopback }, sockets))
    }

    /// Nobody answers any more: questions for VMs shall not wait for it.
    pub(super) fn stop_resolving(&mut self, op: OpId) {
        if std::mem::take(&mut self.resolved)
            && let Err(e) = resolved::revert(&self.root)
        {
            log::warn!("[{op}] {}", e.line());
        }
    }
}
