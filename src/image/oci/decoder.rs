//! gzip, zstd or neither, by the first bytes: registries and tools get the media type wrong, and the digest
//! of the result decides anyway.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::zstd::ZstdReader;

/// Bytes that tell what follows.
const TELLING: usize = 4;

/// A stream whose first read brings all bytes that tell what it is: a server or a pipe may give less.
pub(super) struct Start<R> {
    pub(super) inner: R,
    begun: bool,
}

impl<R> Start<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, begun: false }
    }
}

impl<R: Read> Read for Start<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.inner.read(buffer)?;
        while !self.begun && count < TELLING.min(buffer.len()) {
            match self.inner.read(&mut buffer[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.begun = true;
        Ok(count)
    }
}

/// What a stream decompresses to.
pub(super) enum Decoder<R> {
    /// Nothing was read yet.
    Unknown(Option<R>),
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<ZstdReader<R>>),
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(source: R) -> Self {
        Self::Unknown(Some(source))
    }

    /// A source that cannot be read stays where it is: it is asked why.
    fn detect(&mut self) -> io::Result<()> {
        let Self::Unknown(unknown) = self else { return Ok(()) };
        let start = match unknown {
            Some(source) => source.fill_buf()?,
            None => return Ok(()),
        };
        // Frames to skip begin with 50 to 5f (RFC 8878 section 3.1.2).
        let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
        let gzip = start.starts_with(b"\x1f\x8b");
        let zstd = start.starts_with(b"\x28\xb5\x2f\xfd") || skippable;
        if let Some(source) = unknown.take() {
            *self = match (gzip, zstd) {
                (true, _) => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
                (_, true) => Self::Zstd(Box::new(ZstdReader::new(source))),
                _ => Self::Plain(source),
            };
        }
        Ok(())
    }

    /// Whether it is compressed, as far as something was read.
    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Self::Gzip(_) | Self::Zstd(_))
    }

    /// The compressed side.
    pub(super) fn source(&mut self) -> Option<&mut R> {
        match self {
            Self::Unknown(source) => source.as_mut(),
            Self::Plain(source) => Some(source),
            Self::Gzip(decoder) => Some(decoder.get_mut()),
            Self::Zstd(decoder) => Some(&mut decoder.source),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.detect()?;
        match self {
            Self::Unknown(_) => Ok(0),
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(bytes).read_to_end(&mut out).map(|_| out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("compresses");
        encoder.finish().expect("compresses")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn each_compression_is_seen_and_members_follow_each_other() {
        assert_eq!(decoded(b"plain").expect("plain"), b"plain");
        assert_eq!(decoded(b"").expect("empty"), b"");
        assert_eq!(decoded(&[gzip(b"one "), gzip(b"two")].concat()).expect("gzip"), b"one two");
        let skip: &[u8] = &[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        assert_eq!(decoded(&[skip, &zstd(b"one "), skip, &zstd(b"two"), skip].concat()).expect("zstd"), b"one two");
        let large: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
        assert_eq!(decoded(&zstd(&large)).expect("zstd"), large);
    }

    #[test]
    fn a_stream_that_comes_byte_by_byte_is_seen_for_what_it_is() {
        struct Drops<'a>(&'a [u8]);
        impl Read for Drops<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let room = buffer.len().min(1);
                self.0.read(&mut buffer[..room])
            }
        }
        for packed in [gzip(b"text"), zstd(b"text"), b"text".to_vec(), b"te".to_vec(), Vec::new()] {
            let mut out = Vec::new();
            let stream = io::BufReader::new(Start::new(Drops(&packed)));
            Decoder::new(stream).read_to_end(&mut out).expect("decoded");
            assert!(out == b"text" || out == packed, "{packed:?}");
            assert!(packed.len() < 10 || out == b"text");
        }
    }

    #[test]
    fn what_is_cut_or_damaged_is_an_error() {
        for whole in [gzip(b"something to compress"), zstd(b"something to compress")] {
            for length in 4..whole.len() {
                assert!(decoded(&whole[..length]).is_err(), "{length} of {}", whole.len());
            }
        }
        assert!(decoded(&[&[0x50, 0x2a, 0x4d, 0x18][..], &[255; 4]].concat()).is_err());
        // A window of 1 GiB: frame header descriptor without single segment, window descriptor 20 << 3.
        assert!(decoded(&[0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3, 1, 0, 0]).is_err());
    }
}
