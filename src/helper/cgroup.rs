//! The cgroup of each VM: its limits, and the certainty of who belongs to it.
//!
//! Of its own and never in a service's: a restart of the service would kill the VMs. Where systemd
//! runs it is a scope, `banger-INSTALLATION-ID.scope`, that systemd makes; elsewhere, or where it
//! refuses, a plain group `banger/INSTALLATION/ID`. With the unified hierarchy that is one directory
//! (Documentation/admin-guide/cgroup-v2.rst); on older or mixed hosts one in each hierarchy that
//! matters (cgroup-v1/). A controller that the host does not have limits nothing, and the log says so.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use super::systemd::{self, NoScope, Scope};
use super::user;
use crate::model::{Mib, OpId, ProcessRef, VmId};
use crate::os::cgroup::{self, Hierarchy, Kind};
use crate::os::process;

/// What a monitor needs beside the guest's memory: its own, the translated code of software
/// emulation (256 MiB at most), and page cache.
const OVERHEAD: Mib = Mib(512);

/// Threads of a monitor: one per virtual CPU (at most 64) and its workers.
const MAX_TASKS: u64 = 256;

/// What a monitor may compute beside its virtual CPUs, in thousandths of a CPU: the loop that moves
/// packets and blocks. Less would let a guest's disk wait for its own CPUs; a whole CPU more would
/// let a guest with one have two.
const OVERHEAD_CPU: u64 = 500;

/// The period of `cpu.max` and `cpu.cfs_quota_us` in microseconds: the kernel's own
/// (Documentation/scheduler/sched-bwc.rst).
const PERIOD: u64 = 100_000;

/// How long the processes of a cgroup may take to end after they were killed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The parent of all.
const PARENT: &str = "banger";

/// What limits a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The guest's memory.
    pub memory: Mib,
    /// Its virtual CPUs.
    pub vcpus: u8,
}

impl Limits {
    fn memory(self) -> u64 {
        Mib(self.memory.0.saturating_add(OVERHEAD.0)).bytes()
    }

    /// CPU time in each of some time of `microseconds`.
    fn cpu(self, microseconds: u64) -> u64 {
        (u64::from(self.vcpus) * 1000 + OVERHEAD_CPU) * microseconds / 1000
    }
}

/// The hierarchies of this host, and whose cgroups there are this installation's.
#[derive(Debug)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    installation: String,
    /// Whether they are systemd's to make.
    scopes: bool,
}

impl Cgroups {
    /// Looks at what is mounted.
    pub fn see(installation: u64) -> Result<Self> {
        let hierarchies = cgroup::see().doing("read /proc/self/mountinfo")?;
        Ok(Self { hierarchies, installation: format!("{installation:016x}"), scopes: systemd::is_running() })
    }

    /// Refuses where somebody else has put processes into what would be a VM's cgroup: taking the VM
    /// back would kill them. What an earlier boot left must have been removed before.
    pub fn check_empty(&self, id: &VmId) -> Result<()> {
        for own in self.hierarchies.iter().map(|h| self.of_vm(h, id)) {
            match fs::read_to_string(own.join("cgroup.procs")) {
                Ok(members) if members.is_empty() => {}
                Ok(_) => return Err(HelperError::CgroupTaken(own)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).doing(format!("look into cgroup {}", own.display())),
            }
        }
        Ok(())
    }

    fn parents(&self, hierarchy: &Hierarchy) -> [PathBuf; 2] {
        let all = hierarchy.root.join(PARENT);
        [all.clone(), all.join(&self.installation)]
    }

    fn of_vm(&self, hierarchy: &Hierarchy, id: &VmId) -> PathBuf {
        hierarchy.root.join(self.of_vm_path(id))
    }

    fn of_vm_path(&self, id: &VmId) -> PathBuf {
        [PARENT, &self.installation, id.as_str()].iter().collect()
    }

    fn scope(&self, id: &VmId) -> String {
        format!("banger-{}-{id}.scope", self.installation)
    }

    /// Makes a VM's cgroup; returns what a process writes `0` into to join it, one per hierarchy. None
    /// where the processes will be adopted.
    pub fn create(&self, root: &Root, op: OpId, id: &VmId, limits: Limits) -> Vec<OwnedFd> {
        if self.scopes { Vec::new() } else { self.create_plain(root, op, id, limits) }
    }

