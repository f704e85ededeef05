//! A reference → manifest, configuration, and threads that fetch the layers in their order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::blobs::Blobs;
use super::cancel::Cancel;
use super::config::{self, Configuration};
use super::digest::Digest;
use super::download;
use super::error::OciError;
use super::flow::{Flow, Follower};
use super::http::Http;
use super::layer::Guard;
use super::manifest::{self, Document, MOST_DOCUMENT, MOST_NESTED, Manifest};
use super::platform::Platform;
use super::reference::Reference;
use super::registry::{Registry, Served};
use super::{Opened, Pending, Progress, Settings, cache, layer_name};

/// Layers that are fetched at a time, as docker does.
const THREADS: usize = 3;

/// Finds the image.
pub(super) fn open(
    reference: &Reference,
    platform: &Platform,
    settings: &Settings,
    on_stage: &mut dyn FnMut(&str),
) -> Result<Opened, OciError> {
    let blobs = cache(&settings.cache)?;
    let cancel = Arc::new(Cancel::default());
    let registry = Registry::new(Http::new(settings, Arc::clone(&cancel)), reference, &settings.credentials);
    on_stage(&format!("asking {} for {}", reference.registry(), reference.repository()));
    let pull = Pull { registry: Arc::new(registry), blobs, cancel };
    let (digest, manifest) = pull.resolve(reference, platform)?;
    let configuration = pull.configuration(&manifest)?;
    configuration.check_platform(platform)?;
    let flows = flows_of(&manifest)?;
    let guard = Arc::new(Guard(Arc::clone(&pull.cancel)));
    Ok(pull.opened(reference, digest, configuration, flows, guard))
}

struct Pull {
    registry: Arc<Registry>,
    blobs: Blobs,
    cancel: Arc<Cancel>,
}

/// The blobs of an image's layers.
struct Flows {
    /// One for each layer.
    layers: Vec<Arc<Flow>>,
    /// Each once.
    each: Arc<Vec<Arc<Flow>>>,
}

impl Pull {
    fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<(Digest, Manifest), OciError> {
        let (mut wanted, mut size) = (reference.wanted().to_owned(), None);
        for _ in 0..=MOST_NESTED {
            let served = self.manifest(&wanted)?;
            let found = served.bytes.len() as u64;
            if let Some(expected) = size.filter(|size| *size != found) {
                return Err(OciError::Size { what: "manifest".to_owned(), expected, found });
            }
            match manifest::parse(&served.bytes, served.content_type.as_deref())? {
                Document::Manifest(manifest) => return Ok((served.digest, manifest)),
                Document::Index(images) => {
                    let chosen = platform.choose(&images)?;
                    wanted = chosen.digest.to_string();
                    size = Some(chosen.size);
                }
            }
        }
        Err(OciError::document("index", format!("it leads to another, more than {MOST_NESTED} times")))
    }

    /// What is asked for by its digest can come from the cache.
    fn manifest(&self, wanted: &str) -> Result<Served, OciError> {
        if let Ok(digest) = wanted.parse::<Digest>()
            && let Some(bytes) = self.blobs.small(&digest, MOST_DOCUMENT)?
        {
            return Ok(Served { bytes, content_type: None, digest });
        }
        let served = self.registry.manifest(wanted)?;
        self.blobs.keep_small(&served.digest, &served.bytes)?;
        Ok(served)
    }

    fn configuration(&self, manifest: &Manifest) -> Result<Configuration, OciError> {
        let (digest, size) = &manifest.config;
        let bytes = match self.blobs.small(digest, MOST_DOCUMENT)? {
            Some(bytes) => bytes,
            None => {
                let what = "image's configuration";
                let bytes = self.registry.document(digest, what, MOST_DOCUMENT)?;
                if bytes.len() as u64 != *size {
                    let found = bytes.len() as u64;
                    return Err(OciError::Size { what: what.to_owned(), expected: *size, found });
                }
                digest.check(what, Digest::of(&bytes))?;
                self.blobs.keep_small(digest, &bytes)?;
                bytes
            }
        };
        config::parse(&bytes, manifest.layers.len())
    }

    /// Threads that take one blob after the other. They are not waited for: one that waits for the network or for
    /// another process sees at its next step that nobody wants it any more.
    fn start(&self, flows: &Arc<Vec<Arc<Flow>>>) {
        let next = Arc::new(AtomicUsize::new(0));
        for number in 0..THREADS.min(flows.len()) {
            let (registry, blobs) = (Arc::clone(&self.registry), self.blobs.clone());
            let (all, next) = (Arc::clone(flows), Arc::clone(&next));
            let work = move || {
                while let Some(flow) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    download::fetch(flow, registry.as_ref(), &blobs);
                }
            };
            let begun = std::thread::Builder::new().name(format!("layers-{number}")).spawn(work);
            // One thread does it all, only later.
            if let (0, Err(e)) = (number, begun) {
                let error = Arc::new(OciError::File(e));
                flows.iter().for_each(|flow| flow.end(Err(OciError::Shared(Arc::clone(&error)))));
                return;
            }
        }
    }

    fn opened(
        self,
        reference: &Reference,
        digest: Digest,
        configuration: Configuration,
        flows: Flows,
        guard: Arc<Guard>,
    ) -> Opened {
        let follow = |(flow, diff_id): (&Arc<Flow>, Digest)| {
            let (flow, blobs, cancel) = (Arc::clone(flow), self.blobs.clone(), Arc::clone(&self.cancel));
            let what = flow.what.clone();
            Pending { source: Box::new(Follower { flow, blobs, cancel, at: 0 }), diff_id, what }
        };
        let pending: VecDeque<_> = flows.layers.iter().zip(configuration.diff_ids).map(follow).collect();
        let total = flows.each.iter().map(|flow| flow.size).sum();
        let each = Arc::clone(&flows.each);
        let progress = Progress { total, flows: flows.each, read: Arc::new(AtomicU64::new(0)) };
        let (config, reference) = (configuration.run, reference.to_string());
        let start: Option<Box<dyn FnOnce() + Send>> = Some(Box::new(move || self.start(&each)));
        Opened { digest, reference, config, layers: pending.len(), pending, start, progress, guard }
    }
}

/// Layers with the same digest are one blob: builders like to write the empty layer several times.
fn flows_of(manifest: &Manifest) -> Result<Flows, OciError> {
    let mut known: HashMap<&Digest, Arc<Flow>> = HashMap::new();
    let (mut layers, mut each) = (Vec::new(), Vec::new());
    for (number, (digest, size)) in manifest.layers.iter().enumerate() {
        let flow = known.entry(digest).or_insert_with(|| {
            let what = layer_name(number, manifest.layers.len(), Some(digest));
            let flow = Arc::new(Flow::new(digest.clone(), *size, what));
            each.push(Arc::clone(&flow));
            flow
        });
        if flow.size != *size {
            return Err(OciError::document("manifest", format!("it states two sizes for {digest}")));
        }
        layers.push(Arc::clone(flow));
    }
    Ok(Flows { layers, each: Arc::new(each) })
}
