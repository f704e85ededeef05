//! One blob from a server into the cache: resumed where it was cut, verified while it comes.

use std::io::{self, Read};
use std::sync::Arc;

use log::debug;

use super::blobs::{Blobs, Claim, Part};
use super::digest::{Digest, Hasher};
use super::error::OciError;
use super::flow::Flow;
use super::http::{Answer, Http, backoff, is_passing};

/// Bytes that are read, hashed and written at a time.
const STEP: usize = 256 << 10;
/// Attempts in a row that bring nothing.
const FRUITLESS: u32 = 5;
/// Attempts in all.
const ATTEMPTS: u32 = 100;

/// Who has blobs.
pub(super) trait Origin: Sync {
    /// The network it is reached by.
    fn http(&self) -> &Http;
    /// The blob, from its byte `from` on where the server can (206), else all of it (200), or 416.
    fn blob(&self, digest: &Digest, from: u64) -> Result<Answer, OciError>;
}

/// Fetches the blob of `flow`, or finds it, and tells those who follow it.
pub(super) fn fetch(flow: &Flow, origin: &dyn Origin, blobs: &Blobs) {
    let result = claim(flow, origin, blobs);
    if let Err(e) = &result {
        debug!("{}: {e}", flow.what);
    }
    flow.end(result);
}

fn claim(flow: &Flow, origin: &dyn Origin, blobs: &Blobs) -> Result<(), OciError> {
    origin.http().cancel.check()?;
    let part = match blobs.claim(&flow.digest, flow.size)? {
        Claim::Whole(file) => {
            flow.found(file);
            return Ok(());
        }
        Claim::Part(part) => part,
    };
    let (at, hasher) = part.resume()?;
    debug!("{}: {at} of {} bytes are there", flow.what, flow.size);
    flow.begin(Arc::clone(&part.file), at);
    let mut download = Download { flow, origin, part, at, hasher, foreign: at > 0 };
    let result = download.run();
    // What is wrong now is wrong the next time, too.
    if matches!(result, Err(OciError::Digest { .. } | OciError::Endless { .. })) {
        download.part.discard()?;
    }
    if result.is_err() {
        download.part.release();
    }
    result
}

struct Download<'a> {
    flow: &'a Flow,
    origin: &'a dyn Origin,
    part: Part,
    at: u64,
    hasher: Hasher,
    /// Some of it came from an earlier pull.
    foreign: bool,
}

impl Download<'_> {
    fn run(&mut self) -> Result<(), OciError> {
        self.fill()?;
        if self.foreign && self.hasher.digest() != self.flow.digest {
            debug!("{}: what an earlier pull has left is damaged", self.flow.what);
            self.begin_anew();
            self.fill()?;
        }
        self.flow.digest.check(&self.flow.what, self.hasher.digest())?;
        self.part.keep()
    }

    /// Asks until all bytes are there.
    fn fill(&mut self) -> Result<(), OciError> {
        let (mut fruitless, mut attempts, mut cut) = (0, 0, None);
        while self.at < self.flow.size {
            if fruitless == FRUITLESS || attempts == ATTEMPTS {
                return Err(OciError::Cut { what: self.flow.what.clone(), attempts, source: cut });
            }
            if fruitless > 0 {
                self.origin.http().pause(&format!("{} does not get on", self.flow.what), backoff(fruitless))?;
            }
            let before = self.at;
            match self.attempt() {
                Ok(None) => {}
                Ok(e) => cut = e,
                // The server was there before: it may come back.
                Err(e) if attempts > 0 && is_passing(&e) => cut = Some(io::Error::other(e)),
                Err(e) => return Err(e),
            }
            attempts += 1;
            fruitless = if self.at > before { 0 } else { fruitless + 1 };
        }
        Ok(())
    }

    /// Takes what one answer has; why it stopped early.
    fn attempt(&mut self) -> Result<Option<io::Error>, OciError> {
        let mut answer = self.origin.blob(&self.flow.digest, self.at)?;
        if answer.status == 416 || (answer.status == 206 && !continues_at(&answer, self.at)) {
            debug!("{}: cannot be resumed at {}", self.flow.what, self.at);
            self.begin_anew();
            answer = self.origin.blob(&self.flow.digest, 0)?;
        }
        if answer.status != 206 && self.at > 0 {
            self.begin_anew();
        }
        self.check_length(&answer)?;
        self.take(answer)
    }

    fn begin_anew(&mut self) {
        (self.at, self.hasher, self.foreign) = (0, Hasher::new(), false);
        self.flow.begin_anew();
    }

    /// A registry that announces another length than the manifest states is not listened to.
    fn check_length(&self, answer: &Answer) -> Result<(), OciError> {
        let length = answer.header("Content-Length").and_then(|l| l.parse::<u64>().ok());
        let expected = self.flow.size - self.at;
        match length {
            Some(found) if found != expected => Err(OciError::Size {
                what: self.flow.what.clone(),
                expected: self.flow.size,
                found: found.saturating_add(self.at),
            }),
            _ => Ok(()),
        }
    }

    fn take(&mut self, answer: Answer) -> Result<Option<io::Error>, OciError> {
        let mut body = answer.body.into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; STEP];
        while self.at < self.flow.size {
            self.origin.http().cancel.check()?;
            let room = usize::try_from(self.flow.size - self.at).unwrap_or(STEP).min(STEP);
            match body.read(&mut buffer[..room]) {
                Ok(0) => return Ok(Some(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.store(&buffer[..count])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Ok(Some(e)),
            }
        }
        // The answer's end; one that never comes is no loss, for all bytes are there.
        match body.read(&mut buffer[..1]) {
            Ok(1..) => Err(OciError::Endless { what: self.flow.what.clone(), expected: self.flow.size }),
            _ => Ok(None),
        }
    }

    fn store(&mut self, bytes: &[u8]) -> Result<(), OciError> {
        self.part.write(bytes, self.at)?;
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        self.flow.advance(self.at);
        Ok(())
    }
}

/// Whether a partial answer begins where it was asked to (RFC 9110 section 14.4).
fn continues_at(answer: &Answer, at: u64) -> bool {
    let range = answer.header("Content-Range").and_then(|r| r.strip_prefix("bytes ")).unwrap_or_default();
    range.split('-').next().and_then(|first| first.trim().parse::<u64>().ok()) == Some(at)
}
