//! What a user asked for.

use super::egress::{Egress, GrantError, Passage};
use super::environment::{Variable, VariableError};
use super::publish::{PublishError, PublishedPort};
use super::secret::{Secret, SecretError};
use super::{IdleStop, ImageName, KernelName, Mib, TimeSpan, VmName};

/// Who is pid 1 in the guest once the root disk is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitMode {
    /// The image's own init (systemd and others).
    Image,
    /// banger's small one: reaps, and shuts down cleanly.
    Minimal,
}

impl std::str::FromStr for InitMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "image" => Ok(Self::Image),
            "minimal" => Ok(Self::Minimal),
            other => Err(format!("{other:?} is not an init: write image or minimal")),
        }
    }
}

/// A VM as asked for, complete: defaults are filled in by whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct VmSpec {
    /// The VM's name, unique among the owner's VMs.
    pub name: VmName,
    /// The image its root disk is copied on write from.
    pub image: ImageName,
    /// The kernel it boots.
    pub kernel: KernelName,
    /// Virtual CPUs, `1..=64`.
    pub vcpus: u8,
    /// Memory, at least [`VmSpec::MIN_MEMORY`].
    pub memory: Mib,
    /// Size of the root disk, at least the image's.
    pub disk: Mib,
    /// `None`: what the image's metadata says.
    pub init: Option<InitMode>,
    /// Where its guest may go.
    pub egress: Egress,
    /// Ports of the host that lead into it, at most [`PublishedPort::MAX`].
    pub ports: Vec<PublishedPort>,
    /// Secrets that stand in its environment by placeholders, at most [`Secret::MAX`].
    pub secrets: Vec<Secret>,
    /// Variables of everything that is run in it, at most [`Variable::MAX_BYTES`] together.
    pub environment: Vec<Variable>,
    /// It is stopped once it was idle for so long, at least [`IdleStop::LEAST`].
    pub idle_stop: Option<TimeSpan>,
}

