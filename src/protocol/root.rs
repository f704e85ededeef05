//! Daemon to root helper: typed operations; ids, validated names and open descriptors, nothing else.
//!
//! A conversation: `Hello` both ways, then calls one at a time. Nothing here is a path, a command
//! line or a rule: the helper derives every name by itself.

use super::Fault;
use crate::model::launch::Launch;
use crate::model::{OpId, ProcessRef, Slot, Subnet, VmId};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct RootCall {
    /// The operation this is part of.
    pub op: OpId,
    /// What is asked.
    pub request: RootRequest,
}

/// What comes back.
pub type RootAnswer = Result<RootReply, Fault>;

/// What can be asked of the helper. The first variant is frozen.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum RootRequest {
    /// Who are you? Frozen.
    Status,
    /// End the helper. Monitors go on.
    Shutdown,
    /// Make sure of bridge and rules.
    EnsureNetwork {
        /// A network to prefer; refused when it meets a route of the host.
        prefer: Option<Subnet>,
    },
    /// Take bridge and rules away; refused while a VM is there.
    RemoveNetwork,
    /// Make tap, rules, cgroup and process of one boot
    /// (descriptors: [`Launch::file_count`], in the order of `FILES`).
    LaunchVm {
        /// The VM.
        id: VmId,
        /// Its place.
        slot: Slot,
        /// What to run.
        launch: Launch,
    },
    /// Find a running monitor again.
    AttachVm {
        /// The VM.
        id: VmId,
    },
    /// Kill the monitor if it lives and take back all that was made for it. Done when nothing is left.
    ReleaseVm {
        /// The VM.
        id: VmId,
    },
    /// What the helper's ledger holds.
    Inventory,
    /// Connect to a running monitor's channel for a command.
    OpenChannel {
        /// The VM.
        id: VmId,
        /// Which of them, below [`CHANNELS`](super::shell::CHANNELS).
        channel: u8,
    },
}

impl RootRequest {
    /// How many descriptors travel with it.
    pub fn files(&self) -> usize {
        match self {
            Self::LaunchVm { launch, .. } => launch.file_count(),
            Self::Status
            | Self::Shutdown
            | Self::EnsureNetwork { .. }
            | Self::RemoveNetwork
            | Self::AttachVm { .. }
            | Self::ReleaseVm { .. }
            | Self::OpenChannel { .. }
            | Self::Inventory => 0,
        }
    }
}

/// What the helper answers. The first variant is frozen.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum RootReply {
    /// To [`RootRequest::Status`]. Frozen.
    Status {
        /// The helper's build.
        build: String,
        /// The helper's protocol.
        protocol: u32,
        /// The helper's process.
        pid: i32,
    },
    /// Done, and whether anything had to be changed.
    Done(Deed),
    /// The network is there.
    Network {
        /// The bridge's network.
        subnet: Subnet,
    },
    /// To `LaunchVm` and `AttachVm`; descriptors: pidfd, control socket (QMP or API), agent socket.
    Monitor {
        /// The monitor's process.
        process: ProcessRef,
    },
    /// To [`RootRequest::Inventory`].
    Inventory(Vec<Entry>),
    /// To [`RootRequest::OpenChannel`]; one descriptor: a connected socket.
    Channel,
}

/// What came of an idempotent deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Deed {
    /// Something was done.
    Changed,
    /// It was so already.
    Unchanged,
}

/// A VM in the helper's ledger.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Entry {
    /// The VM.
    pub id: VmId,
    /// Its place.
    pub slot: Slot,
    /// Its monitor, if it lives.
    pub process: Option<ProcessRef>,
}
