//! A stream that is counted, hashed and can be cancelled.

use std::cell::RefCell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use super::{Cancelled, ImageError, Progress};

/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 1 << 18;

struct Inner<'a> {
    stream: BufReader<&'a mut dyn Read>,
    progress: Progress<'a>,
    digest: Option<ring::digest::Context>,
    total: u64,
    reported: u64,
    allowance: Option<u64>,
    ended: bool,
    refusal: Option<ImageError>,
}

/// The stream; clones share one position.
#[derive(Clone)]
pub(super) struct Meter<'a>(Rc<RefCell<Inner<'a>>>);

impl<'a> Meter<'a> {
    pub(super) fn new(stream: &'a mut dyn Read, progress: Progress<'a>) -> Self {
        Self::with(stream, progress, Some(ring::digest::Context::new(&ring::digest::SHA256)))
    }

    /// One whose bytes somebody else has hashed already.
    pub(super) fn unhashed(stream: &'a mut dyn Read, progress: Progress<'a>) -> Self {
        Self::with(stream, progress, None)
    }

    fn with(stream: &'a mut dyn Read, progress: Progress<'a>, digest: Option<ring::digest::Context>) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            stream: BufReader::with_capacity(1 << 18, stream),
            progress,
            digest,
            total: 0,
            reported: 0,
            allowance: None,
            ended: false,
            refusal: None,
        })))
    }

    /// Allows at most `bytes` until the next call: a tar reader slurps the headers that describe a
    /// following entry into memory, however long they claim to be.
    pub(super) fn allow(&self, bytes: Option<u64>) {
        self.0.borrow_mut().allowance = bytes;
    }

    /// Whether the stream itself has said that it is at its end.
    pub(super) fn has_ended(&self) -> bool {
        self.0.borrow().ended
    }

    /// Bytes consumed so far.
    pub(super) fn total(&self) -> u64 {
        self.0.borrow().total
    }

    /// What this meter itself refused, if it was that which failed; else `error` as a stream's error.
    pub(super) fn explain(&self, error: io::Error) -> ImageError {
        self.refusal().unwrap_or(ImageError::Stream(error))
    }

    /// What this meter itself refused.
    pub(super) fn refusal(&self) -> Option<ImageError> {
        self.0.borrow_mut().refusal.take()
    }

    /// `sha256:` and the hexadecimal digest of what was consumed; empty where it was not hashed.
    pub(super) fn digest(&self) -> String {
        let Some(digest) = self.0.borrow().digest.clone() else { return String::new() };
        let hex: String = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }
}

impl Read for Meter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl Inner<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len())?;
        let count = self.stream.read(&mut buffer[..room])?;
        if count == 0 && room > 0 {
            self.ended = true;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(&buffer[..count]);
        }
        self.total += count as u64;
        if let Some(allowance) = &mut self.allowance {
            *allowance -= count as u64;
        }
        self.report()?;
        Ok(count)
    }

    fn room(&mut self, wanted: usize) -> io::Result<usize> {
        match self.allowance {
            Some(0) if wanted > 0 => Err(self.refuse(ImageError::Limit {
                what: "bytes of headers for one entry",
                limit: super::tar_reader::HEADER_BYTES,
            })),
            Some(allowance) => Ok(wanted.min(usize::try_from(allowance).unwrap_or(usize::MAX))),
            None => Ok(wanted),
        }
    }

    fn report(&mut self) -> io::Result<()> {
        if self.total - self.reported < REPORT_EVERY && !self.ended {
            return Ok(());
        }
        self.reported = self.total;
        (self.progress)(self.total).map_err(|Cancelled| self.refuse(ImageError::Cancelled))
    }

    fn refuse(&mut self, why: ImageError) -> io::Error {
        let error = io::Error::other(why.to_string());
        self.refusal = Some(why);
        error
    }
}
