//! Requests become deeds: one function per request, each of which looks first, so that it may be
//! asked again after a crash.

/// The guests' network.
mod network;

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

use super::authority::Root;
use super::cgroup::Cgroups;
use super::disk::{Disks, ensure_udev_rule};
use super::error::{Doing, HelperError, Result};
use super::folder::Folder;
use super::launch::{self, Boot, Launching};
use super::ledger::{Ledger, Record};
use super::monitor::{Monitors, Role};
use super::ports::Ports;
use super::site::{self, Site};
use super::vigil::Vigil;
use super::{bridge, claim::Claim, contact, dns, files, firewalls, passage, tsc};
use crate::model::launch::{Launch, LaunchFile};
use crate::model::{OpId, Slot, Subnet, VmId};
use crate::os::fault_point::FaultPoint;
use crate::os::netlink::Netlink;
use crate::os::own_folder::OwnFolder;
use crate::protocol::hello::{BUILD, PROTOCOL};
use crate::protocol::root::{Deed, DiskFill, Entry, Farewell, KeptDisk, RootCall, RootReply, RootRequest};

/// What comes back, and the descriptors beside it.
pub type Outcome = Result<(RootReply, Vec<OwnedFd>)>;

/// The helper's state.
pub struct Service {
    root: Root,
    folder: Folder,
    ledger: Ledger,
    netlink: Netlink,
    cgroups: Cgroups,
    monitors: Monitors,
    disks: Disks,
    vigil: Vigil,
    ports: Ports,
    /// How monitors ended whose VMs are not released yet.
    farewells: HashMap<VmId, Farewell>,
    claim: Claim,
    /// What tells this installation from others.
    installation: u64,
    /// The guests' network, once it was made sure of in this run.
    subnet: Option<Subnet>,
    /// The network that was used or asked for last: the one to have again.
    last_subnet: Option<Subnet>,
    /// The sockets that the daemon answers guests on.
    answering: dns::Kept,
    /// Whether systemd-resolved may be pointed at the bridge.
    resolved: bool,
    /// Whether the monitor of the tests may be run.
    fake: bool,
    /// What the tests of crashes have armed.
    faults: FaultPoint,
}

impl Service {
    /// Reads the ledger, finds living monitors again and takes back the rest.
    pub fn start(root: Root, folder: Folder, disks: OwnFolder, fake: bool) -> Result<Self> {
        tsc::watch();
        // Before there is a device that it is about.
        if ensure_udev_rule(&root)? == Deed::Changed {
            log::info!("udev was told to keep out of the VMs' disks");
        }
        let installation = folder.installation()?;
        let (ledger, damaged) = Ledger::read(&folder)?;
        let mut service = Self {
            root,
            ledger,
            netlink: Netlink::open().doing("speak to the kernel")?,
            cgroups: Cgroups::see(installation)?,
            monitors: Monitors::default(),
            disks: Disks::new(disks, installation),
            vigil: Vigil::begin()?,
            ports: Ports::default(),
            farewells: HashMap::new(),
            claim: Claim::default(),
            installation,
            subnet: None,
            last_subnet: None,
            answering: dns::Kept::default(),
            // By an earlier helper, perhaps.
            resolved: true,
            fake,
            faults: FaultPoint::of_environment(fake).doing("arm a fault")?,
            folder,
        };
        service.reconcile(damaged)?;
        Ok(service)
    }

