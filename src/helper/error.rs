//! What goes wrong in the helper, and how it is told to the caller.

use std::io;
use std::path::PathBuf;

use crate::host::facts::{FIRECRACKER, JAILER};
use crate::model::{PublishedPort, Slot, VmId};
use crate::net::plan::PlanError;
use crate::os::own_folder::FolderError;
use crate::protocol::{Fault, FaultKind};

/// What goes wrong here.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The kernel or a file said no.
    #[error("cannot {doing}")]
    System {
        /// Verb and object.
        doing: String,
        /// What it said.
        source: io::Error,
    },
    /// A program said no.
    #[error("cannot {doing}: {said}")]
    Program {
        /// Verb and object.
        doing: String,
        /// Its own words, cut.
        said: String,
    },
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// Without root there is nothing to help with.
    #[error("it must run as root")]
    NotRoot,
    /// One helper per installation.
    #[error("another bangerd-root of this installation is running")]
    AlreadyRunning,
    /// The runtime directory cannot be used, or is not one that only root can change.
    #[error("cannot use the runtime directory")]
    Folder(#[from] FolderError),
    /// A record cannot be read.
    #[error("the record of VM {id} is damaged: {why}")]
    Damaged {
        /// The VM.
        id: VmId,
        /// What is wrong with it.
        why: String,
    },
    /// No such VM is in the ledger, or its monitor has ended.
    #[error("VM {0} has no running monitor")]
    NotRunning(VmId),
    /// No monitor has so many channels.
    #[error("VM {id} has no channel {channel}")]
    NoChannel {
        /// The VM.
        id: VmId,
        /// What was asked for.
        channel: u8,
    },
    /// It runs.
    #[error("VM {0} has a running monitor already")]
    Running(VmId),
    /// The place is taken.
    #[error("slot {slot} is used by VM {by}")]
    SlotTaken {
        /// The place.
        slot: Slot,
        /// Who has it.
        by: VmId,
    },
    /// The bridge is another installation's.
    #[error("the bridge {bridge} belongs to another installation of banger, which has VMs on it")]
    BridgeTaken {
        /// Its name.
        bridge: &'static str,
    },
    /// Another helper rules this network namespace.
    #[error("another bangerd-root manages banger's network here")]
    NetworkTaken,
    /// No network can be given.
    #[error("cannot choose a network for the guests")]
    Plan(#[from] PlanError),
    /// VMs are there.
    #[error("{0} VMs use the network")]
    NetworkInUse(usize),
    /// The monitor of the tests is for tests.
    #[error("the fake monitor is for tests: this helper was started without BANGER_FAKE_VMM=1")]
    FakeRefused,
    /// Descriptors are not what the request says.
    #[error("{0}")]
    Files(String),
    /// What was asked for is more than a guest may have.
    #[error("this is not opened to a guest: {0}")]
    Passage(String),
    /// Somebody has the port, or nobody may have it.
    #[error("cannot publish {port}")]
    Port {
        /// Which.
        port: PublishedPort,
        /// What the kernel said.
        source: io::Error,
    },
    /// No program of that name.
    #[error("{0} is not installed")]
    Missing(&'static str),
    /// A monitor ended at once.
    #[error("the monitor of VM {id} ended at once, {status}")]
    Ended {
        /// The VM.
        id: VmId,
        /// How.
        status: String,
        /// The last of what it wrote.
        said: String,
    },
    /// A monitor runs, and its API does not come.
    #[error("the monitor of VM {0} does not open its API")]
    Mute(VmId),
    /// A jailer did not do what it is for.
    #[error("the monitor of VM {0} is not confined: its jailer left it more than it may have")]
    NotConfined(VmId),
    /// Somebody put processes where a VM's are to be.
    #[error("cgroup {} holds processes that are not this VM's", .0.display())]
    CgroupTaken(PathBuf),
    /// A process did not end although it was killed.
    #[error("{0} does not end although it was killed")]
    Unkillable(String),
    /// A device does not become free.
    #[error("{0} stays in use")]
    Busy(String),
    /// What the VM has written could not be kept.
    #[error("the disk of VM {0} is lost: the filesystem below it was full or failed")]
    DiskLost(VmId),
    /// It failed, and so did some of what should take it back.
    #[error("{source}, and not all could be taken back")]
    Undone {
        /// What failed first.
        source: Box<HelperError>,
        /// What failed while taking it back.
        failures: Vec<HelperError>,
    },
    /// Something of a VM could not be removed.
    #[error("not all of VM {id} could be removed")]
    Leftovers {
        /// The VM.
        id: VmId,
        /// What could not.
        failures: Vec<HelperError>,
    },
}

/// What is returned here.
pub type Result<T, E = HelperError> = std::result::Result<T, E>;

/// Says what was being done when the kernel said no.
pub trait Doing<T> {
    /// `doing` is a verb and its object: `create tap bng-3`.
    fn doing(self, doing: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|e| HelperError::System { doing: doing.into(), source: e.into() })
    }
}

impl HelperError {
    /// The whole story in one line, for logs.
    pub fn line(&self) -> String {
        self.fault().to_string()
    }

    /// As the caller is told.
    pub fn fault(&self) -> Fault {
        let fault = match self {
            Self::Undone { source, failures } => return with_failures(source.fault(), failures),
            Self::Leftovers { failures, .. } => with_failures(Fault::new(self.kind(), self.to_string()), failures),
            Self::Ended { said, .. } if !said.is_empty() => Fault::of(self.kind(), self).cause(said.clone()),
            other => Fault::of(other.kind(), other),
        };
        match self.hint() {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }

    fn kind(&self) -> FaultKind {
        match self {
            Self::System { .. }
            | Self::Program { .. }
            | Self::Damaged { .. }
            | Self::Missing(_)
            | Self::Folder(FolderError::Io(_))
            | Self::Ended { .. }
            | Self::Mute(_)
            | Self::NotConfined(_)
            | Self::Unkillable(_)
            | Self::DiskLost(_)
            | Self::Undone { .. }
            | Self::Leftovers { .. } => FaultKind::OperationFailed,
            Self::Usage(_) | Self::Files(_) | Self::Passage(_) => FaultKind::BadRequest,
            Self::NotRoot => FaultKind::Unauthorized,
            Self::NotRunning(_) | Self::NoChannel { .. } => FaultKind::NotFound,
            Self::Running(_) => FaultKind::AlreadyExists,
            Self::Port { .. }
            | Self::AlreadyRunning
            | Self::SlotTaken { .. }
            | Self::NetworkInUse(_)
            | Self::Busy(_) => FaultKind::InUse,
            Self::Folder(FolderError::Unsafe { .. })
            | Self::BridgeTaken { .. }
            | Self::NetworkTaken
            | Self::CgroupTaken(_)
            | Self::Plan(_)
            | Self::FakeRefused => FaultKind::Refused,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Port { .. } => Some("publish another port, or see who has it: ss -lntup"),
            Self::BridgeTaken { .. } => Some("delete that installation's VMs, or run banger in a network namespace"),
            Self::NetworkTaken => Some("stop that installation (banger daemon stop), or use a network namespace"),
            Self::CgroupTaken(_) => Some("move them to another cgroup: write their pids into its cgroup.procs"),
            Self::Plan(_) => Some("set [network] subnet to a free /24 in the configuration"),
            Self::DiskLost(_) => Some("make room, delete the VM and create it again"),
            Self::Missing("nft") => Some("apt-get install nftables"),
            Self::Missing(FIRECRACKER | JAILER) => {
                Some("install firecracker and jailer of one release in /usr/local/bin, or set vmm = \"qemu\"")
            }
            Self::Missing(_) => Some("apt-get install qemu-system-x86"),
            _ => None,
        }
    }
}

fn with_failures(fault: Fault, failures: &[HelperError]) -> Fault {
    failures.iter().fold(fault, |fault, failure| fault.cause(failure.line()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_with_failed_undos_tells_all_of_it() {
        let first = HelperError::Program { doing: "apply the rules".into(), said: "no".into() };
        let second = Err::<(), _>(io::Error::other("busy")).doing("remove cgroup x").expect_err("an error");
        let all = HelperError::Undone { source: Box::new(first), failures: vec![second] };
        assert_eq!(all.line(), "cannot apply the rules: no: cannot remove cgroup x: busy");
    }
}
