//! Images that are somebody's files: used where they are, behind a link, or copied into banger's own store.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Daemon;
use super::blocking::unblock;
use super::catalogue::{MAX_SOURCE, begin, check_source, finish, note_image, take_turn, turn_of_new};
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
    let source = source_of(&path, ", used in place");
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

/// What an image of the file at `path` is shown to be made of.
fn source_of(path: &str, rest: &str) -> String {
    let room = MAX_SOURCE - "file ".len() - rest.len();
    format!("file {}{rest}", path.chars().take(room).collect::<String>())
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
    let Some(place) = image.place.clone() else { return Ok(image) };
    check(&image)?;
    begin(daemon, op, format!("image promote {name}")).await?;
    op.stage("copying");
    let (from, target) = (PathBuf::from(&place.path), daemon.paths.image(&name));
    let (asked, checked) = (op.clone(), image.clone());
    let copied = unblock(move || {
        // What changes while it is copied is neither what was registered nor what it is now.
        let go_on = || asked.safe_point().and_then(|()| check(&checked)).map_err(io::Error::other);
        content::replicate_while(&from, &target, None, &|_| Ok(()), &go_on)?;
        std::fs::metadata(&target).map(|about| about.blocks() * 512)
    });
    let made = copied.await.map_err(|e| copy_fault(&name, &e));
    let source = source_of(&place.path, "");
    let made = made.map(|used_bytes| ImageRecord { used_bytes, source, place: None, ..image });
    finish(daemon, op, made, |s, record| s.replace_image(record)).await
}

fn copy_fault(name: &ImageName, error: &io::Error) -> Fault {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()) {
        Some(fault) => fault.clone(),
        None => Fault::failed(format!("cannot copy image '{name}'"), error),
    }
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
        .hint(anew(image, place)))
}

/// What makes the same image of the file as it is now.
fn anew(image: &ImageRecord, place: &Place) -> String {
    let kernel = image.kernel.as_ref().map(|kernel| format!(" --kernel-ref {kernel}")).unwrap_or_default();
    let (name, path) = (&image.name, &place.path);
    format!("banger image delete {name} && banger image register --rootfs {path} --name {name}{kernel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_leaves_room_for_what_is_said_of_it() {
        let path = format!("/{}", "ø".repeat(400));
        let source = source_of(&path, ", used in place");
        assert!(source.ends_with("ø, used in place") && check_source(&source).is_ok(), "{source}");
        assert_eq!(source_of("/srv/golden.ext4", ""), "file /srv/golden.ext4");
    }

    #[test]
    fn what_stops_a_copy_is_told_as_it_is() {
        let name = "golden".parse().expect("a name");
        assert_eq!(copy_fault(&name, &io::Error::other(Op::cancelled())), Op::cancelled());
        assert!(copy_fault(&name, &io::ErrorKind::StorageFull.into()).to_string().starts_with("cannot copy image"));
    }

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
