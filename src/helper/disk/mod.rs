//! The block devices of a VM's disks: loops over files that the daemon opened, and a device-mapper
//! snapshot over an image.
//!
//! Every name follows from installation and VM, so whatever was left by a crash is found again
//! without a record. Nothing here reads a guest's bytes, and udev is told to keep out (`udev.rs`,
//! and the flags in `mapper.rs`). Documentation/admin-guide/device-mapper/snapshot.rst.

/// The file that holds what a VM has written.
mod cow;
/// Loop devices.
mod loops;
/// Device-mapper's devices.
mod mapper;
/// Device nodes, found or made.
mod node;
/// Tables and statuses as text.
mod table;
/// What udev is told.
mod udev;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use crate::model::{Mib, OpId, VmId};
use crate::os::own_folder::OwnFolder;
use crate::protocol::root::{Deed, DiskFill};
use loops::Loops;
use mapper::Mapper;
pub use udev::ensure_udev_rule;

/// How long a device may stay in use after its monitor has ended.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);

/// Bytes of a sector, everywhere in the block layer.
const SECTOR: u64 = 512;

/// A block device of the host, from which a jail's node is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its driver.
    pub major: u32,
    /// Which one of that driver.
    pub minor: u32,
}

/// What a disk is to its VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskRole {
    /// The disk with the guest's system.
    Root,
    /// The kernel's modules.
    Modules,
}

/// How full a VM's snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// The VM.
    pub id: VmId,
    /// How full.
    pub state: DiskFill,
}

/// Loops that a snapshot stands on.
const BELOW_SNAPSHOT: [&str; 2] = ["image", "cow"];

/// Devices of device-mapper, the upper first: a lower one is in use as long as the upper is there.
const MAPPED: [&str; 2] = ["root", "base"];

/// The disks of all VMs of this installation.
#[derive(Debug)]
pub struct Disks {
    folder: OwnFolder,
    prefix: String,
}

impl Disks {
    /// `folder` is root's own, mode 0700, and holds what guests write.
    pub fn new(folder: OwnFolder, installation: u64) -> Self {
        Self { folder, prefix: format!("banger-{installation:016x}-") }
    }

    /// Whether this kernel makes snapshots, and if not, why.
    pub fn snapshots(&self, _: &Root) -> Result<(), String> {
        let mapper = Mapper::open(&self.folder).map_err(|e| e.line())?;
        mapper.check_version().map_err(|e| e.line())?;
        ["snapshot", "linear", "zero"].into_iter().try_for_each(|target| mapper.check_target(target))
    }

    /// A disk of `size` that shows `image` where the VM has written nothing. Takes the same time
    /// whatever the sizes are. What is attached of this VM already is detached first.
    pub fn attach_snapshot(&self, root: &Root, op: OpId, id: &VmId, image: OwnedFd, size: Mib) -> Result<BlockDevice> {
        let image_bytes = checked_length(&image, "image")?;
        if size.bytes() < image_bytes {
            return Err(HelperError::Files(format!("a disk of {size} cannot hold an image of {image_bytes} bytes")));
        }
        self.detach_parts(id, &MAPPED, &["root", "image", "cow"])?;
        self.stack(id, &image, image_bytes / SECTOR, size).map_err(|error| {
            log::warn!("[{op}] the disk of VM {id} cannot be attached: {}", error.line());
            match self.detach(root, id) {
                Ok(()) => error,
                Err(undo) => HelperError::Undone { source: Box::new(error), failures: vec![undo] },
            }
        })
    }

    fn stack(&self, id: &VmId, image: &OwnedFd, image_sectors: u64, size: Mib) -> Result<BlockDevice> {
        let (mapper, loops) = (Mapper::open(&self.folder)?, Loops::new(&self.folder));
        let cow = cow::open(&self.folder, id, size)?;
        let sectors = size.bytes() / SECTOR;
        let mut origin = loops.attach(&self.name(id, "image"), image, true)?;
        let cow = loops.attach(&self.name(id, "cow"), &cow.into(), false)?;
        if sectors > image_sectors {
            let lines = table::base(origin, image_sectors, sectors);
            origin = mapper.create(&self.name(id, "base"), &lines, true)?;
        }
        mapper.create(&self.name(id, "root"), &[table::snapshot(origin, cow, sectors)], false)
    }

