//! Images of registries and archives: fetched here, as the person who asked; their layers go to the daemon
//! through a pipe, whose end says that all of them were verified.

use std::io::{self, IsTerminal, PipeWriter, Write};
use std::path::Path;
use std::sync::Arc;

use super::super::client::{Client, unexpected};
use super::super::progress::Progress;
use super::super::render;
use super::super::report::Failure;
use super::images;
use super::pull::{Made, PumpError, lock, outcome};
use crate::host::config::Config;
use crate::host::paths::Paths;
use crate::image::LayerWriter;
use crate::image::oci::{self, Digest, Input, OciError, Opened, Platform, Reference, Settings, Source};
use crate::model::image::{ImageConfig, ImageRecord};
use crate::model::size::human;
use crate::model::{ImageName, Mib};
use crate::protocol::owner::{NewLayers, OwnerReply, OwnerRequest};
use crate::protocol::{Event, Fault, FaultKind};

/// Most characters of the name that a reference is given here: room is left for a part of its digest.
const MOST_NAME: usize = 110;

/// How an image shall be pulled.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// Its local name.
    pub name: Option<ImageName>,
    /// Size of its filesystem.
    pub size: Option<Mib>,
    /// Of which platform.
    pub platform: Option<Platform>,
}

/// The image here that `reference` means: by digest where it has one, the image's own or that of the index that it was
/// pulled by; else the last one pulled by it. One that was given another name, perhaps with another size, comes last.
pub fn find<'i>(images: &'i [ImageRecord], reference: &Reference) -> Option<&'i ImageRecord> {
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    let is_of_repository = |image: &&ImageRecord| {
        let known = image.reference.as_deref().and_then(|known| known.strip_prefix(&repository));
        known.is_some_and(|rest| rest.starts_with([':', '@']))
    };
    let wanted = reference.to_string();
    images
        .iter()
        .filter(is_of_repository)
        .filter(|image| match reference.digest() {
            Some(digest) => is_pin(image, digest),
            None => image.reference.as_deref() == Some(&wanted),
        })
        .max_by_key(|image| (has_own_name(image, reference), image.created_at))
}

/// Whether the image has the name that it gets where nobody gives it another.
fn has_own_name(image: &ImageRecord, reference: &Reference) -> bool {
    let own = name_of(reference);
    let rest = image.name.as_str().strip_prefix(&own);
    let digest = image.digest.rsplit(':').next().unwrap_or_default();
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(|short| digest.starts_with(short)))
}

fn is_pinned_by(image: &ImageRecord, digest: &Digest) -> bool {
    let pin = image.reference.as_deref().and_then(|known| known.rsplit_once('@'));
    pin.is_some_and(|(_, pin)| pin == digest.as_str())
}

/// Pulls what `reference` means now, unless just that is here.
pub fn pull(
    client: &mut Client,
    paths: &Paths,
    config: &Config,
    reference: &Reference,
    how: &How,
    progress: &mut Progress,
) -> Result<(Made, ImageRecord), Failure> {
    let words = format!("registry {}", reference.registry());
    take(client, paths, config, (Source::Registry(reference.clone()), Some(reference), &words), how, progress)
}

/// Makes an image of an archive.
pub fn of_archive(
    client: &mut Client,
    paths: &Paths,
    config: &Config,
    (is_oci, file): (bool, Option<&Path>),
    how: &How,
    progress: &mut Progress,
) -> Result<(Made, ImageRecord), Failure> {
    let input = match file {
        Some(path) => Input::File(path.to_owned()),
        None if io::stdin().is_terminal() => {
            let message = "an archive is expected on standard input, and that is a terminal";
            let fault = Fault::new(FaultKind::BadRequest, message);
            return Err(fault.hint("docker save my/image | banger image pull - --name mine").into());
        }
        None => Input::Stream(Box::new(io::stdin())),
    };
    let source = if is_oci { Source::OciArchive(input) } else { Source::DockerArchive(input) };
    let words = file.map_or_else(|| "standard input".to_owned(), |path| format!("file {}", path.display()));
    take(client, paths, config, (source, None, &words), how, progress)
}

