//! Images of registries and of archives: a manifest, a configuration, and layers as verified tar streams.
//!
//! Used by the command line, as the person who asked and with that person's credentials; never by the
//! daemon. Everything that is read is taken for hostile: documents and sizes are bounded, and no layer's end is
//! given before all its digests were found right. Blocking, with threads of its own for downloads. `OCI.md`
//! beside this file says what is supported. Specifications: opencontainers/distribution-spec and image-spec.

/// Archives as `docker save` and `skopeo` write them.
mod archive;
/// What an archive of images holds, found by name.
mod archive_entries;
/// Tokens.
mod auth;
/// The cache of blobs.
mod blobs;
/// A file at an address.
mod bundle;
/// Giving up.
mod cancel;
/// `WWW-Authenticate`.
mod challenge;
/// An image's configuration.
mod config;
/// `docker-credential-NAME`.
mod credential_program;
/// What docker and podman keep.
mod credentials;
/// Decompressors.
mod decoder;
/// `sha256:…`.
mod digest;
/// A blob from a server into the cache.
mod download;
/// What can go wrong.
mod error;
/// A blob while it comes.
mod flow;
/// Text that is never shown.
mod hidden;
/// Requests.
mod http;
/// A layer's tar stream.
mod layer;
/// Manifests and indexes.
mod manifest;
/// `linux/amd64`.
mod platform;
/// Emptying the cache.
mod prune;
/// Registry → opened image.
mod pull;
/// `python:3.12`.
mod reference;
/// One repository of a registry.
mod registry;
/// Frames of zstd.
mod zstd;

/// Parsers as one function each, for the fuzzer.
#[doc(hidden)]
pub mod fuzz;

/// A registry that lies.
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::image::ImageConfig;

use cancel::Cancel;
use flow::Flow;
use layer::{Guard, Source as LayerSource};

pub use blobs::Blobs;
pub use bundle::Bundle;
pub use credentials::Credentials;
pub use digest::Digest;
pub use error::OciError;
pub use layer::LayerReader;
pub use platform::Platform;
pub use prune::Pruned;
pub use reference::Reference;

/// What a pull needs to know beside the image.
#[derive(Clone)]
pub struct Settings {
    /// The folder of the blob cache; made if it is missing.
    pub cache: PathBuf,
    /// Registries, `HOST` or `HOST:PORT`, that may be spoken to without TLS. This machine always may.
    pub insecure: Vec<String>,
    /// Where credentials are looked for.
    pub credentials: Credentials,
    /// What becomes of a pause before another attempt: itself, and nothing in tests.
    pub pace: Arc<dyn Fn(Duration) -> Duration + Send + Sync>,
    /// Told, by whichever thread, why a longer pause is made.
    pub on_pause: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Settings {
    /// This person's credentials, TLS everywhere but on this machine, the cache at `cache`.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        let credentials = Credentials::of_this_person();
        let (pace, on_pause) = (Arc::new(|pause| pause), Arc::new(|_: &str| {}));
        Self { cache: cache.into(), insecure: Vec::new(), credentials, pace, on_pause }
    }
}

/// Where an image comes from.
pub enum Source {
    /// A registry.
    Registry(Reference),
    /// A tar of an OCI layout, gzip or zstd around it or not. One that has no `index.json` but what docker
    /// writes is taken as that.
    OciArchive(Input),
    /// What `docker save` writes; likewise the other way round.
    DockerArchive(Input),
}

/// An archive.
pub enum Input {
    /// A file.
    File(PathBuf),
    /// A file that is open, to be read from its beginning, and what it is called.
    Open(File, String),
    /// A stream that cannot seek, such as standard input. It is copied below the cache, into a file without a
    /// name.
    Stream(Box<dyn Read + Send>),
}

/// Finds the image of `source` for `platform` (this machine's unless given). Its layers are fetched from when the
/// first of them is asked for.
///
/// `on_stage` is told, in a few words, what takes a while next.
pub fn open(
    source: Source,
    platform: Option<&Platform>,
    settings: &Settings,
    on_stage: &mut dyn FnMut(&str),
) -> Result<Opened, OciError> {
    let own;
    let platform = match platform {
        Some(platform) => platform,
        None => {
            own = Platform::of_this_machine();
            &own
        }
    };
    match source {
        Source::Registry(reference) => pull::open(&reference, platform, settings, on_stage),
        Source::OciArchive(input) => archive::open(input, archive::Form::Oci, platform, settings, on_stage),
        Source::DockerArchive(input) => archive::open(input, archive::Form::Docker, platform, settings, on_stage),
    }
}

/// An image whose layers can be had. Dropping it, and the layers taken from it, ends the downloads; what has come
/// stays in the cache and is not fetched again.
pub struct Opened {
    digest: Digest,
    reference: String,
    config: ImageConfig,
    layers: usize,
    pending: VecDeque<Pending>,
    start: Option<Box<dyn FnOnce() + Send>>,
    progress: Progress,
    guard: Arc<Guard>,
}

/// A layer that was not asked for yet.
struct Pending {
    source: Box<dyn LayerSource>,
    diff_id: Digest,
    what: String,
}

impl Opened {
    /// `sha256:…` of the manifest for this platform; of the configuration (docker's "image id") where an
    /// archive has no manifest.
    pub fn digest(&self) -> &str {
        self.digest.as_str()
    }

    /// Where it came from, written out: `docker.io/library/python:3.12`, `docker-archive:FILE`.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// How it wants its programs run.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// How many layers it has.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Something that tells how far it is, also while a layer is read.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Something that ends the pull, also while a layer is read.
    pub fn stop(&self) -> Stop {
        Stop { cancel: Arc::clone(&self.guard.0), flows: Arc::clone(&self.progress.flows) }
    }

    /// The next layer, lowest first; `None` after the last. Each is to be read to its end: what is not read was
    /// not verified.
    pub fn next_layer(&mut self) -> Option<LayerReader> {
        if let Some(start) = self.start.take() {
            start();
        }
        let Pending { source, diff_id, what } = self.pending.pop_front()?;
        Some(LayerReader::new(source, diff_id, what, Arc::clone(&self.guard)))
    }
}

/// Ends a pull.
pub struct Stop {
    cancel: Arc<Cancel>,
    flows: Arc<Vec<Arc<Flow>>>,
}

impl Stop {
    /// Whoever reads a layer gets an error at once, whatever its download waits for: the network, or another
    /// process that fetches the same.
    pub fn now(&self) {
        self.cancel.tell();
        self.flows.iter().for_each(|flow| flow.give_up());
    }
}

/// How far a pull is, in compressed bytes.
#[derive(Clone)]
pub struct Progress {
    total: u64,
    flows: Arc<Vec<Arc<Flow>>>,
    read: Arc<AtomicU64>,
}

impl Progress {
    /// Of all layers; a layer that is there twice counts once.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Of what has come, what was in the cache included; of an archive, of what was read.
    pub fn done_bytes(&self) -> u64 {
        let fetched: u64 = self.flows.iter().map(|flow| flow.there()).sum();
        fetched + self.read.load(Ordering::Relaxed)
    }
}

/// What `digest` and `size` of a blob or layer are shown as.
fn layer_name(number: usize, of: usize, digest: Option<&Digest>) -> String {
    let short = digest.map_or_else(String::new, |d| format!(" ({})", &d.hex()[..12]));
    format!("layer {} of {of}{short}", number + 1)
}

/// The cache of `settings`.
fn cache(folder: &Path) -> Result<Blobs, OciError> {
    Ok(Blobs::open(folder)?)
}
