//! Images and kernels: made from streams that the command line hands over, written whole or not at
//! all, deleted only when no VM uses them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use log::{info, warn};
use smol::Async;
use smol::future::FutureExt;
use smol::lock::MutexGuardArc;

use super::Daemon;
use super::blocking::unblock;
use super::operation::{Cancel, Op};
use crate::image::oci::Reference;
use crate::image::{Cancelled, Ext4Options, ImageError, Written, import_kernel, layers_to_ext4, tar_to_ext4};
use crate::model::image::{ImageConfig, ImageRecord, KernelRecord};
use crate::model::launch::KernelArgs;
use crate::model::{ImageName, InitMode, KernelName, Mib};
use crate::os::clock::unix_seconds;
use crate::os::files::{ensure_dir, remove_file, remove_tree};
use crate::protocol::owner::NewLayers;
use crate::protocol::{Event, Fault, FaultKind};
use crate::store::OperationRecord;

/// Most characters of a source's description.
pub(super) const MAX_SOURCE: usize = 256;

/// Most bytes of a digest: `sha512:` and 128 digits.
const MAX_DIGEST: usize = 135;

/// Progress is told each time this many bytes have come.
const PROGRESS_STEP: u64 = 4 << 20;

/// An image to be made of one tar stream.
pub(super) struct NewImage {
    pub name: ImageName,
    pub size: Option<Mib>,
    pub init: InitMode,
    pub source: String,
}

/// A kernel to be made.
pub(super) struct NewKernel {
    pub name: KernelName,
    pub release: String,
    pub boot_args: KernelArgs,
    pub source: String,
}

/// Makes an image of the tree in `stream`.
pub(super) async fn import_image(
    daemon: &Arc<Daemon>,
    op: &Op,
    new: NewImage,
    stream: OwnedFd,
) -> Result<ImageRecord, Fault> {
    let NewImage { name, size, init, source } = new;
    let origin = Origin { digest: None, reference: None, config: ImageConfig::default(), init: Some(init), source };
    make_image(daemon, op, name, origin, move |told, target, op| {
        let mut stream = Inflow::new(stream, op);
        tar_to_ext4(&mut stream, target, &Ext4Options::root(size), &mut |bytes| told.progress(bytes))
    })
    .await
}

/// Makes an image of the layers in `stream`.
pub(super) async fn import_layers(
    daemon: &Arc<Daemon>,
    op: &Op,
    new: NewLayers,
    stream: OwnedFd,
) -> Result<ImageRecord, Fault> {
    let NewLayers { name, size, digest, reference, config, source } = new;
    if config.bytes() > ImageConfig::MAX_BYTES || digest.len() > MAX_DIGEST {
        return Err(Fault::new(FaultKind::BadRequest, "the image's configuration is too long"));
    }
    reference.as_deref().map_or(Ok(()), check_reference)?;
    let origin = Origin { digest: Some(digest), reference, config, init: None, source };
    make_image(daemon, op, name, origin, move |told, target, op| {
        let mut stream = Inflow::new(stream, op);
        layers_to_ext4(&mut stream, target, &Ext4Options::root(size), &mut |bytes| told.progress(bytes))
    })
    .await
}

/// What is known of an image before it is made.
struct Origin {
    digest: Option<String>,
    reference: Option<String>,
    config: ImageConfig,
    /// `None`: what is found in it.
    init: Option<InitMode>,
    source: String,
}

async fn make_image(
    daemon: &Arc<Daemon>,
    op: &Op,
    name: ImageName,
    origin: Origin,
    write: impl FnOnce(&mut Teller, &Path, &Op) -> Result<Written, ImageError> + Send + 'static,
) -> Result<ImageRecord, Fault> {
    check_source(&origin.source)?;
    let _turn = turn_of_new(daemon, op, &name).await?;
    begin(daemon, op, format!("image import {name}")).await?;
    op.stage("writing the filesystem");
    let target = daemon.paths.image(&name);
    let (asked, path) = (op.clone(), target.clone());
    let written = unblock(move || write(&mut Teller::new(&asked), &path, &asked)).await;
    let made = written.map_err(|e| image_fault(op, "cannot make the image", &e)).map(|written| ImageRecord {
        name,
        size: written.size,
        used_bytes: written.used_bytes,
        digest: origin.digest.unwrap_or(written.digest),
        source: origin.source,
        init: origin.init.unwrap_or(if written.has_systemd { InitMode::Image } else { InitMode::Minimal }),
        created_at: unix_seconds(),
        reference: origin.reference,
        config: origin.config,
        kernel: None,
        place: None,
    });
    note_image(daemon, op, made, &target).await
}