    /// Does what `call` asks.
    pub fn handle(&mut self, call: RootCall, files: Vec<OwnedFd>) -> Outcome {
        let op = call.op;
        let alone = |reply| Ok((reply, Vec::new()));
        match call.request {
            RootRequest::Status => alone(status()),
            RootRequest::Shutdown => {
                self.stop_resolving(op);
                alone(RootReply::Done(Deed::Changed))
            }
            RootRequest::EnsureNetwork { prefer } => alone(self.ensure_network(op, prefer, true)?),
            RootRequest::RemoveNetwork => alone(self.remove_network(op)?),
            RootRequest::LaunchVm { id, slot, launch, passage, ports } => {
                self.launch(op, id, slot, Boot { launch, passage, ports }, files)
            }
            RootRequest::AttachVm { id } => self.attach(op, id),
            RootRequest::ReleaseVm { id } => alone(self.release(op, id)?),
            RootRequest::Inventory => alone(self.inventory()),
            RootRequest::OpenChannel { id, channel } => self.open_channel(op, id, channel),
            RootRequest::Farewell { id } => alone(RootReply::Farewell(self.farewells.get(&id).cloned())),
            RootRequest::Facilities => alone(self.facilities()),
            RootRequest::Disks => alone(RootReply::Disks(self.kept_disks()?)),
            RootRequest::RemoveDisk { id } => alone(self.remove_disk(op, id)?),
            RootRequest::OpenDisk { id } => Ok(match self.disks.read(&self.root, &id)? {
                Some(file) => (RootReply::Disk, vec![file]),
                None => (RootReply::Done(Deed::Unchanged), Vec::new()),
            }),
            RootRequest::SetPassage { id, passage } => alone(self.set_passage(op, id, passage)?),
            RootRequest::OpenAddresses { id, openings } => alone(self.open_addresses(&id, &openings)?),
            RootRequest::Traffic { id } => alone(self.traffic(&id)?),
            RootRequest::CheckPorts { ports } => {
                Ports::are_free(&self.root, &ports)?;
                alone(RootReply::Done(Deed::Unchanged))
            }
            RootRequest::ListenDns => self.listen_dns(op),
            RootRequest::ListenSecrets => {
                let subnet = self.subnet.ok_or(HelperError::NetworkTaken)?;
                Ok((RootReply::SecretsSocket, vec![self.answering.secrets(&self.root, subnet.gateway())?]))
            }
        }
    }

