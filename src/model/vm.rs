//! What is known of a VM.

use std::fmt;
use std::net::Ipv4Addr;

use super::choice::{Accel, VmmKind};
use super::{ProcessRef, Slot, VmId, VmSpec, Workspace};

/// Where a VM is in its life. Every change is one write transaction.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// Reserved; its files are being made.
    Creating,
    /// Complete, never started.
    Created,
    /// Booting: resources of a boot may exist, ssh does not answer yet.
    Starting,
    /// ssh or the agent has answered.
    Running,
    /// Asked to stop.
    Stopping,
    /// Not running; its disk is kept.
    Stopped,
    /// Something failed; the reason is in the record.
    Error,
}

impl VmState {
    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// All that the store keeps of a VM.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct VmRecord {
    /// Its identity for life.
    pub id: VmId,
    /// What was asked for.
    pub spec: VmSpec,
    /// Its place: tap, uid and address follow from it. Taken at each start, the last one if it is
    /// still free; so there can be more VMs than slots.
    pub slot: Option<Slot>,
    /// Its address at the last start.
    pub address: Option<Ipv4Addr>,
    /// Where it is in its life.
    pub state: VmState,
    /// Why it is in `Error`, or why it stopped by itself.
    pub reason: Option<String>,
    /// The monitor that runs it.
    pub vmm: VmmKind,
    /// What the monitor runs on.
    pub accel: Accel,
    /// The monitor's process while there is one.
    pub process: Option<ProcessRef>,
    /// The process whose end ends this VM (`--rm`).
    pub keeper: Option<ProcessRef>,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds of the last start.
    pub started_at: Option<u64>,
    /// Unix seconds at which it is deleted, running or not.
    pub expires_at: Option<u64>,
    /// The repository in it.
    pub workspace: Option<Workspace>,
}

impl VmRecord {
    /// What was just asked for, at `created_at` (Unix seconds): nothing of it is made yet.
    pub fn asked_for(id: VmId, spec: VmSpec, vmm: VmmKind, accel: Accel, created_at: u64) -> Self {
        Self {
            id,
            spec,
            slot: None,
            address: None,
            state: VmState::Creating,
            reason: None,
            vmm,
            accel,
            process: None,
            keeper: None,
            created_at,
            started_at: None,
            expires_at: None,
            workspace: None,
        }
    }

    /// The address it can be reached at now.
    pub fn present_address(&self) -> Option<Ipv4Addr> {
        self.address.filter(|_| self.may_hold_resources())
    }

    /// True while a monitor may hold resources of this VM.
    pub fn may_hold_resources(&self) -> bool {
        match self.state {
            VmState::Starting | VmState::Running | VmState::Stopping => true,
            VmState::Error => self.process.is_some(),
            VmState::Creating | VmState::Created | VmState::Stopped => false,
        }
    }
}