/// The folder of the cache of blobs.
pub fn cache(paths: &Paths) -> std::path::PathBuf {
    paths.cache.join("blobs")
}

fn take(
    client: &mut Client,
    paths: &Paths,
    config: &Config,
    (source, reference, words): (Source, Option<&Reference>, &str),
    how: &How,
    progress: &mut Progress,
) -> Result<(Made, ImageRecord), Failure> {
    let settings = settings(paths, config, progress)?;
    let opened = oci::open(source, how.platform.as_ref(), &settings, &mut |stage| progress.stage(stage));
    let opened = opened.map_err(|e| fault(&e))?;
    let known = images::all(client)?;
    let kept = kept(reference, how);
    if let Some(image) = known.iter().find(|image| is_same(image, &opened, kept, how)) {
        check_size(image, how.size)?;
        return Ok((Made::Before, image.clone()));
    }
    let name = match &how.name {
        Some(name) => name.clone(),
        None => local_name(&opened, reference, &known)?,
    };
    let _lock = lock(paths, &format!("image-{name}.lock"), progress)?;
    // Another command may have made it while this one waited.
    if let Some(image) = images::all(client)?.iter().find(|image| image.name == name) {
        let is_it = image.digest == opened.digest();
        return match is_it {
            true => check_size(image, how.size).map(|()| (Made::Before, image.clone())),
            false => Err(taken(&name)),
        };
    }
    let source = format!("{words}, {}", opened.reference()).chars().take(120).collect();
    let order = Order { name, size: how.size, reference: kept, source };
    import(client, order, opened, progress).map(|image| (Made::Now, image))
}

/// The reference that the image is found by again. What is made for another machine has none: `--image` would take it for
/// what the reference means here.
fn kept<'r>(reference: Option<&'r Reference>, how: &How) -> Option<&'r Reference> {
    reference.filter(|_| how.platform.as_ref().is_none_or(|platform| *platform == Platform::of_this_machine()))
}

/// Refuses an image that is there with another size than the one that is wanted.
pub fn check_size(image: &ImageRecord, wanted: Option<Mib>) -> Result<(), Failure> {
    let Some(wanted) = wanted.filter(|wanted| *wanted != image.size) else { return Ok(()) };
    let (name, there, wanted) = (&image.name, human(image.size.bytes()), human(wanted.bytes()));
    let message = format!("image '{name}' is there already, with {there} instead of {wanted}");
    let fault = Fault::new(FaultKind::AlreadyExists, message);
    Err(fault.hint(format!("to make it anew: banger image delete {name}")).into())
}

/// Makes the image `name` of a source of the catalogue. The caller holds its lock and has seen that it is not here.
pub fn of_catalogue(
    client: &mut Client,
    settings: &Settings,
    (source, reference, words): (Source, Option<&Reference>, String),
    name: &ImageName,
    size: Option<Mib>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let opened = oci::open(source, None, settings, &mut |stage| progress.stage(stage)).map_err(|e| fault(&e))?;
    let order = Order { name: name.clone(), size, reference, source: words };
    import(client, order, opened, progress).map(drop)
}

/// What this person and this host say about downloads; makes the cache.
pub fn settings(paths: &Paths, config: &Config, progress: &Progress) -> Result<Settings, Failure> {
    crate::os::files::ensure_dir(&paths.cache, 0o700).map_err(|e| Fault::failed("cannot make the cache", &e))?;
    let (insecure, on_pause) = (config.registries.insecure.clone(), Arc::new(progress.notes()));
    Ok(Settings { insecure, on_pause, ..Settings::new(cache(paths)) })
}

