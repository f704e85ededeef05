//! For which machine an image is made.

use std::fmt;
use std::str::FromStr;

use super::error::OciError;
use super::manifest::Descriptor;

/// `linux/amd64`, `linux/arm64/v8`: architectures as Go calls them (OCI image spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub(super) os: String,
    pub(super) architecture: String,
    pub(super) variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn of_this_machine() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// As registries call it.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Names that mean the same become one; the variant that every machine of an architecture has is none.
    pub(super) fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "x86" | "i386" => "386",
            other => other,
        };
        let variant = match (architecture, variant.filter(|v| !v.is_empty())) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) => None,
            ("arm", None) => Some("v7"),
            (_, variant) => variant,
        };
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// The one manifest of an index that is made for this platform; the first, where there are several.
    pub(super) fn choose<'a>(&self, index: &'a [Descriptor]) -> Result<&'a Descriptor, OciError> {
        // What buildx attaches about an image (attestations) is listed like one, for no platform.
        let images: Vec<_> = index.iter().filter(|d| !d.is_attestation()).collect();
        let fits = |d: &&&Descriptor| d.platform.as_ref().is_none_or(|p| p == self);
        let stated = images.iter().find(|d| d.platform.as_ref() == Some(self));
        if let Some(found) = stated.or_else(|| images.iter().find(|d| images.len() == 1 && fits(d))) {
            return Ok(found);
        }
        let name = |d: &&Descriptor| match &d.platform {
            Some(platform) => platform.to_string(),
            None => d.digest.to_string(),
        };
        let mut there: Vec<String> = images.iter().map(name).take(64).collect();
        there.dedup();
        let there = if there.is_empty() { "no image at all".to_owned() } else { there.join(", ") };
        Err(OciError::NoPlatform { wanted: self.to_string(), there })
    }
}

impl FromStr for Platform {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let word = |w: &&str| {
            (1..=32).contains(&w.len()) && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            ["linux", architecture] if word(architecture) => Ok(Self::new("linux", architecture, None)),
            ["linux", architecture, variant] if word(architecture) && word(variant) => {
                Ok(Self::new("linux", architecture, Some(variant)))
            }
            _ => Err(OciError::Platform(text.chars().take(100).collect())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oci::Digest;

    fn entry(platform: Option<&str>) -> Descriptor {
        let platform = platform.map(|text| {
            let (os, rest) = text.split_once('/').expect("a slash");
            let (architecture, variant) = rest.split_once('/').map_or((rest, None), |(a, v)| (a, Some(v)));
            Platform::new(os, architecture, variant)
        });
        Descriptor { digest: Digest::of(b""), size: 1, platform, name: None, attestation: false }
    }

    #[test]
    fn names_that_mean_the_same_are_one() {
        let parsed = |text: &str| text.parse::<Platform>().expect(text);
        assert_eq!(parsed("linux/arm64/v8"), parsed("linux/aarch64"));
        assert_eq!(parsed("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(parsed("linux/arm").to_string(), "linux/arm/v7");
        for bad in ["", "linux", "linux/", "windows/amd64", "linux/amd64/v2/x", "linux/AMD64", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn attestations_are_no_images_and_what_there_is_is_listed() {
        let index = [entry(Some("unknown/unknown")), entry(Some("linux/arm64/v8")), entry(Some("windows/amd64"))];
        let choose = |text: &str| text.parse::<Platform>().expect(text).choose(&index).map(|d| d.platform.clone());
        assert_eq!(choose("linux/arm64").expect("there"), index[1].platform);
        let error = choose("linux/amd64").expect_err("not there").to_string();
        assert_eq!(error, "there is no linux/amd64 in it: it has linux/arm64, windows/amd64");
    }

    #[test]
    fn one_image_without_a_platform_is_taken() {
        let wanted = Platform::of_this_machine();
        assert!(wanted.choose(&[entry(None)]).is_ok());
        assert!(wanted.choose(&[entry(None), entry(None)]).is_err());
        assert!(wanted.choose(&[]).expect_err("empty").to_string().contains("no image at all"));
    }
}
