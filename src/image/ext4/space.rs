//! The filesystem's file, block by block: who asks gets the next free ones, and content is written as it comes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::extents::Extents;
use super::geometry::{BLOCK, Head};

/// Bytes that are written together.
const BATCH: usize = 1 << 20;
/// The unit in which zeros become holes: 16 blocks, so that a file of specks of zeros has few extents.
const PIECE: usize = 16 * BLOCK;
/// Most blocks: their numbers have 32 bits without the feature `64bit`.
const MOST_BLOCKS: u64 = 1 << 32;

/// Blocks in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) count: u64,
}

/// The file and what of it is taken.
pub(super) struct Space {
    file: File,
    head: Head,
    next: u64,
    batch: Vec<u8>,
    batch_at: u64,
    piece: Vec<u8>,
}

impl Space {
    pub(super) fn new(file: File, head: Head) -> Self {
        let next = head.free_run(0).0;
        Self { file, head, next, batch: Vec::with_capacity(BATCH), batch_at: 0, piece: Vec::with_capacity(PIECE) }
    }

    /// The first block behind all that were taken.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Takes at most `count` blocks, all in a row.
    fn take_some(&mut self, count: u64) -> io::Result<Run> {
        let (start, end) = self.head.free_run(self.next);
        let count = count.min(end - start);
        self.next = start + count;
        if self.next > MOST_BLOCKS {
            return Err(io::Error::other("a filesystem has at most 16 TiB"));
        }
        Ok(Run { start, count })
    }

    /// Takes `count` blocks in as few runs as possible.
    pub(super) fn take(&mut self, mut count: u64, mut taken: impl FnMut(Run)) -> io::Result<()> {
        while count > 0 {
            let run = self.take_some(count)?;
            count -= run.count;
            taken(run);
        }
        Ok(())
    }

    /// Takes `count` blocks in one run, passing over places that are too short for it.
    pub(super) fn take_whole(&mut self, count: u64) -> io::Result<u64> {
        loop {
            let run = self.take_some(count)?;
            if run.count == count {
                return Ok(run.start);
            }
        }
    }

    /// Writes whole blocks to new places.
    fn append(&mut self, bytes: &[u8], mut taken: impl FnMut(Run)) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let run = self.take_some((rest.len() / BLOCK) as u64)?;
            let (now, later) = rest.split_at(run.count as usize * BLOCK);
            self.put(run.start, now)?;
            taken(run);
            rest = later;
        }
        Ok(())
    }

    /// The same, as the blocks of `extents` from the first on.
    pub(super) fn append_all(&mut self, bytes: &[u8], extents: &mut Extents) -> io::Result<()> {
        let mut logical = 0;
        self.append(bytes, |run| {
            extents.push(logical, run);
            logical += run.count as u32;
        })
    }

    fn put(&mut self, block: u64, bytes: &[u8]) -> io::Result<()> {
        let batch_end = self.batch_at + (self.batch.len() / BLOCK) as u64;
        if block != batch_end || self.batch.len() + bytes.len() > BATCH {
            self.flush()?;
            self.batch_at = block;
        }
        self.batch.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.file.write_all_at(&self.batch, self.batch_at * BLOCK as u64)?;
            self.batch.clear();
        }
        Ok(())
    }

    /// Writes one block to a new place, the rest of it zeros; its number.
    pub(super) fn append_block(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let mut block = bytes.to_vec();
        block.resize(BLOCK, 0);
        let mut at = 0;
        self.append(&block, |run| at = run.start)?;
        Ok(at)
    }

    /// Writes to a place that was taken before.
    pub(super) fn write_at(&mut self, block: u64, bytes: &[u8]) -> io::Result<()> {
        // The place may be in what was gathered.
        self.flush()?;
        self.file.write_all_at(bytes, block * BLOCK as u64)
    }

    /// The file, everything written into it.
    pub(super) fn into_file(mut self) -> io::Result<File> {
        self.flush()?;
        Ok(self.file)
    }

    /// Begins a file's content.
    pub(super) fn content(&mut self) -> ContentWriter<'_> {
        self.piece.clear();
        ContentWriter { space: self, extents: Extents::default(), size: 0 }
    }
}

/// Where a file's bytes are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::image) struct Content {
    pub(super) extents: Extents,
    pub(super) size: u64,
}

/// Writes a file's bytes; zeros become holes.
pub(in crate::image) struct ContentWriter<'s> {
    space: &'s mut Space,
    extents: Extents,
    size: u64,
}

