//! What one boot of one VM needs: the typed specification that the daemon hands to the helper.
//!
//! Files are not in here. They travel beside it as open descriptors, in the order that
//! [`Launch::files`] gives.

use std::fmt;
use std::str::FromStr;

use super::choice::{Accel, VmmKind};
use super::{Mib, checked_string_codec};

/// Says in the kernel's arguments that a monitor ends when the guest resets, and only then: a guest
/// that powers off would halt for ever.
pub const RESET_ENDS: &str = "banger.end=reset";

/// Extra kernel arguments: printable ASCII, at most 1024 bytes (x86 takes 2048 in all,
/// `COMMAND_LINE_SIZE` in arch/x86/include/asm/setup.h).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelArgs(String);

/// Kernel arguments were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelArgsError {
    /// More than 1024 bytes.
    #[error("kernel arguments have {0} bytes; at most {max} are possible", max = KernelArgs::MAX)]
    TooLong(usize),
    /// A control or non-ASCII character.
    #[error("kernel arguments contain {0:?}; only printable ASCII is possible")]
    Character(char),
}

impl KernelArgs {
    /// Most bytes.
    pub const MAX: usize = 1024;

    /// The arguments as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KernelArgs {
    type Err = KernelArgsError;
    fn from_str(text: &str) -> Result<Self, KernelArgsError> {
        if text.len() > Self::MAX {
            return Err(KernelArgsError::TooLong(text.len()));
        }
        match text.chars().find(|c| !matches!(c, ' '..='~')) {
            Some(bad) => Err(KernelArgsError::Character(bad)),
            None => Ok(Self(text.trim().to_owned())),
        }
    }
}

impl fmt::Display for KernelArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
checked_string_codec!(KernelArgs);

/// One boot, by monitor.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Launch {
    /// QEMU's microvm machine.
    Qemu(QemuLaunch),
    /// The monitor of the tests.
    Fake(FakeLaunch),
    /// Firecracker, through its jailer.
    Firecracker(JailLaunch),
}

impl Launch {
    /// The monitor.
    pub fn kind(&self) -> VmmKind {
        match self {
            Self::Qemu(_) => VmmKind::Qemu,
            Self::Fake(_) => VmmKind::Fake,
            Self::Firecracker(_) => VmmKind::Firecracker,
        }
    }

    /// The descriptors that travel with it, in their order.
    pub fn files(&self) -> Vec<LaunchFile> {
        use LaunchFile::{Console, ConsoleMarks, Disk, Image, Initramfs, Kernel, Modules};
        let (mut files, modules_drive) = match self {
            Self::Qemu(q) => (vec![Kernel, Initramfs, Console, ConsoleMarks, Disk, Image], q.modules_drive),
            Self::Fake(FakeLaunch { jail: None, .. }) => (vec![Console, ConsoleMarks], false),
            Self::Firecracker(jail) | Self::Fake(FakeLaunch { jail: Some(jail), .. }) => {
                (vec![Kernel, Initramfs, Console, ConsoleMarks, jail.disk.file()], jail.modules_drive)
            }
        };
        files.extend(modules_drive.then_some(Modules));
        files
    }

    /// What is staged in a jail, for a monitor that runs in one.
    pub fn jail(&self) -> Option<&JailLaunch> {
        match self {
            Self::Qemu(_) => None,
            Self::Fake(fake) => fake.jail.as_ref(),
            Self::Firecracker(jail) => Some(jail),
        }
    }

    /// Virtual CPUs, for the cgroup's limit.
    pub fn vcpus(&self) -> u8 {
        match self {
            Self::Qemu(q) => q.vcpus,
            Self::Fake(_) => 1,
            Self::Firecracker(jail) => jail.vcpus,
        }
    }

    /// Memory of the guest, for the cgroup's limit.
    pub fn memory(&self) -> Mib {
        match self {
            Self::Qemu(q) => q.memory,
            Self::Fake(_) => Mib(64),
            Self::Firecracker(jail) => jail.memory,
        }
    }
}

/// What a descriptor is to the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchFile {
    /// Uncompressed ELF kernel, read only.
    Kernel,
    /// Initramfs with the identity appended, read only.
    Initramfs,
    /// The serial console's log, read and write, owned by the VM's owner.
    Console,
    /// When what stands in that log has come, read and write, owned by the VM's owner.
    ConsoleMarks,
    /// The VM's own disk (a qcow2 overlay, or a whole raw disk), read and write.
    Disk,
    /// The image under the VM's disk, read only.
    Image,
    /// The drive with the kernel's modules, read only.
    Modules,
}

/// One boot on QEMU.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct QemuLaunch {
    /// What executes the guest.
    pub accel: Accel,
    /// Virtual CPUs, `1..=64`.
    pub vcpus: u8,
    /// The guest's memory.
    pub memory: Mib,
    /// Arguments beside banger's own.
    pub boot_args: KernelArgs,
    /// Whether [`LaunchFile::Modules`] travels along.
    pub modules_drive: bool,
}

/// One boot in a jail.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct JailLaunch {
    /// Virtual CPUs, `1..=32`.
    pub vcpus: u8,
    /// The guest's memory.
    pub memory: Mib,
    /// Its root disk.
    pub disk: JailDisk,
    /// Whether [`LaunchFile::Modules`] travels along.
    pub modules_drive: bool,
}

/// What the root disk of a VM in a jail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum JailDisk {
    /// A raw file of the owner's: [`LaunchFile::Disk`] travels along.
    Whole,
    /// A device-mapper snapshot that the helper keeps: [`LaunchFile::Image`] travels along.
    Snapshot {
        /// What the guest sees.
        size: Mib,
    },
}

impl JailDisk {
    fn file(self) -> LaunchFile {
        match self {
            Self::Whole => LaunchFile::Disk,
            Self::Snapshot { .. } => LaunchFile::Image,
        }
    }
}

/// One boot of the monitor of the tests: how it shall behave.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct FakeLaunch {
    /// Where it shall fail, if it shall.
    pub fail: Option<FakeFailure>,
    /// What is staged in a jail for it, as for Firecracker; without, it is run as QEMU is.
    pub jail: Option<JailLaunch>,
}

/// How the monitor of the tests can be told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum FakeFailure {
    /// Exits before its control socket answers.
    AtSpawn,
    /// Runs, but the guest never says hello.
    SilentGuest,
    /// Says hello and exits at once.
    AfterHello,
    /// Ignores shutdown and power button: only a kill ends it.
    IgnoresShutdown,
}

impl FromStr for FakeFailure {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "at-spawn" => Ok(Self::AtSpawn),
            "silent-guest" => Ok(Self::SilentGuest),
            "after-hello" => Ok(Self::AfterHello),
            "ignores-shutdown" => Ok(Self::IgnoresShutdown),
            other => Err(format!("{other:?} is not a failure of the fake monitor")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_arguments_are_printable_ascii() {
        assert_eq!(" a=b  c ".parse::<KernelArgs>().map(|a| a.to_string()), Ok("a=b  c".into()));
        for bad in ["a\nb", "a\0", "ä", &"x".repeat(1025)] {
            assert!(bad.parse::<KernelArgs>().is_err(), "{bad:?}");
        }
    }
}
