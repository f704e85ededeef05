//! `image list|show|pull|register|promote|cache|delete`.

use std::fs::File;
use std::io;
use std::time::Instant;

use super::super::args::{ImageList, ImagePull, ImageRegister, ImageWish, PullSource, Usage};
use super::super::client::{Client, unexpected};
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::table::Table;
use super::super::views::ImageView;
use super::super::{autostart, remote, render, resolve};
use super::oci::How;
use super::{catalogue, for_each, oci, pull};
use crate::host::config::Config;
use crate::host::paths::Paths;
use crate::image::catalogue::Catalogue;
use crate::image::oci::{Blobs, Digest, Reference};
use crate::model::image::ImageRecord;
use crate::model::size::human;
use crate::model::{ImageName, InitMode, VmName};
use crate::os::clock::unix_seconds;
use crate::os::logger::timestamp;
use crate::protocol::owner::{NewPlace, OwnerReply, OwnerRequest};
use crate::protocol::{Fault, FaultKind};

/// All images, by name.
pub fn all(client: &mut Client) -> Result<Vec<ImageRecord>, Failure> {
    match client.ask(OwnerRequest::ListImages)? {
        OwnerReply::Images(mut images) => {
            images.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(images)
        }
        other => Err(unexpected(&other)),
    }
}

/// The digest of an image; one that is gone, or that nobody can be asked about, has none.
pub fn digest(client: &mut Client, name: &ImageName) -> Option<String> {
    all(client).ok()?.into_iter().find(|image| image.name == *name).map(|image| image.digest)
}

/// `image list`.
pub fn list(asked: &ImageList) -> Result<(), Failure> {
    let paths = Paths::current();
    let images = all(&mut autostart::connect(&paths)?)?;
    let is_here = |name: &ImageName| images.iter().any(|image| image.name == *name);
    if asked.available {
        return catalogue::list(catalogue::load(&paths)?.images(), is_here, &asked.form());
    }
    let now = unix_seconds();
    let row = |i: &ImageRecord| {
        let (size, used) = (human(i.size.bytes()), human(i.used_bytes));
        vec![i.name.to_string(), size, used, render::age(now, i.created_at), i.source.clone()]
    };
    asked.form().print(
        &images,
        ImageView::from,
        |one| one.name.to_string(),
        |whole| {
            let table = Table::new(&["NAME", "SIZE", "USED", "AGE", "SOURCE"], images.iter().map(row)).text(whole);
            table + &catalogue::below(&paths, Catalogue::images, is_here, whole)
        },
    )
}

