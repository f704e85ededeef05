//! `catalogue.toml` → entries, checked as a whole: what is unknown, missing or given twice is an error with its line.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

use crate::host::config::ConfigError;

use super::super::builder::Recipe;
use super::super::kernel::check_release;
use super::super::oci::{Bundle, Digest};
use super::{Catalogue, Entry, Offer, Source};

/// The form of file that this build reads.
const VERSION: i64 = 1;
/// Most entries of a kind in one file.
const MOST_ENTRIES: usize = 1024;
/// Most sources of one entry.
const MOST_SOURCES: usize = 16;
/// Most characters of a description.
const MOST_DESCRIPTION: usize = 200;

/// What is read first: the rest may look different in another version.
#[derive(Deserialize)]
struct Head {
    version: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[expect(dead_code, reason = "checked already; named so that it is no unknown key")]
    version: i64,
    #[serde(default)]
    image: Vec<WrittenEntry>,
    #[serde(default)]
    kernel: Vec<WrittenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEntry {
    name: Spanned<String>,
    description: Spanned<String>,
    approximate_bytes: u64,
    architectures: Option<Spanned<Vec<String>>>,
    sources: Spanned<Vec<Spanned<WrittenSource>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSource {
    bundle: Option<String>,
    sha256: Option<String>,
    bytes: Option<u64>,
    release: Option<String>,
    oci: Option<String>,
    packages: Option<Recipe>,
    architectures: Option<Spanned<Vec<String>>>,
}

/// Images and kernels do not come from the same places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Kernel,
}

/// What is wrong, and at which byte.
type Wrong = (usize, String);

/// Reads `text`, which `path` holds.
pub(super) fn parse(path: &Path, text: &str) -> Result<Catalogue, ConfigError> {
    let of_toml = |error: toml::de::Error| ConfigError::of_toml(path, text, &error);
    let at = |(offset, message): Wrong| ConfigError::at(path, text, offset, message);
    check_version(&toml::from_str(text).map_err(of_toml)?, text).map_err(at)?;
    let written: Written = toml::from_str(text).map_err(of_toml)?;
    let images = entries(written.image, Kind::Image).map_err(at)?;
    let kernels = entries(written.kernel, Kind::Kernel).map_err(at)?;
    Ok(Catalogue { images, kernels })
}

fn check_version(head: &Head, text: &str) -> Result<(), Wrong> {
    let Some(version) = &head.version else {
        return Err((0, format!("it does not say its version: this build of banger reads version = {VERSION}")));
    };
    if version.get_ref().as_integer() == Some(VERSION) {
        return Ok(());
    }
    let shown: String = text.get(version.span()).unwrap_or_default().chars().take(20).collect();
    let message = format!("it has version {shown}: this build of banger reads version = {VERSION}");
    Err((version.span().start, message))
}

fn entries<Name>(written: Vec<WrittenEntry>, kind: Kind) -> Result<Vec<Entry<Name>>, Wrong>
where
    Name: Ord + FromStr<Err: Display>,
{
    let mut entries: Vec<Entry<Name>> = Vec::new();
    for one in written {
        let at = one.name.span().start;
        if entries.len() == MOST_ENTRIES {
            return Err((at, format!("there are more than {MOST_ENTRIES} entries of a kind")));
        }
        let name = one.name.get_ref().parse::<Name>().map_err(|e| (at, e.to_string()))?;
        if entries.iter().any(|other| other.name == name) {
            return Err((at, format!("'{}' is there twice", one.name.get_ref())));
        }
        let (description, approximate_bytes) = (described(one.description)?, one.approximate_bytes);
        let sources = offers(one.sources, kind, &architectures(one.architectures)?)?;
        entries.push(Entry { name, description, approximate_bytes, sources });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn described(written: Spanned<String>) -> Result<String, Wrong> {
    let at = written.span().start;
    let description = written.into_inner();
    let is_line = !description.is_empty() && !description.contains(char::is_control);
    if !is_line || description.chars().count() > MOST_DESCRIPTION {
        return Err((at, format!("a description is one line of at most {MOST_DESCRIPTION} characters")));
    }
    Ok(description)
}

fn offers(written: Spanned<Vec<Spanned<WrittenSource>>>, kind: Kind, of_all: &[String]) -> Result<Vec<Offer>, Wrong> {
    let at = written.span().start;
    let sources = written.into_inner();
    if sources.is_empty() || sources.len() > MOST_SOURCES {
        return Err((at, format!("an entry has between 1 and {MOST_SOURCES} sources")));
    }
    sources.into_iter().map(|one| offer(one, kind, of_all)).collect()
}

fn offer(written: Spanned<WrittenSource>, kind: Kind, of_all: &[String]) -> Result<Offer, Wrong> {
    let at = written.span().start;
    let mut written = written.into_inner();
    let mut architectures = architectures(written.architectures.take())?;
    if architectures.is_empty() {
        of_all.clone_into(&mut architectures);
    }
    let source = source(written, kind).map_err(|message| (at, message))?;
    Ok(Offer { source, architectures })
}

fn source(written: WrittenSource, kind: Kind) -> Result<Source, String> {
    let WrittenSource { bundle, sha256, bytes, release, oci, packages, .. } = written;
    if bundle.is_none() && (sha256.is_some() || bytes.is_some() || release.is_some()) {
        return Err("`sha256`, `bytes` and `release` belong to a `bundle`".to_owned());
    }
    match (bundle, oci, packages) {
        (Some(url), None, None) => {
            let (Some(hex), Some(bytes)) = (sha256, bytes) else {
                return Err("a `bundle` needs its `sha256` and its `bytes`".to_owned());
            };
            let digest = format!("sha256:{hex}").parse::<Digest>();
            let digest = digest.map_err(|_| "`sha256` has 64 digits, 0-9 and a-f".to_owned())?;
            let bundle = Bundle::new(&url, digest, bytes).map_err(|reason| format!("`bundle`: {reason}"))?;
            Ok(Source::Bundle { bundle, release: release_of(release, kind)? })
        }
        (None, Some(_), None) if kind == Kind::Kernel => Err("a kernel comes from a `bundle` or `packages`".to_owned()),
        (None, Some(text), None) => text.parse().map(Source::Oci).map_err(|e| format!("`oci`: {e}")),
        (None, None, Some(recipe)) => Ok(Source::Packages(recipe)),
        _ => Err("a source has one of `bundle`, `oci` and `packages`".to_owned()),
    }
}

fn release_of(release: Option<String>, kind: Kind) -> Result<Option<String>, String> {
    match &release {
        Some(_) if kind == Kind::Image => Err("a `release` is a kernel's".to_owned()),
        Some(text) => check_release(text).map(|()| release).map_err(|e| format!("`release`: {e}")),
        None => Ok(None),
    }
}

/// Names as registries give them; those of `uname -m` would fit no machine.
fn architectures(written: Option<Spanned<Vec<String>>>) -> Result<Vec<String>, Wrong> {
    const KNOWN: [&str; 2] = ["amd64", "arm64"];
    let Some(written) = written else { return Ok(Vec::new()) };
    let at = written.span().start;
    let names = written.into_inner();
    match names.iter().find(|name| !KNOWN.contains(&name.as_str())) {
        _ if names.is_empty() => Err((at, "without architectures it fits no machine: leave the key out".to_owned())),
        Some(name) => Err((at, format!("{name:?} is no architecture that banger runs on: {}", KNOWN.join(", ")))),
        None => Ok(names),
    }
}
