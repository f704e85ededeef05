//! Archives of images: a tar of an OCI layout (image-layout.md), and what `docker save` writes, which today is
//! both.
//!
//! Nothing is unpacked. A layer is verified while it is read: by its digest where the archive has one, and
//! always by what the configuration says that it is decompressed.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use super::archive_entries::Entries;
use super::cancel::Cancel;
use super::config::{self, Configuration};
use super::digest::{Digest, Hasher};
use super::error::OciError;
use super::flow::Section;
use super::layer::{Guard, Source};
use super::manifest::{self, Descriptor, Document, MOST_DOCUMENT, MOST_NESTED, Manifest};
use super::platform::Platform;
use super::{Input, Opened, Pending, Progress, Settings, layer_name};

/// Which of the two is looked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Oci,
    Docker,
}

/// Most images that are listed in a message.
const MOST_LISTED: usize = 16;

/// An image of docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// Finds the one image in the archive.
pub(super) fn open(
    input: Input,
    form: Form,
    platform: &Platform,
    settings: &Settings,
    on_stage: &mut dyn FnMut(&str),
) -> Result<Opened, OciError> {
    let entries = Entries::read(input, settings, on_stage)?;
    let (oci, docker) = (entries.has("index.json"), entries.has("manifest.json"));
    match (form, oci, docker) {
        (Form::Docker, _, true) | (Form::Oci, false, true) => open_docker(&entries, platform),
        (_, true, _) => open_oci(&entries, platform),
        (_, false, false) => Err(entries.refuse("it has neither manifest.json nor index.json, so it is no image")),
    }
}

fn open_docker(entries: &Entries, platform: &Platform) -> Result<Opened, OciError> {
    let bytes = entries.document("manifest.json", MOST_DOCUMENT)?;
    let images: Vec<Saved> = serde_json::from_slice(&bytes).map_err(|e| OciError::document("manifest.json", e))?;
    let [image] = images.as_slice() else {
        let names = images.iter().flat_map(|i| i.repo_tags.iter().flatten().cloned());
        return Err(several(entries, images.len(), names));
    };
    let names = image.layers.as_deref().unwrap_or_default();
    manifest::check_layers(names.len())?;
    let config = entries.document(&image.config, MOST_DOCUMENT)?;
    let digest = Digest::of(&config);
    if let Some(expected) = digest_in(&image.config) {
        expected.check("image's configuration", digest.clone())?;
    }
    let configuration = config::parse(&config, names.len())?;
    configuration.check_platform(platform)?;
    let layers = names.iter().map(|name| Ok((entries.section(name)?, digest_of_blob(name))));
    let layers = layers.collect::<Result<Vec<_>, OciError>>()?;
    Ok(opened(format!("docker-archive:{}", entries.name()), digest, configuration, layers))
}

fn open_oci(entries: &Entries, platform: &Platform) -> Result<Opened, OciError> {
    let (digest, manifest) = resolve(entries, platform)?;
    let (config, size) = &manifest.config;
    let configuration = config::parse(&blob(entries, config, *size)?, manifest.layers.len())?;
    configuration.check_platform(platform)?;
    let layers = manifest.layers.iter().map(|(digest, size)| {
        let section = entries.section(&format!("blobs/sha256/{}", digest.hex()))?;
        check_size(&format!("blob {digest}"), *size, section.end - section.at)?;
        Ok((section, Some(digest.clone())))
    });
    let layers = layers.collect::<Result<Vec<_>, OciError>>()?;
    Ok(opened(format!("oci-archive:{}", entries.name()), digest, configuration, layers))
}

fn resolve(entries: &Entries, platform: &Platform) -> Result<(Digest, Manifest), OciError> {
    let mut bytes = entries.document("index.json", MOST_DOCUMENT)?;
    let mut digest = Digest::of(&bytes);
    for _ in 0..=MOST_NESTED {
        let images = match manifest::parse(&bytes, None)? {
            Document::Manifest(manifest) => return Ok((digest, manifest)),
            Document::Index(images) => images,
        };
        let chosen = one_of(entries, platform, &images)?;
        digest = chosen.digest.clone();
        bytes = blob(entries, &digest, chosen.size)?;
    }
    Err(OciError::document("index", format!("it leads to another, more than {MOST_NESTED} times")))
}

