//! Daemon to the guest's agent, over one stream (virtio-serial or vsock).
//!
//! Append-only: a new daemon speaks to the agents of all released versions. Each side, on every
//! new connection, first sends [`PREAMBLE`], then a frame with its hello: the port may still hold
//! the rest of an earlier conversation. Everything that a guest says is hostile: frames are
//! bounded, strings and lists are cut to their limits by the daemon.

use super::shell::Token;
use crate::model::OpId;

/// Sent raw before the first frame of a connection.
pub const PREAMBLE: &[u8; 16] = b"\0banger-guest-1\n";

/// Oldest guest protocol this build speaks.
pub const PROTOCOL_MIN: u32 = 1;

/// Newest guest protocol this build speaks.
pub const PROTOCOL_MAX: u32 = 4;

/// The first protocol with [`GuestRequest::OpenShell`].
pub const PROTOCOL_SHELL: u32 = 2;

/// The first protocol with [`GuestRequest::Sync`].
pub const PROTOCOL_SYNC: u32 = 3;

/// The first protocol with [`GuestRequest::Activity`].
pub const PROTOCOL_ACTIVITY: u32 = 4;

/// Name of the virtio-serial port (`/dev/virtio-ports/NAME` under udev;
/// `/sys/class/virtio-ports/*/name` without).
pub const PORT_NAME: &str = "org.banger.agent.0";

/// The vsock port that the agent listens on, and the host's that it rings at when it does.
pub const VSOCK_PORT: u32 = 1024;

/// Most listening ports that an agent reports.
pub const MAX_PORTS: usize = 1024;

/// First frame each way.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct GuestHello {
    /// Oldest protocol the sender speaks.
    pub protocol_min: u32,
    /// Newest protocol the sender speaks.
    pub protocol_max: u32,
    /// The sender's build.
    pub build: String,
}

impl GuestHello {
    /// What this build says.
    pub fn ours() -> Self {
        Self { protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX, build: super::hello::BUILD.to_owned() }
    }

    /// The newest protocol both sides speak.
    pub fn common(&self) -> Option<u32> {
        let newest = self.protocol_max.min(PROTOCOL_MAX);
        (newest >= self.protocol_min.max(PROTOCOL_MIN)).then_some(newest)
    }
}

/// Daemon to agent.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum ToGuest {
    /// A request; its reply carries the same number.
    Request {
        /// Counts up within a connection.
        number: u64,
        /// The operation this is part of.
        op: OpId,
        /// What is asked.
        request: GuestRequest,
    },
}

/// Agent to daemon.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum FromGuest {
    /// Something happened. Sent again, as the present state, after every hello.
    Announce(Announcement),
    /// To the request of this number.
    Reply {
        /// The request's number.
        number: u64,
        /// The answer, or why there is none.
        reply: Result<GuestReply, String>,
    },
}

/// What an agent says by itself.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Announcement {
    /// The network is up and ssh answers (or will never: no server in the image).
    Ready {
        /// The kernel's boot id.
        boot_id: String,
        /// Whether an ssh server answers on port 22.
        ssh: bool,
        /// Milliseconds from the kernel's start to now.
        uptime_ms: u64,
    },
    /// Something in the guest's start failed; it goes on as it can.
    Trouble {
        /// What, for people.
        text: String,
    },
    /// The guest is going down by itself.
    GoingDown,
}

/// What can be asked of an agent.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum GuestRequest {
    /// Are you there?
    Ping,
    /// How are you?
    Health,
    /// Who listens on TCP?
    Ports,
    /// How much is used?
    Stats,
    /// Shut down cleanly. Answered before it begins.
    Shutdown,
    /// Set the clock, nanoseconds since the epoch.
    SetClock {
        /// The host's clock.
        now_ns: u64,
    },
    /// Have a channel wait for a host that says this token (`super::shell`). Since [`PROTOCOL_SHELL`].
    OpenShell {
        /// Random.
        token: Token,
    },
    /// Write everything to the disks (sync(2)). Since [`PROTOCOL_SYNC`].
    Sync,
    /// Who uses you? Since [`PROTOCOL_ACTIVITY`].
    Activity,
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum GuestReply {
    /// To `Ping`, `SetClock`, `Sync` and `Shutdown`.
    Done,
    /// To `Health`.
    Health(Health),
    /// To `Ports`; at most [`MAX_PORTS`].
    Ports(Vec<ListeningPort>),
    /// To `Stats`.
    Stats(GuestStats),
    /// To `OpenShell`.
    Shell {
        /// The number of the channel that waits.
        channel: u8,
    },
    /// To `OpenShell`, where the monitor has a vsock.
    ShellPort {
        /// The port that waits for one connection.
        port: u32,
    },
    /// To `Activity`.
    Activity(GuestActivity),
}

/// Who uses a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct GuestActivity {
    /// Commands that somebody is connected to, through the agent.
    pub commands: u32,
    /// Commands that run on without anybody.
    pub jobs: u32,
    /// TCP connections from elsewhere to somebody who listens in the guest: its ssh server, a web server.
    pub connections: u32,
}

/// How a guest is.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode, serde::Serialize)]
pub struct Health {
    /// The kernel's boot id.
    pub boot_id: String,
    /// Seconds since the kernel's start.
    pub uptime_s: u64,
    /// The kernel's release.
    pub kernel: String,
    /// What pid 1 is.
    pub init: String,
    /// What systemd says of the system's state (`running`, `degraded`, `starting`); `None` without systemd.
    pub system_state: Option<String>,
    /// Whether ssh answers.
    pub ssh: bool,
    /// What went wrong at the start.
    pub troubles: Vec<String>,
}

/// A socket that listens in the guest.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode, serde::Serialize)]
pub struct ListeningPort {
    /// The address it is bound to, as text.
    pub address: String,
    /// The port.
    pub port: u16,
    /// The process's name, where known.
    pub process: Option<String>,
    /// The process's pid, where known.
    pub pid: Option<u32>,
}

/// How much of a guest is used.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode, serde::Serialize)]
pub struct GuestStats {
    /// Bytes.
    pub memory_total: u64,
    /// Bytes that a new program could have.
    pub memory_available: u64,
    /// Bytes of the root filesystem.
    pub disk_total: u64,
    /// Bytes of it that are free.
    pub disk_free: u64,
    /// Load average of the last minute, in hundredths.
    pub load1_hundredths: u32,
    /// Processes.
    pub processes: u32,
}
