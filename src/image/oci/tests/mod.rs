//! Pulls from a registry that lies, cuts and asks again, and from archives that do.

mod archives;
mod auth;
mod bundles;
mod lies;
mod server;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use server::{Asked, Server, Told};

/// An image as a registry has it: everything by path.
#[derive(Clone, Default)]
struct Image {
    /// What is served at `/v2/a/b/…`.
    served: BTreeMap<String, Vec<u8>>,
    /// Uncompressed layers.
    layers: Vec<Vec<u8>>,
    manifest: Vec<u8>,
    config: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Bytes that do not compress to nothing.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| step()).collect()
}

impl Image {
    /// A registry that has it and tells nothing but the truth.
    fn served(&self) -> Server {
        let image = self.clone();
        Server::start(move |asked| image.answer(asked))
    }

    fn new(layers: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|(plain, _)| format!("\"{}\"", Digest::of(plain))).collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":["/x"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let described = |media: &str, bytes: &[u8]| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{media}","digest":"{}","size":{}}}"#,
                Digest::of(bytes),
                bytes.len()
            )
        };
        let each: Vec<String> = layers.iter().map(|(_, packed)| described("layer.v1.tar+gzip", packed)).collect();
        let config_at = described("config.v1+json", config.as_bytes());
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config_at},"layers":[{}]}}"#, each.join(","));
        let mut image = Self { manifest: manifest.into(), config: config.into(), ..Self::default() };
        let mut serve = |path: String, bytes: &[u8]| image.served.insert(path, bytes.to_vec());
        serve("manifests/t".into(), &image.manifest);
        serve(format!("manifests/{}", Digest::of(&image.manifest)), &image.manifest);
        serve(format!("blobs/{}", Digest::of(&image.config)), &image.config);
        for (_, packed) in &layers {
            serve(format!("blobs/{}", Digest::of(packed)), packed);
        }
        (image.layers, image.blobs) = layers.into_iter().unzip();
        image
    }

    /// Three layers, one of each compression.
    fn usual() -> Self {
        let plain = [noise(100_000, 1), noise(300_000, 2), noise(50_000, 3)];
        let [one, two, three] = plain;
        Self::new(vec![(one.clone(), gzip(&one)), (two.clone(), zstd(&two)), (three.clone(), three)])
    }

    /// What an honest registry answers.
    fn answer(&self, asked: &Asked) -> Told {
        let path = asked.path.trim_start_matches("/v2/a/b/");
        match self.served.get(path) {
            _ if asked.path == "/v2/" => Told::new(200, "{}"),
            None => Told::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
            Some(bytes) if asked.from() > bytes.len() => Told::new(416, ""),
            Some(bytes) if asked.from() > 0 => {
                let range = format!("bytes {}-{}/{}", asked.from(), bytes.len() - 1, bytes.len());
                Told::new(206, &bytes[asked.from()..]).with("Content-Range", range)
            }
            Some(bytes) => Told::new(200, bytes.clone()),
        }
    }

    fn blob_path(&self, number: usize) -> String {
        format!("/blobs/{}", Digest::of(&self.blobs[number]))
    }
}

/// Settings without pauses and without anybody's credentials.
fn settings(cache: &Path) -> Settings {
    let credentials = Credentials::default();
    Settings { credentials, pace: Arc::new(|_| Duration::ZERO), ..Settings::new(cache) }
}

fn reference(server: &Server) -> Reference {
    format!("{}/a/b:t", server.authority).parse().expect("a reference")
}

fn amd64() -> Platform {
    "linux/amd64".parse().expect("a platform")
}

/// All layers, or the first error with its causes.
fn pulled(source: Source, settings: &Settings) -> Result<Vec<Vec<u8>>, String> {
    let mut opened = open(source, Some(&amd64()), settings, &mut |_| {}).map_err(|e| chain(&e))?;
    let mut layers = Vec::new();
    while let Some(mut reader) = opened.next_layer() {
        let mut bytes = Vec::new();
        let result = reader.read_to_end(&mut bytes);
        if let Err(e) = result {
            let again = reader.read(&mut [0; 10]).expect_err("an error stays one");
            assert_eq!(again.to_string(), e.to_string());
            return Err(chain(e.get_ref().expect("an inner error")));
        }
        layers.push(bytes);
    }
    let progress = opened.progress();
    assert_eq!(progress.done_bytes(), progress.total_bytes());
    Ok(layers)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(&format!(": {e}"));
        source = e.source();
    }
    text
}

fn pull(server: &Server, settings: &Settings) -> Result<Vec<Vec<u8>>, String> {
    pulled(Source::Registry(reference(server)), settings)
}

/// What is in the cache: whole blobs and parts.
fn cached(cache: &Path) -> (usize, usize) {
    let names = std::fs::read_dir(cache.join("sha256")).expect("listed").flatten();
    let parts: Vec<bool> = names.map(|e| e.path().extension().is_some()).collect();
    (parts.iter().filter(|p| !**p).count(), parts.iter().filter(|p| **p).count())
}

