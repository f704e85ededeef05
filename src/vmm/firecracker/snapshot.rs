//! Reading a persistent snapshot of device-mapper: what differs from the image under it.
//!
//! Its records are the kernel's (drivers/md/dm-snap-persistent.c): a header in the first chunk; then areas, each a
//! chunk of records `(chunk of the disk, chunk of this file)` and the chunks that they name; the first record
//! without a place in this file ends them. Numbers are little endian. What a guest writes is in the chunks alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::vmm::flat::Flat;

/// `SnAp`.
const MAGIC: u32 = 0x7041_6e53;

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Bytes of a chunk: a power of two, at least a page. banger makes the smallest.
const CHUNKS: std::ops::RangeInclusive<u64> = 4096..=1 << 20;

/// Bytes of a record.
const RECORD: u64 = 16;

/// Lays what the snapshot in `file` holds over `flat`.
pub(super) fn lay(file: &File, flat: &mut Flat) -> io::Result<()> {
    let length = file.metadata()?.len();
    let Some(chunk) = chunk_size(file, length)? else { return Ok(()) };
    let records = chunk / RECORD;
    let mut bytes = vec![0; chunk as usize];
    for area in 0.. {
        let at = (1 + area * (records + 1)) * chunk;
        if at + chunk > length {
            return Ok(());
        }
        file.read_exact_at(&mut bytes, at)?;
        for record in bytes.as_chunks::<{ RECORD as usize }>().0 {
            let (old, new) = record.split_at(8);
            let (old, new) = (number(old), number(new));
            match new.checked_mul(chunk).zip(old.checked_mul(chunk)) {
                Some((0, _)) => return Ok(()),
                Some((from, to)) if from < length && to < flat.size() => flat.take(file, from, to, chunk)?,
                Some(_) | None => return Err(damaged("a record leads nowhere")),
            }
        }
    }
    Ok(())
}

/// `None`: nothing was ever written.
fn chunk_size(file: &File, length: u64) -> io::Result<Option<u64>> {
    let mut header = [0; 16];
    if length < header.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut header, 0)?;
    let [magic, valid, version, sectors] = header.as_chunks::<4>().0 else { return Ok(None) };
    let chunk = u64::from(u32::from_le_bytes(*sectors)) * SECTOR;
    match (u32::from_le_bytes(*magic), u32::from_le_bytes(*valid), u32::from_le_bytes(*version)) {
        (0, ..) => Ok(None),
        (MAGIC, 0, _) => Err(damaged("the kernel could not store all of it")),
        (MAGIC, _, 1) if CHUNKS.contains(&chunk) && chunk.is_power_of_two() => Ok(Some(chunk)),
        (..) => Err(damaged("it is no snapshot")),
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the disk that the root helper keeps is damaged: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mib;
    use std::path::Path;

    /// What the kernel writes when chunks are written in this order, each all of one byte.
    fn written(chunks: &[(u64, u8)]) -> Vec<u8> {
        let (chunk, records) = (4096, 256);
        let mut bytes: Vec<u8> = [MAGIC, 1, 1, 8].iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.resize(chunk, 0);
        for (number, area) in chunks.chunks(records).enumerate() {
            let first = 1 + number * (records + 1) + 1;
            for (at, (old, _)) in area.iter().enumerate() {
                bytes.extend(old.to_le_bytes());
                bytes.extend(((first + at) as u64).to_le_bytes());
            }
            bytes.resize((first) * chunk, 0);
            area.iter().for_each(|(_, byte)| bytes.extend(std::iter::repeat_n(*byte, chunk)));
        }
        bytes.resize(bytes.len() + chunk, 0);
        bytes
    }

    fn laid(folder: &Path, kept: &[u8]) -> io::Result<Vec<u8>> {
        let (image, name, file) = (folder.join("image"), folder.join("disk"), folder.join("cow"));
        std::fs::write(&image, vec![1; 1 << 20])?;
        std::fs::write(&file, kept)?;
        let mut flat = Flat::begin(&image, &name, Mib(4))?;
        lay(&File::open(file)?, &mut flat)?;
        flat.finish()?;
        std::fs::read(name)
    }

    #[test]
    fn chunks_lie_where_their_records_say_in_one_area_and_in_more() {
        let folder = tempfile::tempdir().expect("a folder");
        for count in [0, 1, 3, 255, 256, 257, 600] {
            // Backwards and with gaps.
            let chunks: Vec<(u64, u8)> = (0..count).map(|n| (1023 - n, (n % 250 + 2) as u8)).collect();
            let found = laid(folder.path(), &written(&chunks)).expect("laid");
            let mut expected = vec![1; 1 << 20];
            expected.resize(4 << 20, 0);
            for (old, byte) in chunks {
                expected[old as usize * 4096..][..4096].fill(byte);
            }
            assert!(found == expected, "{count}");
        }
    }

    /// A file of Linux 6.1.0-56: over 1 MiB of ones in a disk of 4 MiB, some 300 chunks were written with dd(1), in two areas;
    /// the digest is of what the device then gave.
    #[test]
    fn a_file_of_the_kernel_is_read_as_the_kernel_reads_it() {
        const READ: &str = "2338aaf80a766324fde5f8fee3a449a5e0b0c5b75ac7f3fd88e84cca043a91fc";
        let packed: &[u8] = include_bytes!("testdata/linux-6.1.cow.zst");
        let mut kept = Vec::new();
        let mut unpacked = ruzstd::decoding::StreamingDecoder::new(packed).expect("a frame");
        io::Read::read_to_end(&mut unpacked, &mut kept).expect("unpacked");
        let folder = tempfile::tempdir().expect("a folder");
        let found = laid(folder.path(), &kept).expect("laid");
        assert_eq!(hex(ring::digest::digest(&ring::digest::SHA256, &found).as_ref()), READ);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn nothing_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        for kept in [&[][..], &[0; 16], &[0; 8192]] {
            assert!(laid(folder.path(), kept).expect("laid")[..1 << 20].iter().all(|byte| *byte == 1));
        }
    }

    #[test]
    fn what_is_lost_or_leads_nowhere_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let fine = written(&[(0, 7), (1, 8)]);
        let with = |at: usize, value: u64| {
            let mut bytes = fine.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            laid(folder.path(), &bytes)
        };
        // Invalid; another kind of file; chunks of no size, and too large ones; records out of bounds.
        assert!(with(0, u64::from(MAGIC)).expect_err("lost").to_string().contains("could not store"));
        for (at, value) in [(0, 1), (8, 1), (8, 1 | 7 << 32), (8, 1 | 1 << 63), (8, 2 | 8 << 32)] {
            assert!(with(at, value).is_err(), "{at}: {value:x}");
        }
        for (at, value) in [(4096, 1024), (4096, u64::MAX), (4104, 1 << 30), (4104, u64::MAX)] {
            assert!(with(at, value).is_err(), "{at}: {value:x}");
        }
    }
}
