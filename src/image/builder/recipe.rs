//! What can be made of a distribution's packages, by name.

use std::fmt;
use std::path::Path;

use super::super::ImageError;
use super::stream::Build;
use super::{KernelBuild, debian_image, kernels};

/// How to make an image or a kernel here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// Debian 12.
    DebianBookworm,
}

impl Recipe {
    /// Whether its image can be made on this host; what is missing.
    pub fn check_image(self) -> Result<(), ImageError> {
        match self {
            Self::DebianBookworm => debian_image::check().map(drop),
        }
    }

    /// Starts making its image.
    pub fn image(self) -> Result<Build, ImageError> {
        match self {
            Self::DebianBookworm => debian_image::debian_image(),
        }
    }

    /// Whether its kernel can be made on this host; what is missing.
    pub fn check_kernel(self) -> Result<(), ImageError> {
        match self {
            Self::DebianBookworm => kernels::check_debian(),
        }
    }

    /// Makes its kernel below the folder `cache`.
    pub fn kernel(self, cache: &Path) -> Result<KernelBuild, ImageError> {
        match self {
            Self::DebianBookworm => kernels::debian_kernel(cache),
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DebianBookworm => "debian-bookworm",
        })
    }
}