fn taken(name: &ImageName) -> Failure {
    let fault = Fault::new(FaultKind::AlreadyExists, format!("image '{name}' exists already, made of something else"));
    fault.hint(format!("banger image delete {name}")).hint("--name gives the new one another name").into()
}

/// Whether `image` is what was opened, under the name that is wanted for it.
fn is_same(image: &ImageRecord, opened: &Opened, reference: Option<&Reference>, how: &How) -> bool {
    let has_name = how.name.as_ref().is_none_or(|name| image.name == *name);
    let has_reference = match (&image.reference, reference) {
        (Some(known), Some(wanted)) => *known == wanted.to_string(),
        (None, None) => true,
        _ => how.name.is_some(),
    };
    image.digest == opened.digest() && has_name && has_reference
}

/// A name for what has none: `docker.io/library/python:3.12` is `python-3.12`. Where another image has it
/// already, a part of the digest is added.
fn local_name(opened: &Opened, reference: Option<&Reference>, known: &[ImageRecord]) -> Result<ImageName, Failure> {
    let digest = opened.digest().rsplit(':').next().unwrap_or_default();
    let short: String = digest.chars().take(12).collect();
    let text = match reference {
        Some(reference) => name_of(reference),
        None => format!("image-{short}"),
    };
    let parsed = |text: &str| {
        text.parse::<ImageName>().map_err(|e| {
            Failure::from(Fault::of(FaultKind::BadRequest, &e)).hint("--name gives it a name of your choice")
        })
    };
    let name = parsed(&text)?;
    if known.iter().any(|image| image.name == name) { parsed(&format!("{text}-{short}")) } else { Ok(name) }
}

fn name_of(reference: &Reference) -> String {
    let repository = match reference.registry() {
        "docker.io" => reference.repository().strip_prefix("library/").unwrap_or(reference.repository()).to_owned(),
        registry => format!("{registry}/{}", reference.repository()),
    };
    let tag = match (reference.tag(), reference.digest()) {
        (Some("latest"), _) | (None, None) => String::new(),
        (Some(tag), _) => format!("-{tag}"),
        (None, Some(digest)) => format!("-{}", &digest.hex()[..12]),
    };
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c) { c } else { '-' };
    let text: String = format!("{repository}{tag}").to_ascii_lowercase().chars().map(plain).take(MOST_NAME).collect();
    text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// What of an image's configuration a guest can be told; variables of several lines cannot.
fn fitting(config: &ImageConfig, progress: &Progress) -> Result<ImageConfig, Failure> {
    let (env, left): (Vec<String>, Vec<String>) =
        config.env.iter().cloned().partition(|text| !text.contains(['\n', '\r', '\0']));
    for text in left {
        let name = text.split('=').next().unwrap_or_default();
        progress.note(&format!("banger: warning: variable {name:?} of the image has several lines: left out"));
    }
    let config = ImageConfig { env, ..config.clone() };
    if config.bytes() > ImageConfig::MAX_BYTES {
        let message = format!("the image's configuration has {} bytes: too many", config.bytes());
        return Err(Failure::new(FaultKind::OperationFailed, message));
    }
    Ok(config)
}

/// What an opened image shall be here.
struct Order<'r> {
    name: ImageName,
    size: Option<Mib>,
    reference: Option<&'r Reference>,
    /// Where it comes from, in words.
    source: String,
}

