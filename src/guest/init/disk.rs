//! The root disk: waiting for it, mounting, growing.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use rustix::mount::MountFlags;

use super::mounts::mount_at;
use crate::guest::console::say;
use crate::guest::error::{Doing, GuestError};
use crate::guest::{sys, uevent::Uevents};

/// The root disk; the first drive.
const ROOT_DISK: &str = "/dev/vda";

/// Where it is mounted before it becomes the root.
pub const NEW_ROOT: &str = "/newroot";

/// A disk that is attached at start is there long before; under software emulation a probe takes
/// some tenths of a second.
const LIMIT: Duration = Duration::from_secs(10);

/// Waits for the root disk and mounts it.
pub fn mount_root() -> Result<(), GuestError> {
    wait_for_disk()?;
    fs::create_dir_all(NEW_ROOT).doing(|| format!("create {NEW_ROOT}"))?;
    mount_at(ROOT_DISK, Path::new(NEW_ROOT), "ext4", MountFlags::NOATIME, "")?;
    say("root disk mounted");
    Ok(())
}

fn wait_for_disk() -> Result<(), GuestError> {
    let disk = Path::new(ROOT_DISK);
    let events = Uevents::open().doing(|| "listen for devices".into())?;
    let there = events.wait_for(LIMIT, || disk.exists().then_some(())).doing(|| "wait for devices".into())?;
    there.ok_or_else(|| GuestError::NoDevice { device: ROOT_DISK.into(), seconds: LIMIT.as_secs() })
}

/// Lets the filesystem fill its disk. The kernel does nothing when it does already.
pub fn grow() -> Result<(), GuestError> {
    let device = File::open(ROOT_DISK).doing(|| format!("open {ROOT_DISK}"))?;
    let bytes = sys::block_device_size(&device).doing(|| format!("measure {ROOT_DISK}"))?;
    let before = rustix::fs::statvfs("/").doing(|| "measure the root filesystem".into())?;
    let root = File::open("/").doing(|| "open /".into())?;
    sys::resize_ext4(&root, bytes / before.f_frsize).doing(|| format!("grow the root filesystem to {bytes} bytes"))?;
    let after = rustix::fs::statvfs("/").doing(|| "measure the root filesystem".into())?;
    if after.f_blocks != before.f_blocks {
        let mib = |blocks: u64| (blocks * before.f_frsize) >> 20;
        say(&format!("root filesystem grown from {} to {} MiB", mib(before.f_blocks), mib(after.f_blocks)));
    }
    Ok(())
}
