//! The VMs of this server: which there are, how many more may be, and that nothing else is touched.
//!
//! A VM is known by its id, so one of the same name that somebody else has made is another. The daemon deletes all of
//! them when this process ends, however it ends, unless they are to be kept (`keeper` there).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::client::{Client, unexpected};
use super::super::report::Failure;
use crate::model::size::human;
use crate::model::{Mib, VmId, VmName, VmRecord};
use crate::protocol::FaultKind;
use crate::protocol::owner::{OwnerReply, OwnerRequest};

/// A VM, or one that is being made.
#[derive(Debug)]
struct Member {
    name: VmName,
    /// Once it is made.
    id: Option<VmId>,
    memory: Mib,
}

#[derive(Debug, Default)]
struct Members {
    known: Vec<Member>,
    is_closed: bool,
}

/// The VMs of this server.
#[derive(Debug)]
pub struct Fleet {
    vms: u16,
    memory: Mib,
    members: Arc<Mutex<Members>>,
}

/// A place for a VM that is being made; given up when it is dropped before [`Berth::take`].
#[derive(Debug)]
pub struct Berth {
    name: VmName,
    members: Arc<Mutex<Members>>,
}

impl Berth {
    /// The VM is made. Fails when the server is about to end: then it has to go again.
    pub fn take(self, id: VmId) -> Result<(), Failure> {
        let mut members = lock(&self.members);
        if members.is_closed {
            return Err(closed());
        }
        if let Some(member) = members.known.iter_mut().find(|member| member.name == self.name) {
            member.id = Some(id);
        }
        Ok(())
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let mut members = lock(&self.members);
        members.known.retain(|member| member.name != self.name || member.id.is_some());
    }
}

impl Members {
    fn find(&self, name: &VmName) -> Option<&Member> {
        self.known.iter().find(|member| member.name == *name)
    }
}

fn lock(members: &Mutex<Members>) -> MutexGuard<'_, Members> {
    members.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> Failure {
    Failure::new(FaultKind::Cancelled, "this server ends")
}

impl Fleet {
    /// None yet; at most `vms`, with `memory` together.
    pub fn new(vms: u16, memory: Mib) -> Self {
        Self { vms, memory, members: Arc::default() }
    }

    /// A place for one more VM called `name`.
    pub fn admit(&self, name: &VmName, memory: Mib) -> Result<Berth, Failure> {
        let mut members = lock(&self.members);
        if members.is_closed {
            return Err(closed());
        }
        let refused = |message| {
            Failure::new(FaultKind::Refused, message).hint("vm_delete makes room; vm_list shows what there is")
        };
        if members.known.len() >= usize::from(self.vms) {
            return Err(refused(format!("one more VM: this server has all {} that it may have", self.vms)));
        }
        let used = members.known.iter().fold(0, |sum, member| sum + member.memory.bytes());
        if used + memory.bytes() > self.memory.bytes() {
            let (used, limit) = (human(used), self.memory);
            return Err(refused(format!(
                "memory of {memory}: {used} of the {limit} that this server may use is in use"
            )));
        }
        if members.find(name).is_some() {
            return Err(Failure::new(FaultKind::AlreadyExists, format!("vm '{name}' exists")));
        }
        members.known.push(Member { name: name.clone(), id: None, memory });
        Ok(Berth { name: name.clone(), members: self.members.clone() })
    }

    /// The VM called `name`, provided that it is one of these.
    pub fn own(&self, client: &mut Client, name: &VmName) -> Result<VmRecord, Failure> {
        let stranger = || {
            let message = format!("this server has no VM '{name}'");
            Failure::new(FaultKind::NotFound, message).hint("vm_list shows its VMs; others are not its to touch")
        };
        let id = lock(&self.members).find(name).and_then(|member| member.id.clone()).ok_or_else(stranger)?;
        match client.ask(OwnerRequest::ShowVm { name: name.clone() }) {
            Ok(OwnerReply::Vm(vm)) if vm.id == id => Ok(*vm),
            Ok(OwnerReply::Vm(_)) => {
                self.forget(name);
                Err(stranger())
            }
            Ok(other) => Err(unexpected(&other)),
            Err(failure) if failure.kind() == Some(FaultKind::NotFound) => {
                self.forget(name);
                let message = format!("vm '{name}' is gone: its time was over, or somebody has deleted it");
                Err(Failure::new(FaultKind::NotFound, message).hint("vm_create makes another"))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Those that are there, by name; from then on those that are gone take no place.
    pub fn present(&self, client: &mut Client) -> Result<Vec<VmRecord>, Failure> {
        let all = match client.ask(OwnerRequest::ListVms)? {
            OwnerReply::Vms(vms) => vms,
            other => return Err(unexpected(&other)),
        };
        let mut members = lock(&self.members);
        // One that was made since the list was does not stand in it, and is not gone.
        let is_there = |member: &Member| member.id.as_ref().is_none_or(|id| all.iter().any(|vm| vm.id == *id));
        members.known.retain(is_there);
        let is_own = |vm: &VmRecord| members.find(&vm.spec.name).is_some_and(|m| m.id.as_ref() == Some(&vm.id));
        let mut own: Vec<VmRecord> = all.iter().filter(|vm| is_own(vm)).cloned().collect();
        own.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(own)
    }

    /// Whether the VM called `name` is one of these, made.
    pub fn has_made(&self, name: &VmName) -> bool {
        lock(&self.members).find(name).is_some_and(|member| member.id.is_some())
    }

    /// It is gone.
    pub fn forget(&self, name: &VmName) {
        lock(&self.members).known.retain(|member| member.name != *name);
    }

    /// From now on there are no more; whether that is new.
    pub fn close(&self) -> bool {
        !std::mem::replace(&mut lock(&self.members).is_closed, true)
    }

    /// The names of those that are made.
    pub fn names(&self) -> Vec<VmName> {
        let members = lock(&self.members);
        members.known.iter().filter(|member| member.id.is_some()).map(|member| member.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VmName {
        text.parse().expect("a name")
    }

    fn fleet() -> Fleet {
        Fleet::new(2, Mib(1024))
    }

    #[test]
    fn there_are_no_more_than_may_be_and_a_place_given_up_is_free() {
        let fleet = fleet();
        let first = fleet.admit(&name("mcp-a"), Mib(512)).expect("room");
        first.take(VmId::from_random(1)).expect("made");
        let second = fleet.admit(&name("mcp-b"), Mib(256)).expect("room");
        let full = fleet.admit(&name("mcp-c"), Mib(128)).expect_err("full");
        assert!(full.kind() == Some(FaultKind::Refused) && full.line().contains("all 2"), "{full:?}");
        drop(second);
        let large = fleet.admit(&name("mcp-c"), Mib(1024)).expect_err("too large");
        assert_eq!(large.line(), "memory of 1 GiB: 512 MiB of the 1 GiB that this server may use is in use");
        assert!(fleet.admit(&name("mcp-c"), Mib(512)).is_ok());
        assert_eq!(fleet.names(), [name("mcp-a")]);
        fleet.forget(&name("mcp-a"));
        assert!(fleet.admit(&name("mcp-d"), Mib(1024)).is_ok());
    }

    #[test]
    fn a_server_that_ends_takes_nothing_more() {
        let fleet = fleet();
        let berth = fleet.admit(&name("mcp-a"), Mib(512)).expect("room");
        fleet.close();
        assert_eq!(berth.take(VmId::from_random(1)).expect_err("too late").kind(), Some(FaultKind::Cancelled));
        assert!(fleet.names().is_empty() && fleet.admit(&name("mcp-b"), Mib(512)).is_err());
    }
}
