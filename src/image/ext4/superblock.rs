//! The superblock and the group descriptors (Documentation/filesystems/ext4/super.rst, group_descr.rst).

use super::folders::HALF_MD4;
use super::geometry::{BLOCK, DESCRIPTOR, GROUP, Geometry, INODE};
use super::hash::Seed;
use super::inodes::{JOURNAL, LOST_FOUND, put};

const HAS_JOURNAL: u32 = 0x4;
/// `ext_attr`, `resize_inode`, `dir_index`.
const COMPATIBLE: u32 = 0x8 | 0x10 | 0x20;
/// `filetype`, `extents`, `flex_bg`.
const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x200;
/// `sparse_super`, `large_file`, `huge_file`, `dir_nlink`, `extra_isize`.
const READ_ONLY_COMPATIBLE: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40;
/// Mount options unless others are given: `user_xattr`, `acl`.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;
/// Bytes of names are unsigned in hashes.
const UNSIGNED_HASH: u32 = 0x2;

/// What distinguishes this filesystem.
pub(super) struct Superblock<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) free_blocks: u64,
    pub(super) free_inodes: u64,
    pub(super) label: &'a str,
    pub(super) uuid: [u8; 16],
    pub(super) seed: &'a Seed,
    /// Seconds since the epoch.
    pub(super) now: u32,
    /// The journal's block map and size, kept twice lest its inode gets lost.
    pub(super) journal: Option<([u8; 60], u64)>,
}

impl Superblock<'_> {
    /// The 1024 bytes that stand in `group`.
    pub(super) fn bytes(&self, group: u64) -> [u8; 1024] {
        let mut bytes = [0; 1024];
        let mut word = |at: usize, value: u64| put(&mut bytes, at, &(value as u32).to_le_bytes());
        word(0x00, self.geometry.inodes());
        word(0x04, self.geometry.blocks);
        word(0x0c, self.free_blocks);
        word(0x10, self.free_inodes);
        // Block and cluster size: 1024 << 2.
        word(0x18, 2);
        word(0x1c, 2);
        word(0x20, GROUP);
        word(0x24, GROUP);
        word(0x28, self.geometry.inodes_per_group);
        word(0x30, u64::from(self.now));
        word(0x40, u64::from(self.now));
        // Revision with features.
        word(0x4c, 1);
        word(0x54, u64::from(LOST_FOUND));
        word(0x5c, u64::from(COMPATIBLE | if self.journal.is_some() { HAS_JOURNAL } else { 0 }));
        word(0x60, u64::from(INCOMPATIBLE));
        word(0x64, u64::from(READ_ONLY_COMPATIBLE));
        word(0x100, u64::from(MOUNT_OPTIONS));
        word(0x108, u64::from(self.now));
        word(0x160, u64::from(UNSIGNED_HASH));
        for (at, seed) in (0xec..).step_by(4).zip(self.seed) {
            word(at, u64::from(*seed));
        }
        self.put_rest(&mut bytes, group);
        bytes
    }

    fn put_rest(&self, bytes: &mut [u8; 1024], group: u64) {
        let mut half = |at: usize, value: u16| put(bytes, at, &value.to_le_bytes());
        // Never checked for its age: it is a copy of what was checked.
        half(0x36, u16::MAX);
        half(0x38, 0xef53);
        // Clean; errors are noted and gone on from.
        half(0x3a, 1);
        half(0x3c, 1);
        half(0x58, INODE as u16);
        half(0x5a, group as u16);
        half(0xce, self.geometry.reserved_blocks() as u16);
        half(0x15c, 32);
        half(0x15e, 32);
        put(bytes, 0x68, &self.uuid);
        let label = &self.label.as_bytes()[..self.label.len().min(16)];
        put(bytes, 0x78, label);
        // 16 groups share a place for their bitmaps and tables, as mke2fs has it.
        put(bytes, 0x174, &[4]);
        bytes[0xfc] = HALF_MD4;
        if let Some((map, size)) = &self.journal {
            put(bytes, 0xe0, &JOURNAL.to_le_bytes());
            bytes[0xfd] = 1;
            put(bytes, 0x10c, map);
            put(bytes, 0x10c + 60, &((size >> 32) as u32).to_le_bytes());
            put(bytes, 0x10c + 64, &(*size as u32).to_le_bytes());
        }
    }
}

/// A group's descriptor.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Descriptor {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
    pub(super) free_blocks: u64,
    pub(super) free_inodes: u64,
    pub(super) folders: u64,
}

impl Descriptor {
    fn bytes(&self) -> [u8; DESCRIPTOR] {
        let mut bytes = [0; DESCRIPTOR];
        put(&mut bytes, 0x00, &(self.block_bitmap as u32).to_le_bytes());
        put(&mut bytes, 0x04, &(self.inode_bitmap as u32).to_le_bytes());
        put(&mut bytes, 0x08, &(self.inode_table as u32).to_le_bytes());
        put(&mut bytes, 0x0c, &(self.free_blocks as u16).to_le_bytes());
        put(&mut bytes, 0x0e, &(self.free_inodes as u16).to_le_bytes());
        put(&mut bytes, 0x10, &(self.folders as u16).to_le_bytes());
        bytes
    }
}

/// The blocks of all descriptors.
pub(super) fn table(descriptors: &[Descriptor]) -> Vec<u8> {
    let mut bytes: Vec<u8> = descriptors.iter().flat_map(Descriptor::bytes).collect();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// The journal's own superblock, empty of transactions; numbers are big-endian
/// (Documentation/filesystems/ext4/journal.rst, "Super Block").
pub(super) fn journal(blocks: u32) -> Vec<u8> {
    const MAGIC: u32 = 0xc03b_3998;
    const VERSION_2: u32 = 4;
    let words = [MAGIC, VERSION_2, 0, BLOCK as u32, blocks, 1, 1, 0, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