    /// Has systemd move a VM's processes, children of this helper that do nothing yet, into a scope;
    /// where it refuses, into a plain group. Nothing to do where they have joined one by themselves.
    pub fn adopt(&self, root: &Root, op: OpId, id: &VmId, processes: &[ProcessRef], limits: Limits) -> Result<()> {
        if !self.scopes || processes.is_empty() {
            return Ok(());
        }
        let (name, pids) = (self.scope(id), processes.iter().map(|p| p.pid as u32).collect::<Vec<_>>());
        let description = format!("banger VM {id}");
        let (memory, cpu) = (limits.memory(), limits.cpu(1_000_000));
        let scope = Scope { name: &name, description: &description, pids: &pids, memory, tasks: MAX_TASKS, cpu };
        match systemd::start_scope(root, &scope) {
            Ok(()) => self.check_adopted(&name, processes),
            Err(NoScope::Exists) => Err(HelperError::CgroupTaken(name.into())),
            // The answer can be lost when systemd executes itself anew.
            Err(NoScope::Failed(_)) if self.check_adopted(&name, processes).is_ok() => Ok(()),
            Err(NoScope::Failed(e)) => {
                log::warn!("[{op}] no scope for VM {id}, it gets a plain cgroup: {e}");
                self.join_plain(root, op, id, processes, limits)
            }
        }
    }

    /// Looks instead of trusting: whoever of `processes` still lives is in the scope.
    fn check_adopted(&self, name: &str, processes: &[ProcessRef]) -> Result<()> {
        let doing = || format!("look whether systemd has moved the VM's processes into {name}");
        for process in processes {
            // Held while its cgroup is looked at, so that this is about no other process.
            let Some(pidfd) = process::open(*process).doing(doing())? else { continue };
            let is_in = cgroup::is_in(process.pid, name);
            if process::wait_for_end(&pidfd, Duration::ZERO).doing(doing())? {
                continue;
            }
            if !is_in.doing(doing())? {
                return Err(io::Error::other(format!("{process} is elsewhere"))).doing(doing());
            }
        }
        Ok(())
    }

    fn join_plain(&self, root: &Root, op: OpId, id: &VmId, processes: &[ProcessRef], limits: Limits) -> Result<()> {
        for join in self.create_plain(root, op, id, limits) {
            for process in processes {
                match rustix::io::write(&join, process.pid.to_string().as_bytes()) {
                    // It has ended: whoever waits for its answer will say so.
                    Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                    Err(e) => return Err(e).doing(format!("move {process} into the cgroup of VM {id}")),
                }
            }
        }
        Ok(())
    }

    fn create_plain(&self, root: &Root, op: OpId, id: &VmId, limits: Limits) -> Vec<OwnedFd> {
        let mut joins = Vec::new();
        for hierarchy in &self.hierarchies {
            let (parents, own) = (self.parents(hierarchy), self.of_vm(hierarchy, id));
            match hierarchy.create(root, op, &parents, &own, limits) {
                Ok(file) => joins.push(file),
                Err(e) => log::warn!("[{op}] no cgroup for VM {id}: {}", e.line()),
            }
        }
        if joins.is_empty() {
            log::warn!("[{op}] VM {id} runs without a cgroup: nothing limits its memory");
        }
        joins
    }

    /// Kills whatever is in a VM's cgroup and removes it; done when it is gone.
    pub fn remove(&self, root: &Root, id: &VmId) -> Result<()> {
        let mut groups = vec![self.of_vm_path(id)];
        if self.scopes
            && let Err(e) = systemd::stop_scope(root, &self.scope(id))
        {
            log::warn!("systemd does not take the scope of VM {id} away, so it is done without it: {e}");
            groups.push(Path::new(systemd::SLICE).join(self.scope(id)));
        }
        let mut first = Ok(());
        for (hierarchy, group) in self.hierarchies.iter().flat_map(|h| groups.iter().map(move |group| (h, group))) {
            let removed = hierarchy.remove(root, &hierarchy.root.join(group));
            first = first.and(removed);
        }
        first
    }