/// The turn of an image that is to be made; refused where there is one of its name.
pub(super) async fn turn_of_new(daemon: &Daemon, op: &Op, name: &ImageName) -> Result<MutexGuardArc<()>, Fault> {
    let turn = take_turn(daemon, op, "image", name.as_str()).await?;
    let wanted = name.clone();
    let there = daemon.stored(|s| s.images()).await?.into_iter().any(|image| image.name == wanted);
    refuse_taken(there, "image", name.as_str())?;
    Ok(turn)
}

/// Notes what was made; of what was not, nothing stays at `target`.
pub(super) async fn note_image(
    daemon: &Daemon,
    op: &Op,
    made: Result<ImageRecord, Fault>,
    target: &Path,
) -> Result<ImageRecord, Fault> {
    let noted = finish(daemon, op, made, |s, record| s.put_image(record)).await;
    if noted.is_err() {
        let target = target.to_owned();
        unblock(move || remove_file(&target)).await.map_err(|e| Fault::failed("cannot remove a partial image", &e))?;
    }
    noted
}

/// Makes a kernel of the files in `stream`.
pub(super) async fn add_kernel(
    daemon: &Arc<Daemon>,
    op: &Op,
    new: NewKernel,
    stream: OwnedFd,
) -> Result<KernelRecord, Fault> {
    check_source(&new.source)?;
    let _turn = take_turn(daemon, op, "kernel", new.name.as_str()).await?;
    let name = new.name.clone();
    let there = daemon.stored(|s| s.kernels()).await?.into_iter().any(|kernel| kernel.name == name);
    refuse_taken(there, "kernel", new.name.as_str())?;
    begin(daemon, op, format!("kernel import {}", new.name)).await?;
    let made = write_kernel(daemon, op, &new, stream).await;
    finish(daemon, op, made, |s, record| s.put_kernel(record)).await
}

async fn write_kernel(daemon: &Daemon, op: &Op, new: &NewKernel, stream: OwnedFd) -> Result<KernelRecord, Fault> {
    op.stage("unpacking the kernel");
    let folder = daemon.paths.kernels().join(new.name.as_str());
    let partial = daemon.paths.kernels().join(format!(".{}.part", new.name));
    let (asked, release) = (op.clone(), new.release.clone());
    let imported = unblock(move || -> Result<_, ImageError> {
        remove_tree(&partial)?;
        ensure_dir(&partial, 0o700)?;
        let mut told = Teller::new(&asked);
        let outcome =
            import_kernel(&mut Inflow::new(stream, &asked), &partial, &release, &mut |bytes| told.progress(bytes));
        if outcome.is_err() {
            remove_tree(&partial)?;
        }
        let imported = outcome?;
        // A folder cannot be renamed over another that holds files.
        remove_tree(&folder)?;
        std::fs::rename(&partial, &folder).map_err(crate::os::files::named("rename to", &folder))?;
        Ok(imported)
    });
    let imported = imported.await.map_err(|e| image_fault(op, "cannot make the kernel", &e))?;
    Ok(KernelRecord {
        name: new.name.clone(),
        release: new.release.clone(),
        boot_args: new.boot_args.clone(),
        has_modules_drive: imported.has_modules_drive,
        used_bytes: imported.used_bytes,
        source: new.source.clone(),
        created_at: unix_seconds(),
    })
}

/// Deletes an image that no VM uses.
pub(super) async fn delete_image(daemon: &Arc<Daemon>, op: &Op, name: ImageName) -> Result<(), Fault> {
    let _turn = take_turn(daemon, op, "image", name.as_str()).await?;
    let path = daemon.paths.image(&name);
    // The row first: a file without a row is swept, a row without its file would be a lie.
    daemon.stored(move |s| s.remove_image(&name)).await?;
    unblock(move || remove_file(&path)).await.map_err(|e| Fault::failed("cannot remove the image's file", &e))
}

/// Deletes a kernel that no VM uses.
pub(super) async fn delete_kernel(daemon: &Arc<Daemon>, op: &Op, name: KernelName) -> Result<(), Fault> {
    let _turn = take_turn(daemon, op, "kernel", name.as_str()).await?;
    let folder = daemon.paths.kernels().join(name.as_str());
    daemon.stored(move |s| s.remove_kernel(&name)).await?;
    unblock(move || remove_tree(&folder)).await.map_err(|e| Fault::failed("cannot remove the kernel's files", &e))
}

/// The lock of one image or kernel; whoever waits for it can give up.
pub(super) async fn take_turn(daemon: &Daemon, op: &Op, what: &str, name: &str) -> Result<MutexGuardArc<()>, Fault> {
    let lock = daemon.making(format!("{what} {name}"));
    if let Some(turn) = lock.try_lock_arc() {
        return Ok(turn);
    }
    op.stage("waiting for another command");
    op.waits_for(format!("it makes or removes the same {what}"));
    op.unless_cancelled(lock.lock_arc()).await.ok_or_else(Op::cancelled)
}