/// `image show`.
pub fn show(name: &ImageName, json: bool) -> Result<(), Failure> {
    let images = all(&mut autostart::connect(&Paths::current())?)?;
    let image = show_one(&images, name)?;
    if json {
        return render::json(&ImageView::from(image));
    }
    render::text(&render::facts(&[
        ("name", image.name.to_string()),
        ("size", human(image.size.bytes())),
        ("used", human(image.used_bytes)),
        ("init", if image.init == InitMode::Image { "image" } else { "minimal" }.to_owned()),
        ("digest", image.digest.clone()),
        ("source", image.source.clone()),
        ("kernel", image.kernel.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("created", timestamp(image.created_at)),
        ("entrypoint", image.config.entrypoint.join(" ")),
        ("command", image.config.cmd.join(" ")),
        ("folder", image.config.folder.clone()),
        ("user", image.config.user.clone()),
        ("environment", image.config.env.join(" ")),
    ]))
}

/// `image pull`: prints the name.
pub fn pull(asked: ImagePull) -> Result<(), Failure> {
    let paths = Paths::current();
    let config = resolve::config(&paths)?;
    let mut client = autostart::connect(&paths)?;
    let mut progress = Progress::new();
    let how = How { name: asked.name, size: asked.size, platform: asked.platform };
    let (made, image) = match asked.source {
        PullSource::Image(ImageWish::Name(source)) => {
            if how.platform.is_some() {
                return Err(Usage::new("--platform is for images of registries", &["image", "pull"]).into());
            }
            let name = how.name.unwrap_or_else(|| source.clone());
            let done = pull::image(&mut client, &paths, &config, &source, &name, how.size, &mut progress)?;
            progress.clear();
            return done.say("image", name.as_str());
        }
        PullSource::Image(ImageWish::Pinned(source, digest)) => {
            oci::pull(&mut client, &paths, &config, &pinned(&source, &digest)?, &how, &mut progress)?
        }
        PullSource::Image(ImageWish::Reference(reference)) => {
            oci::pull(&mut client, &paths, &config, &reference, &how, &mut progress)?
        }
        PullSource::OciArchive(file) => {
            oci::of_archive(&mut client, &paths, &config, (true, file.as_deref()), &how, &mut progress)?
        }
        PullSource::DockerArchive(file) => {
            oci::of_archive(&mut client, &paths, &config, (false, file.as_deref()), &how, &mut progress)?
        }
    };
    progress.clear();
    oci::say(made, &image)
}

/// The reference of a pinned name.
fn pinned(name: &ImageName, digest: &Digest) -> Result<Reference, Failure> {
    format!("{name}@{digest}").parse().map_err(|e| oci::fault(&e).into())
}

/// Makes the image that `wish` means available for a VM.
pub fn ensure(
    client: &mut Client,
    paths: &Paths,
    config: &Config,
    wish: &ImageWish,
    progress: &mut Progress,
) -> Result<ImageRecord, Failure> {
    let mut known = all(client)?;
    // What fits that machine, by its own catalogue and with its own credentials.
    if !is_here(&known, wish) && remote::errand(&["image", "pull", &wish.to_string()])? {
        known = all(client)?;
    }
    let named = |name: &ImageName| known.iter().find(|image| image.name == *name).cloned();
    let reference = match wish {
        ImageWish::Name(name) => {
            if let Some(image) = named(name) {
                return Ok(image);
            }
            pull::ensure_image(client, paths, config, name, progress)?;
            return show_one(&all(client)?, name).cloned();
        }
        ImageWish::Pinned(name, digest) => match (named(name), pinned(name, digest)) {
            (Some(image), _) if oci::is_pin(&image, digest) => return Ok(image),
            // The name is another image's; the digest may still say which one of the registry is meant.
            (_, Ok(reference)) => reference,
            (Some(image), Err(_)) => return Err(oci::wrong_pin(&image, digest)),
            (None, Err(failure)) => return Err(failure),
        },
        ImageWish::Reference(reference) => reference.clone(),
    };
    if let Some(image) = oci::find(&known, &reference) {
        return Ok(image.clone());
    }
    let pulled = oci::pull(client, paths, config, &reference, &How::default(), progress);
    match (wish, pulled) {
        (ImageWish::Pinned(name, digest), Err(failure)) => match named(name) {
            Some(image) => Err(failure.hint(oci::wrong_pin(&image, digest).line())),
            None => Err(failure),
        },
        (_, pulled) => pulled.map(|(_, image)| image),
    }
}

/// Whether nothing has to be pulled for `wish`.
pub fn is_here(known: &[ImageRecord], wish: &ImageWish) -> bool {
    match wish {
        ImageWish::Name(name) => known.iter().any(|image| image.name == *name),
        ImageWish::Pinned(name, digest) => known.iter().any(|i| i.name == *name && oci::is_pin(i, digest)),
        ImageWish::Reference(reference) => oci::find(known, reference).is_some(),
    }
}

/// `image register`: prints the name.
pub fn register(asked: ImageRegister) -> Result<(), Failure> {
    let given = &asked.rootfs;
    let failed = |e: io::Error| Fault::failed(format!("cannot open {}", given.display()), &e);
    // The link behind which it lies is followed now: what is opened is what stays.
    let path = given.canonicalize().map_err(failed)?;
    let file = File::open(&path).map_err(failed)?;
    let wrong = |message: String| Failure::from(Usage::new(message, &["image", "register"]));
    let text = path.to_str().ok_or_else(|| wrong(format!("{}: a path in UTF-8 is needed", path.display())))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = match asked.name {
        Some(name) => name,
        None => stem.parse().map_err(|_| wrong(format!("{stem:?} cannot be an image's name: give one with --name")))?,
    };
    let new = NewPlace { name: name.clone(), path: text.to_owned(), kernel: asked.kernel_ref };
    let mut client = autostart::connect(&Paths::current())?;
    client.call(OwnerRequest::RegisterImage(new), vec![file.into()], &mut |_| {})?;
    render::name(name.as_str())
}

/// `image promote`: prints the name.
pub fn promote(name: ImageName) -> Result<(), Failure> {
    make(&name, OwnerRequest::PromoteImage { name: name.clone() })
}

/// `image commit`: prints the image's name.
pub fn commit(vm: VmName, name: ImageName) -> Result<(), Failure> {
    make(&name, OwnerRequest::CommitImage { vm, name: name.clone() })
}

fn make(name: &ImageName, request: OwnerRequest) -> Result<(), Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let mut progress = Progress::new();
    client.call(request, Vec::new(), &mut |event| progress.show(event))?;
    progress.clear();
    render::name(name.as_str())
}

/// `image cache prune`.
pub fn prune_cache(dry_run: bool) -> Result<(), Failure> {
    let (begun, folder) = (Instant::now(), oci::cache(&Paths::current()));
    let pruned = Blobs::open(&folder).map_err(|e| Fault::failed("cannot open the cache", &e))?.prune(dry_run);
    let pruned = pruned.map_err(|e| oci::fault(&e))?;
    let took = begun.elapsed().as_secs_f64();
    let view = PrunedView { bytes: pruned.bytes, blobs: pruned.blobs, dry_run };
    render::either(&view, || {
        let (bytes, blobs) = (human(pruned.bytes), pruned.blobs);
        match dry_run {
            true => format!("would free {bytes} across {blobs} blobs"),
            false => format!("freed {bytes} across {blobs} blobs in {took:.1}s"),
        }
    })
}

#[derive(serde::Serialize)]
struct PrunedView {
    bytes: u64,
    blobs: u64,
    dry_run: bool,
}

fn show_one<'i>(images: &'i [ImageRecord], name: &ImageName) -> Result<&'i ImageRecord, Failure> {
    images.iter().find(|image| image.name == *name).ok_or_else(|| {
        let fault = Fault::new(FaultKind::NotFound, format!("image '{name}' not found"));
        fault.hint("banger image list").into()
    })
}

/// `image delete`.
pub fn delete(names: Vec<ImageName>) -> Result<(), Failure> {
    if names.is_empty() {
        return for_each(names, "image delete", |_| Ok(()));
    }
    let mut client = autostart::connect(&Paths::current())?;
    for_each(names, "image delete", |name| client.ask(OwnerRequest::DeleteImage { name: name.clone() }).map(|_| ()))
}