    /// Removes the parents that hold no VM's cgroup any more.
    pub fn remove_parents(&self, _: &Root) {
        for hierarchy in &self.hierarchies {
            for parent in self.parents(hierarchy).iter().rev() {
                // Fails while another VM, perhaps of another installation, is in it.
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

impl Hierarchy {
    fn create(&self, _: &Root, op: OpId, parents: &[PathBuf], own: &Path, limits: Limits) -> Result<OwnedFd> {
        self.delegate(&self.root);
        for parent in parents {
            ensure(parent)?;
            self.delegate(parent);
        }
        ensure(own)?;
        for (controller, file, value) in self.limits(limits) {
            if let Err(e) = fs::write(own.join(file), value) {
                log::warn!("[{op}] cgroup {} has no limit of {controller}: {e}", own.display());
            }
        }
        let join = own.join("cgroup.procs");
        let file = OpenOptions::new().write(true).open(&join).doing(format!("open {}", join.display()))?;
        Ok(file.into())
    }

    /// Hands controllers down; in a legacy hierarchy they are everywhere.
    fn delegate(&self, path: &Path) {
        if self.kind == Kind::Unified {
            for controller in ["+memory", "+pids", "+cpu"] {
                // A controller may be missing or be mounted as a legacy hierarchy: `limits` will
                // then find no file and say so.
                let _ = fs::write(path.join("cgroup.subtree_control"), controller);
            }
        }
    }

    /// What to write where.
    fn limits(&self, limits: Limits) -> Vec<(&'static str, &'static str, String)> {
        let (memory, tasks, quota) = (limits.memory().to_string(), MAX_TASKS.to_string(), limits.cpu(PERIOD));
        match &self.kind {
            Kind::Unified => {
                let available = fs::read_to_string(self.root.join("cgroup.controllers")).unwrap_or_default();
                let quota = format!("{quota} {PERIOD}");
                let limits = [("memory", "memory.max", memory), ("pids", "pids.max", tasks), ("cpu", "cpu.max", quota)];
                let has = |name: &str| available.split_ascii_whitespace().any(|c| c == name);
                limits.into_iter().filter(|(controller, ..)| has(controller)).collect()
            }
            Kind::Legacy(controllers) => {
                let memory = ("memory", "memory.limit_in_bytes", memory);
                let cpu = ["cpu.cfs_period_us", "cpu.cfs_quota_us"].into_iter().zip([PERIOD, quota]);
                let cpu = cpu.map(|(file, value)| ("cpu", file, value.to_string()));
                let limits = [memory, ("pids", "pids.max", tasks)].into_iter().chain(cpu);
                limits.filter(|(controller, ..)| controllers.iter().any(|c| c == controller)).collect()
            }
        }
    }

    fn remove(&self, root: &Root, own: &Path) -> Result<()> {
        let doing = format!("remove cgroup {}", own.display());
        let deadline = Instant::now() + END_LIMIT;
        loop {
            match fs::remove_dir(own) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) if e.kind() != io::ErrorKind::ResourceBusy => return Err(e).doing(doing),
                Err(_) if Instant::now() > deadline => {
                    return Err(HelperError::Unkillable(format!("a process in cgroup {}", own.display())));
                }
                Err(_) => empty(root, own, deadline).doing(&doing)?,
            }
        }
    }
}

/// Kills the members of the cgroup `own` and waits for their end.
fn empty(root: &Root, own: &Path, deadline: Instant) -> io::Result<()> {
    // Version 2 since Linux 5.14 kills all at once; without it each is killed below.
    let _ = fs::write(own.join("cgroup.kill"), "1");
    let members = fs::read_to_string(own.join("cgroup.procs"))?;
    for pid in members.lines().filter_map(|l| l.parse().ok()) {
        let Ok(member) = process::reference(pid) else { continue };
        let pidfd = process::open(member)?;
        // The pid may have been another's by the time it was looked at; what is in here now is ours.
        if !is_member(own, pid)? {
            continue;
        }
        if let Some(pidfd) = pidfd {
            user::or_as_user_of(root, pid, || process::kill(&pidfd))?;
            process::wait_for_end(&pidfd, deadline.saturating_duration_since(Instant::now()))?;
        }
    }
    wait_for_change(own)
}

fn is_member(own: &Path, pid: i32) -> io::Result<bool> {
    Ok(fs::read_to_string(own.join("cgroup.procs"))?.lines().any(|line| line.parse() == Ok(pid)))
}

/// Waits a moment for `cgroup.events` to change: the last member may have ended and not be gone.
/// A legacy hierarchy has no such event; there the moment just passes.
fn wait_for_change(own: &Path) -> io::Result<()> {
    let moment = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    match File::open(own.join("cgroup.events")) {
        Ok(events) => poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&moment))?,
        Err(_) => poll(&mut [], Some(&moment))?,
    };
    Ok(())
}

