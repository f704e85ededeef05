//! Command line to daemon.
//!
//! A conversation: `Hello` both ways, then any number of calls, one at a time: a [`Call`] from the
//! client (with the descriptors that [`OwnerRequest::files`] announces), any number of
//! [`Answer::Event`], one [`Answer::Reply`] (with the descriptors that its variant documents).
//! A closed connection cancels the running call at its next safe point.

use std::net::Ipv4Addr;

use super::guest::GuestStats;
use super::root::DiskFill;
use super::shell::Token;
use super::{Event, Fault};
use crate::model::choice::{VmmChoice, VmmKind};
use crate::model::image::{ImageConfig, ImageRecord, KernelRecord};
use crate::model::launch::{FakeFailure, KernelArgs};
use crate::model::secret::SecretHost;
use crate::model::traffic::Flow;
use crate::model::usage::HostUsage;
use crate::model::{
    Egress, ImageName, InitMode, KernelName, Mib, OpId, Secret, SecretValue, Since, TimeSpan, VmChange, VmName,
    VmRecord, VmSpec, Workspace,
};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Call {
    /// Appears in both processes' logs and in the error that the user sees.
    pub op: OpId,
    /// What is asked.
    pub request: OwnerRequest,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Answer {
    /// Something happened; more follows.
    Event(Event),
    /// The end of the call.
    Reply(Result<OwnerReply, Fault>),
}

/// What can be asked of the daemon. Append-only; the first variant is frozen and answered to every
/// protocol version.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum OwnerRequest {
    /// Who are you? Frozen.
    Status,
    /// End the daemon; VMs go on. With `helper`, the helper too.
    Shutdown {
        /// Whether the helper shall end as well.
        helper: bool,
    },
    /// More than [`OwnerRequest::Status`]: paths, network, defaults.
    Overview,
    /// Create a VM.
    CreateVm {
        /// The VM, complete.
        spec: VmSpec,
        /// Start it and wait until it answers.
        start: bool,
        /// Delete it when the calling process ends.
        ephemeral: bool,
        /// Delete it after this time.
        ttl: Option<TimeSpan>,
        /// Values of the specification's secrets, in its order.
        values: Vec<SecretValue>,
        /// Only for the fake monitor.
        fail: Option<FakeFailure>,
    },
    /// Start a VM and wait until it answers.
    StartVm {
        /// Which.
        name: VmName,
    },
    /// Shut a VM down.
    StopVm {
        /// Which.
        name: VmName,
        /// Skip the graceful steps.
        kill: bool,
    },
    /// Delete a VM, running or not.
    DeleteVm {
        /// Which.
        name: VmName,
    },
    /// All VMs.
    ListVms,
    /// One VM.
    ShowVm {
        /// Which.
        name: VmName,
    },
    /// What is needed to run something in a guest; the reply carries a connected socket.
    OpenShell {
        /// Which.
        name: VmName,
        /// What is to carry it, most wanted first.
        carriers: Vec<Carrier>,
    },
    /// The serial console's log; the reply carries the file, read only.
    OpenConsole {
        /// Which.
        name: VmName,
        /// Say where in it that begins which has come since then.
        since: Option<Since>,
    },
    /// Ask the guest's agent.
    AskAgent {
        /// Which.
        name: VmName,
        /// What.
        question: AgentQuestion,
    },
    /// All images.
    ListImages,
    /// Delete an image that no VM uses.
    DeleteImage {
        /// Which.
        name: ImageName,
    },
    /// Make an image from a tar stream of a root filesystem (one descriptor: the stream).
    ImportImage {
        /// Its name.
        name: ImageName,
        /// Size of the filesystem; `None`: the content's and room to work.
        size: Option<Mib>,
        /// Which init its VMs get.
        init: InitMode,
        /// Where it comes from, in words, at most 256 bytes.
        source: String,
    },
    /// All kernels.
    ListKernels,
    /// Delete a kernel that no VM uses.
    DeleteKernel {
        /// Which.
        name: KernelName,
    },
    /// Make a kernel from a tar stream that holds `vmlinuz` (or `vmlinux`, compressed or not) and,
    /// below `modules/`, the folder `/lib/modules/RELEASE` with its `modules.dep`
    /// (one descriptor: the stream).
    ImportKernel {
        /// Its name.
        name: KernelName,
        /// What `uname -r` says under it; empty when there are no modules.
        release: String,
        /// Arguments beside banger's own.
        boot_args: KernelArgs,
        /// Where it comes from, in words, at most 256 bytes.
        source: String,
    },
    /// Let an ephemeral VM outlive its asker: there is something in it to look at.
    KeepVm {
        /// Which.
        name: VmName,
    },
    /// Shut a VM down and start it again; done to its end even when the asker leaves.
    RestartVm {
        /// Which.
        name: VmName,
    },
    /// Delete a VM, provided that it does not run.
    DeleteIdleVm {
        /// Which.
        name: VmName,
    },
    /// Change a VM; all but its lifetime only while it does not run.
    SetVm {
        /// Which.
        name: VmName,
        /// What shall change.
        change: VmChange,
    },
    /// What VMs use, of the host and in the guest.
    Stats {
        /// Which; none: all that run.
        names: Vec<VmName>,
    },
    /// Wait until a VM does not run any more. The reply is [`OwnerReply::Vm`], or
    /// [`OwnerReply::Done`] when it was deleted.
    WaitVm {
        /// Which.
        name: VmName,
    },
    /// The VMs that run: few, however many are stored.
    ListRunning,
    /// What only the helper knows of this host.
    Checkup,
    /// Where did a VM's guest go, and where was it refused to go?
    Egress {
        /// Which.
        name: VmName,
    },
    /// Remember the repository that was brought into a VM.
    SetWorkspace {
        /// Which.
        name: VmName,
        /// The repository.
        workspace: Workspace,
    },
    /// Remember how a command ended that was run in a VM's repository; nothing where it has none.
    NoteExit {
        /// Which.
        name: VmName,
        /// Its exit code.
        code: u8,
    },
    /// Make an image of layers (one descriptor: their stream, as `image::LayerWriter` writes it).
    ImportLayers(Box<NewLayers>),
    /// Make an image of a file that stays where it is (one descriptor: the file, open for reading).
    RegisterImage(NewPlace),
    /// Copy an image that is somebody's file into banger's own store.
    PromoteImage {
        /// Which.
        name: ImageName,
    },
    /// Make an image of a VM's disk, without what makes it that VM.
    CommitImage {
        /// Which VM. One that runs is paused while its disk is copied.
        vm: VmName,
        /// The image's name.
        name: ImageName,
    },
}

