//! `manifest.json`: all releases, newest first, as `banger update` reads them.

use std::path::Path;

use serde_json::{Value, json};

use crate::{Outcome, read_file, write_file};

/// The only form there is.
const SCHEMA: u64 = 1;

/// Bytes of notes that are taken along; a reader takes a little more.
const MOST_NOTES: usize = 4000;

/// What is to be published.
pub struct Release<'a> {
    /// `v0.2.0`.
    pub version: &'a str,
    /// `2026-01-31`.
    pub date: &'a str,
    /// Where its SHA256SUMS lie, from the list on; their signature beside them, with `.sig` behind the name.
    pub sums: &'a str,
    /// The oldest version that can be updated to it; `-`: any.
    pub from: &'a str,
    /// A file: what is new.
    pub notes: &'a Path,
    /// Architecture, address and bytes of each tarball, three words each.
    pub tarballs: &'a [&'a str],
}

/// Writes as `file` what was published before (`none`: nothing) and `release`. One that is there stays as it is.
pub fn write(old: &Path, release: &Release, file: &Path) -> Outcome {
    let mut releases = if old == Path::new("none") { Vec::new() } else { published(&read_file(old)?)? };
    if releases.iter().any(|r| r["version"] == release.version) {
        return Err(format!("{} has been published already", release.version).into());
    }
    releases.push(entry(release)?);
    let mut numbered = releases.into_iter().map(|r| Ok((number(&r)?, r))).collect::<Result<Vec<_>, String>>()?;
    numbered.sort_by(|(one, _), (other, _)| other.cmp(one));
    let releases: Vec<Value> = numbered.into_iter().map(|(_, release)| release).collect();
    write_file(file, &format!("{:#}\n", json!({"schema": SCHEMA, "releases": releases})))
}

fn published(text: &str) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let manifest: Value = serde_json::from_str(text).map_err(|e| format!("the old manifest is no JSON: {e}"))?;
    if manifest["schema"] != SCHEMA {
        return Err(format!("the old manifest has schema {}, not {SCHEMA}", manifest["schema"]).into());
    }
    Ok(manifest["releases"].as_array().ok_or("the old manifest has no releases")?.clone())
}

fn entry(release: &Release) -> Result<Value, Box<dyn std::error::Error>> {
    let mut tarballs = serde_json::Map::new();
    for words in release.tarballs.chunks(3) {
        let [arch, url, size] = words else { return Err("three words for each architecture".into()) };
        let size: u64 = size.parse().map_err(|_| format!("{size:?} is no number of bytes"))?;
        tarballs.insert((*arch).to_owned(), json!({"url": url, "size": size}));
    }
    if tarballs.is_empty() {
        return Err("a release without an architecture".into());
    }
    let notes = shortened(&read_file(release.notes)?);
    let mut entry = json!({
        "version": release.version,
        "date": release.date,
        "sums": release.sums,
        "notes": notes,
        "tarballs": tarballs,
    });
    if release.from != "-" {
        entry["from"] = json!(release.from);
    }
    Ok(entry)
}

/// Whole lines of `text`, as many as are taken.
fn shortened(text: &str) -> String {
    let mut notes = String::new();
    for line in text.trim().lines() {
        if notes.len() + line.len() >= MOST_NOTES {
            return notes + "...";
        }
        notes = notes + line + "\n";
    }
    notes.trim_end().to_owned()
}

/// `v1.2.3` or `v1.2.3-rc.4` as numbers, which sort as versions do: a candidate before its release.
fn number(release: &Value) -> Result<[u64; 4], String> {
    let version = release["version"].as_str().unwrap_or_default();
    let parsed = || {
        let (core, candidate) = match version.strip_prefix('v')?.split_once("-rc.") {
            Some((core, candidate)) => (core, candidate.parse().ok()?),
            None => (version.strip_prefix('v')?, u64::MAX),
        };
        let mut numbers = core.split('.').map(|part| part.parse().ok());
        let number = [numbers.next()??, numbers.next()??, numbers.next()??, candidate];
        numbers.next().is_none().then_some(number)
    };
    parsed().ok_or_else(|| format!("{version:?} is no version like v1.2.3 or v1.2.3-rc.4"))
}
