//! What lies around the content: journal, resize inode, bitmaps, inode tables, descriptors, superblocks.

use std::fs::File;
use std::io;

use super::extents::Extents;
use super::geometry::{BLOCK, GROUP, Geometry, INODE};
use super::hash::Seed;
use super::inodes::{HAS_EXTENTS, JOURNAL, RESIZE, Record, put};
use super::records::{self, Records};
use super::space::{Run, Space};
use super::superblock::{self, Descriptor, Superblock};
use super::{Form, Unwritable};
use crate::image::tree::{Meta, Tree};
use crate::model::Mib;
use crate::os::{clock, random};

/// Blocks of a journal, 32 MiB: what mke2fs gives a filesystem of a few GiB.
const JOURNAL_BLOCKS: u64 = (32 << 20) / BLOCK as u64;
/// Inodes that the format keeps to itself.
const RESERVED_INODES: u64 = 10;
/// Where an inode's block map has the block of blocks of addresses.
const DOUBLY_INDIRECT: usize = 13 * 4;

/// Writes `tree` behind the content in `space` and the rest around it.
pub(super) fn write(mut space: Space, tree: &Tree, form: &Form) -> Result<(File, Mib), Unwritable> {
    let seed: Seed = std::array::from_fn(|_| random::number() as u32 | 1);
    let mut records = records::make(tree, &mut space, &seed)?;
    let journal = if form.journal { Some(add_journal(&mut space, &mut records)?) } else { None };
    let resize = space.append_block(&[])?;
    records.used.push((resize, 1));
    let (size, geometry) = choose(&space, records.records.len() as u64, form)?;
    add_resize_inode(&mut space, &mut records, resize, &geometry)?;
    let mut plan = Plan::new(&geometry, &records);
    plan.take_tables(&mut space)?;
    if space.end() > geometry.blocks {
        return Err(Unwritable::Size(size_of(space.end() + GROUP)));
    }
    let journal_map = journal.map(|map| (map, JOURNAL_BLOCKS * BLOCK as u64));
    plan.write(&mut space, &records, form.label, &seed, journal_map)?;
    let file = space.into_file()?;
    file.set_len(size.bytes())?;
    plan.punch(&file)?;
    Ok((file, size))
}

fn size_of(blocks: u64) -> Mib {
    Mib::holding(blocks * BLOCK as u64)
}

/// The size that was asked for, if all fits, or a quarter and 64 MiB more than is needed.
fn choose(space: &Space, inodes: u64, form: &Form) -> Result<(Mib, Geometry), Unwritable> {
    let cut = |size: Mib| Geometry::new(size, inodes + RESERVED_INODES, space.head());
    // Blocks taken so far include the fixed places among them; the tables come behind, whole ones.
    let needed = |geometry: &Geometry| {
        let tables = geometry.groups() * (2 + geometry.table_blocks());
        let gaps = geometry.copies().count() as u64 * (space.head().blocks() + geometry.table_blocks());
        space.end() + tables + gaps
    };
    let fits = |geometry: &Geometry| {
        let room = geometry.inodes() >= inodes + RESERVED_INODES;
        needed(geometry) <= geometry.blocks && room
    };
    if let Some(size) = form.size {
        let geometry = cut(size);
        return if fits(&geometry) { Ok((size, geometry)) } else { Err(Unwritable::Size(least(space, cut, fits))) };
    }
    let Mib(used) = size_of(space.end());
    let mut size = Mib((used + used / 4 + 64).next_multiple_of(64)).max(form.least);
    while !fits(&cut(size)) {
        size = Mib(size.0 + (size.0 / 16).max(64));
    }
    Ok((size, cut(size)))
}

/// The least size for which `fits` holds, to 16 MiB.
fn least(space: &Space, cut: impl Fn(Mib) -> Geometry, fits: impl Fn(&Geometry) -> bool) -> Mib {
    let mut size = size_of(space.end());
    while !fits(&cut(size)) {
        size = Mib(size.0 + 16);
    }
    size
}

