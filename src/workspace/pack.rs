//! A git pack and its index, written while it streams (gitformat-pack(5)): every object whole, none as a difference.
//! So the guest, whose time is dear, has nothing to unpack, to hash or to index.

use std::io::{self, Read, Write};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use ring::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// Objects by their number in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A commit.
    Commit = 1,
    /// A tree.
    Tree = 2,
    /// A file's content.
    Blob = 3,
    /// An annotated tag.
    Tag = 4,
}

impl Kind {
    /// As git calls it.
    pub fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"commit" => Some(Self::Commit),
            b"tree" => Some(Self::Tree),
            b"blob" => Some(Self::Blob),
            b"tag" => Some(Self::Tag),
            _ => None,
        }
    }
}

/// Offsets from here on stand in a table of their own.
const LARGE: u64 = 1 << 31;

struct Entry {
    id: Vec<u8>,
    crc: u32,
    offset: u64,
}

/// A pack under way.
pub struct PackWriter<W: Write> {
    out: Sum<W>,
    algorithm: &'static Algorithm,
    entries: Vec<Entry>,
    count: u32,
}

impl<W: Write> PackWriter<W> {
    /// A pack of `count` objects, whose names have `id_bytes` bytes: 20 or 32.
    pub fn new(out: W, id_bytes: usize, count: u32) -> io::Result<Self> {
        let algorithm = if id_bytes == 32 { &SHA256 } else { &SHA1_FOR_LEGACY_USE_ONLY };
        let mut out = Sum { inner: out, hash: Context::new(algorithm), crc: Crc::new(), bytes: 0 };
        out.write_all(b"PACK")?;
        out.write_all(&2u32.to_be_bytes())?;
        out.write_all(&count.to_be_bytes())?;
        Ok(Self { out, algorithm, entries: Vec::with_capacity(count as usize), count })
    }

    /// Adds an object, whose content is all of `content` and has `size` bytes.
    pub fn add(&mut self, id: Vec<u8>, kind: Kind, size: u64, content: &mut impl Read) -> io::Result<()> {
        let offset = self.out.bytes;
        self.out.crc = Crc::new();
        self.out.write_all(&header(kind, size))?;
        let mut packed = ZlibEncoder::new(&mut self.out, Compression::fast());
        if io::copy(content, &mut packed)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        packed.finish()?;
        self.entries.push(Entry { id, crc: self.out.crc.sum(), offset });
        Ok(())
    }

    /// Ends the pack; its index.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        if self.entries.len() != self.count as usize {
            return Err(io::Error::other("the pack has not as many objects as announced"));
        }
        let checksum = self.out.hash.clone().finish();
        self.out.inner.write_all(checksum.as_ref())?;
        self.out.inner.flush()?;
        Ok(index(&mut self.entries, checksum.as_ref(), self.algorithm))
    }
}

/// Type and size of an object: four bits of the size, then seven at a time.
fn header(kind: Kind, size: u64) -> Vec<u8> {
    let mut bytes = vec![(kind as u8) << 4 | (size & 0x0f) as u8];
    let mut rest = size >> 4;
    while rest > 0 {
        if let Some(last) = bytes.last_mut() {
            *last |= 0x80;
        }
        bytes.push((rest & 0x7f) as u8);
        rest >>= 7;
    }
    bytes
}

/// The index, version 2.
fn index(entries: &mut [Entry], pack: &[u8], algorithm: &'static Algorithm) -> Vec<u8> {
    entries.sort_by(|a, b| a.id.cmp(&b.id));
    let mut text = b"\xfftOc\0\0\0\x02".to_vec();
    for first in 0..=u8::MAX {
        let below = entries.partition_point(|entry| entry.id.first().is_some_and(|byte| *byte <= first));
        text.extend((below as u32).to_be_bytes());
    }
    entries.iter().for_each(|entry| text.extend(&entry.id));
    entries.iter().for_each(|entry| text.extend(entry.crc.to_be_bytes()));
    let mut large = Vec::new();
    for entry in entries.iter() {
        let word = match entry.offset {
            small if small < LARGE => small as u32,
            offset => {
                large.extend(offset.to_be_bytes());
                LARGE as u32 | (large.len() / 8 - 1) as u32
            }
        };
        text.extend(word.to_be_bytes());
    }
    text.extend(large);
    text.extend(pack);
    let mut hash = Context::new(algorithm);
    hash.update(&text);
    text.extend(hash.finish().as_ref());
    text
}