    /// A loop over a regular file that the daemon opened; one of the same role is detached first.
    pub fn attach_file(
        &self,
        _: &Root,
        id: &VmId,
        role: DiskRole,
        file: OwnedFd,
        read_only: bool,
    ) -> Result<BlockDevice> {
        let role = match role {
            DiskRole::Root => "root",
            DiskRole::Modules => "modules",
        };
        checked_length(&file, role)?;
        self.detach_parts(id, &[], &[role])?;
        Loops::new(&self.folder).attach(&self.name(id, role), &file, read_only)
    }

    /// Takes all devices of the VM away, going on after a failure; done when nothing is left. What
    /// it has written stays.
    pub fn detach(&self, _: &Root, id: &VmId) -> Result<()> {
        self.detach_parts(id, &MAPPED, &["root", "modules", BELOW_SNAPSHOT[0], BELOW_SNAPSHOT[1]])
    }

    fn detach_parts(&self, id: &VmId, mapped: &[&str], looped: &[&str]) -> Result<()> {
        let deadline = Instant::now() + RELEASE_LIMIT;
        let mut failures = Vec::new();
        if let Some(mapper) = Mapper::open_if_loaded(&self.folder)? {
            let removed = mapped.iter().map(|part| mapper.remove(&self.name(id, part), deadline));
            failures.extend(removed.filter_map(Result::err));
        }
        let names: Vec<String> = looped.iter().map(|part| self.name(id, part)).collect();
        failures.extend(Loops::new(&self.folder).detach(&names, deadline).err());
        if failures.is_empty() { Ok(()) } else { Err(HelperError::Leftovers { id: id.clone(), failures }) }
    }

    /// Removes what the VM has written.
    pub fn remove(&self, _: &Root, id: &VmId) -> Result<Deed> {
        cow::remove(&self.folder, id)
    }

    /// What the VM has written, to read; `None` where it has written nothing.
    pub fn read(&self, _: &Root, id: &VmId) -> Result<Option<OwnedFd>> {
        cow::read(&self.folder, id)
    }

    /// The VMs that have written something.
    pub fn kept(&self) -> Result<Vec<VmId>> {
        cow::list(&self.folder)
    }

    /// Whether what the VM has written is lost, by its file's own word.
    pub fn is_lost(&self, id: &VmId) -> bool {
        cow::is_lost(&self.folder, id)
    }

    /// The VMs of this installation that have a device.
    pub fn attached(&self, _: &Root) -> Result<BTreeSet<VmId>> {
        let mut names = Loops::new(&self.folder).names()?;
        if let Some(mapper) = Mapper::open_if_loaded(&self.folder)? {
            names.extend(mapper.names()?);
        }
        Ok(names.iter().filter_map(|name| self.parse(name)).map(|(id, _)| id).collect())
    }

    /// How full each snapshot of this installation is.
    pub fn fill(&self, _: &Root) -> Result<Vec<Fill>> {
        let Some(mapper) = Mapper::open_if_loaded(&self.folder)? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for name in mapper.names()? {
            if let Some((id, "root")) = self.parse(&name)
                && let Some(status) = mapper.status(&name)?
            {
                all.push(Fill { id, state: table::parse_status(&status) });
            }
        }
        Ok(all)
    }

    fn name(&self, id: &VmId, part: &str) -> String {
        format!("{}{id}-{part}", self.prefix)
    }

    /// The VM and the part that a name of this installation names.
    fn parse<'n>(&self, name: &'n str) -> Option<(VmId, &'n str)> {
        let (id, part) = name.strip_prefix(&self.prefix)?.split_once('-')?;
        Some((id.parse().ok()?, part))
    }
}

/// The length of a regular file that can be a disk: whole sectors, and some.
fn checked_length(file: &OwnedFd, what: &str) -> Result<u64> {
    let about = file.try_clone().and_then(|f| File::from(f).metadata()).doing(format!("look at the {what}"))?;
    let (is_file, length) = (about.is_file(), about.len());
    if is_file && length > 0 && length.is_multiple_of(SECTOR) {
        return Ok(length);
    }
    let defect =
        if is_file { format!("has {length} bytes, not whole sectors") } else { "is not a regular file".into() };
    Err(HelperError::Files(format!("the {what} cannot be a disk: it {defect}")))
}

#[cfg(test)]
mod tests;