/// The journal's block map.
fn add_journal(space: &mut Space, records: &mut Records) -> io::Result<[u8; 60]> {
    let mut extents = Extents::default();
    let mut logical = 0;
    space.take(JOURNAL_BLOCKS, |run: Run| {
        extents.push(logical, run);
        logical += run.count as u32;
    })?;
    if let Some(first) = extents.iter().next() {
        space.write_at(u64::from(first.start), &superblock::journal(JOURNAL_BLOCKS as u32))?;
    }
    let map = extents.map(space)?;
    records.used.extend(extents.iter().map(|e| (u64::from(e.start), u64::from(e.count))));
    records.used.extend(map.tree.iter().map(|block| (*block, 1)));
    let mut record = Record::new(0o100_000, &Meta { mode: 0o600, ..Meta::default() }, 1);
    record.size = JOURNAL_BLOCKS * BLOCK as u64;
    record.blocks = JOURNAL_BLOCKS + map.tree.len() as u64;
    record.flags = HAS_EXTENTS;
    record.map = map.bytes;
    records.records.push((JOURNAL, record));
    Ok(map.bytes)
}

/// The inode that owns the blocks kept for descriptors: each reserved block of the first group lists its
/// namesakes in the groups with copies, as the kernel expects it when it grows the filesystem
/// (`reserve_backup_gdb`, fs/ext4/resize.c).
fn add_resize_inode(space: &mut Space, records: &mut Records, at: u64, geometry: &Geometry) -> io::Result<()> {
    let (used, reserved) = (geometry.descriptor_blocks(), geometry.reserved_blocks());
    let mut list = vec![0; BLOCK];
    for number in used..used + reserved {
        let block = 1 + number;
        let slot = (number as usize % (BLOCK / 4)) * 4;
        put(&mut list, slot, &(block as u32).to_le_bytes());
        let copies: Vec<u8> =
            geometry.copies().flat_map(|group| ((group * GROUP + block) as u32).to_le_bytes()).collect();
        space.write_at(block, &copies)?;
    }
    space.write_at(at, &list)?;
    let mut record = Record::new(0o100_000, &Meta { mode: 0o600, ..Meta::default() }, 1);
    put(&mut record.map, DOUBLY_INDIRECT, &(at as u32).to_le_bytes());
    let addresses = (BLOCK / 4) as u64;
    record.size = addresses * addresses * BLOCK as u64;
    record.blocks = 1 + reserved * (1 + geometry.copies().count() as u64);
    records.records.push((RESIZE, record));
    Ok(())
}

/// Bitmaps and tables of all groups.
struct Plan<'g> {
    descriptors: Vec<Descriptor>,
    /// A bit for each block of all groups.
    blocks: Vec<u8>,
    /// The same for inodes, group by group a block.
    inodes: Vec<u8>,
    geometry: &'g Geometry,
}

impl<'g> Plan<'g> {
    fn new(geometry: &'g Geometry, records: &Records) -> Self {
        let groups = geometry.groups();
        let mut plan = Self {
            descriptors: vec![Descriptor::default(); groups as usize],
            blocks: vec![0; groups as usize * BLOCK],
            inodes: vec![0; groups as usize * BLOCK],
            geometry,
        };
        plan.mark(0, geometry.head);
        geometry.copies().for_each(|group| plan.mark(group * GROUP, geometry.head));
        plan.mark(geometry.blocks, groups * GROUP - geometry.blocks);
        records.used.iter().for_each(|(start, count)| plan.mark(*start, *count));
        (1..=RESERVED_INODES as u32).for_each(|number| plan.mark_inode(number));
        records.records.iter().for_each(|(number, _)| plan.mark_inode(*number));
        for number in &records.folders {
            let (group, _) = plan.place(*number);
            plan.descriptors[group as usize].folders += 1;
        }
        plan
    }

    fn mark(&mut self, start: u64, count: u64) {
        for block in start..start + count {
            if let Some(byte) = self.blocks.get_mut((block / 8) as usize) {
                *byte |= 1 << (block % 8);
            }
        }
    }

    fn mark_inode(&mut self, number: u32) {
        let (group, index) = self.place(number);
        self.inodes[group as usize * BLOCK + (index / 8) as usize] |= 1 << (index % 8);
    }

    /// The group of an inode, and where in it.
    fn place(&self, number: u32) -> (u64, u64) {
        let index = u64::from(number) - 1;
        (index / self.geometry.inodes_per_group, index % self.geometry.inodes_per_group)
    }

