//! Builders: what the command line runs as the person who asked, giving a tar stream.
//!
//! They run other people's programs (mmdebstrap, apt-get, dpkg-deb, depmod) with the rights and the apt
//! configuration of whoever typed the command, so that the daemon needs neither. The stream is a
//! descriptor: it can be handed to the daemon as it is.

/// What of the host's apt configuration a foreign build needs.
mod apt;
/// Kernels that were downloaded.
mod bundle;
/// The image `debian-bookworm`.
mod debian_image;
/// Kernels: Debian's package, the host's own, files.
mod kernels;
/// What can be made of packages.
mod recipe;
/// Folders that go away.
mod scratch;
/// Running builds: their stream, their children, their last words.
mod stream;

pub use bundle::kernel_bundle;
pub use kernels::{KernelBuild, host_kernel, kernel_files};
pub use recipe::Recipe;
pub use stream::Build;

use std::path::PathBuf;

use super::ImageError;

/// The program, or the package that has it.
fn tool(program: &'static str, package: &'static str) -> Result<PathBuf, ImageError> {
    crate::host::facts::find_program(program).ok_or(ImageError::MissingTool { program, package })
}