fn import(
    client: &mut Client,
    order: Order<'_>,
    opened: Opened,
    progress: &mut Progress,
) -> Result<ImageRecord, Failure> {
    let new = NewLayers {
        name: order.name,
        size: order.size,
        digest: opened.digest().to_owned(),
        reference: order.reference.map(ToString::to_string),
        config: fitting(opened.config(), progress)?,
        source: order.source,
    };
    let (reader, writer) = io::pipe().map_err(|e| Fault::failed("cannot make a pipe", &e))?;
    // Fewer turns between the two processes; an ordinary pipe will do as well.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
    let (name, far, stop) = (new.name.clone(), opened.progress(), opened.stop());
    let pump = std::thread::spawn(move || pump(opened, writer));
    progress.stage(&format!("pulling image '{name}'"));
    let replied = client.call(OwnerRequest::ImportLayers(Box::new(new)), vec![reader.into()], &mut |event| {
        match event {
            // What a person waits for is the download.
            Event::Progress { .. } => {
                progress.show(&Event::Progress { done: far.done_bytes(), total: Some(far.total_bytes()) });
            }
            // It writes while layers come: one stage is enough.
            Event::Stage { .. } => {}
            Event::Line { .. } | Event::Warning { .. } | Event::Waiting { .. } => progress.show(event),
        }
    });
    if replied.is_err() {
        // What the pump waits for, perhaps for minutes, is of no use to anybody now.
        stop.now();
    }
    match outcome(pump.join(), replied)? {
        OwnerReply::Image(image) => Ok(*image),
        other => Err(unexpected(&other)),
    }
}

/// Passes all layers on, and that they are all once each was verified.
fn pump(mut opened: Opened, pipe: PipeWriter) -> Result<(), PumpError> {
    let mut writer = LayerWriter::new(Sink { pipe, error: None });
    while let Some(mut layer) = opened.next_layer() {
        if let Err(error) = writer.layer(&mut layer) {
            return Err(match writer.out().error.take() {
                Some(of_pipe) => PumpError::Pipe(of_pipe),
                None => PumpError::Source(Box::new(of_layer(error))),
            });
        }
    }
    writer.finish().map_err(PumpError::Pipe)
}

/// Tells errors of the pipe from those of a layer.
struct Sink {
    pipe: PipeWriter,
    error: Option<io::Error>,
}

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.pipe.write(buffer).inspect_err(|e| self.error = Some(e.kind().into()))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

fn of_layer(error: io::Error) -> Fault {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<OciError>()) {
        Some(inner) => fault(inner),
        None => Fault::failed("cannot read a layer", &error),
    }
}

/// What a registry's or an archive's failure is to whoever asked.
pub fn fault(error: &OciError) -> Fault {
    let kind = match error {
        OciError::Reference { .. } | OciError::Platform(_) | OciError::DigestForm(_) => FaultKind::BadRequest,
        OciError::NotFound(_) | OciError::NoPlatform { .. } => FaultKind::NotFound,
        OciError::Denied { .. } | OciError::Plain { .. } => FaultKind::Refused,
        OciError::Cancelled => FaultKind::Cancelled,
        OciError::Shared(inner) => return fault(inner),
        _ => FaultKind::OperationFailed,
    };
    let fault = Fault::of(kind, error);
    match error {
        OciError::Plain { host } => fault.hint(format!("[registries] insecure = [{host:?}] in config.toml allows it")),
        _ => fault,
    }
}

/// Whether `image` was made of what `digest` says.
pub fn is_pin(image: &ImageRecord, digest: &Digest) -> bool {
    image.digest == digest.as_str() || is_pinned_by(image, digest)
}

/// Says which digest an image has that was to have another.
pub fn wrong_pin(image: &ImageRecord, digest: &Digest) -> Failure {
    let message = format!("image '{}' is {}, not {digest}", image.name, image.digest);
    Failure::new(FaultKind::AlreadyExists, message).hint(format!("banger image show {}", image.name))
}