    /// Takes blocks for bitmaps and tables: of all groups in a row, as `flex_bg` allows.
    fn take_tables(&mut self, space: &mut Space) -> io::Result<()> {
        let table_blocks = self.geometry.table_blocks();
        for number in 0..self.descriptors.len() {
            let (block_bitmap, inode_bitmap) = (space.take_whole(1)?, space.take_whole(1)?);
            let inode_table = space.take_whole(table_blocks)?;
            self.mark(block_bitmap, 1);
            self.mark(inode_bitmap, 1);
            self.mark(inode_table, table_blocks);
            let descriptor = &mut self.descriptors[number];
            *descriptor = Descriptor { block_bitmap, inode_bitmap, inode_table, ..*descriptor };
        }
        Ok(())
    }

    fn write(
        &mut self,
        space: &mut Space,
        records: &Records,
        label: &str,
        seed: &Seed,
        journal: Option<([u8; 60], u64)>,
    ) -> io::Result<()> {
        let geometry = self.geometry;
        self.count();
        self.write_bitmaps(space)?;
        self.write_records(space, records)?;
        let sum = |of: fn(&Descriptor) -> u64| self.descriptors.iter().map(of).sum();
        let superblock = Superblock {
            geometry,
            free_blocks: sum(|d| d.free_blocks),
            free_inodes: sum(|d| d.free_inodes),
            label,
            uuid: uuid(),
            seed,
            now: u32::try_from(clock::unix_seconds()).unwrap_or(u32::MAX),
            journal,
        };
        let table = superblock::table(&self.descriptors);
        for group in std::iter::once(0).chain(geometry.copies()) {
            // The first superblock leaves room for a boot sector.
            let mut first = vec![0; BLOCK];
            put(&mut first, if group == 0 { 1024 } else { 0 }, &superblock.bytes(group));
            space.write_at(group * GROUP, &first)?;
            space.write_at(group * GROUP + 1, &table)?;
        }
        Ok(())
    }

    fn count(&mut self) {
        for (number, descriptor) in self.descriptors.iter_mut().enumerate() {
            let used = |map: &[u8]| {
                let part = &map[number * BLOCK..][..BLOCK];
                part.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
            };
            descriptor.free_blocks = GROUP - used(&self.blocks);
            descriptor.free_inodes = self.geometry.inodes_per_group - used(&self.inodes);
        }
        // What a bitmap has beyond its group's inodes is never free.
        for group in 0..self.descriptors.len() as u64 {
            for index in self.geometry.inodes_per_group..GROUP {
                self.inodes[group as usize * BLOCK + (index / 8) as usize] |= 1 << (index % 8);
            }
        }
    }

    fn write_bitmaps(&self, space: &mut Space) -> io::Result<()> {
        for (number, descriptor) in self.descriptors.iter().enumerate() {
            let part = number * BLOCK..(number + 1) * BLOCK;
            space.write_at(descriptor.block_bitmap, &self.blocks[part.clone()])?;
            space.write_at(descriptor.inode_bitmap, &self.inodes[part])?;
        }
        Ok(())
    }

    /// Tables are long and mostly empty: of each, what is in use is written at once.
    fn write_records(&self, space: &mut Space, records: &Records) -> io::Result<()> {
        let mut tables: Vec<Vec<u8>> = vec![Vec::new(); self.descriptors.len()];
        for (number, record) in &records.records {
            let (group, index) = self.place(*number);
            let (table, at) = (&mut tables[group as usize], index as usize * INODE);
            if table.len() < at + INODE {
                table.resize(at + INODE, 0);
            }
            put(table, at, &record.bytes());
        }
        for (table, descriptor) in tables.iter().zip(&self.descriptors) {
            space.write_at(descriptor.inode_table, table)?;
        }
        Ok(())
    }

    /// Gives back what replaced and deleted files had taken.
    fn punch(&self, file: &File) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        let is_free = |block: u64| self.blocks[(block / 8) as usize] & 1 << (block % 8) == 0;
        let mut block = 0;
        while block < self.geometry.blocks {
            let start = block;
            while block < self.geometry.blocks && is_free(block) {
                block += 1;
            }
            if block > start {
                let (offset, length) = (start * BLOCK as u64, (block - start) * BLOCK as u64);
                match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length) {
                    // Without holes it is only larger.
                    Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            block += 1;
        }
        Ok(())
    }
}

/// A random one of version 4 (RFC 9562, section 5.4).
fn uuid() -> [u8; 16] {
    let mut uuid = [0; 16];
    random::fill(&mut uuid);
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}
