//! Decompressors, chosen by the content's first bytes and bounded in what they give.

use std::io::{self, Read};

/// Most bytes that a kernel or module may decompress to.
pub(super) const LIMIT: u64 = 512 << 20;

/// Memory that xz may ask for: the kernel's build uses dictionaries up to 128 MiB.
const XZ_MEMORY_KIB: u32 = 160 << 10;

/// A compression that kernels and modules come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Xz,
    Zstd,
    Lz4Legacy,
}

impl Compression {
    /// The compression of data that begins with `start`.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Compression); 4] = [
            (b"\x1f\x8b", Compression::Gzip),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x02\x21\x4c\x18", Compression::Lz4Legacy),
        ];
        MAGICS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, compression)| *compression)
    }
}

/// What `data` decompresses to; bytes after the compressed stream are ignored, since the kernel's
/// build appends the uncompressed size (scripts/Makefile.lib, `size_append`).
pub(super) fn decompress(compression: Compression, data: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        Compression::Gzip => bounded(flate2::read::GzDecoder::new(data)),
        Compression::Xz => bounded(lzma_rust2::XzReader::new_mem_limit(data, false, XZ_MEMORY_KIB)),
        Compression::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(data).map_err(io::Error::other)?;
            bounded(decoder)
        }
        Compression::Lz4Legacy => lz4_legacy(data),
    }
}

fn bounded(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    stream.take(LIMIT + 1).read_to_end(&mut out)?;
    if out.len() as u64 > LIMIT { Err(too_large()) } else { Ok(out) }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it decompresses to more than {LIMIT} bytes"))
}

/// The legacy lz4 frame: a magic number, then blocks of at most 8 MiB, each behind its compressed
/// length (lz4_Frame_format.md, "Legacy frame").
fn lz4_legacy(data: &[u8]) -> io::Result<Vec<u8>> {
    const BLOCK: usize = 8 << 20;
    let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut rest = &data[4..];
    let mut out = Vec::new();
    let mut block = vec![0; BLOCK];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        // No block is this long: it is the appended size, or what else follows the stream.
        if length == 0 || length > lz4_flex::block::get_maximum_output_size(BLOCK) || after.len() < length {
            break;
        }
        let count = lz4_flex::block::decompress_into(&after[..length], &mut block)
            .map_err(|e| damaged(format!("lz4 block at byte {}: {e}", data.len() - rest.len())))?;
        out.extend_from_slice(&block[..count]);
        if out.len() as u64 > LIMIT {
            return Err(too_large());
        }
        rest = &after[length..];
        // Only the last block is shorter.
        if count < BLOCK {
            return Ok(out);
        }
    }
    if rest.len() > 4 {
        return Err(damaged("the lz4 stream is cut off".into()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused() {
        let zeros = io::repeat(0).take(LIMIT + 1);
        let mut bomb = Vec::new();
        let mut encoder = flate2::read::GzEncoder::new(zeros, flate2::Compression::fast());
        encoder.read_to_end(&mut bomb).expect("compresses");
        assert!(decompress(Compression::Gzip, &bomb).is_err());
    }
}
