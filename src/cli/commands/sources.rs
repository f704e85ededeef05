//! Where images and kernels come from: the catalogue and the host's own files.

use std::io::Read;

use super::super::args::KernelImport;
use super::super::report::Failure;
use crate::host::paths::Paths;
use crate::model::{ImageName, KernelName};
use crate::protocol::{Fault, FaultKind};

/// A tar stream that is being made; whether it was made well is known at its end.
pub trait Build: Read + Send {
    /// Waits for the builder; its words when it failed.
    fn finish(self: Box<Self>) -> Result<(), Fault>;
}

/// A kernel that is being made.
pub struct KernelBuild {
    /// The stream.
    pub build: Box<dyn Build>,
    /// What `uname -r` says under it.
    pub release: String,
    /// Where it comes from, in words.
    pub source: String,
}

/// An image of the catalogue.
pub enum CatalogueImage {}

impl CatalogueImage {
    /// Starts its builder.
    pub fn start(&self, _paths: &Paths) -> Result<(Box<dyn Build>, String), Failure> {
        match *self {}
    }
}

/// A kernel of the catalogue.
pub enum CatalogueKernel {}

impl CatalogueKernel {
    /// Starts its builder.
    pub fn start(&self, _paths: &Paths) -> Result<KernelBuild, Failure> {
        match *self {}
    }
}

/// The catalogue's image `name`.
pub fn image(name: &ImageName) -> Result<CatalogueImage, Failure> {
    Err(Failure::new(FaultKind::NotFound, format!("image '{name}' not found")))
}

/// The catalogue's kernel `name`.
pub fn kernel(name: &KernelName) -> Result<CatalogueKernel, Failure> {
    Err(Failure::new(FaultKind::NotFound, format!("kernel '{name}' not found")))
}

/// The kernel that was asked for.
pub fn files_of(_asked: &KernelImport) -> Result<(KernelBuild, KernelName), Failure> {
    Err(Failure::new(FaultKind::Refused, "no kernel builder is in this build"))
}
