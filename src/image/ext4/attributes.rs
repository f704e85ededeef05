//! Extended attributes: in the inode's tail where they fit, the rest in one block
//! (Documentation/filesystems/ext4/attributes.rst).

use super::geometry::{BLOCK, INODE};

/// What of a record of 256 bytes is no attribute: 128 bytes and the extra fields (`i_extra_isize` is 32).
pub(super) const RECORD: usize = 160;
const MAGIC: u32 = 0xea02_0000;
/// Bytes of a block's header.
const HEADER: usize = 32;
/// Bytes of an attribute beside name and value.
const ENTRY: usize = 16;

/// Name and value.
pub(in crate::image) type Attribute = (Vec<u8>, Vec<u8>);

/// Where the attributes of an inode go.
pub(super) struct Placed {
    /// Its tail, as long as it is; empty without any.
    pub(super) tail: Vec<u8>,
    /// The block beside it.
    pub(super) block: Option<Vec<u8>>,
}

/// The attributes that need more room than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The number that stands for a name's beginning, and the rest; `None` when ext4 has none for it.
pub(in crate::image) fn index_of(name: &[u8]) -> Option<(u8, &[u8])> {
    const WHOLE: [(&[u8], u8); 2] = [(b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3)];
    const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
    if let Some((_, index)) = WHOLE.iter().find(|(whole, _)| *whole == name) {
        return Some((*index, b""));
    }
    PREFIXES.iter().find_map(|(prefix, index)| Some((*index, name.strip_prefix(*prefix)?)))
}

/// Places `attributes`; names that ext4 has no number for are not among them.
pub(super) fn place(attributes: &[Attribute]) -> Result<Placed, TooLarge> {
    let mut known: Vec<Known> = attributes.iter().filter_map(Known::of).collect();
    // A block's are sorted, so that a search can stop early.
    known.sort_by_key(|known| (known.index, known.name.len(), known.name));
    let room = INODE - RECORD - 4;
    let (mut inner, mut outer, mut used) = (Vec::new(), Vec::new(), 4);
    for known in known {
        if used + known.length() <= room {
            used += known.length();
            inner.push(known);
        } else {
            outer.push(known);
        }
    }
    let needed: usize = outer.iter().map(Known::length).sum();
    if HEADER + needed + 4 > BLOCK {
        return Err(TooLarge);
    }
    Ok(Placed { tail: tail(&inner), block: (!outer.is_empty()).then(|| block(&outer)) })
}

struct Known<'a> {
    index: u8,
    name: &'a [u8],
    value: &'a [u8],
}

impl<'a> Known<'a> {
    fn of((name, value): &'a Attribute) -> Option<Self> {
        index_of(name).map(|(index, name)| Self { index, name, value })
    }

    fn length(&self) -> usize {
        (ENTRY + self.name.len()).next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }

    fn put(&self, out: &mut Vec<u8>, value_at: usize) {
        out.extend_from_slice(&[self.name.len() as u8, self.index]);
        out.extend_from_slice(&(value_at as u16).to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&(self.value.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.hash().to_le_bytes());
        out.extend_from_slice(self.name);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
        self.value.chunks(4).fold(name, |hash, part| {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// Entries from the front, values from the back of `area`, whose offsets count from `origin` on.
fn fill(area: &mut [u8], origin: usize, known: &[Known]) {
    let mut entries = Vec::new();
    let mut end = area.len();
    for known in known {
        end -= known.value.len().next_multiple_of(4);
        area[end..end + known.value.len()].copy_from_slice(known.value);
        known.put(&mut entries, origin + end);
    }
    area[..entries.len()].copy_from_slice(&entries);
}

fn tail(known: &[Known]) -> Vec<u8> {
    if known.is_empty() {
        return Vec::new();
    }
    let mut tail = MAGIC.to_le_bytes().to_vec();
    tail.resize(INODE - RECORD, 0);
    fill(&mut tail[4..], 0, known);
    tail
}

fn block(known: &[Known]) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK);
    // Magic, one inode that uses it, one block; no hash of the whole, so that it is never shared.
    for number in [MAGIC, 1, 1] {
        block.extend_from_slice(&number.to_le_bytes());
    }
    block.resize(BLOCK, 0);
    fill(&mut block[HEADER..], HEADER, known);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, length: usize) -> Attribute {
        (name.as_bytes().to_vec(), vec![7; length])
    }

    #[test]
    fn a_capability_fits_into_the_inode() {
        let placed = place(&[one("security.capability", 20)]).expect("fits");
        assert_eq!((placed.tail.len(), placed.block), (96, None));
    }

    #[test]
    fn what_does_not_fit_goes_to_a_block_and_what_is_larger_is_refused() {
        let placed = place(&[one("user.a", 10), one("user.b", 3000)]).expect("fits");
        assert!(!placed.tail.is_empty() && placed.block.is_some_and(|block| block.len() == BLOCK));
        assert!(place(&[one("user.b", 4000)]).is_ok());
        assert!(matches!(place(&[one("user.b", 4090)]), Err(TooLarge)));
        assert!(place(&[one("com.example", 9)]).expect("left out").tail.is_empty());
    }
}
