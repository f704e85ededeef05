//! What is made for one VM, and how each part is taken back. Everything follows from id and slot.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::authority::Root;
use super::cgroup::Cgroups;
use super::conntrack::Which;
use super::disk::Disks;
use super::error::{Doing, HelperError, Result};
use super::folder::Folder;
use super::ledger::{Ledger, Record};
use super::monitor::Monitors;
use super::ports::Ports;
use super::{bridge, conntrack, rules, tap};
use crate::model::{OpId, Slot, Subnet, TapName, VmId};
use crate::net::rules::{self as text, Admission, Guest};
use crate::os::fault_point::{FaultPoint, Moment};
use crate::os::netlink::Netlink;

/// How much of what a monitor said is told.
const SAID_BYTES: u64 = 2048;

/// One VM within all that the helper knows.
pub struct Site<'a> {
    /// The privilege.
    pub root: &'a Root,
    /// The operation.
    pub op: OpId,
    /// The VM.
    pub id: VmId,
    /// Its place; `None` when its record is damaged.
    pub slot: Option<Slot>,
    /// The runtime directory.
    pub folder: &'a Folder,
    /// All records.
    pub ledger: &'a mut Ledger,
    /// The kernel's network.
    pub netlink: &'a mut Netlink,
    /// The cgroups.
    pub cgroups: &'a Cgroups,
    /// All processes.
    pub monitors: &'a mut Monitors,
    /// Block devices of VMs in jails.
    pub disks: &'a Disks,
    /// Ports of the host that are held for VMs.
    pub ports: &'a mut Ports,
    /// What this installation's bridge is marked with.
    pub alias: String,
    /// The guests' network, where there is one.
    pub subnet: Option<Subnet>,
    /// What the tests of crashes have armed.
    pub faults: &'a FaultPoint,
}

type Undo<S> = fn(&mut S) -> Result<()>;

impl Site<'_> {
    /// Ends the monitor.
    pub fn end(&mut self) -> Result<()> {
        for ended in self.monitors.end(self.root, &self.id)? {
            log::info!("[{}] {:?} of VM {} ended, {}", self.op, ended.role, self.id, ended.status);
        }
        Ok(())
    }

    /// Lets the guest speak no more.
    pub fn dismiss(&mut self) -> Result<()> {
        let Some(subnet) = self.subnet else { return Ok(()) };
        self.dismiss_from(subnet)?;
        // Last: no packet of it passes any more that would be remembered.
        self.slot.map_or(Ok(()), |slot| conntrack::forget(self.root, subnet.address(slot), Which::All))
    }

    fn dismiss_from(&mut self, subnet: Subnet) -> Result<()> {
        let doing = "remove a guest from the rules";
        if let Some(slot) = self.slot
            && let ports = self.ledger.get(&self.id).map(|record| record.ports.clone()).unwrap_or_default()
            && rules::apply(self.root, &text::dismiss(Guest::new(subnet, slot), &ports), doing).is_ok()
        {
            return Ok(());
        }
        // Somebody removed the tables, or the slot is unknown: all anew, without this guest.
        let guests = guests(self.ledger, subnet, |id| *id != self.id);
        rules::apply(self.root, &text::base(subnet, &guests), doing)
    }

    /// Gives the ports of the host back.
    pub fn give_back_ports(&mut self) -> Result<()> {
        self.ports.give_back(&self.id);
        Ok(())
    }

    /// Removes the tap.
    pub fn remove_tap(&mut self) -> Result<()> {
        let bridge = bridge::own_index(self.netlink, &self.alias)?;
        match (self.slot, bridge) {
            (Some(slot), Some(bridge)) => tap::remove(self.root, self.netlink, TapName::of(slot), bridge),
            // Without a bridge of ours there is no tap of ours: it would be another installation's.
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// Removes the cgroup, killing what is left in it.
    pub fn remove_cgroup(&mut self) -> Result<()> {
        self.cgroups.remove(self.root, &self.id)
    }

    /// Detaches its disks; what is on one that the helper keeps stays.
    pub fn detach_disks(&mut self) -> Result<()> {
        self.disks.detach(self.root, &self.id)
    }

    /// Removes the folder with the record.
    pub fn forget(&mut self) -> Result<()> {
        self.ledger.remove(self.folder, &self.id)
    }

    /// Takes everything back, going on after failures. The record goes only when all else went.
    pub fn release(&mut self) -> Result<()> {
        let undo: [(&str, Undo<Self>); 6] = [
            ("release process", Self::end),
            ("release cgroup", Self::remove_cgroup),
            // Nobody has them open any more.
            ("release disks", Self::detach_disks),
            ("release rules", Self::dismiss),
            ("release ports", Self::give_back_ports),
            ("release tap", Self::remove_tap),
        ];
        let failures: Vec<HelperError> = undo.iter().filter_map(|part| self.undo(*part).err()).collect();
        if failures.is_empty() {
            return self.undo(("release record", Self::forget));
        }
        Err(HelperError::Leftovers { id: self.id.clone(), failures })
    }

    fn undo(&mut self, (name, part): (&str, Undo<Self>)) -> Result<()> {
        self.pass(name, Moment::Before)?;
        part(self)?;
        self.pass(name, Moment::After)
    }

    /// Passes one side of a step.
    pub fn pass(&self, step: &str, moment: Moment) -> Result<()> {
        self.faults.pass(step, moment).doing(format!("go on with VM {}", self.id))
    }

    /// The last that the monitor wrote to its standard error.
    pub fn said(&self) -> String {
        said(self.folder, &self.id)
    }
}

/// The last that a VM's monitor wrote to its standard error.
pub fn said(folder: &Folder, id: &VmId) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(folder.of_vm(id, "errors"))?;
        let start = file.metadata()?.len().saturating_sub(SAID_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(SAID_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // A VM that was released has nothing to say any more.
    let bytes = read().unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// The guests of the ledger that `wanted` names.
pub fn guests(ledger: &Ledger, subnet: Subnet, wanted: impl Fn(&VmId) -> bool) -> Vec<Admission> {
    let wanted = ledger.all().filter(|r| wanted(&r.id));
    wanted.map(|record| admission(record, subnet)).collect()
}

/// What is made for a recorded guest.
pub fn admission(record: &Record, subnet: Subnet) -> Admission {
    let Record { slot, passage, ports, .. } = record;
    Admission { guest: Guest::new(subnet, *slot), passage: passage.clone(), ports: ports.clone() }
}
