//! `manifest.json`: which releases there are and where their files lie. Signed as a whole, and all the same bounded and
//! read strictly: what one release says cannot name another's files, and nothing in it becomes a path on this machine.
//!
//! Fields that this build does not know are passed over, so that later ones can be added; a manifest that must not be
//! read so has another `schema`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::version::Version;

/// Most bytes of one.
pub const MOST_MANIFEST: u64 = 1 << 20;
/// Most bytes of a tarball.
pub const MOST_TARBALL: u64 = 64 << 20;
/// The schema that is read here.
const SCHEMA: u32 = 1;
/// Most releases.
const MOST_RELEASES: usize = 1000;
/// Most bytes of a release's notes.
const MOST_NOTES: usize = 4096;
/// Most bytes of an address.
const MOST_ADDRESS: usize = 2048;

/// Why a manifest is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON, or not such.
    #[error("the manifest is not what it should be")]
    Malformed(#[source] serde_json::Error),
    /// A later kind.
    #[error("the manifest has schema {0}, which this banger is too old for: install the newest by hand")]
    Schema(u32),
    /// Something in it is not as it should be.
    #[error("the manifest's release {version}: {reason}")]
    Release {
        /// Which.
        version: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More than is taken.
    #[error("the manifest names {0} releases, more than {MOST_RELEASES}")]
    TooMany(usize),
}

/// All releases, the newest last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Each version once.
    pub releases: Vec<Release>,
}

/// One release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// The day it was made, `2026-03-01`.
    pub date: String,
    /// Where its `SHA256SUMS` lies, absolute or from the manifest on; the signature lies beside it with `.sig` behind.
    pub sums: String,
    /// By architecture (`x86_64`, `aarch64`).
    pub tarballs: BTreeMap<String, Tarball>,
    /// The oldest version that can be updated to it in one step.
    pub from: Option<Version>,
    /// What is new, for people.
    pub notes: String,
}

/// The archive for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tarball {
    /// Where it lies, absolute or from the manifest on.
    pub url: String,
    /// Its length in bytes, at most [`MOST_TARBALL`].
    pub size: u64,
}

/// Only what all schemas have.
#[derive(Deserialize)]
struct Outline {
    schema: u32,
}

#[derive(Deserialize)]
struct WrittenManifest {
    releases: Vec<WrittenRelease>,
}

#[derive(Deserialize)]
struct WrittenRelease {
    /// With a `v` or without.
    version: String,
    date: String,
    sums: String,
    tarballs: BTreeMap<String, WrittenTarball>,
    from: Option<String>,
    #[serde(default)]
    notes: String,
}

#[derive(Deserialize)]
struct WrittenTarball {
    url: String,
    size: u64,
}

/// Reads a manifest, whose signature was verified.
pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let outline: Outline = serde_json::from_slice(bytes).map_err(ManifestError::Malformed)?;
    if outline.schema != SCHEMA {
        return Err(ManifestError::Schema(outline.schema));
    }
    let written: WrittenManifest = serde_json::from_slice(bytes).map_err(ManifestError::Malformed)?;
    if written.releases.len() > MOST_RELEASES {
        return Err(ManifestError::TooMany(written.releases.len()));
    }
    let mut releases = written.releases.into_iter().map(release).collect::<Result<Vec<_>, _>>()?;
    releases.sort_by_key(|release| release.version);
    match releases.windows(2).find(|pair| pair[0].version == pair[1].version) {
        Some(twice) => Err(refuse(&twice[0].version.to_string(), "it is there twice")),
        None => Ok(Manifest { releases }),
    }
}

