//! Images and kernels: made from streams that the command line hands over, written whole or not at
//! all, deleted only when no VM uses them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use log::info;

use super::Daemon;
use super::operation::Op;
use crate::image::{Cancelled, Ext4Options, ImageError, import_kernel, tar_to_ext4};
use crate::model::image::{ImageRecord, KernelRecord};
use crate::model::launch::KernelArgs;
use crate::model::{ImageName, InitMode, KernelName, Mib};
use crate::os::clock::unix_seconds;
use crate::os::files::{ensure_dir, remove_file, remove_tree};
use crate::protocol::{Event, Fault, FaultKind};
use crate::store::OperationRecord;

/// Most characters of a source's description.
const MAX_SOURCE: usize = 256;

/// Progress is told each time this many bytes have come.
const PROGRESS_STEP: u64 = 4 << 20;

/// An image to be made.
pub(super) struct NewImage {
    pub name: ImageName,
    pub size: Option<Mib>,
    pub init: InitMode,
    pub source: String,
    pub replace: bool,
}

/// A kernel to be made.
pub(super) struct NewKernel {
    pub name: KernelName,
    pub release: String,
    pub boot_args: KernelArgs,
    pub source: String,
    pub replace: bool,
}

/// Makes an image of the tree in `stream`.
pub(super) async fn import_image(
    daemon: &Arc<Daemon>,
    op: &Op,
    new: NewImage,
    stream: OwnedFd,
) -> Result<ImageRecord, Fault> {
    check_source(&new.source)?;
    let _turn = daemon.making.lock().await;
    let name = new.name.clone();
    let before = daemon.stored(|s| s.images()).await?.into_iter().find(|image| image.name == name);
    refuse_taken(before.is_some(), new.replace, "image", new.name.as_str())?;
    if before.is_some() {
        // Refused while a VM uses it: its disk lies over the very file that is to be replaced.
        daemon.stored(move |s| s.remove_image(&name)).await?;
    }
    begin(daemon, op, format!("image import {}", new.name)).await?;
    let made = write_image(daemon, op, &new, stream).await;
    let noted = finish(daemon, op, made, |s, record| s.put_image(record)).await;
    if noted.is_err()
        && let Some(before) = before
    {
        daemon.stored(move |s| s.put_image(&before)).await?;
    } else if noted.is_err() {
        let path = daemon.paths.images().join(format!("{}.ext4", new.name));
        smol::unblock(move || remove_file(&path))
            .await
            .map_err(|e| Fault::failed("cannot remove a partial image", &e))?;
    }
    noted
}

async fn write_image(daemon: &Daemon, op: &Op, new: &NewImage, stream: OwnedFd) -> Result<ImageRecord, Fault> {
    op.stage("writing the filesystem");
    let target = daemon.paths.images().join(format!("{}.ext4", new.name));
    let (op, size) = (op.clone(), new.size);
    let written = smol::unblock(move || {
        let mut told = Teller::new(&op);
        tar_to_ext4(&mut File::from(stream), &target, &Ext4Options::root(size), &mut |bytes| told.progress(bytes))
    });
    let written = written.await.map_err(|e| image_fault("cannot make the image", &e))?;
    Ok(ImageRecord {
        name: new.name.clone(),
        size: written.size,
        used_bytes: written.used_bytes,
        digest: written.digest,
        source: new.source.clone(),
        init: new.init,
        created_at: unix_seconds(),
    })
}

/// Makes a kernel of the files in `stream`.
pub(super) async fn add_kernel(
    daemon: &Arc<Daemon>,
    op: &Op,
    new: NewKernel,
    stream: OwnedFd,
) -> Result<KernelRecord, Fault> {
    check_source(&new.source)?;
    let _turn = daemon.making.lock().await;
    let name = new.name.clone();
    let before = daemon.stored(|s| s.kernels()).await?.into_iter().find(|kernel| kernel.name == name);
    refuse_taken(before.is_some(), new.replace, "kernel", new.name.as_str())?;
    if before.is_some() {
        daemon.stored(move |s| s.remove_kernel(&name)).await?;
    }
    begin(daemon, op, format!("kernel import {}", new.name)).await?;
    let made = write_kernel(daemon, op, &new, stream).await;
    let noted = finish(daemon, op, made, |s, record| s.put_kernel(record)).await;
    if noted.is_err()
        && let Some(before) = before
    {
        daemon.stored(move |s| s.put_kernel(&before)).await?;
    }
    noted
}

