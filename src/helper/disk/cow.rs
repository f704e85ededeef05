//! The file that holds what a VM has written: `ID.cow`, root's alone, sparse, so that it costs what
//! was written.
//!
//! It is as long as the disk and the snapshot's own records, so the snapshot never lacks room; only
//! the filesystem below can. Its first sector is the kernel's (drivers/md/dm-snap-persistent.c).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use rustix::fs::OFlags;

use super::{SECTOR, table::CHUNK};
use crate::helper::error::{Doing, HelperError, Result};
use crate::model::{Mib, VmId};
use crate::os::own_folder::OwnFolder;
use crate::protocol::root::Deed;

/// `SnAp`, little endian.
const MAGIC: u32 = 0x7041_6e53;

/// Records of 16 bytes in a chunk.
const RECORDS: u64 = CHUNK * SECTOR / 16;

fn name(id: &VmId) -> String {
    format!("{id}.cow")
}

/// The bytes for a disk of `size`: a header, then areas of one chunk of records and the chunks that
/// they name, and the chunk of records that the kernel clears when the last area is full.
fn length(size: Mib) -> u64 {
    let areas = (size.bytes() / (CHUNK * SECTOR)).div_ceil(RECORDS);
    (1 + areas * (RECORDS + 1) + 1) * CHUNK * SECTOR
}

/// Opens the file, made if it is missing, long enough for a disk of `size`; never made shorter.
pub fn open(folder: &OwnFolder, id: &VmId, size: Mib) -> Result<File> {
    let doing = format!("open the disk of VM {id}");
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = options.open(folder.at(&name(id))).doing(&doing)?;
    let present = check(&file, id, &doing)?;
    if present < length(size) {
        file.set_len(length(size)).doing(format!("make the disk of VM {id} {size} large"))?;
    }
    Ok(file)
}

/// Opens the file to read it; `None` when there is none.
pub fn read(folder: &OwnFolder, id: &VmId) -> Result<Option<OwnedFd>> {
    let doing = format!("read the disk of VM {id}");
    let flags = OFlags::NOFOLLOW.bits() as i32;
    match OpenOptions::new().read(true).custom_flags(flags).open(folder.at(&name(id))) {
        Ok(file) => check(&file, id, &doing).map(|_| Some(file.into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).doing(doing),
    }
}

/// Refuses what is not such a file; its length.
fn check(file: &File, id: &VmId, doing: &str) -> Result<u64> {
    let about = file.metadata().doing(doing)?;
    if !about.is_file() || about.uid() != 0 || about.nlink() != 1 {
        return Err(io::Error::other("it is not a file of root's own")).doing(doing);
    }
    check_header(file, id, about.len())?;
    Ok(about.len())
}

/// A new file is empty; one that the kernel has given up is of no use to a guest.
fn check_header(file: &File, id: &VmId, length: u64) -> Result<()> {
    let mut header = [0; 8];
    if length < header.len() as u64 {
        return Ok(());
    }
    file.read_exact_at(&mut header, 0).doing(format!("read the disk of VM {id}"))?;
    let [a, b, c, d, valid @ ..] = header;
    match (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(valid)) {
        (0, _) | (MAGIC, 1..) => Ok(()),
        (MAGIC, 0) => Err(HelperError::DiskLost(id.clone())),
        (_, _) => Err(HelperError::Damaged { id: id.clone(), why: "its disk has no snapshot's header".into() }),
    }
}

/// Whether its header says that the kernel could not store all of it.
pub fn is_lost(folder: &OwnFolder, id: &VmId) -> bool {
    let mut header = [0; 8];
    let read = File::open(folder.at(&name(id))).and_then(|file| file.read_exact_at(&mut header, 0));
    let [a, b, c, d, valid @ ..] = header;
    read.is_ok() && u32::from_le_bytes([a, b, c, d]) == MAGIC && u32::from_le_bytes(valid) == 0
}

/// Removes the file.
pub fn remove(folder: &OwnFolder, id: &VmId) -> Result<Deed> {
    match std::fs::remove_file(folder.at(&name(id))) {
        Ok(()) => Ok(Deed::Changed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Deed::Unchanged),
        Err(e) => Err(e).doing(format!("remove the disk of VM {id}")),
    }
}

/// The VMs that have one.
pub fn list(folder: &OwnFolder) -> Result<Vec<VmId>> {
    let doing = "list the disks";
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder.at("")).doing(doing)? {
        let name = entry.doing(doing)?.file_name();
        ids.extend(name.to_str().and_then(|n| n.strip_suffix(".cow")?.parse().ok()));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_every_chunk_and_every_record() {
        // 1 MiB: 256 chunks, one full area, and the next one's records, which are cleared then.
        assert_eq!(length(Mib(1)), (1 + 257 + 1) * 4096);
        assert!(length(Mib(u32::MAX)) > Mib(u32::MAX).bytes());
    }

    #[test]
    fn a_header_that_says_invalid_or_nonsense_is_refused() {
        let id = VmId::from_random(5);
        let check = |bytes: &[u8]| {
            let file = tempfile::tempfile().expect("a file");
            file.write_all_at(bytes, 0).expect("written");
            check_header(&file, &id, bytes.len() as u64)
        };
        assert!(check(&[]).is_ok() && check(&[0; 8]).is_ok() && check(b"SnAp\x01\0\0\0").is_ok());
        assert!(matches!(check(b"SnAp\0\0\0\0"), Err(HelperError::DiskLost(_))));
        assert!(matches!(check(b"garbage!"), Err(HelperError::Damaged { .. })));
    }
}
