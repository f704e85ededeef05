//! `image list|show|pull|delete`.

use super::super::args::ImagePull;
use super::super::client::{Client, unexpected};
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::views::ImageView;
use super::super::{autostart, render};
use super::{for_each, pull};
use crate::host::paths::Paths;
use crate::model::image::ImageRecord;
use crate::model::size::human;
use crate::model::{ImageName, InitMode};
use crate::os::clock::unix_seconds;
use crate::os::logger::timestamp;
use crate::protocol::owner::{OwnerReply, OwnerRequest};
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
pub fn list(quiet: bool, json: bool) -> Result<(), Failure> {
    let images = all(&mut autostart::connect(&Paths::current())?)?;
    if json {
        return render::json(&images.iter().map(ImageView::from).collect::<Vec<_>>());
    }
    if quiet {
        return render::text(&images.iter().map(|i| format!("{}\n", i.name)).collect::<String>());
    }
    let now = unix_seconds();
    let row = |i: &ImageRecord| {
        let (size, used) = (human(i.size.bytes()), human(i.used_bytes));
        vec![i.name.to_string(), size, used, render::age(now, i.created_at), i.source.clone()]
    };
    render::text(&render::table(
        &["NAME", "SIZE", "USED", "AGE", "SOURCE"],
        &images.iter().map(row).collect::<Vec<_>>(),
    ))
}

/// `image show`.
pub fn show(name: &ImageName, json: bool) -> Result<(), Failure> {
    let images = all(&mut autostart::connect(&Paths::current())?)?;
    let Some(image) = images.iter().find(|i| i.name == *name) else {
        let fault = Fault::new(FaultKind::NotFound, format!("image '{name}' not found"));
        return Err(fault.hint("banger image list").into());
    };
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
        ("created", timestamp(image.created_at)),
    ]))
}

/// `image pull`: prints the name.
pub fn pull(asked: ImagePull) -> Result<(), Failure> {
    let paths = Paths::current();
    let mut client = autostart::connect(&paths)?;
    let mut progress = Progress::new();
    let name = asked.name.unwrap_or_else(|| asked.source.clone());
    let done = pull::image(&mut client, &paths, &asked.source, &name, asked.size, &mut progress)?;
    progress.clear();
    done.say("image", name.as_str())
}

/// `image delete`.
pub fn delete(names: Vec<ImageName>) -> Result<(), Failure> {
    if names.is_empty() {
        return for_each(names, "image delete", |_| Ok(()));
    }
    let mut client = autostart::connect(&Paths::current())?;
    for_each(names, "image delete", |name| client.ask(OwnerRequest::DeleteImage { name: name.clone() }).map(|_| ()))
}
