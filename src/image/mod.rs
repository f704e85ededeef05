//! Image building blocks: trees become ext4 files, kernel packages become things that boot.
//!
//! Streams come in as [`std::io::Read`], files go out; nothing here needs root, mounts anything or
//! unpacks to a folder. Everything read is taken for hostile: names are contained, sizes are limited
//! while streaming, a result has its name only once it is whole. Blocking; the caller picks the thread.
//! What runs other people's builders (`mmdebstrap`, `apt-get`) is [`builder`], used by the command
//! line alone.

/// newc archives (initramfs).
mod archive;
/// Builders: run by the command line, as the person who asked, giving a tar stream.
pub mod builder;
/// What can be pulled by name.
pub mod catalogue;
/// Decompressors, by content.
mod decompress;
/// Trees → ext4.
mod ext4;
/// The initramfs of one VM.
mod initramfs;
/// tar stream → kernel folder.
mod kernel;
/// Several archives in one stream.
mod layers;
/// A stream that is counted, hashed and can be cancelled.
mod meter;
/// Which modules a guest needs, in which order.
mod modules;
/// Images of registries and archives.
pub mod oci;
/// tar streams → ext4 file.
mod rootfs;
/// Archives, entry by entry.
mod tar_entries;
/// Names in archives.
mod tar_name;
/// Headers of archives.
mod tar_reader;
/// Sparse files in archives.
mod tar_sparse;
/// Names, owners, modes and links, layer over layer.
mod tree;
/// Compressed kernel → ELF.
mod vmlinux;

/// Hostile archives, and what e2fsprogs says of the results.
#[cfg(test)]
mod tests;

pub use initramfs::write_initramfs;
pub use kernel::{ImportedKernel, import_kernel};
pub use layers::LayerWriter;
pub use rootfs::{Ext4Options, Written, layers_to_ext4, tar_to_ext4};
pub use vmlinux::extract_vmlinux;

/// Told the bytes consumed so far; its error cancels.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> Result<(), Cancelled>;

/// Whoever asked does not want it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// What can go wrong with images and kernels.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The stream could not be read or is no archive.
    #[error("cannot read the archive")]
    Stream(#[source] std::io::Error),
    /// The stream stopped before its end marker.
    #[error("the archive stops after {0} bytes, before its end marker: it was cut off")]
    Truncated(u64),
    /// One entry was refused.
    #[error("refused entry `{name}` of the archive: {reason}")]
    Entry {
        /// The entry's name, escaped.
        name: String,
        /// Why.
        reason: String,
    },
    /// More than the limits allow.
    #[error("the archive holds more than {limit} {what}: refused")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
    },
    /// The content does not fit the size that was asked for.
    #[error("the content needs at least {needs}, more than the {size} asked for: give a larger --size")]
    TooSmall {
        /// What was asked for.
        size: crate::model::Mib,
        /// What is needed.
        needs: crate::model::Mib,
    },
    /// A file of ours; the message names it.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// A program is missing.
    #[error("`{program}` is not installed: apt-get install {package}")]
    MissingTool {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("`{program}` failed ({status}): {output}")]
    Tool {
        /// The program.
        program: String,
        /// Exit status in words.
        status: String,
        /// Its last lines.
        output: String,
    },
    /// Not a kernel that can be booted here.
    #[error("not a bootable kernel: {0}")]
    NotAKernel(String),
    /// A module set without what a guest needs.
    #[error("the kernel's modules are of no use: {0}")]
    Modules(String),
    /// A release name that is no folder name.
    #[error("{0:?} is not a kernel release: letters, digits, '.', '_', '+', '~' and '-' are expected")]
    Release(String),
    /// Nothing to build from on this machine.
    #[error("{0}")]
    Unavailable(String),
}
