//! What can be pulled by name, and from where: a file in this binary, and files on the host that add to it.
//!
//! Nothing here asks a server: an entry says where its sources are, the caller tries one after the other.
//! `CATALOGUE.md` in the folder above says what a file looks like.

/// TOML → entries.
mod parse;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::config::ConfigError;
use crate::model::{ImageName, KernelName};
use crate::os::files::read_limited;

use super::builder::Recipe;
use super::oci::{Bundle, Platform, Reference};

/// Most bytes of a file.
const MAX_BYTES: u64 = 1 << 20;
/// What every binary knows.
const EMBEDDED: &str = include_str!("catalogue.toml");

/// A catalogue was refused.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The file is there and cannot be read, or is too large.
    #[error("cannot read the catalogue")]
    Unreadable(#[from] io::Error),
    /// The file is wrong; the message names it and the line.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
}

/// Everything that can be pulled by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    images: Vec<Entry<ImageName>>,
    kernels: Vec<Entry<KernelName>>,
}

/// One image or kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<Name> {
    /// Its name.
    pub name: Name,
    /// What it is, in one line.
    pub description: String,
    /// What it takes on the disk, roughly, in bytes.
    pub approximate_bytes: u64,
    /// Where it can be had, best first.
    sources: Vec<Offer>,
}

/// A source and the architectures that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    source: Source,
    /// As registries call them (`amd64`); empty: all.
    architectures: Vec<String>,
}

/// Where an image or a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of a web server: an archive of an image, or a kernel.
    Bundle {
        /// Where and what it is.
        bundle: Bundle,
        /// What `uname -r` says under a kernel whose file does not say so itself.
        release: Option<String>,
    },
    /// An image of a registry.
    Oci(Reference),
    /// Made here, of a distribution's packages.
    Packages(Recipe),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle { bundle, .. } => write!(f, "bundle {bundle}"),
            Self::Oci(reference) => write!(f, "registry {reference}"),
            Self::Packages(recipe) => write!(f, "packages {recipe}"),
        }
    }
}

impl Catalogue {
    /// What this binary knows, with what `files` add, in their order; one that is missing adds nothing. An entry
    /// replaces that of the same name in an earlier file.
    pub fn load(files: &[PathBuf]) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::embedded()?;
        for path in files {
            match read_limited(path, MAX_BYTES) {
                Ok(bytes) => catalogue.add(parse::parse(path, &String::from_utf8_lossy(&bytes))?),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(catalogue)
    }

    fn embedded() -> Result<Self, CatalogueError> {
        Ok(parse::parse(Path::new("the catalogue of this binary"), EMBEDDED)?)
    }

    fn add(&mut self, later: Self) {
        replace(&mut self.images, later.images);
        replace(&mut self.kernels, later.kernels);
    }

    /// All images, by name.
    pub fn images(&self) -> &[Entry<ImageName>] {
        &self.images
    }

    /// All kernels, by name.
    pub fn kernels(&self) -> &[Entry<KernelName>] {
        &self.kernels
    }
}

fn replace<Name: Ord>(entries: &mut Vec<Entry<Name>>, later: Vec<Entry<Name>>) {
    entries.retain(|entry| later.iter().all(|other| other.name != entry.name));
    entries.extend(later);
    entries.sort_by(|a, b| a.name.cmp(&b.name));
}

impl<Name> Entry<Name> {
    /// The sources for this machine, best first.
    pub fn sources(&self) -> Vec<&Source> {
        self.sources_for(Platform::of_this_machine().architecture())
    }

    fn sources_for(&self, architecture: &str) -> Vec<&Source> {
        let fits =
            |offer: &&Offer| offer.architectures.is_empty() || offer.architectures.iter().any(|a| a == architecture);
        self.sources.iter().filter(fits).map(|offer| &offer.source).collect()
    }
}
