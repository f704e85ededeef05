//! Which machine monitor runs a VM, on what, and why.

use std::fmt;

/// A virtual machine monitor that banger can drive.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum VmmKind {
    /// Firecracker through its jailer.
    Firecracker,
    /// QEMU's microvm machine.
    Qemu,
    /// A monitor that boots at once and can be told to fail; for tests.
    Fake,
}

/// What executes the guest's instructions.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The CPU, through `/dev/kvm`.
    Kvm,
    /// QEMU's software emulation.
    Tcg,
}

impl VmmKind {
    /// Most virtual CPUs of its machines (Firecracker's `MAX_SUPPORTED_VCPUS`).
    pub fn max_vcpus(self) -> u8 {
        match self {
            Self::Firecracker => 32,
            Self::Qemu | Self::Fake => super::VmSpec::MAX_VCPUS,
        }
    }

    /// The name used in configuration and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::Qemu => "qemu",
            Self::Fake => "fake",
        }
    }
}

impl Accel {
    /// The name used in configuration and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The monitor chosen for new VMs.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct VmmChoice {
    /// The monitor.
    pub kind: VmmKind,
    /// What it runs on.
    pub accel: Accel,
    /// Why, in one line for people.
    pub reason: String,
}

impl fmt::Display for VmmChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.accel.as_str())
    }
}
