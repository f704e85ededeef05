//! The cgroup of each VM, `banger/INSTALLATION/ID`: its limits, and the certainty of who belongs to it.
//!
//! Of its own and never in a service's: a restart of the service would kill the VMs. With the
//! unified hierarchy there is one directory (Documentation/admin-guide/cgroup-v2.rst); on older or
//! mixed hosts there is one in each hierarchy that matters (cgroup-v1/). A controller that the host
//! does not have limits nothing, and the log says so.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use crate::model::{Mib, OpId, VmId};
use crate::os::cgroup::{self, Hierarchy, Kind};
use crate::os::process;

/// What a monitor needs beside the guest's memory: its own, the translated code of software
/// emulation (256 MiB at most), and page cache.
const OVERHEAD: Mib = Mib(512);

/// Threads of a monitor: one per virtual CPU (at most 64) and its workers.
const MAX_TASKS: &str = "256";

/// How long the processes of a cgroup may take to end after they were killed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The parent of all.
const PARENT: &str = "banger";

/// The hierarchies of this host, and whose cgroups there are this installation's.
#[derive(Debug)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    installation: String,
}

impl Cgroups {
    /// Looks at what is mounted.
    pub fn see(installation: u64) -> Result<Self> {
        let hierarchies = cgroup::see().doing("read /proc/self/mountinfo")?;
        Ok(Self { hierarchies, installation: format!("{installation:016x}") })
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
        let [_, parent] = self.parents(hierarchy);
        parent.join(id.as_str())
    }

    /// Makes a VM's cgroup; returns what a process writes `0` into to join it, one per hierarchy.
    pub fn create(&self, root: &Root, op: OpId, id: &VmId, memory: Mib) -> Vec<OwnedFd> {
        let limit = Mib(memory.0.saturating_add(OVERHEAD.0)).bytes().to_string();
        let mut joins = Vec::new();
        for hierarchy in &self.hierarchies {
            let (parents, own) = (self.parents(hierarchy), self.of_vm(hierarchy, id));
            match hierarchy.create(root, op, &parents, &own, &limit) {
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
        let mut first = Ok(());
        for hierarchy in &self.hierarchies {
            let removed = hierarchy.remove(root, &self.of_vm(hierarchy, id));
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
    fn create(&self, _: &Root, op: OpId, parents: &[PathBuf], own: &Path, memory: &str) -> Result<OwnedFd> {
        self.delegate(&self.root);
        for parent in parents {
            ensure(parent)?;
            self.delegate(parent);
        }
        ensure(own)?;
        for (controller, file, value) in self.limits(memory) {
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
    fn limits<'a>(&self, memory: &'a str) -> Vec<(&'static str, &'static str, &'a str)> {
        match &self.kind {
            Kind::Unified => {
                let available = fs::read_to_string(self.root.join("cgroup.controllers")).unwrap_or_default();
                let limits = [("memory", "memory.max", memory), ("pids", "pids.max", MAX_TASKS)];
                let has = |name: &str| available.split_ascii_whitespace().any(|c| c == name);
                limits.into_iter().filter(|(controller, ..)| has(controller)).collect()
            }
            Kind::Legacy(controllers) => {
                let limits = [("memory", "memory.limit_in_bytes", memory), ("pids", "pids.max", MAX_TASKS)];
                limits.into_iter().filter(|(controller, ..)| controllers.iter().any(|c| c == controller)).collect()
            }
        }
    }

    fn remove(&self, _: &Root, own: &Path) -> Result<()> {
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
                Err(_) => empty(own, deadline).doing(&doing)?,
            }
        }
    }
}

/// Kills the members of the cgroup `own` and waits for their end.
fn empty(own: &Path, deadline: Instant) -> io::Result<()> {
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
            process::kill(&pidfd)?;
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

    #[test]
    fn a_member_is_killed_and_the_cgroup_removed() {
        let (Ok(root), Ok(groups)) = (Root::claim(), Cgroups::see(crate::os::random::number())) else { return };
        let id = VmId::from_random(crate::os::random::number());
        let joins = groups.create(&root, OpId::BACKGROUND, &id, Mib(64));
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
