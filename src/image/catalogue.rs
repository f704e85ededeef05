//! What can be pulled by name, without any registry.

use crate::model::{ImageName, KernelName};

/// An image that a builder makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueImage {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// What it takes on the disk, roughly, in bytes.
    pub approximate_bytes: u64,
}

/// A kernel that a builder fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueKernel {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// What it takes on the disk, roughly, in bytes.
    pub approximate_bytes: u64,
}

/// All images.
pub const IMAGES: &[CatalogueImage] = &[CatalogueImage {
    name: "debian-bookworm",
    description: "Debian 12 with systemd, ssh, git and curl, made of Debian's packages by mmdebstrap",
    approximate_bytes: 290 << 20,
}];

/// All kernels.
pub const KERNELS: &[CatalogueKernel] = &[CatalogueKernel {
    name: "debian-bookworm",
    description: "Debian 12's kernel for virtual machines, with all its modules",
    approximate_bytes: 155 << 20,
}];

/// The image called `name`.
pub fn image(name: &ImageName) -> Option<&'static CatalogueImage> {
    IMAGES.iter().find(|image| image.name == name.as_str())
}

/// The kernel called `name`.
pub fn kernel(name: &KernelName) -> Option<&'static CatalogueKernel> {
    KERNELS.iter().find(|kernel| kernel.name == name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_valid_and_found() {
        for entry in IMAGES {
            assert_eq!(image(&entry.name.parse().expect("valid")), Some(entry));
        }
        for entry in KERNELS {
            assert_eq!(kernel(&entry.name.parse().expect("valid")), Some(entry));
        }
        assert_eq!(image(&"nothing".parse().expect("valid")), None);
    }
}
