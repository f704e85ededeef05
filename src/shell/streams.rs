//! The local ends of a command's streams, used without ever waiting in a read or write.
//!
//! They are shared with other processes, so `O_NONBLOCK` must not be set on them: they are asked
//! first (poll(2)), and a pipe takes `PIPE_BUF` bytes without waiting when it says it is ready
//! (pipe(7)).

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::ShellError;

/// Payload of one data packet of libssh2.
const INPUT: usize = 32 * 1024;
/// What may wait for a slow reader; the guest is held back beyond it.
pub const OUTPUT: usize = 256 * 1024;
/// `PIPE_BUF` of Linux, pipe(7).
const PIPE_BUF: usize = 4096;

/// Whether `fd` is ready for `what` right now.
pub fn is_ready(fd: BorrowedFd<'_>, what: PollFlags) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, what)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(count) if count > 0)
}

/// What goes to the command.
pub struct Inlet<'a> {
    fd: BorrowedFd<'a>,
    buffer: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl<'a> Inlet<'a> {
    /// What `fd` gives.
    pub fn new(fd: BorrowedFd<'a>) -> Self {
        Self { fd, buffer: Vec::with_capacity(INPUT), sent: 0, ended: false }
    }

    /// What to wait on.
    pub fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// What was read and not sent. Stays the same until [`Inlet::advance`]: libssh2 wants an
    /// unfinished write repeated with the same bytes.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.sent..]
    }

    /// So many bytes of what is pending were sent.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    /// Whether nothing will follow what is pending.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads once if that does not wait and nothing is pending.
    pub fn refill(&mut self) -> Result<(), ShellError> {
        if self.ended || !self.pending().is_empty() || !is_ready(self.fd, PollFlags::IN) {
            return Ok(());
        }
        self.buffer.clear();
        self.sent = 0;
        match rustix::io::read(self.fd, rustix::buffer::spare_capacity(&mut self.buffer)) {
            Ok(0) => self.ended = true,
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            // What a terminal says when it has been hung up, tty_ioctl(2): no more input.
            Err(Errno::IO) => self.ended = true,
            Err(e) => return Err(failure("read", "stdin", e)),
        }
        Ok(())
    }
}

/// Whether somebody still takes the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// As far as can be known.
    Present,
    /// The pipe or socket has no reader any more.
    Gone,
}

/// What comes from the command.
pub struct Outlet<'a> {
    fd: BorrowedFd<'a>,
    stream: &'static str,
    /// How much a ready descriptor takes without waiting.
    portion: usize,
    buffer: Vec<u8>,
    filled: usize,
    written: usize,
}

impl<'a> Outlet<'a> {
    /// What goes to `fd`, which is called `stream` in failures.
    pub fn new(fd: BorrowedFd<'a>, stream: &'static str) -> Self {
        let is_file = fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        let portion = if is_file { OUTPUT } else { PIPE_BUF };
        Self { fd, stream, portion, buffer: Vec::new(), filled: 0, written: 0 }
    }

    /// What to wait on.
    pub fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// Whether all was written.
    pub fn is_empty(&self) -> bool {
        self.written == self.filled
    }

    /// Takes over what `read` puts into an empty buffer; returns how much that was.
    pub fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        (self.filled, self.written) = (0, 0);
        self.buffer.resize(OUTPUT, 0);
        self.filled = read(&mut self.buffer)?;
        Ok(self.filled)
    }

    /// Takes `bytes` over in the place of an empty buffer.
    pub fn put(&mut self, bytes: Vec<u8>) {
        (self.filled, self.written) = (bytes.len(), 0);
        self.buffer = bytes;
    }

    /// Writes as long as that does not wait.
    pub fn flush(&mut self) -> Result<Reader, ShellError> {
        while !self.is_empty() && is_ready(self.fd, PollFlags::OUT) {
            let end = self.filled.min(self.written + self.portion);
            match rustix::io::write(self.fd, &self.buffer[self.written..end]) {
                Ok(count) => self.written += count,
                Err(Errno::PIPE) => return Ok(Reader::Gone),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(failure("write", self.stream, e)),
            }
        }
        Ok(Reader::Present)
    }
}

fn failure(verb: &'static str, stream: &'static str, error: Errno) -> ShellError {
    ShellError::Stream { verb, stream, source: error.into() }
}
