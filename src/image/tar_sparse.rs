//! Sparse files of the PAX kinds: which parts of a file are in the archive
//! (GNU tar manual, "Storing Sparse Files"). The older kind, `S`, is the tar reader's own.

use std::io::{self, Read};

use super::ImageError;
use super::tar_entries::{TarEntry, pax_record};
use super::tar_name::refused;

/// Bytes of a map: a few hundred thousand parts.
const MOST_MAP: usize = 8 << 20;
/// Bytes of a block, to a multiple of which the map of version 1.0 is filled up.
const BLOCK: usize = 512;

/// The parts of a file that are there; zeros are between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SparseMap {
    /// Offset and length, in order.
    pub(super) parts: Vec<(u64, u64)>,
    /// The file's size.
    pub(super) size: u64,
}

/// The map of a sparse file; `None` for any other. Of version 1.0 it is read from the content's front.
pub(super) fn map_of(entry: &mut TarEntry, name: &[u8]) -> Result<Option<SparseMap>, ImageError> {
    let damaged = |what: &str| refused(name, format!("its map of a sparse file {what}"));
    let mut text = |key: &str| pax_record(entry, key);
    let (major, map) = (text("GNU.sparse.major")?, text("GNU.sparse.map")?);
    let (size, real_size) = (text("GNU.sparse.size")?, text("GNU.sparse.realsize")?);
    let size = real_size.or(size).map(|size| number(&size).ok_or_else(|| damaged("has no size"))).transpose()?;
    let (numbers, size) = match (major, map, size) {
        (Some(_), _, Some(size)) => (read_map(entry).map_err(ImageError::Stream)?, size),
        (None, Some(map), Some(size)) => (list(&map), size),
        (None, None, Some(size)) => (pairs(entry)?, size),
        (None, None, None) => return Ok(None),
        (_, _, None) => return Err(damaged("has no size")),
    };
    let numbers = numbers.ok_or_else(|| damaged("cannot be read"))?;
    let parts: Vec<(u64, u64)> = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let ends = parts.iter().try_fold(
        0u64,
        |end, (offset, length)| {
            if *offset < end { None } else { offset.checked_add(*length) }
        },
    );
    match ends {
        Some(end) if end <= size && numbers.len() % 2 == 0 => Ok(Some(SparseMap { parts, size })),
        _ => Err(damaged("has parts that overlap or lie outside of it")),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Version 0.1: numbers with commas between them.
fn list(text: &[u8]) -> Option<Vec<u64>> {
    text.split(|byte| *byte == b',').map(number).collect()
}

/// Version 0.0: a record for each number.
fn pairs(entry: &mut TarEntry) -> Result<Option<Vec<u64>>, ImageError> {
    let Some(records) = entry.pax_extensions().map_err(ImageError::Stream)? else { return Ok(None) };
    let mut numbers = Some(Vec::new());
    for record in records {
        let record = record.map_err(ImageError::Stream)?;
        if matches!(record.key_bytes(), b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            let next = number(record.value_bytes());
            numbers = numbers.zip(next).map(|(mut all, next)| {
                all.push(next);
                all
            });
        }
    }
    Ok(numbers)
}

/// Version 1.0: a line for each number, the first says how many pairs there are; filled up to a block.
fn read_map(entry: &mut TarEntry) -> io::Result<Option<Vec<u64>>> {
    let mut text = Vec::new();
    loop {
        let start = text.len();
        text.resize(start + BLOCK, 0);
        entry.read_exact(&mut text[start..])?;
        let mut lines = text.split(|byte| *byte == b'\n');
        let Some(count) = lines.next().filter(|line| line.len() < 24).and_then(number) else { return Ok(None) };
        let wanted = count.saturating_mul(2);
        // The part behind the last line end is filling, or a number that goes on in the next block.
        let complete = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        if complete > wanted {
            return Ok(lines.take(wanted as usize).map(number).collect());
        }
        if text.len() > MOST_MAP || wanted > MOST_MAP as u64 {
            return Ok(None);
        }
    }
}
