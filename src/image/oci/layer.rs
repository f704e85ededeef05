//! A layer as the tar that it is: decompressed, and verified on both sides before its end is told.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use super::cancel::Cancel;
use super::decoder::{Decoder, Start};
use super::digest::{Digest, Hasher};
use super::error::OciError;

/// Compressed bytes that are read at a time.
const STEP: usize = 256 << 10;

/// Compressed bytes, from wherever.
pub(super) trait Source: Read + Send {
    /// Called at the end: whether all of it was what its digest says.
    fn verdict(&mut self) -> Result<(), OciError>;
    /// Called when it did not decompress to what it should: whether the source is to blame.
    fn suspect(&mut self) -> Result<(), OciError>;
}

impl Source for Start<Box<dyn Source>> {
    fn verdict(&mut self) -> Result<(), OciError> {
        self.inner.verdict()
    }

    fn suspect(&mut self) -> Result<(), OciError> {
        self.inner.suspect()
    }
}

type Compressed = BufReader<Start<Box<dyn Source>>>;

/// Ends the pull's threads when the last that needs them is gone.
pub(super) struct Guard(pub(super) Arc<Cancel>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.tell();
    }
}

/// One layer's tar stream. Its end (`Ok(0)`) is given only after digest and size of what came from the source
/// and the digest of what was read here were found right; anything else is an error, whose inner one is an
/// [`OciError`], and so is every read after it.
pub struct LayerReader {
    decoder: Option<Decoder<Compressed>>,
    hasher: Hasher,
    diff_id: Digest,
    what: String,
    end: Option<Result<(), Arc<OciError>>>,
    /// The pull goes on for as long as one of its layers is read.
    #[expect(dead_code, reason = "held, not read")]
    guard: Arc<Guard>,
}

impl LayerReader {
    pub(super) fn new(source: Box<dyn Source>, diff_id: Digest, what: String, guard: Arc<Guard>) -> Self {
        let decoder = Some(Decoder::new(BufReader::with_capacity(STEP, Start::new(source))));
        Self { decoder, hasher: Hasher::new(), diff_id, what, end: None, guard }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, OciError> {
        let Some(mut decoder) = self.decoder.take() else { return Ok(0) };
        match decoder.read(buffer) {
            Ok(0) => {
                self.finish(&mut decoder)?;
                Ok(0)
            }
            Ok(count) => {
                self.hasher.update(&buffer[..count]);
                self.decoder = Some(decoder);
                Ok(count)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                self.decoder = Some(decoder);
                Err(e.into())
            }
            Err(source) => {
                if let Some(blamed) = decoder.source() {
                    blamed.get_mut().verdict()?;
                    blamed.get_mut().suspect()?;
                }
                Err(OciError::Decompress { what: self.what.clone(), source })
            }
        }
    }

    fn finish(&self, decoder: &mut Decoder<Compressed>) -> Result<(), OciError> {
        let Some(source) = decoder.source() else { return Err(OciError::Cancelled) };
        // A decompressor need not have read its source to the end.
        if !source.fill_buf()?.is_empty() {
            source.get_mut().suspect()?;
            let trailing = io::Error::new(io::ErrorKind::InvalidData, "more bytes follow the compressed stream");
            return Err(OciError::Decompress { what: self.what.clone(), source: trailing });
        }
        source.get_mut().verdict()?;
        let found = self.hasher.digest();
        if found != self.diff_id {
            source.get_mut().suspect()?;
        }
        self.diff_id.check(&format!("{}, decompressed,", self.what), found)
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.end {
            _ if buffer.is_empty() => return Ok(0),
            Some(Ok(())) => return Ok(0),
            Some(Err(e)) => return Err(OciError::Shared(Arc::clone(e)).into()),
            None => {}
        }
        match self.read_some(buffer) {
            Ok(0) => {
                self.end = Some(Ok(()));
                Ok(0)
            }
            Ok(count) => Ok(count),
            Err(OciError::File(e)) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let e = Arc::new(e);
                self.end = Some(Err(Arc::clone(&e)));
                Err(OciError::Shared(e).into())
            }
        }
    }
}