/// Why a specification was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Outside `1..=64`.
    #[error("{0} vCPUs: between 1 and {max} are possible", max = VmSpec::MAX_VCPUS)]
    Vcpus(u8),
    /// Too little or too much memory.
    #[error("memory of {0}: between {min} and {max} is possible", min = VmSpec::MIN_MEMORY, max = VmSpec::MAX_MEMORY)]
    Memory(Mib),
    /// Too small or too large a disk.
    #[error("disk of {0}: between {min} and {max} is possible", min = VmSpec::MIN_DISK, max = VmSpec::MAX_DISK)]
    Disk(Mib),
    /// More destinations than possible.
    #[error(transparent)]
    Egress(#[from] GrantError),
    /// Ports that cannot be published together.
    #[error(transparent)]
    Ports(#[from] PublishError),
    /// Secrets that cannot be together.
    #[error(transparent)]
    Secrets(#[from] SecretError),
    /// Variables that cannot be together.
    #[error(transparent)]
    Environment(#[from] VariableError),
    /// Too short to tell idleness from a pause.
    #[error("an idle stop after {0}: at least {least} is possible", least = IdleStop::LEAST)]
    IdleStop(TimeSpan),
    /// Smaller than it is.
    #[error("disk of {disk}: it has {has}, and a disk only grows")]
    DiskShrinks {
        /// What was asked for.
        disk: Mib,
        /// What it has.
        has: Mib,
    },
    /// Smaller than its image.
    #[error("disk of {disk} is smaller than its image `{image}` ({needs})")]
    DiskBelowImage {
        /// What was asked for.
        disk: Mib,
        /// The image.
        image: ImageName,
        /// The image's size.
        needs: Mib,
    },
}

impl VmSpec {
    /// Most virtual CPUs of a VM.
    pub const MAX_VCPUS: u8 = 64;
    /// Least memory: a distribution kernel and the initramfs do not fit below it.
    pub const MIN_MEMORY: Mib = Mib(128);
    /// Most memory.
    pub const MAX_MEMORY: Mib = Mib(1 << 20);
    /// Least disk.
    pub const MIN_DISK: Mib = Mib(64);
    /// Most disk: 16 TiB, what ext4 with 4 KiB blocks and 32-bit block numbers addresses.
    pub const MAX_DISK: Mib = Mib((1 << 24) - 1);

    /// Checks everything that can be known without looking at the machine.
    pub fn check(&self) -> Result<(), SpecError> {
        if !(1..=Self::MAX_VCPUS).contains(&self.vcpus) {
            return Err(SpecError::Vcpus(self.vcpus));
        }
        if !(Self::MIN_MEMORY..=Self::MAX_MEMORY).contains(&self.memory) {
            return Err(SpecError::Memory(self.memory));
        }
        if !(Self::MIN_DISK..=Self::MAX_DISK).contains(&self.disk) {
            return Err(SpecError::Disk(self.disk));
        }
        if let Some(short) = self.idle_stop.filter(|span| *span < IdleStop::LEAST) {
            return Err(SpecError::IdleStop(short));
        }
        self.egress.check()?;
        Secret::check_all(&self.secrets)?;
        Secret::check_beside(&self.secrets, &self.egress)?;
        Variable::check_all(&self.environment, &self.secrets)?;
        Ok(PublishedPort::check_all(&self.ports)?)
    }

    /// What the helper has to know of where its guest may go.
    pub fn passage(&self) -> Passage {
        let mut diverted: Vec<u16> = Secret::hosts_of(&self.secrets).iter().map(|host| host.port()).collect();
        diverted.sort_unstable();
        diverted.dedup();
        Passage { diverted, ..self.egress.passage() }
    }

    /// Checks whether a VM that is like this can become like `wanted`.
    pub fn check_change(&self, wanted: &Self) -> Result<(), SpecError> {
        wanted.check()?;
        if wanted.disk < self.disk {
            return Err(SpecError::DiskShrinks { disk: wanted.disk, has: self.disk });
        }
        Ok(())
    }

    /// Checks the disk against the image's size.
    pub fn check_against_image(&self, image: Mib) -> Result<(), SpecError> {
        if self.disk < image {
            return Err(SpecError::DiskBelowImage { disk: self.disk, image: self.image.clone(), needs: image });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            name: "box".parse().expect("a name"),
            image: "debian".parse().expect("a name"),
            kernel: "debian".parse().expect("a name"),
            vcpus: 2,
            memory: Mib(512),
            disk: Mib(4096),
            init: None,
            egress: Egress::default(),
            ports: Vec::new(),
            secrets: Vec::new(),
            environment: Vec::new(),
            idle_stop: None,
        }
    }

    #[test]
    fn refuses_no_cpus_little_memory_and_a_tiny_disk() {
        assert_eq!(spec().check(), Ok(()));
        assert_eq!(VmSpec { vcpus: 0, ..spec() }.check(), Err(SpecError::Vcpus(0)));
        assert_eq!(VmSpec { memory: Mib(1), ..spec() }.check(), Err(SpecError::Memory(Mib(1))));
        assert_eq!(VmSpec { disk: Mib(1), ..spec() }.check(), Err(SpecError::Disk(Mib(1))));
    }

    #[test]
    fn idleness_takes_a_while() {
        let after = |text: &str| VmSpec { idle_stop: text.parse().ok(), ..spec() }.check();
        assert_eq!((after("10s"), after("30m")), (Ok(()), Ok(())));
        assert_eq!(after("9s").expect_err("refused").to_string(), "an idle stop after 9s: at least 10s is possible");
    }

    #[test]
    fn a_disk_only_grows_and_the_rest_is_checked_as_ever() {
        assert_eq!(spec().check_change(&VmSpec { disk: Mib(8192), memory: Mib(256), ..spec() }), Ok(()));
        let shrunk = spec().check_change(&VmSpec { disk: Mib(2048), ..spec() }).expect_err("refused");
        assert_eq!(shrunk.to_string(), "disk of 2 GiB: it has 4 GiB, and a disk only grows");
        assert_eq!(spec().check_change(&VmSpec { vcpus: 0, ..spec() }), Err(SpecError::Vcpus(0)));
    }

    #[test]
    fn refuses_a_disk_below_its_image() {
        assert!(spec().check_against_image(Mib(4096)).is_ok());
        assert!(spec().check_against_image(Mib(4097)).is_err());
    }
}