#[test]
fn an_image_is_pulled_once_and_then_from_the_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let server = image.served();
    let settings = settings(folder.path());
    assert_eq!(pull(&server, &settings).expect("pulled"), image.layers);
    assert_eq!(cached(folder.path()), (5, 0));
    assert_eq!(pull(&server, &settings).expect("pulled"), image.layers);
    assert_eq!(server.count("/blobs/"), 4);
    let opened = open(Source::Registry(reference(&server)), Some(&amd64()), &settings, &mut |_| {}).expect("opened");
    assert_eq!(opened.digest(), Digest::of(&image.manifest).as_str());
    assert_eq!(opened.reference(), format!("{}/a/b:t", server.authority));
    assert_eq!((opened.layers(), opened.config().env.as_slice()), (3, &["A=b".to_owned()][..]));
    let other = tempfile::tempdir().expect("a folder");
    let (source, settings) = (Source::Registry(reference(&server)), self::settings(other.path()));
    drop(open(source, Some(&amd64()), &settings, &mut |_| {}).expect("opened"));
    assert_eq!((server.count("/blobs/"), cached(other.path())), (5, (2, 0)), "layers that nobody asks for");
}

#[test]
fn what_is_pinned_and_cached_needs_no_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let server = image.served();
    let settings = settings(folder.path());
    pull(&server, &settings).expect("pulled");
    let asked = server.asked().len();
    let pinned = format!("{}/a/b@{}", server.authority, Digest::of(&image.manifest)).parse().expect("a reference");
    assert_eq!(pulled(Source::Registry(pinned), &settings).expect("pulled"), image.layers);
    assert_eq!(server.asked().len(), asked);
}

#[test]
fn a_layer_that_is_there_twice_is_fetched_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (noise(1000, 1), noise(2000, 2));
    let layer = |plain: &[u8]| (plain.to_vec(), gzip(plain));
    let image = Image::new(vec![layer(&one), layer(&two), layer(&one)]);
    let server = image.served();
    assert_eq!(pull(&server, &settings(folder.path())).expect("pulled"), image.layers);
    assert_eq!(server.count(&image.blob_path(0)), 1);
}

#[test]
fn the_index_leads_to_the_platform() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut image = Image::usual();
    let (digest, size) = (Digest::of(&image.manifest), image.manifest.len());
    let entry = |architecture: &str, size: usize| {
        format!(r#"{{"digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#)
    };
    for (index, error) in [
        (entry("amd64", size), None),
        (entry("amd64", size + 1), Some("bytes instead of")),
        (entry("arm64", size), Some("there is no linux/amd64 in it: it has linux/arm64")),
    ] {
        image.served.insert("manifests/t".into(), format!(r#"{{"schemaVersion":2,"manifests":[{index}]}}"#).into());
        let (served, settings) = (image.clone(), settings(folder.path()));
        let server = Server::start(move |asked| served.answer(asked));
        match (pull(&server, &settings), error) {
            (Ok(layers), None) => assert_eq!(layers, image.layers),
            (Err(e), Some(error)) => assert!(e.contains(error), "{e}"),
            (other, _) => panic!("{index}: {other:?}"),
        }
    }
}

#[test]
fn two_pulls_at_once_share_what_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let server = image.served();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| pull(&server, &settings(folder.path())))).collect();
        for pull in pulls {
            assert_eq!(pull.join().expect("no panic").expect("pulled"), image.layers);
        }
    });
    for number in 0..3 {
        assert_eq!(server.count(&image.blob_path(number)), 1, "layer {number}");
    }
    assert_eq!(cached(folder.path()), (5, 0));
}

#[test]
fn a_pull_that_waits_for_another_process_can_be_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let server = image.served();
    let part = folder.path().join("sha256").join(Digest::of(&image.blobs[0]).hex()).with_extension("part");
    std::fs::create_dir_all(part.parent().expect("a folder")).expect("made");
    let _held = crate::os::files::Lock::wait(&part).expect("locked");
    let settings = settings(folder.path());
    let mut opened =
        open(Source::Registry(reference(&server)), Some(&amd64()), &settings, &mut |_| {}).expect("opened");
    let (stop, mut layer) = (opened.stop(), opened.next_layer().expect("a layer"));
    let reader = std::thread::spawn(move || layer.read(&mut [0; 10]).expect_err("stopped").to_string());
    stop.now();
    assert_eq!(reader.join().expect("no panic"), "cancelled");
}

#[test]
fn a_reader_follows_what_has_come_and_dropping_it_ends_the_pull() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::new(vec![(noise(3_000_000, 1), noise(3_000_000, 1))]);
    let (gate, open_gate) = std::sync::mpsc::channel::<()>();
    let open_gate = Mutex::new(open_gate);
    let blob = image.blob_path(0);
    let server = Server::start({
        let image = image.clone();
        move |asked| {
            let told = image.answer(asked);
            if !asked.path.ends_with(&blob) {
                return told;
            }
            if asked.from() == 0 {
                return Told { cut: Some(1_000_000), ..told };
            }
            // The second half is held back until the test has read the first.
            let _ = open_gate.lock().expect("not poisoned").recv_timeout(Duration::from_secs(20));
            Told { cut: Some(500_000), ..told }
        }
    });
    let settings = settings(folder.path());
    let mut opened =
        open(Source::Registry(reference(&server)), Some(&amd64()), &settings, &mut |_| {}).expect("opened");
    let mut layer = opened.next_layer().expect("a layer");
    assert!(opened.next_layer().is_none());
    let mut first = vec![0; 1_000_000];
    layer.read_exact(&mut first).expect("what has come can be read");
    assert_eq!(first, image.layers[0][..1_000_000]);
    assert_eq!(opened.progress().total_bytes(), 3_000_000);
    drop((opened, layer));
    drop(gate);
    let part = folder.path().join("sha256").join(Digest::of(&image.blobs[0]).hex()).with_extension("part");
    let _lock = crate::os::files::Lock::wait(&part).expect("the thread has let go of it");
    assert!(std::fs::metadata(&part).expect("there").len() < 3_000_000, "it went on");
}
