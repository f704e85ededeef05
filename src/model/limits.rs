//! What all VMs of an owner may use together, and whether one more fits. Pure: whoever asks looks
//! at the rows and reserves in the same transaction.

use super::size::human;
use super::{Mib, VmRecord, VmSpec, VmState};

/// How much may be used; `None`: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// VMs that exist.
    pub vms: Option<u32>,
    /// Memory of the VMs that run.
    pub memory: Option<Mib>,
    /// Sizes of all VMs' disks, whatever they take on the host's.
    pub disk: Option<Mib>,
    /// The host's memory, which no single VM may exceed.
    pub host_memory: Mib,
}

/// A limit forbids it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// There are as many as there may be.
    #[error("one more VM: there are {used} of the {limit} that [limits] vms allows")]
    Vms {
        /// How many there are.
        used: usize,
        /// How many there may be.
        limit: u32,
    },
    /// One VM alone is too large.
    #[error("memory of {asked}: this host has {host}")]
    HostMemory {
        /// What was asked for.
        asked: Mib,
        /// The host's.
        host: Mib,
    },
    /// Together they are too large.
    #[error("{0}")]
    Memory(Excess),
    /// Together their disks are too large.
    #[error("{0}")]
    Disk(Excess),
}

/// What is asked for beside what is in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} of {asked}: {used} of the {limit} that [limits] {what} allows {are} in use by {vms} VM{s}",
    used = human(*.used), are = if *.vms == 1 { "is" } else { "are" }, s = if *.vms == 1 { "" } else { "s" }
)]
pub struct Excess {
    what: &'static str,
    asked: Mib,
    /// Bytes in use by others.
    used: u64,
    /// How many others.
    vms: usize,
    limit: Mib,
}

impl LimitError {
    /// What to type.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Vms { .. } => "banger vm prune      (deletes all VMs that do not run)",
            // Not prune: a VM that is to grow does not run either.
            Self::Disk(_) => "banger vm list      (whose disks; banger vm delete NAME makes room)",
            Self::Memory(_) => "banger ps      (shows what runs)",
            Self::HostMemory { .. } => "banger vm create --help      (shows this host's limits)",
        }
    }
}

impl Limits {
    /// Whether a VM like `spec` may be made beside `others`, and, with `starts`, started.
    pub fn admit_new(&self, spec: &VmSpec, starts: bool, others: &[VmRecord]) -> Result<(), LimitError> {
        if let Some(limit) = self.vms
            && others.len() >= limit as usize
        {
            return Err(LimitError::Vms { used: others.len(), limit });
        }
        self.admit_disk(spec.disk, others)?;
        if starts { self.admit_start(spec.memory, others) } else { self.admit_alone(spec.memory) }
    }

    /// Whether a VM may be started with `memory` beside `others`.
    pub fn admit_start(&self, memory: Mib, others: &[VmRecord]) -> Result<(), LimitError> {
        self.admit_alone(memory)?;
        let users = others.iter().filter(|vm| uses_memory(vm)).map(|vm| vm.spec.memory);
        excess("memory", memory, users, self.memory).map_or(Ok(()), |e| Err(LimitError::Memory(e)))
    }

    /// Whether a VM that does not run may become like `spec` beside `others`.
    pub fn admit_change(&self, spec: &VmSpec, others: &[VmRecord]) -> Result<(), LimitError> {
        self.admit_disk(spec.disk, others)?;
        self.admit_alone(spec.memory)
    }

    fn admit_alone(&self, asked: Mib) -> Result<(), LimitError> {
        let host = self.host_memory;
        if asked > host { Err(LimitError::HostMemory { asked, host }) } else { Ok(()) }
    }

    fn admit_disk(&self, disk: Mib, others: &[VmRecord]) -> Result<(), LimitError> {
        let users = others.iter().map(|vm| vm.spec.disk);
        excess("disk", disk, users, self.disk).map_or(Ok(()), |e| Err(LimitError::Disk(e)))
    }
}

/// One that is being made counts: it is about to start, or to be done.
fn uses_memory(vm: &VmRecord) -> bool {
    vm.may_hold_resources() || vm.state == VmState::Creating
}

