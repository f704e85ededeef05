//! Sparse files: which parts of a file are in the archive (GNU tar manual, "Storing Sparse Files"): the three kinds
//! in PAX records, and the old one, `S`, in headers.

use std::io::{self, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::ImageError;
use super::tar_name::refused;
use super::tar_reader::{TarEntry, number};

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

impl SparseMap {
    fn checked(numbers: &[u64], size: u64, name: &[u8]) -> Result<Self, ImageError> {
        // GNU's old kind ends some maps with parts of no length.
        let pairs = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).filter(|(_, length)| *length > 0);
        let parts: Vec<(u64, u64)> = pairs.collect();
        let end = parts.iter().try_fold(
            0u64,
            |end, (offset, length)| {
                if *offset < end { None } else { offset.checked_add(*length) }
            },
        );
        match end {
            Some(end) if end <= size && numbers.len().is_multiple_of(2) => Ok(Self { parts, size }),
            _ => Err(refused(name, "its map of a sparse file has parts that overlap or lie outside of it")),
        }
    }
}

/// The map of a sparse file; `None` for any other. Of version 1.0 it is read from the content's front.
pub(super) fn map_of(entry: &mut TarEntry) -> Result<Option<SparseMap>, ImageError> {
    if let Some(old) = entry.take_sparse() {
        return Ok(Some(old));
    }
    let name = entry.name().to_vec();
    let damaged = |what: &str| refused(&name, format!("its map of a sparse file {what}"));
    let records = entry.records();
    let (is_1, map) = (records.get("GNU.sparse.major").is_some(), records.get("GNU.sparse.map"));
    let size = records.number("GNU.sparse.realsize").or_else(|| records.number("GNU.sparse.size"));
    let size = size.map(|size| size.map_err(|()| damaged("has no size"))).transpose()?;
    let (numbers, size) = match (is_1, map, size) {
        (false, None, None) => return Ok(None),
        (_, _, None) => return Err(damaged("has no size")),
        (false, Some(map), Some(size)) => (list(map), size),
        (false, None, Some(size)) => (pairs(entry), size),
        (true, _, Some(size)) => (read_map(entry).map_err(ImageError::Stream)?, size),
    };
    let numbers = numbers.ok_or_else(|| damaged("cannot be read"))?;
    SparseMap::checked(&numbers, size, &name).map(Some)
}

/// Version 0.1: numbers with commas between them.
fn list(text: &[u8]) -> Option<Vec<u64>> {
    text.split(|byte| *byte == b',').map(number).collect()
}

/// Version 0.0: a record for each number.
fn pairs(entry: &TarEntry) -> Option<Vec<u64>> {
    let is_part = |key: &[u8]| matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
    entry.records().iter().filter(|(key, _)| is_part(key)).map(|(_, value)| number(value)).collect()
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

/// The old kind: four parts in the header, more in the blocks behind it.
pub(super) fn of_header(
    header: &Header,
    name: &[u8],
    mut block: impl FnMut() -> Result<Option<[u8; BLOCK]>, ImageError>,
) -> Result<SparseMap, ImageError> {
    let damaged = || refused(name, "its map of a sparse file cannot be read");
    let gnu = header.as_gnu().ok_or_else(damaged)?;
    let mut numbers = Vec::new();
    add(&gnu.sparse, &mut numbers).ok_or_else(damaged)?;
    let mut goes_on = gnu.is_extended();
    while goes_on {
        let more = block()?.ok_or_else(damaged)?;
        let mut extension = GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(&more);
        add(&extension.sparse, &mut numbers).ok_or_else(damaged)?;
        goes_on = extension.is_extended();
    }
    SparseMap::checked(&numbers, gnu.real_size().map_err(|_| damaged())?, name)
}

fn add(parts: &[GnuSparseHeader], numbers: &mut Vec<u64>) -> Option<()> {
    for part in parts.iter().take_while(|part| !part.is_empty()) {
        numbers.extend([part.offset().ok()?, part.length().ok()?]);
    }
    Some(())
}
