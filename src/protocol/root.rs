//! Daemon to root helper: typed operations; ids, validated names and open descriptors, nothing else.
//!
//! A conversation: `Hello` both ways, then calls one at a time. Nothing here is a path, a command
//! line or a rule: the helper derives every name by itself.

use super::Fault;
use crate::model::egress::{Opening, Passage};
use crate::model::launch::Launch;
use crate::model::traffic::Traffic;
use crate::model::{OpId, ProcessRef, PublishedPort, Slot, Subnet, VmId};

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
    /// (descriptors: [`Launch::files`]).
    LaunchVm {
        /// The VM.
        id: VmId,
        /// Its place.
        slot: Slot,
        /// What to run.
        launch: Launch,
        /// Where its guest may go.
        passage: Passage,
        /// Ports of the host that lead into it.
        ports: Vec<PublishedPort>,
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
        /// Which of them, below [`CHANNELS`](super::shell::CHANNELS); of Firecracker's there is one,
        /// 0, whose every connection reaches a port of the guest's choice.
        channel: u8,
    },
    /// How did the last monitor of this VM end?
    Farewell {
        /// The VM.
        id: VmId,
    },
    /// What this host's kernel can do for VMs.
    Facilities,
    /// How full are the disks that the helper keeps?
    Disks,
    /// Remove the disk that the helper keeps for a VM, which must not run. Done when it is gone.
    RemoveDisk {
        /// The VM.
        id: VmId,
    },
    /// Let a running VM's guest go where this says, and nowhere else from now on. What was open for
    /// names is closed.
    SetPassage {
        /// The VM.
        id: VmId,
        /// Where its guest may go.
        passage: Passage,
    },
    /// Let a running VM's guest go where names lead, for a while.
    OpenAddresses {
        /// The VM.
        id: VmId,
        /// At most [`Opening::MAX_AT_ONCE`], all of them public.
        openings: Vec<Opening>,
    },
    /// Where did a running VM's guest go, and where was it refused to go?
    Traffic {
        /// The VM.
        id: VmId,
    },
    /// Could these ports of the host be had?
    CheckPorts {
        /// Which.
        ports: Vec<PublishedPort>,
    },
    /// The sockets that DNS is served on: on the bridge, which must be there, and on loopback.
    ListenDns,
    /// The socket that takes what guests send to the hosts of their secrets, on the bridge, which must be
    /// there.
    ListenSecrets,
    /// What the helper keeps of a VM's disk, to read.
    OpenDisk {
        /// The VM.
        id: VmId,
    },
}

impl RootRequest {
    /// How many descriptors travel with it.
    pub fn files(&self) -> usize {
        match self {
            Self::LaunchVm { launch, .. } => launch.files().len(),
            Self::Status
            | Self::Shutdown
            | Self::EnsureNetwork { .. }
            | Self::RemoveNetwork
            | Self::AttachVm { .. }
            | Self::ReleaseVm { .. }
            | Self::OpenChannel { .. }
            | Self::Farewell { .. }
            | Self::Facilities
            | Self::Disks
            | Self::RemoveDisk { .. }
            | Self::SetPassage { .. }
            | Self::OpenAddresses { .. }
            | Self::Traffic { .. }
            | Self::CheckPorts { .. }
            | Self::ListenDns
            | Self::ListenSecrets
            | Self::OpenDisk { .. }
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
    /// To `LaunchVm` and `AttachVm`; descriptors: pidfd, control socket (QMP or API), and the agent's
    /// socket: connected, or, of Firecracker, listening for an agent that rings.
    Monitor {
        /// The monitor's process.
        process: ProcessRef,
    },
    /// To [`RootRequest::Inventory`].
    Inventory(Vec<Entry>),
    /// To [`RootRequest::OpenChannel`]; one descriptor: a connected socket.
    Channel,
    /// To [`RootRequest::Farewell`]; nothing when no end of it was seen.
    Farewell(Option<Farewell>),
    /// To [`RootRequest::Facilities`].
    Facilities {
        /// Why disks cannot be device-mapper snapshots; `None` when they can.
        no_snapshots: Option<String>,
        /// Chains of other firewalls that drop what guests send, as `FAMILY TABLE CHAIN HOOK`.
        obstacles: Vec<String>,
    },
    /// To [`RootRequest::Disks`].
    Disks(Vec<KeptDisk>),
    /// To [`RootRequest::Traffic`].
    Traffic(Traffic),
    /// To [`RootRequest::ListenDns`]; descriptors: UDP and TCP on the gateway's address, then, where there
    /// is no reason against it, UDP and TCP on [`DNS_LOOPBACK`](crate::model::address::DNS_LOOPBACK).
    DnsSockets {
        /// Why there are none on loopback.
        no_loopback: Option<String>,
    },
    /// To [`RootRequest::ListenSecrets`]; one descriptor: a TCP socket that listens at
    /// [`SECRETS_PORT`](crate::model::address::SECRETS_PORT).
    SecretsSocket,
    /// To [`RootRequest::OpenDisk`]; one descriptor: the file of a persistent snapshot, read only
    /// (Documentation/admin-guide/device-mapper/snapshot.rst).
    Disk,
}

/// How a monitor ended.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Farewell {
    /// Its exit status, if it had one and this helper was its parent.
    pub status: Option<i32>,
    /// The signal that ended it, likewise.
    pub signal: Option<i32>,
    /// The last of what it wrote, for people.
    pub said: String,
}

/// A disk that the helper keeps.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct KeptDisk {
    /// The VM.
    pub id: VmId,
    /// How full it is; `None` while it is not attached.
    pub fill: Option<DiskFill>,
}

/// How full a snapshot is (Documentation/admin-guide/device-mapper/snapshot.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum DiskFill {
    /// In use, in sectors of 512 bytes.
    Sectors {
        /// What differs from the image, with its metadata.
        used: u64,
        /// What there is room for.
        total: u64,
    },
    /// What the guest wrote could not be stored: the disk is lost.
    Invalid,
    /// There was no room left: the disk is lost.
    Overflow,
    /// The kernel says something else.
    Unknown,
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
