//! The tree's inodes: numbered, their folders, long links and attributes written, their records made.

use std::collections::HashMap;
use std::io;

use super::Unwritable;
use super::attributes;
use super::extents::Extents;
use super::folders::{self, Named, Sort};
use super::geometry::BLOCK;
use super::hash::Seed;
use super::inodes::{HAS_EXTENTS, IS_INDEXED, LOST_FOUND, ROOT, Record, device_map, put};
use super::space::Space;
use crate::image::tree::{Kind, Node, NodeId, Tree};

/// Targets shorter than the block map lie in it ("Symbolic Links").
const FAST_SYMLINK: usize = 60;
/// Subfolders from which on a folder's links are not counted (`EXT4_LINK_MAX`).
const MOST_LINKS: u64 = 65_000;

/// What the records tell of themselves.
pub(super) struct Records {
    /// By inode number.
    pub(super) records: Vec<(u32, Record)>,
    /// Runs of blocks that they use: start and count.
    pub(super) used: Vec<(u64, u64)>,
    /// The numbers of folders.
    pub(super) folders: Vec<u32>,
}

/// Makes the records of all that `tree` reaches.
pub(super) fn make(tree: &Tree, space: &mut Space, seed: &Seed) -> Result<Records, Unwritable> {
    let numbers = Numbers::of(tree);
    let mut made = Records { records: Vec::new(), used: Vec::new(), folders: Vec::new() };
    for (id, number) in &numbers.order {
        let node = tree.node(*id);
        let record = Maker { tree, numbers: &numbers, space, seed, used: &mut made.used }.record(*id, *number, node)?;
        if matches!(node.kind, Kind::Folder(_)) {
            made.folders.push(*number);
        }
        made.records.push((*number, record));
    }
    Ok(made)
}

/// Inode numbers, links and parents of what is reached from the root.
struct Numbers {
    order: Vec<(NodeId, u32)>,
    numbers: HashMap<NodeId, u32>,
    links: HashMap<NodeId, u64>,
    parents: HashMap<NodeId, NodeId>,
}

impl Numbers {
    fn of(tree: &Tree) -> Self {
        let mut all =
            Self { order: Vec::new(), numbers: HashMap::new(), links: HashMap::new(), parents: HashMap::new() };
        let mut next = LOST_FOUND + 1;
        all.number(Tree::ROOT, ROOT);
        all.parents.insert(Tree::ROOT, Tree::ROOT);
        let mut left = vec![Tree::ROOT];
        while let Some(folder) = left.pop() {
            let Kind::Folder(names) = &tree.node(folder).kind else { continue };
            // "." and the name in the folder above; of the root, ".." too.
            *all.links.entry(folder).or_default() += 2;
            for (name, entry) in names {
                let child = entry.node;
                let is_folder = matches!(tree.node(child).kind, Kind::Folder(_));
                if is_folder {
                    *all.links.entry(folder).or_default() += 1;
                    all.parents.insert(child, folder);
                    left.push(child);
                } else {
                    *all.links.entry(child).or_default() += 1;
                }
                if folder == Tree::ROOT && name.as_ref() == b"lost+found" {
                    all.number(child, LOST_FOUND);
                } else if !all.numbers.contains_key(&child) {
                    all.number(child, next);
                    next += 1;
                }
            }
        }
        all
    }

    fn number(&mut self, node: NodeId, number: u32) {
        self.numbers.insert(node, number);
        self.order.push((node, number));
    }
}

struct Maker<'m> {
    tree: &'m Tree,
    numbers: &'m Numbers,
    space: &'m mut Space,
    seed: &'m Seed,
    used: &'m mut Vec<(u64, u64)>,
}