/// Counts and sums up what passes.
struct Sum<W> {
    inner: W,
    hash: Context,
    crc: Crc,
    bytes: u64,
}

impl<W: Write> Write for Sum<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.crc.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::git::Git;

    #[test]
    fn a_size_is_four_bits_and_then_seven_at_a_time() {
        assert_eq!(header(Kind::Blob, 0), [0x30]);
        assert_eq!(header(Kind::Commit, 15), [0x1f]);
        assert_eq!(header(Kind::Tree, 16), [0xa0, 0x01]);
        assert_eq!(header(Kind::Tag, 0x1234), [0xc4, 0xa3, 0x02]);
        assert_eq!(header(Kind::Blob, u64::MAX).len(), 10);
    }

    #[test]
    fn offsets_of_more_than_31_bits_have_a_table_of_their_own() {
        let entry = |byte: u8, offset| Entry { id: vec![byte; 20], crc: 7, offset };
        let mut entries = [entry(2, 5), entry(1, LARGE + 9), entry(3, LARGE)];
        let text = index(&mut entries, &[0; 20], &SHA1_FOR_LEGACY_USE_ONLY);
        let words = 8 + 1024 + 3 * 20 + 3 * 4;
        assert_eq!(text[words..words + 12], [0x80, 0, 0, 0, 0, 0, 0, 5, 0x80, 0, 0, 1]);
        assert_eq!(text[words + 12..words + 28], [0, 0, 0, 0, 0x80, 0, 0, 9, 0, 0, 0, 0, 0x80, 0, 0, 0]);
        assert_eq!(text.len(), words + 28 + 40);
    }

    #[test]
    fn git_finds_a_pack_and_its_index_sound() {
        for format in ["sha1", "sha256"] {
            let folder = tempfile::tempdir().expect("a folder");
            let git = Git::at(folder.path());
            git.answer(&["init", "-q", &format!("--object-format={format}")]).expect("made");
            let contents =
                [b"".to_vec(), b"one\n".to_vec(), vec![b'x'; 100_000], (0..=255).cycle().take(70_000).collect()];
            let ids = contents.iter().map(|content| {
                let id = git.answer_to(&["hash-object", "--stdin"], content.clone()).expect("hashed");
                let id = String::from_utf8(id).expect("text");
                (0..id.trim().len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&id[at..at + 2], 16).expect("hex"))
                    .collect()
            });
            let ids: Vec<Vec<u8>> = ids.collect();
            let mut pack = Vec::new();
            let mut writer = PackWriter::new(&mut pack, ids[0].len(), 4).expect("begun");
            for (id, content) in ids.into_iter().zip(&contents) {
                writer.add(id, Kind::Blob, content.len() as u64, &mut content.as_slice()).expect("added");
            }
            let index = writer.finish().expect("ended");
            std::fs::write(folder.path().join("p.pack"), &pack).expect("written");
            std::fs::write(folder.path().join("p.idx"), &index).expect("written");
            git.answer(&["verify-pack", "p.idx"]).expect("sound");
            git.answer(&["index-pack", "-o", "own.idx", "p.pack"]).expect("indexed");
            assert!(std::fs::read(folder.path().join("own.idx")).expect("read") == index, "git's own index is another");
        }
    }

    #[test]
    fn a_content_that_is_too_short_is_an_error() {
        let mut writer = PackWriter::new(io::sink(), 20, 1).expect("begun");
        assert!(writer.add(vec![0; 20], Kind::Blob, 5, &mut &b"four"[..]).is_err());
    }
}