fn release(written: WrittenRelease) -> Result<Release, ManifestError> {
    let name = written.version.clone();
    let refused = |reason| refuse(&name, reason);
    let version = written.version.parse().map_err(|_| refused("it is no version"))?;
    if !is_date(&written.date) {
        return Err(refused("its date is not as in 2026-03-01"));
    }
    if written.notes.len() > MOST_NOTES {
        return Err(refused("its notes are too long"));
    }
    let addresses = written.tarballs.values().map(|tarball| &tarball.url).chain([&written.sums]);
    if addresses.into_iter().any(|address| address.is_empty() || address.len() > MOST_ADDRESS) {
        return Err(refused("an address is missing or too long"));
    }
    if written.tarballs.values().any(|tarball| tarball.size == 0 || tarball.size > MOST_TARBALL) {
        return Err(refused("a tarball has no size, or more than 64 MiB"));
    }
    let from = written.from.map(|from| from.parse()).transpose().map_err(|_| refused("`from` is no version"))?;
    if from.is_some_and(|from| from > version) {
        return Err(refused("it can only be reached from later ones"));
    }
    let tarballs = written.tarballs.into_iter().map(|(arch, t)| (arch, Tarball { url: t.url, size: t.size })).collect();
    Ok(Release { version, date: written.date, sums: written.sums, tarballs, from, notes: written.notes })
}

fn refuse(version: &str, reason: &'static str) -> ManifestError {
    ManifestError::Release { version: version.chars().take(40).collect(), reason }
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, b)| if at == 4 || at == 7 { *b == b'-' } else { b.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn example() -> Value {
        json!({ "schema": 1, "later": {}, "releases": [
            { "version": "0.2.0", "date": "2026-03-01", "sums": "v0.2.0/SHA256SUMS", "from": "0.1.0", "notes": "new\nthings",
              "tarballs": { "x86_64": { "url": "v0.2.0/banger-v0.2.0-x86_64.tar.gz", "size": 3_000_000, "later": 1 } } },
            { "version": "v0.1.0", "date": "2026-01-01", "sums": "https://a.example/SHA256SUMS", "tarballs": {} },
        ]})
    }

    fn refused(change: impl Fn(&mut Value)) -> String {
        let mut value = example();
        change(&mut value);
        parse(value.to_string().as_bytes()).expect_err(&value.to_string()).to_string()
    }

    #[test]
    fn releases_are_read_and_sorted_and_what_is_not_known_is_passed_over() {
        let manifest = parse(example().to_string().as_bytes()).expect("read");
        let versions: Vec<String> = manifest.releases.iter().map(|r| r.version.to_string()).collect();
        assert_eq!(versions, ["0.1.0", "0.2.0"]);
        let newest = &manifest.releases[1];
        assert_eq!((newest.from.map(|v| v.to_string()), newest.notes.as_str()), (Some("0.1.0".into()), "new\nthings"));
        assert_eq!(newest.tarballs["x86_64"].size, 3_000_000);
    }

    #[test]
    fn what_is_not_as_it_should_be_is_refused() {
        let one = |change: fn(&mut Value)| refused(|value| change(&mut value["releases"][0]));
        assert!(refused(|v| v["schema"] = 2.into()).contains("schema 2"));
        assert!(refused(|v| v["schema"] = "1".into()).contains("not what it should be"));
        assert!(refused(|v| v["releases"][1]["version"] = "0.2.0".into()).contains("twice"));
        assert!(refused(|v| v["releases"] = vec![v["releases"][1].clone(); 1001].into()).contains("1001"));
        assert!(one(|r| r["version"] = "0.2".into()).contains("no version"));
        assert!(one(|r| r["version"] = Value::Null).contains("not what"));
        assert!(one(|r| r["date"] = "1 March".into()).contains("date"));
        assert!(one(|r| r["notes"] = "x".repeat(5000).into()).contains("notes"));
        assert!(one(|r| r["sums"] = "".into()).contains("address"));
        assert!(one(|r| r["sums"] = "x".repeat(2049).into()).contains("address"));
        assert!(one(|r| r["from"] = "0.3.0".into()).contains("later ones"));
        assert!(one(|r| r["from"] = "x".into()).contains("`from`"));
        assert!(one(|r| r["tarballs"]["x86_64"]["size"] = 0.into()).contains("64 MiB"));
        assert!(one(|r| r["tarballs"]["x86_64"]["size"] = ((64_u64 << 20) + 1).into()).contains("64 MiB"));
        assert!(one(|r| r["tarballs"]["x86_64"]["size"] = (-1).into()).contains("not what"));
    }

    #[test]
    fn a_cut_manifest_is_refused_wherever_it_is_cut() {
        let text = example().to_string();
        for cut in 0..text.len() {
            assert!(parse(&text.as_bytes()[..cut]).is_err(), "{cut}");
        }
        assert!(parse(format!("{text} {{").as_bytes()).is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