impl Maker<'_> {
    fn record(&mut self, id: NodeId, number: u32, node: &Node) -> Result<Record, Unwritable> {
        let links = self.numbers.links.get(&id).copied().unwrap_or(1);
        // 1: not counted (`dir_nlink`).
        let links = if links > MOST_LINKS { 1 } else { links as u16 };
        let mut record = Record::new(mode_of(&node.kind), &node.meta, links);
        match &node.kind {
            Kind::Folder(_) => self.fill_folder(&mut record, id, number)?,
            Kind::File(content) => self.fill(&mut record, &content.extents, content.size)?,
            Kind::Symlink(target) => self.fill_symlink(&mut record, target)?,
            Kind::BlockDevice { major, minor } | Kind::CharacterDevice { major, minor } => {
                record.map = device_map(*major, *minor);
            }
            Kind::Fifo => {}
        }
        self.add_attributes(&mut record, node, id)?;
        Ok(record)
    }

    fn fill(&mut self, record: &mut Record, extents: &Extents, size: u64) -> io::Result<()> {
        let map = extents.map(self.space)?;
        self.used.extend(extents.iter().map(|e| (u64::from(e.start), u64::from(e.count))));
        self.used.extend(map.tree.iter().map(|block| (*block, 1)));
        record.size = size;
        record.blocks = extents.blocks() + map.tree.len() as u64;
        record.map = map.bytes;
        record.flags |= HAS_EXTENTS;
        Ok(())
    }

    fn fill_folder(&mut self, record: &mut Record, id: NodeId, number: u32) -> Result<(), Unwritable> {
        let Kind::Folder(names) = &self.tree.node(id).kind else { return Ok(()) };
        let listed: Vec<Named> = names
            .iter()
            .map(|(name, entry)| Named {
                name,
                inode: self.numbers.numbers.get(&entry.node).copied().unwrap_or_default(),
                sort: sort_of(&self.tree.node(entry.node).kind),
            })
            .collect();
        let parent = self.numbers.parents.get(&id).and_then(|parent| self.numbers.numbers.get(parent));
        let blocks = folders::blocks(number, parent.copied().unwrap_or(ROOT), &listed, self.seed)
            .ok_or_else(|| Unwritable::Folder(self.tree.name_of(id)))?;
        let content = self.write(&blocks.bytes)?;
        self.fill(record, &content, blocks.bytes.len() as u64)?;
        if blocks.is_indexed {
            record.flags |= IS_INDEXED;
        }
        Ok(())
    }

    fn fill_symlink(&mut self, record: &mut Record, target: &[u8]) -> io::Result<()> {
        if target.len() < FAST_SYMLINK {
            put(&mut record.map, 0, target);
            record.size = target.len() as u64;
            return Ok(());
        }
        let mut block = target.to_vec();
        block.resize(BLOCK, 0);
        let content = self.write(&block)?;
        self.fill(record, &content, target.len() as u64)
    }

    fn add_attributes(&mut self, record: &mut Record, node: &Node, id: NodeId) -> Result<(), Unwritable> {
        if node.meta.attributes.is_empty() {
            return Ok(());
        }
        let placed = attributes::place(&node.meta.attributes)
            .map_err(|attributes::TooLarge| Unwritable::Attributes(self.tree.name_of(id)))?;
        record.tail = placed.tail;
        if let Some(block) = placed.block {
            record.attributes = self.space.append_block(&block)?;
            record.blocks += 1;
            self.used.push((record.attributes, 1));
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<Extents> {
        let mut extents = Extents::default();
        self.space.append_all(bytes, &mut extents)?;
        Ok(extents)
    }
}

fn mode_of(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharacterDevice { .. } => 0o020_000,
        Kind::Folder(_) => 0o040_000,
        Kind::BlockDevice { .. } => 0o060_000,
        Kind::File(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
    }
}

fn sort_of(kind: &Kind) -> Sort {
    match kind {
        Kind::File(_) => Sort::File,
        Kind::Folder(_) => Sort::Folder,
        Kind::CharacterDevice { .. } => Sort::CharacterDevice,
        Kind::BlockDevice { .. } => Sort::BlockDevice,
        Kind::Fifo => Sort::Fifo,
        Kind::Symlink(_) => Sort::Symlink,
    }
}