/// The image for the platform; with several of them, or several that do not say, somebody has to choose.
fn one_of<'a>(entries: &Entries, platform: &Platform, images: &'a [Descriptor]) -> Result<&'a Descriptor, OciError> {
    let fits = |d: &&Descriptor| !d.is_attestation() && d.platform.as_ref().is_none_or(|p| p == platform);
    let fitting: Vec<_> = images.iter().filter(fits).collect();
    if fitting.iter().any(|d| d.digest != fitting[0].digest) {
        let name = |d: &&Descriptor| d.name.clone().unwrap_or_else(|| d.digest.to_string());
        return Err(several(entries, fitting.len(), fitting.iter().map(name)));
    }
    match fitting.first() {
        Some(found) => Ok(found),
        None => platform.choose(images),
    }
}

fn several(entries: &Entries, count: usize, names: impl Iterator<Item = String>) -> OciError {
    let names: Vec<String> = names.take(MOST_LISTED).map(|n| n.chars().filter(|c| !c.is_control()).collect()).collect();
    let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    entries.refuse(format!("it holds {count} images{names}: save one alone"))
}

/// A small blob of a layout.
fn blob(entries: &Entries, digest: &Digest, size: u64) -> Result<Vec<u8>, OciError> {
    let what = format!("blob {digest}");
    let bytes = entries.document(&format!("blobs/sha256/{}", digest.hex()), MOST_DOCUMENT)?;
    check_size(&what, size, bytes.len() as u64)?;
    digest.check(&what, Digest::of(&bytes))?;
    Ok(bytes)
}

fn check_size(what: &str, expected: u64, found: u64) -> Result<(), OciError> {
    if expected == found { Ok(()) } else { Err(OciError::Size { what: what.to_owned(), expected, found }) }
}

/// The digest that a configuration's name is: `HEX.json` once, `blobs/sha256/HEX` today.
fn digest_in(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next().unwrap_or_default();
    Digest::from_hex(last.strip_suffix(".json").unwrap_or(last))
}

/// A layer's name is its digest only in a layout; older names (`HEX/layer.tar`) are something else.
fn digest_of_blob(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix("blobs/sha256/")?)
}

fn opened(
    reference: String,
    digest: Digest,
    configuration: Configuration,
    layers: Vec<(Section, Option<Digest>)>,
) -> Opened {
    let (read, count) = (Arc::new(AtomicU64::new(0)), layers.len());
    let total = layers.iter().map(|(section, _)| section.end - section.at).sum();
    let pending =
        layers.into_iter().zip(configuration.diff_ids).enumerate().map(|(number, ((section, digest), diff_id))| {
            let what = layer_name(number, count, digest.as_ref());
            let whole = Whole { section, hasher: Hasher::new(), digest, what: what.clone(), read: Arc::clone(&read) };
            Pending { source: Box::new(whole), diff_id, what }
        });
    let pending = pending.collect();
    let progress = Progress { total, flows: Arc::default(), read };
    let guard = Arc::new(Guard(Arc::new(Cancel::default())));
    Opened { digest, reference, config: configuration.run, layers: count, pending, start: None, progress, guard }
}

/// A layer that is there, read for the first time.
struct Whole {
    section: Section,
    hasher: Hasher,
    digest: Option<Digest>,
    what: String,
    read: Arc<AtomicU64>,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.section.read(buffer)?;
        if self.digest.is_some() {
            self.hasher.update(&buffer[..count]);
        }
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Source for Whole {
    fn verdict(&mut self) -> Result<(), OciError> {
        let Some(expected) = &self.digest else { return Ok(()) };
        self.hasher.take_all(&mut self.section)?;
        expected.check(&self.what, self.hasher.digest())
    }

    fn suspect(&mut self) -> Result<(), OciError> {
        self.verdict()
    }
}
