//! What people call an image: `python:3.12`, `ghcr.io/owner/name@sha256:…`, `localhost:5000/x`.
//!
//! The grammar is that of the distribution spec ("Pulling manifests") with the short forms that docker
//! made common: no registry means docker.io, and a single name there lies below `library/`.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;
use super::error::OciError;

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Most bytes of registry and repository together, as docker has it.
const MOST_NAME: usize = 255;
/// Most bytes of a tag (distribution spec).
const MOST_TAG: usize = 128;
/// Most bytes of it all: a name, a tag, a digest.
const MOST_TEXT: usize = MOST_NAME + 1 + MOST_TAG + 1 + 71;

/// A valid reference, written out: with registry, and with a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Most bytes of one that is written out.
    pub const MAX_BYTES: usize = MOST_TEXT;

    /// The registry as people write it, with its port if it has one: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in it: `library/python`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` when neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that pins it.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and port that the registry answers at.
    pub(super) fn authority(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { &self.registry }
    }

    /// What a manifest is asked for by; the digest wins, as everywhere.
    pub(super) fn wanted(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag()).unwrap_or("latest")
    }
}

impl FromStr for Reference {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        parse(text).map_err(|reason| OciError::Reference { text: text.chars().take(MOST_TEXT).collect(), reason })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.len() > MOST_TEXT {
        return Err("it is too long");
    }
    let (text, digest) = match text.split_once('@') {
        Some((name, digest)) => {
            let digest = digest.parse().map_err(|_| "after @ comes sha256: and 64 hexadecimal digits")?;
            (name, Some(digest))
        }
        None => (text, None),
    };
    let (registry, path) = split_registry(text);
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    check_registry(&registry)?;
    let repository = match registry.as_str() {
        DEFAULT_REGISTRY if !repository.contains('/') => format!("library/{repository}"),
        _ => repository.to_owned(),
    };
    check_repository(&repository)?;
    if registry.len() + 1 + repository.len() > MOST_NAME {
        return Err("its name is longer than 255 characters");
    }
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let tag = match (tag, &digest) {
        (None, None) => Some("latest"),
        (tag, _) => tag,
    };
    Ok(Reference { registry, repository, tag: tag.map(str::to_owned), digest })
}

/// The part before the first slash is a registry when it has a dot or a colon, or is `localhost`. Docker takes one
/// with a capital for one, too; written in small letters as hosts are, that would be a name of another registry.
fn split_registry(text: &str) -> (String, &str) {
    let looks_so = |first: &str| first.eq_ignore_ascii_case("localhost") || first.contains(['.', ':']);
    match text.split_once('/') {
        Some((first, rest)) if looks_so(first) => {
            let registry = first.to_ascii_lowercase();
            match registry.as_str() {
                "index.docker.io" | "registry-1.docker.io" => (DEFAULT_REGISTRY.to_owned(), rest),
                _ => (registry, rest),
            }
        }
        _ => (DEFAULT_REGISTRY.to_owned(), text),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    const WRONG: &str = "its registry is no host name or address";
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(WRONG)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| WRONG)?;
            (None, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(WRONG)?) })
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    let label = |label: &str| {
        let fine = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        fine && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    if host.is_some_and(|host| !host.split('.').all(label)) {
        return Err(WRONG);
    }
    match port {
        Some(port) if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().unwrap_or(0) == 0 => {
            Err("its port is no number from 1 to 65535")
        }
        _ => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository has no capitals");
    }
    if repository.split('/').all(is_component) {
        Ok(())
    } else {
        Err("a repository has lower-case letters and digits, between them '.', '_', '__' or '-', and '/'")
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let between = component.split(|c: char| c.is_ascii() && alphanumeric(c as u8)).filter(|s| !s.is_empty());
    let separator = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    alphanumeric(*first) && alphanumeric(*last) && between.into_iter().all(separator)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if tag.len() > MOST_TAG {
        return Err("its tag is longer than 128 characters");
    }
    let fine = tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    if fine { Ok(()) } else { Err("a tag has letters, digits, '_', '.' and '-', the last two not first") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_forms_are_written_out() {
        for (text, shown) in [
            ("python", "docker.io/library/python:latest"),
            ("python:3.12", "docker.io/library/python:3.12"),
            ("owner/name", "docker.io/owner/name:latest"),
            ("docker.io/python", "docker.io/library/python:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("localhost/x", "localhost/x:latest"),
            ("LocalHost/x", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("GHCR.io/o/n_m__k-l.p--q", "ghcr.io/o/n_m__k-l.p--q:latest"),
            ("registry.example/x:A_b.c-d", "registry.example/x:A_b.c-d"),
        ] {
            let parsed: Reference = text.parse().expect(text);
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(shown.parse::<Reference>().expect(shown), parsed);
        }
    }

    #[test]
    fn a_digest_pins_with_and_without_a_tag() {
        let pinned: Reference = format!("python@sha256:{HEX}").parse().expect("pinned");
        assert_eq!((pinned.tag(), pinned.wanted()), (None, format!("sha256:{HEX}").as_str()));
        let both: Reference = format!("python:3@sha256:{HEX}").parse().expect("pinned");
        assert_eq!(both.to_string(), format!("docker.io/library/python:3@sha256:{HEX}"));
        assert_eq!(both.authority(), "registry-1.docker.io");
    }

    #[test]
    fn what_is_no_reference_is_refused_with_a_reason() {
        let long = "a".repeat(256);
        for (text, why) in [
            ("", "lower-case"),
            ("Python", "capitals"),
            ("GHCR/x", "capitals"),
            ("a//b", "lower-case"),
            ("a/", "lower-case"),
            ("/a", "lower-case"),
            ("a/../b", "lower-case"),
            ("a/..", "lower-case"),
            ("a___b", "lower-case"),
            ("-a", "lower-case"),
            ("a b", "lower-case"),
            ("é", "lower-case"),
            ("a:", "tag"),
            ("a:-b", "tag"),
            ("a:b/c", "port"),
            ("host.example:0/a", "port"),
            ("host.example:99999/a", "port"),
            ("host..example/a", "registry"),
            ("user@host.example/a", "sha256"),
            ("a@sha256:12", "sha256"),
            ("http://host.example/a", "port"),
            ("[::1/a", "registry"),
            (&long, "255"),
            (&format!("a:{}", "b".repeat(129)), "128"),
        ] {
            let error = text.parse::<Reference>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