/// A file that is to be an image where it is.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct NewPlace {
    /// The image's name.
    pub name: ImageName,
    /// The file's absolute path.
    pub path: String,
    /// The kernel that its VMs boot unless asked otherwise.
    pub kernel: Option<KernelName>,
}

/// An image of layers, the lowest first.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct NewLayers {
    /// Its name.
    pub name: ImageName,
    /// Size of the filesystem; `None`: the content's and room to work.
    pub size: Option<Mib>,
    /// The digest of what it was described by, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// The reference it was pulled by, complete.
    pub reference: Option<String>,
    /// How its programs are to be run.
    pub config: ImageConfig,
    /// Where it comes from, in words, at most 256 bytes.
    pub source: String,
}

impl OwnerRequest {
    /// Whether the end of the daemon in the midst of it costs somebody something: an operation that is taken back, or
    /// a download for nothing. Who only looks or waits can ask again.
    pub fn is_operation(&self) -> bool {
        match self {
            Self::CreateVm { .. }
            | Self::StartVm { .. }
            | Self::StopVm { .. }
            | Self::RestartVm { .. }
            | Self::DeleteVm { .. }
            | Self::DeleteIdleVm { .. }
            | Self::SetVm { .. }
            | Self::ImportImage { .. }
            | Self::ImportLayers(_)
            | Self::RegisterImage(_)
            | Self::PromoteImage { .. }
            | Self::CommitImage { .. }
            | Self::DeleteImage { .. }
            | Self::ImportKernel { .. }
            | Self::DeleteKernel { .. } => true,
            Self::Status
            | Self::Shutdown { .. }
            | Self::Overview
            | Self::ListVms
            | Self::ListRunning
            | Self::Checkup
            | Self::ShowVm { .. }
            | Self::OpenShell { .. }
            | Self::OpenConsole { .. }
            | Self::AskAgent { .. }
            | Self::ListImages
            | Self::ListKernels
            | Self::KeepVm { .. }
            | Self::Stats { .. }
            | Self::WaitVm { .. }
            | Self::Egress { .. }
            | Self::SetWorkspace { .. }
            | Self::NoteExit { .. } => false,
        }
    }