async fn write_kernel(daemon: &Daemon, op: &Op, new: &NewKernel, stream: OwnedFd) -> Result<KernelRecord, Fault> {
    op.stage("unpacking the kernel");
    let folder = daemon.paths.kernels().join(new.name.as_str());
    let partial = daemon.paths.kernels().join(format!(".{}.part", new.name));
    let (op, release) = (op.clone(), new.release.clone());
    let imported = smol::unblock(move || -> Result<_, ImageError> {
        remove_tree(&partial)?;
        ensure_dir(&partial, 0o700)?;
        let mut told = Teller::new(&op);
        let outcome = import_kernel(&mut File::from(stream), &partial, &release, &mut |bytes| told.progress(bytes));
        if outcome.is_err() {
            remove_tree(&partial)?;
        }
        let imported = outcome?;
        // A folder cannot be renamed over another that holds files.
        remove_tree(&folder)?;
        std::fs::rename(&partial, &folder).map_err(crate::os::files::named("rename to", &folder))?;
        Ok(imported)
    });
    let imported = imported.await.map_err(|e| image_fault("cannot make the kernel", &e))?;
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
pub(super) async fn delete_image(daemon: &Arc<Daemon>, name: ImageName) -> Result<(), Fault> {
    let _turn = daemon.making.lock().await;
    let path = daemon.paths.images().join(format!("{name}.ext4"));
    // The row first: a file without a row is swept, a row without its file would be a lie.
    daemon.stored(move |s| s.remove_image(&name)).await?;
    smol::unblock(move || remove_file(&path)).await.map_err(|e| Fault::failed("cannot remove the image's file", &e))
}

/// Deletes a kernel that no VM uses.
pub(super) async fn delete_kernel(daemon: &Arc<Daemon>, name: KernelName) -> Result<(), Fault> {
    let _turn = daemon.making.lock().await;
    let folder = daemon.paths.kernels().join(name.as_str());
    daemon.stored(move |s| s.remove_kernel(&name)).await?;
    smol::unblock(move || remove_tree(&folder)).await.map_err(|e| Fault::failed("cannot remove the kernel's files", &e))
}

fn check_source(source: &str) -> Result<(), Fault> {
    let bad = source.chars().count() > MAX_SOURCE || source.chars().any(char::is_control);
    let refused =
        || Fault::new(FaultKind::BadRequest, "the source's description is too long or has control characters");
    if bad { Err(refused()) } else { Ok(()) }
}

fn refuse_taken(there: bool, replace: bool, what: &str, name: &str) -> Result<(), Fault> {
    if !there || replace {
        return Ok(());
    }
    Err(Fault::new(FaultKind::AlreadyExists, format!("{what} '{name}' exists already"))
        .hint(format!("banger {what} rm {name}")))
}

async fn begin(daemon: &Daemon, op: &Op, what: String) -> Result<(), Fault> {
    info!("[{}] {what}", op.id);
    let record = OperationRecord { op: op.id, what, started_at: unix_seconds() };
    daemon.stored(move |s| s.begin_operation(&record)).await
}

/// Notes what was made, and the operation's end either way.
async fn finish<R: Clone + Send + 'static>(
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
    daemon.stored(move |s| s.end_operation(id)).await?;
    outcome
}

fn image_fault(doing: &str, error: &ImageError) -> Fault {
    match error {
        ImageError::Cancelled => Op::cancelled(),
        _ => Fault::failed(doing, error),
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
