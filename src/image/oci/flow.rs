//! A blob while it comes: written by one thread, followed by whoever reads it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::blobs::Blobs;
use super::cancel::Cancel;
use super::digest::{Digest, Hasher};
use super::error::OciError;
use super::layer::Source;

/// One blob of a pull.
pub(super) struct Flow {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// For messages.
    pub(super) what: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    file: Option<Arc<File>>,
    /// Bytes from the file's beginning that may be read.
    there: u64,
    /// It was in the cache before this pull.
    from_cache: bool,
    /// Bytes that may have been read already were written a second time.
    begun_anew: bool,
    /// How it ended; with success, it was verified.
    end: Option<Result<(), Arc<OciError>>>,
}

impl Flow {
    pub(super) fn new(digest: Digest, size: u64, what: String) -> Self {
        Self { digest, size, what, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are there.
    pub(super) fn there(&self) -> u64 {
        self.state().there
    }

    /// Where it is being written.
    pub(super) fn begin(&self, file: Arc<File>, there: u64) {
        let mut state = self.state();
        state.file = Some(file);
        state.there = there;
        self.changed.notify_all();
    }

    /// More of it may be read.
    pub(super) fn advance(&self, to: u64) {
        let mut state = self.state();
        state.there = state.there.max(to);
        self.changed.notify_all();
    }

    /// It is written once more from the beginning. What was read may be wrong then; the reader, who knows what
    /// it should come to, finds out.
    pub(super) fn begin_anew(&self) {
        self.state().begun_anew = true;
    }

    /// It was there all the time.
    pub(super) fn found(&self, file: Arc<File>) {
        let mut state = self.state();
        *state = State { file: Some(file), there: self.size, from_cache: true, begun_anew: false, end: Some(Ok(())) };
        self.changed.notify_all();
    }

    /// Ends it for those who follow it, unless it has ended: nobody wants it any more.
    pub(super) fn give_up(&self) {
        self.state().end.get_or_insert_with(|| Err(Arc::new(OciError::Cancelled)));
        self.changed.notify_all();
    }

    pub(super) fn end(&self, result: Result<(), OciError>) {
        self.state().end = Some(result.map_err(Arc::new));
        self.changed.notify_all();
    }

    /// Waits until something can be read at `at`; `None` at the end.
    pub(super) fn wait_beyond(&self, at: u64) -> Result<Option<(Arc<File>, u64)>, OciError> {
        let waits = |state: &mut State| state.there <= at && state.end.is_none();
        let state = self.changed.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner);
        match (&state.file, &state.end) {
            (_, Some(Err(e))) => Err(OciError::Shared(Arc::clone(e))),
            (Some(file), _) if state.there > at => Ok(Some((Arc::clone(file), state.there))),
            _ => Ok(None),
        }
    }

    /// Waits for its end; whether it was in the cache, whether it was begun anew, and its file.
    pub(super) fn wait_for_end(&self) -> Result<(bool, bool, Option<Arc<File>>), OciError> {
        let state = self.changed.wait_while(self.state(), |s| s.end.is_none()).unwrap_or_else(PoisonError::into_inner);
        match &state.end {
            Some(Err(e)) => Err(OciError::Shared(Arc::clone(e))),
            _ => Ok((state.from_cache, state.begun_anew, state.file.clone())),
        }
    }
}

/// Reads a flow from its beginning, waiting for what has not come yet.
pub(super) struct Follower {
    pub(super) flow: Arc<Flow>,
    pub(super) blobs: Blobs,
    pub(super) cancel: Arc<Cancel>,
    pub(super) at: u64,
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check()?;
        let Some((file, there)) = self.flow.wait_beyond(self.at)? else { return Ok(0) };
        let room = usize::try_from(there - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read_at(&mut buffer[..room], self.at)?;
        if count == 0 && room > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the cached file was cut while it was read"));
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Source for Follower {
    fn verdict(&mut self) -> Result<(), OciError> {
        self.flow.wait_for_end().map(drop)
    }

    fn suspect(&mut self) -> Result<(), OciError> {
        let (from_cache, begun_anew, file) = self.flow.wait_for_end()?;
        let damaged = || OciError::Damaged(self.flow.what.clone());
        if begun_anew {
            return Err(damaged());
        }
        let Some(file) = file.filter(|_| from_cache) else { return Ok(()) };
        let mut all = Section { file, at: 0, end: self.flow.size };
        let mut hasher = Hasher::new();
        hasher.take_all(&mut all)?;
        if hasher.digest() == self.flow.digest {
            return Ok(());
        }
        self.blobs.remove(&self.flow.digest)?;
        Err(damaged())
    }
}

/// A part of a file.
pub(super) struct Section {
    pub(super) file: Arc<File>,
    pub(super) at: u64,
    pub(super) end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..room], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
