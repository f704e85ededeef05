//! Images that are somebody's files: used where they are, behind a link, or copied into banger's own store.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Daemon;
use super::blocking::unblock;
use super::catalogue::{begin, check_source, finish, note_image, take_turn, turn_of_new};
use super::operation::Op;
use crate::model::image::{ImageConfig, ImageRecord, Place};
use crate::model::{ImageName, InitMode, KernelName, Mib};
use crate::os::clock::unix_seconds;
use crate::os::content;
use crate::os::files::{named, remove_file};
use crate::protocol::owner::NewPlace;
use crate::protocol::{Fault, FaultKind};

/// Where ext4 has its magic number (Documentation/filesystems/ext4/super.rst).
const MAGIC_AT: u64 = 1024 + 0x38;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// Makes an image of a file that stays where it is. `file` is what the caller could open: only that is taken.
pub(super) async fn register(
    daemon: &Arc<Daemon>,
    op: &Op,
    new: NewPlace,
    file: OwnedFd,
) -> Result<ImageRecord, Fault> {
    let NewPlace { name, path, kernel } = new;
    let source = format!("file {path}, used in place").chars().take(80).collect::<String>();
    check_source(&source)?;
    let _turn = turn_of_new(daemon, op, &name).await?;
    let kernel = kernel_there(daemon, kernel).await?;
    begin(daemon, op, format!("image register {name}")).await?;
    let target = daemon.paths.image(&name);
    let (path_there, link) = (PathBuf::from(&path), target.clone());
    let looked = unblock(move || -> Result<(u64, u64, i64), Fault> {
        let seen = look_at(&File::from(file), &path_there)?;
        lay_link(&path_there, &link).map_err(|e| Fault::failed("cannot lay the image's link", &e))?;
        Ok(seen)
    });
    let made = looked.await.map(|(bytes, used_bytes, changed_ns)| ImageRecord {
        name,
        size: Mib((bytes >> 20) as u32),
        used_bytes,
        digest: String::new(),
        source,
        init: InitMode::Image,
        created_at: unix_seconds(),
        reference: None,
        config: ImageConfig::default(),
        kernel,
        place: Some(Place { path, changed_ns }),
    });
    note_image(daemon, op, made, &target).await
}

async fn kernel_there(daemon: &Daemon, kernel: Option<KernelName>) -> Result<Option<KernelName>, Fault> {
    let Some(name) = kernel else { return Ok(None) };
    daemon.stored(move |s| s.kernel(&name)).await.map(|kernel| Some(kernel.name))
}

/// Size, bytes taken and time of change of a filesystem's file that is the one at `path`.
fn look_at(file: &File, path: &Path) -> Result<(u64, u64, i64), Fault> {
    let refuse = |why: &str| Fault::new(FaultKind::BadRequest, format!("{}: {why}", path.display()));
    let failed = |e: io::Error| Fault::failed(format!("cannot use {}", path.display()), &e);
    if !path.is_absolute() {
        return Err(refuse("an absolute path is needed"));
    }
    let (given, found) = (file.metadata().map_err(failed)?, path.metadata().map_err(failed)?);
    if (given.dev(), given.ino()) != (found.dev(), found.ino()) {
        return Err(refuse("it is another file by now"));
    }
    let mut magic = [0; 2];
    let is_ext4 = given.is_file() && file.read_exact_at(&mut magic, MAGIC_AT).is_ok() && magic == MAGIC;
    if !is_ext4 || given.len() < 1 << 20 || given.len() >> 20 > u64::from(u32::MAX) {
        return Err(refuse("a raw ext4 filesystem in a file is needed"));
    }
    Ok((given.len(), given.blocks() * 512, changed_ns(&given)))
}

fn changed_ns(about: &std::fs::Metadata) -> i64 {
    about.mtime().saturating_mul(1_000_000_000).saturating_add(about.mtime_nsec())
}

/// A link that is there whole or not at all.
fn lay_link(path: &Path, target: &Path) -> io::Result<()> {
    let part = target.with_extension("link");
    remove_file(&part)?;
    symlink(path, &part).map_err(named("make a link at", &part))?;
    std::fs::rename(&part, target).map_err(named("rename to", target))
}

/// Copies a file that is used in place into banger's own store.
pub(super) async fn promote(daemon: &Arc<Daemon>, op: &Op, name: ImageName) -> Result<ImageRecord, Fault> {
    let _turn = take_turn(daemon, op, "image", name.as_str()).await?;
    let wanted = name.clone();
    let image = daemon.stored(move |s| s.image(&wanted)).await?;
    let Some(place) = &image.place else { return Ok(image) };
    check(&image)?;
    begin(daemon, op, format!("image promote {name}")).await?;
    op.stage("copying");
    let (from, target) = (PathBuf::from(&place.path), daemon.paths.image(&name));
    let copied = unblock(move || {
        content::replicate(&from, &target, None, &|_| Ok(()))?;
        std::fs::metadata(&target).map(|about| about.blocks() * 512)
    });
    let copied = copied.await;
    let made = copied.map_err(|e| Fault::failed(format!("cannot copy image '{name}'"), &e));
    let made = made.map(|used_bytes| ImageRecord {
        used_bytes,
        source: image.source.replace(", used in place", ""),
        place: None,
        ..image
    });
    finish(daemon, op, made, |s, record| s.replace_image(record)).await
}

/// Refuses an image whose file is not what was registered: disks of VMs hold only what differs from it.
pub(super) fn check(image: &ImageRecord) -> Result<(), Fault> {
    let Some(place) = &image.place else { return Ok(()) };
    let about = std::fs::metadata(&place.path)
        .map_err(|e| Fault::failed(format!("image '{}' is at {}, which cannot be used", image.name, place.path), &e))?;
    if changed_ns(&about) == place.changed_ns && about.len() >> 20 == u64::from(image.size.0) {
        return Ok(());
    }
    let message = format!("image '{}' is {}, which has changed since it was registered", image.name, place.path);
    Err(Fault::new(FaultKind::Refused, message)
        .cause("disks of VMs hold what differs from it, and would be damaged")
        .hint(format!("banger image delete {} && banger image register --rootfs {}", image.name, place.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ext4_file_that_is_still_there_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("root.ext4");
        std::fs::write(&path, vec![0; 2 << 20]).expect("written");
        let open = || File::options().read(true).write(true).open(&path).expect("opened");
        assert_eq!(look_at(&open(), &path).expect_err("no ext4").kind, FaultKind::BadRequest);
        open().write_all_at(&MAGIC, MAGIC_AT).expect("written");
        let (bytes, _, changed_ns) = look_at(&open(), &path).expect("taken");
        assert_eq!(bytes, 2 << 20);
        let old = open();
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, vec![0; 2 << 20]).expect("written");
        assert!(look_at(&old, &path).expect_err("another").to_string().contains("another file"));
        assert!(look_at(&old, Path::new("root.ext4")).is_err());
        let image = ImageRecord {
            name: "i".parse().expect("a name"),
            size: Mib(2),
            used_bytes: 0,
            digest: String::new(),
            source: String::new(),
            init: InitMode::Image,
            created_at: 0,
            reference: None,
            config: ImageConfig::default(),
            kernel: None,
            place: Some(Place { path: path.display().to_string(), changed_ns }),
        };
        assert_eq!(check(&image).expect_err("changed").kind, FaultKind::Refused);
        assert!(check(&ImageRecord { place: None, ..image }).is_ok());
    }
}