impl ContentWriter<'_> {
    /// The next bytes.
    pub(in crate::image) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.grow(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.space.piece.len()));
            self.space.piece.extend_from_slice(now);
            if self.space.piece.len() == PIECE {
                self.end_piece(self.size - later.len() as u64)?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// The next `count` bytes are zeros.
    pub(in crate::image) fn skip(&mut self, mut count: u64) -> io::Result<()> {
        let zeros = [0; BLOCK];
        // To the end of the piece that is begun, then over whole pieces, then the rest.
        while count > 0 && (!self.space.piece.is_empty() || count < PIECE as u64) {
            let some = count.min(BLOCK as u64).min((PIECE - self.space.piece.len()) as u64);
            self.write(&zeros[..some as usize])?;
            count -= some;
        }
        let whole = count - count % PIECE as u64;
        self.grow(whole)?;
        if count > whole { self.skip(count - whole) } else { Ok(()) }
    }

    /// A file's blocks are numbered with 32 bits.
    fn grow(&mut self, count: u64) -> io::Result<()> {
        self.size = self.size.saturating_add(count);
        if self.size > (u64::from(u32::MAX) - 1) * BLOCK as u64 {
            return Err(io::Error::other("a file has at most 16 TiB"));
        }
        Ok(())
    }

    /// Writes out what was gathered; the file has `end` bytes so far.
    fn end_piece(&mut self, end: u64) -> io::Result<()> {
        let mut piece = std::mem::take(&mut self.space.piece);
        if piece.iter().any(|byte| *byte != 0) {
            let logical = (end - piece.len() as u64) / BLOCK as u64;
            piece.resize(piece.len().next_multiple_of(BLOCK), 0);
            let mut at = logical as u32;
            let extents = &mut self.extents;
            self.space.append(&piece, |run| {
                extents.push(at, run);
                at += run.count as u32;
            })?;
        }
        piece.clear();
        self.space.piece = piece;
        Ok(())
    }

    /// All is written.
    pub(in crate::image) fn finish(mut self) -> io::Result<Content> {
        if !self.space.piece.is_empty() {
            self.end_piece(self.size)?;
        }
        Ok(Content { extents: self.extents, size: self.size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ext4::geometry::GROUP;

    fn space() -> Space {
        Space::new(tempfile::tempfile().expect("a file"), Head::new(None))
    }

    #[test]
    fn what_was_written_lies_where_the_extents_say() {
        let mut space = space();
        let mut writer = space.content();
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8 + 1).collect();
        for part in bytes.chunks(7777) {
            writer.write(part).expect("written");
        }
        let content = writer.finish().expect("written");
        assert_eq!((content.size, content.extents.blocks()), (300_000, 74));
        let mut found = vec![0; 74 * BLOCK];
        let file = space.into_file().expect("flushed");
        for extent in content.extents.iter() {
            let at = extent.logical as usize * BLOCK;
            let part = &mut found[at..at + usize::from(extent.count) * BLOCK];
            file.read_exact_at(part, u64::from(extent.start) * BLOCK as u64).expect("read");
        }
        assert!(found.starts_with(&bytes));
    }

    #[test]
    fn zeros_take_no_room() {
        let mut space = space();
        let before = space.end();
        let mut writer = space.content();
        writer.write(&vec![0; 10 * PIECE]).expect("written");
        writer.skip(5 << 30).expect("skipped");
        writer.write(b"end").expect("written");
        let content = writer.finish().expect("written");
        assert_eq!(content.size, 10 * PIECE as u64 + (5 << 30) + 3);
        assert_eq!(space.end() - before, 1);
        let mut writer = space.content();
        writer.write(b"a").expect("written");
        writer.skip(2 * PIECE as u64 + 5).expect("skipped");
        let content = writer.finish().expect("written");
        assert_eq!((content.size, content.extents.blocks()), (2 * PIECE as u64 + 6, 16));
    }

    #[test]
    fn a_run_passes_over_superblocks() {
        let mut space = space();
        let mut runs = Vec::new();
        space.take(4 * GROUP, |run| runs.push(run)).expect("taken");
        assert_eq!(runs[0], Run { start: 65, count: GROUP - 65 });
        assert_eq!(runs[1], Run { start: GROUP + 65, count: 2 * GROUP - 65 });
        assert_eq!(runs.iter().map(|run| run.count).sum::<u64>(), 4 * GROUP);
        space.take_whole(GROUP - 100).expect("taken");
        assert!(space.take(MOST_BLOCKS, |_| ()).is_err());
    }
}
