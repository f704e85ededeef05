//! Where an ext4 filesystem keeps what it cannot keep elsewhere (Documentation/filesystems/ext4/blockgroup.rst).
//!
//! Under `flex_bg` bitmaps and inode tables lie anywhere. Only the superblock and its descriptors have
//! fixed places: at the start of group 0 and of the groups that hold copies (`sparse_super`). Those places
//! are kept free from the first byte on, so that data can be written before anybody knows how much of it there is.

use crate::model::Mib;

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
/// Blocks of a group: as many as a bitmap of one block has bits.
pub(super) const GROUP: u64 = 8 * BLOCK as u64;
/// Bytes of an inode.
pub(super) const INODE: usize = 256;
/// Inodes whose records fill one block.
pub(super) const INODES_PER_BLOCK: u64 = (BLOCK / INODE) as u64;
/// Bytes of a group descriptor without the feature `64bit`.
pub(super) const DESCRIPTOR: usize = 32;
/// Groups whose descriptors fill one block.
const GROUPS_PER_BLOCK: u64 = (BLOCK / DESCRIPTOR) as u64;
/// Descriptor blocks of an ordinary image, used and reserved: enough to grow to 1 TiB while mounted.
const DESCRIPTOR_BLOCKS: u64 = 64;
/// Most that the resize inode's one block of addresses can reserve.
const MOST_RESERVED: u64 = (BLOCK / 4) as u64;
/// Bytes of data for which an inode is kept, as mke2fs.conf(5) has it for ordinary filesystems.
const BYTES_PER_INODE: u64 = 16 << 10;

/// Whether group `number` begins with a superblock: 0, 1 and powers of 3, 5 and 7.
pub(super) fn has_superblock(number: u64) -> bool {
    number <= 1 || [3, 5, 7].iter().any(|base| is_power_of(*base, number))
}

fn is_power_of(base: u64, mut number: u64) -> bool {
    while number.is_multiple_of(base) {
        number /= base;
    }
    number == 1
}

/// Superblock and descriptors at the start of those groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    descriptor_blocks: u64,
}

impl Head {
    /// For a filesystem of `size`, or of what it turns out to need.
    pub(super) fn new(size: Option<Mib>) -> Self {
        let needed = size.map_or(0, |size| blocks_of(size).div_ceil(GROUP).div_ceil(GROUPS_PER_BLOCK));
        Self { descriptor_blocks: DESCRIPTOR_BLOCKS.max(needed) }
    }

    /// Blocks of superblock and descriptors.
    pub(super) fn blocks(self) -> u64 {
        1 + self.descriptor_blocks
    }

    /// Where the blocks at or behind `block` that are free for anything begin, and where they end.
    pub(super) fn free_run(self, block: u64) -> (u64, u64) {
        let group = block / GROUP;
        let start = if has_superblock(group) { block.max(group * GROUP + self.blocks()) } else { block };
        let next = (group + 1..).find(|group| has_superblock(*group)).unwrap_or(u64::MAX / GROUP);
        (start, next * GROUP)
    }
}

/// Blocks of `size`.
pub(super) fn blocks_of(size: Mib) -> u64 {
    size.bytes() / BLOCK as u64
}

/// How the whole is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Blocks of the filesystem.
    pub(super) blocks: u64,
    /// Inodes of each group.
    pub(super) inodes_per_group: u64,
    /// Blocks of superblock and descriptors where a group has them.
    pub(super) head: u64,
}

impl Geometry {
    /// For `inodes` that are there and a filesystem of `size`.
    pub(super) fn new(size: Mib, inodes: u64, head: Head) -> Self {
        let mut blocks = blocks_of(size);
        // A last group too small for its own superblock is left to the next time that it grows.
        let rest = blocks % GROUP;
        if blocks > GROUP && rest <= head.blocks() {
            blocks -= rest;
        }
        let groups = blocks.div_ceil(GROUP);
        let wanted = (blocks * BLOCK as u64 / BYTES_PER_INODE).max(inodes + inodes / 4 + 64);
        let per_group = wanted.div_ceil(groups).next_multiple_of(INODES_PER_BLOCK).min(GROUP);
        Self { blocks, inodes_per_group: per_group, head: head.blocks() }
    }

    pub(super) fn groups(&self) -> u64 {
        self.blocks.div_ceil(GROUP)
    }

    pub(super) fn inodes(&self) -> u64 {
        self.groups() * self.inodes_per_group
    }

    /// Blocks of a group's inode table.
    pub(super) fn table_blocks(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    /// Descriptor blocks in use.
    pub(super) fn descriptor_blocks(&self) -> u64 {
        self.groups().div_ceil(GROUPS_PER_BLOCK)
    }

    /// Descriptor blocks kept for growth.
    pub(super) fn reserved_blocks(&self) -> u64 {
        (self.head - 1 - self.descriptor_blocks()).min(MOST_RESERVED)
    }

    /// Groups with a copy of the superblock, without the first.
    pub(super) fn copies(&self) -> impl Iterator<Item = u64> + use<> {
        (1..self.groups()).filter(|group| has_superblock(*group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_lie_where_ext4_looks_for_them() {
        let found: Vec<u64> = (0..130).filter(|group| has_superblock(*group)).collect();
        assert_eq!(found, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn nothing_is_put_where_a_superblock_belongs() {
        let head = Head::new(None);
        assert_eq!(head.free_run(0), (65, GROUP));
        assert_eq!(head.free_run(GROUP - 1), (GROUP - 1, GROUP));
        assert_eq!(head.free_run(GROUP), (GROUP + 65, 3 * GROUP));
        assert_eq!(head.free_run(2 * GROUP + 7), (2 * GROUP + 7, 3 * GROUP));
    }

    #[test]
    fn a_tiny_last_group_is_left_out() {
        let size = Mib(128 * 3);
        let geometry = |size| Geometry::new(size, 10, Head::new(None));
        assert_eq!(geometry(size).blocks, 3 * GROUP);
        assert_eq!(geometry(Mib(384 + 1)).blocks, 3 * GROUP + 256);
        // Descriptors for 20 TiB fill more than one MiB.
        let head = Head::new(Some(Mib(20 << 20)));
        assert_eq!(Geometry::new(Mib(384 + 1), 10, head).blocks, 3 * GROUP);
        assert_eq!(geometry(Mib(16)).groups(), 1);
    }

    #[test]
    fn there_are_inodes_for_all_and_more() {
        let geometry = Geometry::new(Mib(512), 100_000, Head::new(None));
        assert!(geometry.inodes() > 100_000, "{geometry:?}");
        assert!(geometry.inodes_per_group <= GROUP);
        let large = Geometry::new(Mib(4 << 20), 10, Head::new(Some(Mib(4 << 20))));
        assert_eq!((large.descriptor_blocks(), large.reserved_blocks()), (256, 0));
    }
}
