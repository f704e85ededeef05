//! Where a file's blocks lie, and how an inode says so (Documentation/filesystems/ext4/ifork.rst, "Extent Tree").

use std::io;

use super::geometry::BLOCK;
use super::space::{Run, Space};

/// Most blocks of one extent; longer ones would be "unwritten".
const LONGEST: u64 = 1 << 15;
/// Extents that an inode itself holds.
const IN_INODE: usize = 4;
/// Extents that a block holds beside its header.
const IN_BLOCK: usize = (BLOCK - 12) / 12;
/// Bytes of an inode's block map.
pub(super) const MAP: usize = 60;

/// Blocks in a row, in the file and on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// First block in the file.
    pub(super) logical: u32,
    /// First block on the disk.
    pub(super) start: u32,
    pub(super) count: u16,
}

/// The extents of a file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extents(Vec<Extent>);

impl Extents {
    /// Adds `run` as the file's blocks from `logical` on.
    pub(super) fn push(&mut self, logical: u32, run: Run) {
        let (mut logical, mut start, mut left) = (u64::from(logical), run.start, run.count);
        if let Some(last) = self.0.last_mut() {
            let room = LONGEST - u64::from(last.count);
            let follows = u64::from(last.logical) + u64::from(last.count) == logical
                && u64::from(last.start) + u64::from(last.count) == start;
            if follows && room > 0 {
                let more = room.min(left);
                last.count += more as u16;
                (logical, start, left) = (logical + more, start + more, left - more);
            }
        }
        while left > 0 {
            let count = left.min(LONGEST);
            self.0.push(Extent { logical: logical as u32, start: start as u32, count: count as u16 });
            (logical, start, left) = (logical + count, start + count, left - count);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Extent> {
        self.0.iter()
    }

    /// Blocks on the disk.
    pub(super) fn blocks(&self) -> u64 {
        self.0.iter().map(|extent| u64::from(extent.count)).sum()
    }

    /// The inode's block map; blocks of the tree that it does not hold itself go to `space`.
    pub(super) fn map(&self, space: &mut Space) -> io::Result<Map> {
        let mut nodes: Vec<[u8; 12]> = self.0.iter().map(leaf).collect();
        let mut first: Vec<u32> = self.0.iter().map(|extent| extent.logical).collect();
        let (mut depth, mut tree) = (0, Vec::new());
        while nodes.len() > IN_INODE {
            let (mut above, mut above_first) = (Vec::new(), Vec::new());
            for (part, firsts) in nodes.chunks(IN_BLOCK).zip(first.chunks(IN_BLOCK)) {
                let at = space.append_block(&node(part, IN_BLOCK, depth))?;
                tree.push(at);
                above.push(index(firsts[0], at));
                above_first.push(firsts[0]);
            }
            (nodes, first, depth) = (above, above_first, depth + 1);
        }
        let mut bytes = [0; MAP];
        let root = node(&nodes, IN_INODE, depth);
        bytes[..root.len()].copy_from_slice(&root);
        Ok(Map { bytes, tree })
    }
}

/// An inode's block map.
pub(super) struct Map {
    pub(super) bytes: [u8; MAP],
    /// Blocks that hold the rest of the tree.
    pub(super) tree: Vec<u64>,
}

fn leaf(extent: &Extent) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&extent.logical.to_le_bytes());
    bytes[4..6].copy_from_slice(&extent.count.to_le_bytes());
    bytes[8..].copy_from_slice(&extent.start.to_le_bytes());
    bytes
}

fn index(logical: u32, block: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&logical.to_le_bytes());
    bytes[4..8].copy_from_slice(&(block as u32).to_le_bytes());
    bytes
}

fn node(entries: &[[u8; 12]], room: usize, depth: u16) -> Vec<u8> {
    const MAGIC: u16 = 0xf30a;
    let mut bytes = Vec::with_capacity(12 + 12 * entries.len());
    for number in [MAGIC, entries.len() as u16, room as u16, depth, 0, 0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend(entries.iter().flatten());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_follow_each_other_are_one_extent() {
        let mut extents = Extents::default();
        extents.push(0, Run { start: 100, count: 10 });
        extents.push(10, Run { start: 110, count: 5 });
        extents.push(20, Run { start: 115, count: 1 });
        extents.push(21, Run { start: 200, count: 40_000 });
        let found: Vec<(u32, u32, u16)> = extents.iter().map(|e| (e.logical, e.start, e.count)).collect();
        assert_eq!(found, [(0, 100, 15), (20, 115, 1), (21, 200, 32_768), (32_789, 32_968, 7232)]);
        assert_eq!(extents.blocks(), 40_016);
    }
}
