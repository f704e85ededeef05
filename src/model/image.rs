//! What is known of images and kernels.

use super::launch::KernelArgs;
use super::{ImageName, InitMode, KernelName, Mib};

/// An image: one raw, sparse ext4 file, never written after it was made.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ImageRecord {
    /// Its local name.
    pub name: ImageName,
    /// Size of the filesystem.
    pub size: Mib,
    /// Bytes it takes on the host's disk.
    pub used_bytes: u64,
    /// `sha256:` and 64 hexadecimal digits of the file system tree as it was imported (the tar
    /// stream), for provenance.
    pub digest: String,
    /// Where it came from, in words.
    pub source: String,
    /// Which init its VMs get unless asked otherwise.
    pub init: InitMode,
    /// Unix seconds.
    pub created_at: u64,
}

/// A kernel: an uncompressed ELF `vmlinux`, the modules its devices need, and a drive with the rest.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct KernelRecord {
    /// Its local name.
    pub name: KernelName,
    /// What `uname -r` says under it; names the folder below `/lib/modules`. Empty without modules.
    pub release: String,
    /// Arguments beside banger's own.
    pub boot_args: KernelArgs,
    /// True when a drive of all its modules was made.
    pub has_modules_drive: bool,
    /// Bytes all its files take on the host's disk.
    pub used_bytes: u64,
    /// Where it came from, in words.
    pub source: String,
    /// Unix seconds.
    pub created_at: u64,
}

/// How an image wants its programs run (OCI image spec, config.md, "config").
#[derive(Debug, Clone, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ImageConfig {
    /// `NAME=VALUE`, in the image's order.
    pub env: Vec<String>,
    /// What stands before the command.
    pub entrypoint: Vec<String>,
    /// The command, or what follows the entry point.
    pub cmd: Vec<String>,
    /// The folder that they begin in; empty for the root.
    pub folder: String,
    /// `USER[:GROUP]`, names or numbers; empty for root.
    pub user: String,
}
