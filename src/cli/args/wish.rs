//! What people call an image: a name here or in the catalogue, a reference of a registry, an archive.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::image::oci::{Digest, OciError, Reference};
use crate::model::ImageName;

/// `--image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageWish {
    /// One that is here, or in the catalogue.
    Name(ImageName),
    /// One that is here, provided that it was made of this.
    Pinned(ImageName, Digest),
    /// One of a registry. A word alone is none: `alpine` is a name, `alpine:latest` a reference.
    Reference(Reference),
}

impl FromStr for ImageWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(name) = text.parse() {
            return Ok(Self::Name(name));
        }
        if let Some((name, digest)) = text.split_once('@')
            && let (Ok(name), Ok(digest)) = (name.parse(), digest.parse())
        {
            return Ok(Self::Pinned(name, digest));
        }
        text.parse().map(Self::Reference).map_err(|e: OciError| e.to_string())
    }
}

impl fmt::Display for ImageWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Pinned(name, digest) => write!(f, "{name}@{digest}"),
            Self::Reference(reference) => write!(f, "{reference}"),
        }
    }
}

/// What `image pull` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullSource {
    /// A name or a reference.
    Image(ImageWish),
    /// `oci-archive:FILE`; none: standard input.
    OciArchive(Option<PathBuf>),
    /// `docker-archive:FILE`, or `-`: standard input.
    DockerArchive(Option<PathBuf>),
}

impl FromStr for PullSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let file = |path: &str| (path != "-").then(|| PathBuf::from(path));
        let refuse = |path: &str| path.is_empty().then(|| "a file is missing behind the colon".to_owned());
        match text.split_once(':') {
            None if text == "-" => Ok(Self::DockerArchive(None)),
            Some(("oci-archive", path)) => refuse(path).map_or_else(|| Ok(Self::OciArchive(file(path))), Err),
            Some(("docker-archive", path)) => refuse(path).map_or_else(|| Ok(Self::DockerArchive(file(path))), Err),
            _ => text.parse().map(Self::Image),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_name_and_what_has_a_tag_or_a_path_is_a_reference() {
        let wish = |text: &str| text.parse::<ImageWish>().expect(text);
        let digest = format!("sha256:{}", "a".repeat(64));
        assert!(matches!(wish("debian-bookworm"), ImageWish::Name(_)));
        assert!(matches!(wish(&format!("box@{digest}")), ImageWish::Pinned(..)));
        for reference in ["python:3.12", "localhost:5000/x", "ghcr.io/a/b", &format!("a/b@{digest}")] {
            assert!(matches!(wish(reference), ImageWish::Reference(_)), "{reference}");
        }
        for bad in ["", "A B", "x:", "x@sha256:1"] {
            assert!(bad.parse::<ImageWish>().is_err(), "{bad}");
        }
    }

    #[test]
    fn archives_are_told_by_what_stands_before_them() {
        let source = |text: &str| text.parse::<PullSource>().expect(text);
        assert_eq!(source("-"), PullSource::DockerArchive(None));
        assert_eq!(source("docker-archive:a:b"), PullSource::DockerArchive(Some("a:b".into())));
        assert_eq!(source("oci-archive:-"), PullSource::OciArchive(None));
        assert!(matches!(source("python:3.12"), PullSource::Image(ImageWish::Reference(_))));
        assert!("oci-archive:".parse::<PullSource>().is_err());
    }
}