/// Says what a pull has come to.
pub fn say(made: Made, image: &ImageRecord) -> Result<(), Failure> {
    if made == Made::Before {
        render::note(&format!("image '{}' is up to date: {}", image.name, image.digest));
    }
    render::name(image.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().expect("a reference")
    }

    #[test]
    fn a_reference_has_a_name_of_its_own_here() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, name) in [
            ("python:3.12", "python-3.12"),
            ("alpine:latest", "alpine"),
            ("ghcr.io/owner/a_b:v1", "ghcr.io-owner-a-b-v1"),
            ("localhost:5000/x:1", "localhost-5000-x-1"),
            (&format!("alpine@{digest}"), "alpine-abababababab"),
            ("x:UPPER_", "x-upper"),
        ] {
            assert_eq!(name_of(&reference(text)), name, "{text}");
            assert!(name.parse::<ImageName>().is_ok());
        }
    }

    fn made(name: &str, reference: Option<&str>, digest: char, created_at: u64) -> ImageRecord {
        ImageRecord {
            name: name.parse().expect("a name"),
            size: Mib(1),
            used_bytes: 0,
            digest: format!("sha256:{}", digest.to_string().repeat(64)),
            source: String::new(),
            init: crate::model::InitMode::Minimal,
            created_at,
            reference: reference.map(str::to_owned),
            config: ImageConfig::default(),
            kernel: None,
            place: None,
        }
    }

    #[test]
    fn the_newest_image_of_a_reference_is_meant_and_a_digest_means_one() {
        let image = |name: &str, reference: &str, digest, created_at| made(name, Some(reference), digest, created_at);
        let images = [
            image("old", "docker.io/library/a:1", 'a', 1),
            image("new", "docker.io/library/a:1", 'b', 2),
            image("other", "docker.io/library/ab:1", 'c', 3),
        ];
        let found = |text: &str| find(&images, &reference(text)).map(|image| image.name.to_string());
        assert_eq!(found("a:1").as_deref(), Some("new"));
        assert_eq!(found("a:2"), None);
        assert_eq!(found(&format!("a@sha256:{}", "a".repeat(64))).as_deref(), Some("old"));
        assert_eq!(found(&format!("a@sha256:{}", "c".repeat(64))), None);
        let images = [
            image("a-1", "docker.io/library/a:1", 'a', 1),
            image("a-1-bbbbbbbbbbbb", "docker.io/library/a:1", 'b', 2),
            image("mine", "docker.io/library/a:1", 'c', 3),
        ];
        let found = |text: &str| find(&images, &reference(text)).map(|image| image.name.to_string());
        assert_eq!(found("a:1").as_deref(), Some("a-1-bbbbbbbbbbbb"));
        let index = format!("sha256:{}", "d".repeat(64));
        let images = [image("by-index", &format!("docker.io/library/a:1@{index}"), 'a', 1)];
        let found = |text: &str| find(&images, &reference(text)).map(|image| image.name.to_string());
        for text in [format!("a@{index}"), format!("a:1@{index}"), format!("a@sha256:{}", "a".repeat(64))] {
            assert_eq!(found(&text).as_deref(), Some("by-index"), "{text}");
        }
        assert_eq!((found("a:1"), found(&format!("b@{index}"))), (None, None));
    }

    #[test]
    fn an_image_that_is_there_has_the_size_that_is_wanted_or_it_is_said() {
        let image = ImageRecord { size: Mib(512), ..made("a", None, 'a', 1) };
        assert!(check_size(&image, None).is_ok() && check_size(&image, Some(Mib(512))).is_ok());
        let failure = check_size(&image, Some(Mib(1024))).expect_err("another size");
        assert_eq!(failure.kind(), Some(FaultKind::AlreadyExists));
        assert!(failure.line().contains("image 'a' is there already, with 512"), "{}", failure.line());
    }

    #[test]
    fn another_machines_image_is_known_by_its_name_alone() {
        let wanted = reference("a:1");
        let how = |platform: &str| How { platform: Some(platform.parse().expect("a platform")), ..How::default() };
        let own = Platform::of_this_machine().to_string();
        assert_eq!(kept(Some(&wanted), &How::default()), Some(&wanted));
        assert_eq!(kept(Some(&wanted), &how(&own)), Some(&wanted));
        assert_eq!(kept(Some(&wanted), &how("linux/riscv64")), None);
    }
}