    /// How many descriptors travel with it.
    pub fn files(&self) -> usize {
        match self {
            Self::ImportImage { .. } | Self::ImportKernel { .. } | Self::ImportLayers(_) | Self::RegisterImage(_) => 1,
            Self::Status
            | Self::Shutdown { .. }
            | Self::Overview
            | Self::CreateVm { .. }
            | Self::StartVm { .. }
            | Self::StopVm { .. }
            | Self::DeleteVm { .. }
            | Self::ListVms
            | Self::ListRunning
            | Self::Checkup
            | Self::ShowVm { .. }
            | Self::OpenShell { .. }
            | Self::OpenConsole { .. }
            | Self::AskAgent { .. }
            | Self::ListImages
            | Self::DeleteImage { .. }
            | Self::ListKernels
            | Self::KeepVm { .. }
            | Self::RestartVm { .. }
            | Self::DeleteIdleVm { .. }
            | Self::SetVm { .. }
            | Self::Stats { .. }
            | Self::WaitVm { .. }
            | Self::Egress { .. }
            | Self::SetWorkspace { .. }
            | Self::NoteExit { .. }
            | Self::PromoteImage { .. }
            | Self::CommitImage { .. }
            | Self::DeleteKernel { .. } => 0,
        }
    }
}

/// What can be asked of a guest through the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum AgentQuestion {
    /// Are you there?
    Ping,
    /// How are you?
    Health,
    /// Who listens?
    Ports,
}

/// What the daemon answers. Append-only; the first variant is frozen.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum OwnerReply {
    /// To [`OwnerRequest::Status`]. Frozen.
    Status {
        /// The daemon's build.
        build: String,
        /// The daemon's protocol.
        protocol: u32,
        /// The daemon's process.
        pid: i32,
    },
    /// Done; nothing to say.
    Done,
    /// To [`OwnerRequest::Overview`].
    Overview(Box<Overview>),
    /// One VM.
    Vm(Box<VmRecord>),
    /// Several VMs.
    Vms(Vec<VmRecord>),
    /// To [`OwnerRequest::OpenShell`] over ssh; one descriptor: a socket connected to the guest's ssh.
    Shell(ShellAccess),
    /// To [`OwnerRequest::OpenConsole`]; one descriptor: the log, read only.
    Console {
        /// The first byte that was asked for.
        start: u64,
    },
    /// To [`OwnerRequest::AskAgent`].
    Agent(super::guest::GuestReply),
    /// Several images.
    Images(Vec<ImageRecord>),
    /// One image.
    Image(Box<ImageRecord>),
    /// Several kernels.
    Kernels(Vec<KernelRecord>),
    /// One kernel.
    Kernel(Box<KernelRecord>),
    /// To [`OwnerRequest::OpenShell`] over the agent; one descriptor: a channel (`super::shell`).
    Channel {
        /// What each side of it says first.
        token: Token,
    },
    /// To [`OwnerRequest::Stats`].
    Stats(Vec<VmStats>),
    /// To [`OwnerRequest::Checkup`].
    Checkup(Checkup),
    /// To [`OwnerRequest::Egress`].
    Egress(Box<EgressReport>),
}

/// Where a guest went, and where it was refused to go, since its start.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct EgressReport {
    /// The VM.
    pub name: VmName,
    /// Where it may go.
    pub egress: Egress,
    /// Whether it runs: of one that does not, nothing is counted.
    pub is_running: bool,
    /// The guests' network and the host's address in it, once there is one.
    pub network: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Where it went, most often first.
    pub reached: Vec<NamedFlow>,
    /// Connections to where there was no room for.
    pub reached_beyond: u64,
    /// Where it was refused to go, most often first.
    pub refused: Vec<NamedFlow>,
    /// Refused packets to where there was no room for.
    pub refused_beyond: u64,
    /// Names that it asked for and that are not granted.
    pub refused_names: Vec<CountedName>,
    /// Questions for names that there was no room for.
    pub names_beyond: u64,
    /// Granted names of whose addresses some were held back, for they are not the internet's.
    pub filtered_names: Vec<CountedName>,
    /// Its secrets, and how often each host was asked.
    pub secrets: Vec<Secret>,
    /// The hosts of its secrets.
    pub secret_hosts: Vec<SecretUse>,
}