pub(super) fn check_source(source: &str) -> Result<(), Fault> {
    let bad = source.chars().count() > MAX_SOURCE || source.chars().any(char::is_control);
    let refused =
        || Fault::new(FaultKind::BadRequest, "the source's description is too long or has control characters");
    if bad { Err(refused()) } else { Ok(()) }
}

fn check_reference(reference: &str) -> Result<(), Fault> {
    if reference.len() <= Reference::MAX_BYTES && !reference.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Fault::new(FaultKind::BadRequest, "the image's reference is too long or has control characters"))
}

fn refuse_taken(there: bool, what: &str, name: &str) -> Result<(), Fault> {
    if !there {
        return Ok(());
    }
    Err(Fault::new(FaultKind::AlreadyExists, format!("{what} '{name}' exists already"))
        .hint(format!("banger {what} rm {name}")))
}

pub(super) async fn begin(daemon: &Daemon, op: &Op, what: String) -> Result<(), Fault> {
    info!("[{}] {what}", op.id);
    let record = OperationRecord { op: op.id, what, started_at: unix_seconds() };
    daemon.stored(move |s| s.begin_operation(&record)).await
}

/// Notes what was made, and the operation's end either way.
pub(super) async fn finish<R: Clone + Send + 'static>(
    daemon: &Daemon,
    op: &Op,
    made: Result<R, Fault>,
    put: fn(&crate::store::Store, &R) -> Result<(), crate::store::StoreError>,
) -> Result<R, Fault> {
    let id = op.id;
    let outcome = match made {
        Ok(record) => {
            let row = record.clone();
            daemon.stored(move |s| put(s, &row)).await.map(|()| record)
        }
        Err(fault) => Err(fault),
    };
    // The note of an operation that was cut short is swept at the next start; what was made stands.
    if let Err(fault) = daemon.stored(move |s| s.end_operation(id)).await {
        warn!("[{id}] its end cannot be noted: {fault}");
    }
    outcome
}

fn image_fault(op: &Op, doing: &str, error: &ImageError) -> Fault {
    if matches!(error, ImageError::Cancelled) || op.cancel.is_set() {
        Op::cancelled()
    } else {
        Fault::failed(doing, error)
    }
}

/// A client's stream, whose end need not be waited for once nobody wants what it brings: it may be
/// a pipe whose writer has stopped, or which somebody else holds open.
struct Inflow {
    stream: Stream,
    cancel: Arc<Cancel>,
}

enum Stream {
    /// A pipe or a socket.
    Awaited(Async<File>),
    /// A file always has something, or its end (epoll_ctl(2): `EPERM`).
    Plain(File),
}

impl Inflow {
    fn new(stream: OwnedFd, op: &Op) -> Self {
        let file = File::from(stream);
        // Its blocking mode is its other holders' too, and is left alone: it is read only when there
        // is something.
        let stream = match file.try_clone().and_then(Async::new_nonblocking) {
            Ok(awaited) => Stream::Awaited(awaited),
            Err(_) => Stream::Plain(file),
        };
        Self { stream, cancel: op.cancel.clone() }
    }
}

impl Read for Inflow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Plain(file) => file.read(buffer),
            Stream::Awaited(awaited) => {
                let cancelled = async {
                    self.cancel.wait().await;
                    Err(io::Error::other("nobody wants it any more"))
                };
                smol::block_on(awaited.readable().or(cancelled))?;
                awaited.get_ref().read(buffer)
            }
        }
    }
}

/// Tells progress in steps, and stops the work when nobody wants it any more.
struct Teller<'a> {
    op: &'a Op,
    told: u64,
}

impl<'a> Teller<'a> {
    fn new(op: &'a Op) -> Self {
        Self { op, told: 0 }
    }

    fn progress(&mut self, bytes: u64) -> Result<(), Cancelled> {
        if bytes >= self.told + PROGRESS_STEP {
            self.told = bytes;
            self.op.tell(Event::Progress { done: bytes, total: None });
        }
        if self.op.cancel.is_set() { Err(Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_reference_is_taken() {
        let (name, digest) = (format!("r.example/{}", "a".repeat(245)), "d".repeat(64));
        let longest = format!("{name}:{}@sha256:{digest}", "t".repeat(128));
        assert_eq!(longest.parse::<Reference>().expect("a reference").to_string(), longest);
        assert_eq!(longest.len(), Reference::MAX_BYTES);
        assert!(check_reference(&longest).is_ok());
        for wrong in [format!("{longest}x"), "a\nb".to_owned()] {
            assert!(check_reference(&wrong).expect_err("refused").to_string().contains("the image's reference"));
        }
    }
}
