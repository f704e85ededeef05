//! Manifests and indexes as bytes → what they say. Pure.
//!
//! OCI image spec (manifest.md, image-index.md) and Docker's schema 2, which differ in names of types only.

use std::collections::HashMap;

use serde::Deserialize;

use super::digest::Digest;
use super::error::OciError;
use super::platform::Platform;

/// Most bytes of a manifest, an index or a configuration (distribution spec: registries take at least 4 MiB).
pub(super) const MOST_DOCUMENT: u64 = 4 << 20;
/// Most layers; overlay filesystems, and docker with them, end at 127.
const MOST_LAYERS: usize = 512;
/// Indexes that may lie in each other.
pub(super) const MOST_NESTED: usize = 3;
/// Most images in an index.
const MOST_IMAGES: usize = 1024;
/// Most compressed bytes of one layer, and of all.
const MOST_BYTES: u64 = 64 << 30;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_ONE: &str = "application/vnd.docker.distribution.manifest.v1";

/// What may be answered when a manifest is asked for.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Where a blob is, as far as a manifest says.
#[derive(Debug, Clone)]
pub(super) struct Descriptor {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    /// The name that it has in an archive, for messages.
    pub(super) name: Option<String>,
    /// Said to be about another image.
    pub(super) attestation: bool,
}

impl Descriptor {
    /// What is said *about* an image rather than an image.
    pub(super) fn is_attestation(&self) -> bool {
        self.attestation || self.platform.as_ref().is_some_and(|p| p.os == "unknown")
    }
}

/// One image: its configuration and its layers, the lowest first.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) config: (Digest, u64),
    pub(super) layers: Vec<(Digest, u64)>,
}