fn excess(what: &'static str, asked: Mib, users: impl Iterator<Item = Mib>, limit: Option<Mib>) -> Option<Excess> {
    let limit = limit?;
    let (vms, used) = users.fold((0, 0_u64), |(vms, used), size| (vms + 1, used.saturating_add(size.bytes())));
    (used.saturating_add(asked.bytes()) > limit.bytes()).then_some(Excess { what, asked, used, vms, limit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VmId;
    use crate::model::choice::{Accel, VmmKind};

    const GIB: u32 = 1024;

    fn spec(memory: u32, disk: u32) -> VmSpec {
        VmSpec {
            name: "box".parse().expect("a name"),
            image: "debian".parse().expect("a name"),
            kernel: "debian".parse().expect("a name"),
            vcpus: 1,
            memory: Mib(memory * GIB),
            disk: Mib(disk * GIB),
            init: None,
            egress: Default::default(),
            ports: Vec::new(),
            secrets: Vec::new(),
            environment: Vec::new(),
            idle_stop: None,
        }
    }

    fn vm(state: VmState, memory: u32) -> VmRecord {
        let new = VmRecord::asked_for(VmId::from_random(1), spec(memory, 10), VmmKind::Fake, Accel::Tcg, 0);
        VmRecord { state, ..new }
    }

    fn limits() -> Limits {
        Limits { vms: None, memory: Some(Mib(16 * GIB)), disk: Some(Mib(50 * GIB)), host_memory: Mib(64 * GIB) }
    }

    fn said(outcome: Result<(), LimitError>) -> String {
        outcome.map_or_else(|e| e.to_string(), |()| "admitted".to_owned())
    }

    #[test]
    fn memory_is_counted_of_what_runs_and_of_what_is_about_to() {
        let others = [vm(VmState::Running, 4), vm(VmState::Starting, 4), vm(VmState::Creating, 6)];
        let expected = "memory of 4 GiB: 14 GiB of the 16 GiB that [limits] memory allows are in use by 3 VMs";
        assert_eq!(said(limits().admit_start(Mib(4 * GIB), &others)), expected);
        assert_eq!(said(limits().admit_new(&spec(4, 1), true, &others)), expected);
        assert_eq!(said(limits().admit_new(&spec(4, 1), false, &others)), "admitted");
        assert_eq!(said(limits().admit_start(Mib(2 * GIB), &others)), "admitted");
        let idle = [vm(VmState::Stopped, 14), vm(VmState::Created, 14), vm(VmState::Error, 14)];
        assert_eq!(said(limits().admit_start(Mib(16 * GIB), &idle)), "admitted");
    }

    #[test]
    fn disks_are_counted_of_all_and_vms_by_their_rows() {
        let others = vec![vm(VmState::Stopped, 1); 4];
        let expected = "disk of 11 GiB: 40 GiB of the 50 GiB that [limits] disk allows are in use by 4 VMs";
        assert_eq!(said(limits().admit_new(&spec(1, 11), false, &others)), expected);
        assert_eq!(said(limits().admit_change(&spec(1, 11), &others)), expected);
        assert_eq!(said(limits().admit_change(&spec(1, 10), &others)), "admitted");
        let limits = Limits { vms: Some(4), ..limits() };
        let expected = "one more VM: there are 4 of the 4 that [limits] vms allows";
        assert_eq!(said(limits.admit_new(&spec(1, 1), false, &others)), expected);
    }

    #[test]
    fn no_vm_exceeds_the_host_whatever_is_configured() {
        let limits = Limits { vms: None, memory: None, disk: None, host_memory: Mib(2 * GIB) };
        let expected = "memory of 3 GiB: this host has 2 GiB";
        assert_eq!(said(limits.admit_new(&spec(3, 1), false, &[])), expected);
        assert_eq!(said(limits.admit_start(Mib(3 * GIB), &[])), expected);
        assert_eq!(said(limits.admit_change(&spec(3, 1), &[])), expected);
        assert_eq!(said(limits.admit_new(&spec(2, 9999), true, &vec![vm(VmState::Running, 2); 9])), "admitted");
    }
}