/// What became of requests to the host of a secret.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SecretUse {
    /// Who.
    pub host: SecretHost,
    /// Requests that were sent on.
    pub requests: u64,
    /// How many of them carried a secret.
    pub with_secret: u64,
    /// Requests and connections that came to nothing.
    pub failed: u64,
    /// Why the last of these did.
    pub last_failure: Option<String>,
}

/// A destination and what it was called when its name was looked up.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct NamedFlow {
    /// Its name, where one was looked up.
    pub name: Option<String>,
    /// The destination.
    pub flow: Flow,
}

/// A name, and how often.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct CountedName {
    /// The name.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// What only the helper knows of this host.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Checkup {
    /// Why the kernel makes no disk snapshots; `None` when it does, or nobody could be asked.
    pub no_snapshots: Option<String>,
    /// Chains of other firewalls that drop what guests send, as `FAMILY TABLE CHAIN HOOK`.
    pub obstacles: Vec<String>,
    /// How full the disks are that the helper keeps.
    pub disks: Vec<(VmName, DiskFill)>,
    /// How many it keeps that belong to no VM of this store.
    pub unknown: u32,
    /// Where it keeps them.
    pub folder: String,
}

/// What carries a command into a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Carrier {
    /// banger's agent.
    Agent,
    /// An ssh server.
    Ssh,
}

/// What a VM uses.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct VmStats {
    /// Which.
    pub name: VmName,
    /// Its virtual CPUs.
    pub vcpus: u8,
    /// Of the host.
    pub host: HostUsage,
    /// What its agent says, or why it says nothing.
    pub guest: Result<GuestStats, String>,
}

/// The daemon's surroundings.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Overview {
    /// The daemon's build.
    pub build: String,
    /// The daemon's process.
    pub pid: i32,
    /// The helper's build, or why it does not answer.
    pub helper: Result<String, String>,
    /// The bridge's network once there is one, as text.
    pub subnet: Option<String>,
    /// Where the daemon answers DNS.
    pub dns: Option<Ipv4Addr>,
    /// The monitor for new VMs.
    pub vmm: VmmChoice,
    /// What a VM gets where nothing is asked.
    pub defaults: VmDefaults,
    /// Folder of the store, images and VMs.
    pub state_dir: String,
    /// The owner's socket.
    pub socket: String,
    /// The helper's socket.
    pub helper_socket: String,
    /// VMs in the store.
    pub vms: u32,
    /// Operations that somebody waits for: [`OwnerRequest::is_operation`].
    pub operations: u32,
}

/// What a VM gets where nothing is asked, resolved on this host.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct VmDefaults {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Memory.
    pub memory: Mib,
    /// Root disk.
    pub disk: Mib,
    /// Image.
    pub image: ImageName,
    /// Kernel.
    pub kernel: KernelName,
}

/// Everything to open a verified ssh session over the socket that came along.
#[derive(Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ShellAccess {
    /// The VM's name.
    pub name: VmName,
    /// The guest's address, for programs that connect by themselves.
    pub address: Ipv4Addr,
    /// TCP port of ssh.
    pub port: u16,
    /// Account in the guest.
    pub user: String,
    /// The key that may log in, OpenSSH private key format. Secret.
    pub private_key: String,
    /// The guest's host key, one line of OpenSSH public key: anything else is an impostor.
    pub host_key: String,
    /// File with the private key, mode 0600, for the user's own `ssh`.
    pub identity_file: String,
    /// known_hosts file that pins the host key under the VM's name.
    pub known_hosts_file: String,
    /// The monitor that runs the VM.
    pub vmm: VmmKind,
}

impl std::fmt::Debug for ShellAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShellAccess").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}
