//! Inodes: which number each gets, and their records (Documentation/filesystems/ext4/inodes.rst).

use super::attributes::RECORD;
use super::extents::MAP;
use super::geometry::{BLOCK, INODE};
use crate::image::tree::Meta;

/// The root folder.
pub(super) const ROOT: u32 = 2;
/// Holds the blocks that are reserved for more descriptors.
pub(super) const RESIZE: u32 = 7;
/// The journal.
pub(super) const JOURNAL: u32 = 8;
/// `lost+found`, the first that is not reserved.
pub(super) const LOST_FOUND: u32 = 11;

/// `EXT4_EXTENTS_FL`: the block map is a tree of extents.
pub(super) const HAS_EXTENTS: u32 = 0x8_0000;
/// `EXT4_INDEX_FL`: the folder is a tree.
pub(super) const IS_INDEXED: u32 = 0x1000;

/// One inode's record, before it is bytes.
pub(super) struct Record {
    /// Kind and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since the epoch, of all its times.
    pub(super) time: (i64, u32),
    pub(super) links: u16,
    pub(super) size: u64,
    /// Blocks of content, of the extent tree and of attributes.
    pub(super) blocks: u64,
    pub(super) flags: u32,
    pub(super) map: [u8; MAP],
    /// Block of attributes; 0 without.
    pub(super) attributes: u64,
    /// Attributes in the record itself.
    pub(super) tail: Vec<u8>,
}

impl Record {
    /// One with nothing in it.
    pub(super) fn new(kind: u16, meta: &Meta, links: u16) -> Self {
        Self {
            mode: kind | (meta.mode & 0o7777),
            uid: meta.uid,
            gid: meta.gid,
            time: meta.mtime,
            links,
            size: 0,
            blocks: 0,
            flags: 0,
            map: [0; MAP],
            attributes: 0,
            tail: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> [u8; INODE] {
        let mut bytes = [0; INODE];
        let sectors = self.blocks * (BLOCK / 512) as u64;
        let (seconds, extra) = time(self.time);
        put(&mut bytes, 0x00, &self.mode.to_le_bytes());
        put(&mut bytes, 0x02, &(self.uid as u16).to_le_bytes());
        put(&mut bytes, 0x04, &(self.size as u32).to_le_bytes());
        for at in [0x08, 0x0c, 0x10, 0x90] {
            put(&mut bytes, at, &seconds.to_le_bytes());
        }
        put(&mut bytes, 0x18, &(self.gid as u16).to_le_bytes());
        put(&mut bytes, 0x1a, &self.links.to_le_bytes());
        put(&mut bytes, 0x1c, &(sectors as u32).to_le_bytes());
        put(&mut bytes, 0x20, &self.flags.to_le_bytes());
        put(&mut bytes, 0x28, &self.map);
        put(&mut bytes, 0x68, &(self.attributes as u32).to_le_bytes());
        put(&mut bytes, 0x6c, &((self.size >> 32) as u32).to_le_bytes());
        put(&mut bytes, 0x74, &((sectors >> 32) as u16).to_le_bytes());
        put(&mut bytes, 0x78, &((self.uid >> 16) as u16).to_le_bytes());
        put(&mut bytes, 0x7a, &((self.gid >> 16) as u16).to_le_bytes());
        put(&mut bytes, 0x80, &((RECORD - 128) as u16).to_le_bytes());
        for at in [0x84, 0x88, 0x8c, 0x94] {
            put(&mut bytes, at, &extra.to_le_bytes());
        }
        put(&mut bytes, RECORD, &self.tail);
        bytes
    }
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// ext4's times: 32 bits of seconds, then two more above 30 bits of nanoseconds ("Inode Timestamps").
fn time((seconds, nanoseconds): (i64, u32)) -> (u32, u32) {
    let seconds = seconds.clamp(i64::from(i32::MIN), (3 << 32) + i64::from(i32::MAX));
    let low = seconds as u32;
    let epoch = ((seconds - i64::from(low as i32)) >> 32) as u32 & 3;
    (low, epoch | (nanoseconds << 2))
}

/// A device's numbers in the block map: the old form where it suffices (`old_encode_dev`,
/// include/linux/kdev_t.h), else the new one in the second word.
pub(super) fn device_map(major: u32, minor: u32) -> [u8; MAP] {
    let mut map = [0; MAP];
    if major < 256 && minor < 256 {
        put(&mut map, 0, &(major << 8 | minor).to_le_bytes());
    } else {
        put(&mut map, 4, &((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)).to_le_bytes());
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2038_survive() {
        for seconds in [-1, 0, 1 << 31, (1 << 31) - 1, (1 << 32) + 5, i64::from(i32::MIN), 9_000_000_000] {
            let (low, extra) = time((seconds, 7));
            assert_eq!(i64::from(low as i32) + (i64::from(extra & 3) << 32), seconds);
            assert_eq!(extra >> 2, 7);
        }
    }
}