/// What a manifest can be.
#[derive(Debug, Clone)]
pub(super) enum Document {
    /// Images for several platforms.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
    annotations: Option<HashMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

/// What `bytes` say, which were served as `content_type`.
pub(super) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, OciError> {
    let wrong = |reason: &str| OciError::document("manifest", reason);
    if bytes.len() as u64 > MOST_DOCUMENT {
        return Err(OciError::TooLarge { what: "manifest".to_owned(), limit: MOST_DOCUMENT });
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| OciError::document("manifest", e))?;
    let stated = raw.media_type.as_deref().or(content_type).unwrap_or_default();
    if raw.schema_version == Some(1) || stated.starts_with(DOCKER_ONE) || raw.fs_layers.is_some() {
        return Err(OciError::SchemaOne);
    }
    if raw.schema_version != Some(2) {
        return Err(wrong("it has no schemaVersion 2"));
    }
    // One document that is both would be read as one thing here and as another elsewhere (CVE-2021-41190).
    match (raw.manifests, raw.config, raw.layers) {
        (Some(images), None, None) if !is_manifest(stated) => index(images).map(Document::Index),
        (None, Some(config), Some(layers)) if !is_index(stated) => manifest(&config, &layers).map(Document::Manifest),
        (Some(_), _, _) => Err(wrong("it is both an index and an image")),
        (None, _, _) => Err(wrong("it is neither an index nor an image")),
    }
}

fn is_manifest(stated: &str) -> bool {
    stated.starts_with(OCI_MANIFEST) || stated.starts_with(DOCKER_MANIFEST)
}

fn is_index(stated: &str) -> bool {
    stated.starts_with(OCI_INDEX) || stated.starts_with(DOCKER_LIST)
}

fn index(images: Vec<RawDescriptor>) -> Result<Vec<Descriptor>, OciError> {
    if images.len() > MOST_IMAGES {
        return Err(OciError::document("index", format!("it lists more than {MOST_IMAGES} images")));
    }
    images.into_iter().map(descriptor).collect()
}

fn descriptor(raw: RawDescriptor) -> Result<Descriptor, OciError> {
    let annotation = |name: &str| raw.annotations.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let platform = raw.platform.as_ref().and_then(|p| {
        let (os, architecture) = (p.os.as_deref()?, p.architecture.as_deref()?);
        (!os.is_empty()).then(|| Platform::new(os, architecture, p.variant.as_deref()))
    });
    Ok(Descriptor {
        digest: raw.digest.parse()?,
        size: raw.size,
        platform,
        name: annotation("org.opencontainers.image.ref.name"),
        attestation: annotation("vnd.docker.reference.type").is_some(),
    })
}

/// Refuses a manifest with too many layers.
pub(super) fn check_layers(count: usize) -> Result<(), OciError> {
    if count <= MOST_LAYERS {
        return Ok(());
    }
    Err(OciError::document("manifest", format!("it has {count} layers, more than {MOST_LAYERS}")))
}

fn manifest(config: &RawDescriptor, layers: &[RawDescriptor]) -> Result<Manifest, OciError> {
    check_layers(layers.len())?;
    for layer in layers {
        check_layer_type(layer.media_type.as_deref().unwrap_or_default())?;
    }
    let total = layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    if total > MOST_BYTES {
        return Err(OciError::TooLarge { what: "sum of its layers".to_owned(), limit: MOST_BYTES });
    }
    if config.size > MOST_DOCUMENT {
        return Err(OciError::TooLarge { what: "image's configuration".to_owned(), limit: MOST_DOCUMENT });
    }
    let pair = |d: &RawDescriptor| Ok((d.digest.parse()?, d.size));
    Ok(Manifest { config: pair(config)?, layers: layers.iter().map(pair).collect::<Result<_, OciError>>()? })
}

/// How a layer is compressed is seen from itself; here it only has to be one.
fn check_layer_type(media_type: &str) -> Result<(), OciError> {
    let known = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    let readable = ["", ".tar", "+gzip", "+zstd", ".gzip", ".zstd"];
    let shown: String = media_type.chars().take(100).collect();
    if media_type.contains("encrypted") {
        return Err(OciError::document("image", "its layers are encrypted"));
    }
    let layer =
        known.iter().any(|k| media_type.starts_with(k)) && readable[1..].iter().any(|r| media_type.ends_with(r));
    if layer || media_type.is_empty() {
        return Ok(());
    }
    Err(OciError::document("image", format!("it is none to boot: one of its layers is {shown:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(media_type: &str, size: i64) -> String {
        let digest = Digest::of(media_type.as_bytes());
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    }

    fn manifest_of(layers: &str) -> Result<Document, OciError> {
        let config = layer("application/vnd.oci.image.config.v1+json", 10);
        parse(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#).as_bytes(), None)
    }

    fn refused(text: &str, content_type: Option<&str>, why: &str) {
        let error = parse(text.as_bytes(), content_type).expect_err(why).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }

    #[test]
    fn layers_of_both_worlds_are_read() {
        let types = [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ];
        let layers: Vec<String> = types.iter().map(|t| layer(t, 7)).collect();
        let Document::Manifest(read) = manifest_of(&layers.join(",")).expect("a manifest") else {
            panic!("an index");
        };
        assert_eq!((read.layers.len(), read.layers[0].1, read.config.1), (types.len(), 7, 10));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let error = |layers: &str| manifest_of(layers).expect_err("refused").to_string();
        assert!(error(&layer("application/vnd.cncf.helm.chart.content.v1.tar+gzip", 1)).contains("none to boot"));
        assert!(error(&layer("application/vnd.oci.image.layer.v1.tar+encrypted", 1)).contains("encrypted"));
        assert!(error(&layer("application/vnd.oci.image.layer.v1.tar", -1)).contains("manifest is of no use"));
        assert!(error(&layer("application/vnd.oci.image.layer.v1.tar", 1 << 60)).contains("more than"));
        let many: Vec<String> = (0..513).map(|_| layer("application/vnd.oci.image.layer.v1.tar", 1)).collect();
        assert!(error(&many.join(",")).contains("513 layers"));
    }

    #[test]
    fn other_documents_are_refused_with_a_reason() {
        refused(r#"{"schemaVersion":1,"fsLayers":[]}"#, None, "schema 1");
        refused("{}", Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1");
        refused("{}", None, "schemaVersion");
        refused(r#"{"schemaVersion":2}"#, None, "neither");
        refused("<html>", None, "expected value");
        let digest = Digest::of(b"");
        let both =
            format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{{"digest":"{digest}","size":1}}}}"#);
        refused(&both, None, "both");
        refused(r#"{"schemaVersion":2,"manifests":[]}"#, Some(OCI_MANIFEST), "both");
        refused(r#"{"schemaVersion":2,"manifests":[{"digest":"md5:x","size":1}]}"#, None, "no digest");
    }
}
