//! A folder's blocks: names in a row, and for more than one block a tree by the names' hashes
//! (Documentation/filesystems/ext4/directory.rst).

use super::geometry::BLOCK;
use super::hash::{self, Seed};

/// Leaves that the root of a tree points at.
const IN_ROOT: usize = (BLOCK - 32) / 8;
/// Leaves that a node below it points at.
const IN_NODE: usize = (BLOCK - 8) / 8;
/// Hash version: half MD4; that bytes are unsigned is said in the superblock.
pub(super) const HALF_MD4: u8 = 1;

/// What a name stands for, as folders note it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    File = 1,
    Folder = 2,
    CharacterDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Symlink = 7,
}

/// A name in a folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'n> {
    pub(super) name: &'n [u8],
    pub(super) inode: u32,
    pub(super) sort: Sort,
}

impl Named<'_> {
    fn length(&self) -> usize {
        (8 + self.name.len()).next_multiple_of(4)
    }
}

/// A folder's bytes, a whole number of blocks.
pub(super) struct Blocks {
    pub(super) bytes: Vec<u8>,
    /// Whether they are a tree.
    pub(super) is_indexed: bool,
}

/// The blocks of folder `own` in `parent`; `None` when it has more names than a tree of two levels holds.
pub(super) fn blocks(own: u32, parent: u32, names: &[Named], seed: &Seed) -> Option<Blocks> {
    let (dot, dots) = (dot(b".", own), dot(b"..", parent));
    let length: usize = [dot, dots].iter().chain(names).map(Named::length).sum();
    if length <= BLOCK {
        let all: Vec<Named> = [dot, dots].into_iter().chain(names.iter().copied()).collect();
        return Some(Blocks { bytes: leaf(&all), is_indexed: false });
    }
    let leaves = leaves(names, seed);
    Some(Blocks { bytes: tree(own, parent, &leaves)?, is_indexed: true })
}

fn dot(name: &[u8], inode: u32) -> Named<'_> {
    Named { name, inode, sort: Sort::Folder }
}

/// One block of names; the last one's record goes to the block's end.
fn leaf(names: &[Named]) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK);
    for (number, named) in names.iter().enumerate() {
        let is_last = number + 1 == names.len();
        let length = if is_last { BLOCK - block.len() } else { named.length() };
        put_record(&mut block, named, length);
    }
    block.resize(BLOCK, 0);
    block
}

fn put_record(out: &mut Vec<u8>, named: &Named, length: usize) {
    let end = out.len() + length;
    out.extend_from_slice(&named.inode.to_le_bytes());
    out.extend_from_slice(&(length as u16).to_le_bytes());
    out.extend_from_slice(&[named.name.len() as u8, named.sort as u8]);
    out.extend_from_slice(named.name);
    out.resize(end, 0);
}

/// A block of names, and the least hash in it.
struct Leaf {
    hash: u32,
    bytes: Vec<u8>,
}

fn leaves(names: &[Named], seed: &Seed) -> Vec<Leaf> {
    let mut hashed: Vec<(u32, Named)> = names.iter().map(|n| (hash::of_name(n.name, seed), *n)).collect();
    hashed.sort_by(|a, b| (a.0, a.1.name).cmp(&(b.0, b.1.name)));
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut last = None;
    let mut rest = &hashed[..];
    while let Some((first, _)) = rest.first() {
        let mut length = 0;
        let fits = |(_, named): &&(u32, Named)| {
            length += named.length();
            length <= BLOCK
        };
        let count = rest.iter().take_while(fits).count();
        let (now, later) = rest.split_at(count);
        // The lowest bit says that names of the same hash lie in the block before as well.
        let continues = u32::from(last == Some(*first));
        let all: Vec<Named> = now.iter().map(|(_, named)| *named).collect();
        leaves.push(Leaf { hash: first | continues, bytes: leaf(&all) });
        last = now.last().map(|(hash, _)| *hash);
        rest = later;
    }
    leaves
}

/// Root, nodes if the root cannot point at all leaves, leaves.
fn tree(own: u32, parent: u32, leaves: &[Leaf]) -> Option<Vec<u8>> {
    let nodes = if leaves.len() > IN_ROOT { leaves.len().div_ceil(IN_NODE) } else { 0 };
    if nodes > IN_ROOT {
        return None;
    }
    let first_leaf = 1 + nodes;
    let place = |number: usize, leaf: &Leaf| (leaf.hash, (first_leaf + number) as u32);
    let places: Vec<(u32, u32)> = leaves.iter().enumerate().map(|(number, leaf)| place(number, leaf)).collect();
    let mut bytes = Vec::with_capacity((first_leaf + leaves.len()) * BLOCK);
    let parts: Vec<&[(u32, u32)]> = places.chunks(IN_NODE).collect();
    if nodes == 0 {
        put_root(&mut bytes, own, parent, 0, &places);
    } else {
        let above: Vec<(u32, u32)> = parts.iter().zip(1..).map(|(part, block)| (part[0].0, block)).collect();
        put_root(&mut bytes, own, parent, 1, &above);
        parts.iter().for_each(|part| put_node(&mut bytes, part));
    }
    leaves.iter().for_each(|leaf| bytes.extend_from_slice(&leaf.bytes));
    Some(bytes)
}

fn put_root(out: &mut Vec<u8>, own: u32, parent: u32, levels: u8, places: &[(u32, u32)]) {
    put_record(out, &dot(b".", own), 12);
    let mut dots = Vec::with_capacity(BLOCK);
    put_record(&mut dots, &dot(b"..", parent), BLOCK - 12);
    dots.truncate(12);
    out.extend_from_slice(&dots);
    out.extend_from_slice(&[0, 0, 0, 0, HALF_MD4, 8, levels, 0]);
    put_places(out, IN_ROOT, places);
}

/// A node begins with an empty record as long as the block, so that who reads names in a row sees none.
fn put_node(out: &mut Vec<u8>, places: &[(u32, u32)]) {
    out.extend_from_slice(&[0, 0, 0, 0, 0, (BLOCK >> 8) as u8, 0, 0]);
    put_places(out, IN_NODE, places);
}

/// The first place has no hash: limit and count are where it would be.
fn put_places(out: &mut Vec<u8>, room: usize, places: &[(u32, u32)]) {
    out.extend_from_slice(&(room as u16).to_le_bytes());
    out.extend_from_slice(&(places.len() as u16).to_le_bytes());
    for (number, (hash, block)) in places.iter().enumerate() {
        if number > 0 {
            out.extend_from_slice(&hash.to_le_bytes());
        }
        out.extend_from_slice(&block.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_folder_is_one_block_of_names() {
        let names = [Named { name: b"a", inode: 12, sort: Sort::File }];
        let made = blocks(2, 2, &names, &[1; 4]).expect("fits");
        assert!(!made.is_indexed);
        assert_eq!(made.bytes.len(), BLOCK);
        assert_eq!(&made.bytes[24..33], b"\x0c\0\0\0\xe8\x0f\x01\x01a");
    }

    #[test]
    fn more_names_than_a_tree_holds_are_refused() {
        let leaf = || Leaf { hash: 0, bytes: Vec::new() };
        let leaves = |count| (0..count).map(|_| leaf()).collect::<Vec<_>>();
        assert!(tree(1, 1, &leaves(IN_ROOT * IN_NODE)).is_some());
        assert!(tree(1, 1, &leaves(IN_ROOT * IN_NODE + 1)).is_none());
    }
}