fn ensure(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.doing(format!("create cgroup {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory: Mib(64), vcpus: 2 };

    #[test]
    fn a_vm_may_compute_half_a_cpu_more_than_it_has() {
        assert_eq!((LIMITS.cpu(PERIOD), LIMITS.cpu(1_000_000)), (250_000, 2_500_000));
        assert_eq!(LIMITS.memory(), 576 << 20);
        let most = Limits { memory: Mib(u32::MAX), vcpus: u8::MAX };
        assert!(most.cpu(1_000_000) == 255_500_000 && most.memory() > 1 << 51);
    }

    #[test]
    fn systemd_makes_a_scope_and_takes_it_away_with_its_processes() {
        // No package brings it: `smoke/run systemd_scopes` boots a host with it.
        if !systemd::is_running() {
            return;
        }
        let (Ok(root), Ok(groups)) = (Root::claim(), Cgroups::see(crate::os::random::number())) else { return };
        let id = VmId::from_random(crate::os::random::number());
        assert!(groups.create(&root, OpId::BACKGROUND, &id, LIMITS).is_empty());
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep starts");
        let process = process::reference(child.id() as i32).expect("it lives");
        let adopt = || groups.adopt(&root, OpId::BACKGROUND, &id, &[process], LIMITS);
        adopt().expect("adopted");
        assert!(cgroup::is_in(process.pid, &groups.scope(&id)).expect("looked"));
        let group = Path::new(systemd::SLICE).join(groups.scope(&id));
        for hierarchy in &groups.hierarchies {
            for (_, file, value) in hierarchy.limits(LIMITS) {
                let set = fs::read_to_string(hierarchy.root.join(&group).join(file)).expect("a limit can be read");
                assert_eq!(set.trim_end(), value, "{file}");
            }
        }
        assert!(matches!(adopt(), Err(HelperError::CgroupTaken(_))), "a second of that name");
        groups.remove(&root, &id).expect("removed");
        groups.remove(&root, &id).expect("gone already");
        assert!(!child.wait().expect("reaped").success());
    }

    #[test]
    fn a_member_is_killed_and_the_cgroup_removed() {
        let (Ok(root), Ok(groups)) = (Root::claim(), Cgroups::see(crate::os::random::number())) else { return };
        let groups = Cgroups { scopes: false, ..groups };
        let id = VmId::from_random(crate::os::random::number());
        let joins = groups.create(&root, OpId::BACKGROUND, &id, LIMITS);
        for hierarchy in &groups.hierarchies {
            for (_, file, value) in hierarchy.limits(LIMITS) {
                let set = fs::read_to_string(groups.of_vm(hierarchy, &id).join(file)).expect("a limit can be read");
                assert_eq!(set.trim_end(), value, "{file}");
            }
        }
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep starts");
        for join in joins {
            io::Write::write_all(&mut File::from(join), child.id().to_string().as_bytes()).expect("joined");
        }
        let Err(HelperError::CgroupTaken(_)) = groups.check_empty(&id) else {
            assert!(groups.hierarchies.is_empty(), "a cgroup with a member is taken for free");
            return child.kill().and_then(|()| child.wait()).map(drop).expect("killed");
        };
        groups.remove(&root, &id).expect("removed");
        groups.check_empty(&id).expect("free again");
        groups.remove(&root, &id).expect("gone already");
        for hierarchy in &groups.hierarchies {
            assert!(!groups.of_vm(hierarchy, &id).exists(), "{}", hierarchy.root.display());
        }
        child.wait().expect("reaped");
        groups.remove_parents(&root);
    }
}