    /// What the loop waits on.
    pub fn pidfds(&self) -> Vec<BorrowedFd<'_>> {
        self.monitors.pidfds()
    }

    /// What tells that rules were changed.
    pub fn vigil(&self) -> BorrowedFd<'_> {
        self.vigil.descriptor()
    }

    /// The process `at` has ended by itself.
    pub fn notice_end(&mut self, at: usize) {
        let ended = self.monitors.reap(at);
        let (op, id) = (OpId::BACKGROUND, &ended.id);
        if ended.role == Role::Console {
            return log::debug!("[{op}] output of VM {id} ended, {}", ended.status);
        }
        self.monitors.settle(id);
        let said = site::said(&self.folder, id);
        match said.as_str() {
            "" => log::info!("[{op}] monitor of VM {id} ended, {}", ended.status),
            said => log::info!("[{op}] monitor of VM {id} ended, {}: {said}", ended.status),
        }
        let (status, signal) = (ended.exit.and_then(|e| e.code()), ended.exit.and_then(|e| e.signal()));
        self.farewells.insert(ended.id, Farewell { status, signal, said });
    }

    fn reconcile(&mut self, damaged: Vec<(VmId, HelperError)>) -> Result<()> {
        let op = OpId::BACKGROUND;
        let alias = launch::alias(self.installation);
        self.subnet = bridge::present(&mut self.netlink, &alias)?;
        let records: Vec<_> = self.ledger.all().cloned().collect();
        let mut gone: Vec<(VmId, Option<Slot>)> = Vec::new();
        for record in records {
            match self.find(&record) {
                Ok(true) => {
                    log::info!("[{op}] found VM {} running", record.id);
                    // The rules lead there all the same.
                    if let Err(e) = self.ports.hold(&self.root, &record.id, &record.ports) {
                        log::warn!("[{op}] {}", e.line());
                    }
                }
                Ok(false) => gone.push((record.id, Some(record.slot))),
                // Perhaps it runs: its record stays, and its release can still end it.
                Err(e) => log::warn!("[{op}] {}", e.line()),
            }
        }
        for (id, error) in damaged {
            log::warn!("[{op}] {}", error.line());
            gone.push((id, None));
        }
        if !gone.is_empty()
            && let Err(e) = self.claim.ensure(&self.root)
        {
            // Rules and taps may be the other's, of the same slots.
            log::warn!("[{op}] nothing is taken back: {}", e.line());
            return Ok(());
        }
        for (id, slot) in gone {
            match self.site(op, id.clone(), slot).release() {
                Ok(()) => log::info!("[{op}] took back what was left of VM {id}"),
                Err(e) => log::warn!("[{op}] {}", e.line()),
            }
        }
        self.detach_unrecorded(op);
        // Whatever happened to the rules meanwhile: the next request that needs them makes them anew.
        self.last_subnet = self.subnet.take();
        // Whoever has VMs has the network: nobody else may take it from here on.
        let settled =
            if self.ledger.all().next().is_some() { self.claim.ensure(&self.root) } else { self.leave_no_network(op) };
        // What cannot be cleared away now can be at the next release; running VMs need a helper.
        if let Err(e) = settled {
            log::warn!("[{op}] {}", e.line());
        }
        Ok(())
    }

    /// What stays attached is tried again at the next start: running VMs need a helper.
    fn detach_unrecorded(&self, op: OpId) {
        let attached = self.disks.attached(&self.root).unwrap_or_else(|e| {
            log::warn!("[{op}] disks that are attached cannot be listed: {}", e.line());
            Default::default()
        });
        for id in attached.into_iter().filter(|id| self.ledger.get(id).is_none()) {
            match self.disks.detach(&self.root, &id) {
                Ok(()) => log::warn!("[{op}] VM {id} is in no record and had disks attached: detached"),
                Err(e) => log::warn!("[{op}] {}", e.line()),
            }
        }
    }

    /// Watches the processes of a record again; whether its monitor lives.
    fn find(&mut self, record: &super::ledger::Record) -> Result<bool> {
        if let Some(console) = record.console {
            self.monitors.find(&record.id, Role::Console, console)?;
        }
        match record.process {
            Some(process) => self.monitors.find(&record.id, Role::Monitor, process),
            None => Ok(false),
        }
    }

    fn site(&mut self, op: OpId, id: VmId, slot: Option<Slot>) -> Site<'_> {
        Site {
            root: &self.root,
            op,
            id,
            slot,
            folder: &self.folder,
            ledger: &mut self.ledger,
            netlink: &mut self.netlink,
            cgroups: &self.cgroups,
            monitors: &mut self.monitors,
            disks: &self.disks,
            ports: &mut self.ports,
            alias: launch::alias(self.installation),
            subnet: self.subnet.or(self.last_subnet).or_else(|| self.folder.noted_network()),
            faults: &self.faults,
        }
    }

    fn launch(&mut self, op: OpId, id: VmId, slot: Slot, boot: Boot, files: Vec<OwnedFd>) -> Outcome {
        if matches!(boot.launch, Launch::Fake(_)) && !self.fake {
            return Err(HelperError::FakeRefused);
        }
        passage::check(&boot.passage)?;
        let files = checked(&boot.launch, files)?;
        launch::check_free(&self.site(op, id.clone(), None), &id, slot)?;
        // The caller has just been told this network, but the last VM's end may have taken it away.
        self.ensure_network(op, self.last_subnet, false)?;
        let Some(subnet) = self.subnet else { return Err(HelperError::NetworkTaken) };
        if let Some(left) = self.ledger.get(&id).map(|record| record.slot) {
            // Of an earlier boot, whose monitor has ended.
            self.site(op, id.clone(), Some(left)).release()?;
        }
        self.cgroups.check_empty(&id)?;
        let uid = launch::uid(self.installation, slot);
        let launching = Launching::new(self.site(op, id.clone(), Some(slot)), slot, subnet, uid, boot, files);
        let attached = launching.run()?;
        log::info!("[{op}] VM {id} runs as {}, uid {uid}", attached.0);
        self.monitor_reply(&id, attached)
    }

    fn attach(&mut self, op: OpId, id: VmId) -> Outcome {
        let Some((_, process)) = self.monitors.monitor(&id) else { return Err(HelperError::NotRunning(id)) };
        let sockets = contact::connect(&self.site(op, id.clone(), None))?;
        self.monitor_reply(&id, (process, sockets))
    }

    fn open_channel(&mut self, op: OpId, id: VmId, channel: u8) -> Outcome {
        if self.monitors.monitor(&id).is_none() {
            return Err(HelperError::NotRunning(id));
        }
        let socket = contact::connect_channel(&self.site(op, id, None), channel)?;
        Ok((RootReply::Channel, vec![socket]))
    }

    fn monitor_reply(&self, id: &VmId, (process, sockets): launch::Attached) -> Outcome {
        let (pidfd, _) = self.monitors.monitor(id).ok_or_else(|| HelperError::NotRunning(id.clone()))?;
        let pidfd = pidfd.try_clone_to_owned().doing("pass a pidfd on")?;
        let [control, agent] = sockets;
        Ok((RootReply::Monitor { process }, vec![pidfd, control, agent]))
    }

    fn release(&mut self, op: OpId, id: VmId) -> Result<RootReply> {
        let known = self.ledger.get(&id).map(|record| record.slot);
        let Some(slot) = known else {
            self.leave_no_network(op)?;
            return Ok(RootReply::Done(Deed::Unchanged));
        };
        self.claim.ensure(&self.root)?;
        if self.subnet.is_none() {
            self.subnet = bridge::present(&mut self.netlink, &launch::alias(self.installation))?;
        }
        self.site(op, id.clone(), Some(slot)).release()?;
        self.farewells.remove(&id);
        self.leave_no_network(op)?;
        Ok(RootReply::Done(Deed::Changed))
    }

    fn kept_disks(&self) -> Result<Vec<KeptDisk>> {
        let fills = self.disks.fill(&self.root)?;
        let of = |id: VmId| {
            let fill = fills.iter().find(|fill| fill.id == id).map(|fill| fill.state);
            // One that was lost is lost when it is not attached, too.
            let fill = fill.or_else(|| self.disks.is_lost(&id).then_some(DiskFill::Invalid));
            KeptDisk { fill, id }
        };
        Ok(self.disks.kept()?.into_iter().map(of).collect())
    }

    /// Not while a monitor may have it open: it would go on writing to what has no name any more.
    fn remove_disk(&mut self, op: OpId, id: VmId) -> Result<RootReply> {
        if self.ledger.get(&id).is_some() {
            return Err(HelperError::Running(id));
        }
        let deed = self.disks.remove(&self.root, &id)?;
        if deed == Deed::Changed {
            log::info!("[{op}] the disk of VM {id} is removed");
        }
        Ok(RootReply::Done(deed))
    }

    fn facilities(&self) -> RootReply {
        let obstacles = firewalls::obstacles(&self.root).unwrap_or_else(|e| {
            log::warn!("{}", e.line());
            Vec::new()
        });
        RootReply::Facilities { no_snapshots: self.disks.snapshots(&self.root).err(), obstacles }
    }

    /// The record of a VM that runs.
    fn running(&self, id: &VmId) -> Result<Record> {
        let record = self.ledger.get(id).filter(|_| self.monitors.monitor(id).is_some());
        record.cloned().ok_or_else(|| HelperError::NotRunning(id.clone()))
    }

    fn inventory(&self) -> RootReply {
        let entry = |record: &super::ledger::Record| Entry {
            id: record.id.clone(),
            slot: record.slot,
            process: self.monitors.monitor(&record.id).map(|(_, process)| process),
        };
        RootReply::Inventory(self.ledger.all().map(entry).collect())
    }
}

/// What every version answers.
pub fn status() -> RootReply {
    RootReply::Status { build: BUILD.to_owned(), protocol: PROTOCOL, pid: std::process::id() as i32 }
}

fn checked(launch: &Launch, given: Vec<OwnedFd>) -> Result<Vec<(LaunchFile, OwnedFd)>> {
    let kinds = launch.files();
    if given.len() != kinds.len() {
        return Err(HelperError::Files(format!("{} descriptors arrived", given.len())));
    }
    kinds.into_iter().zip(given).map(|(what, file)| Ok((what, files::check(what, file)?))).collect()
}
