//! A command's streams, or a connection's, whoever carries them: nothing here waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};

use rustix::event::{PollFd, PollFlags};
use rustix::net::Shutdown;

use crate::protocol::shell::{CHUNK, Output};

/// `^D`, which ends the input of a terminal (termios(3), `VEOF`).
const END_OF_INPUT: &[u8] = &[4];

/// How the end of an input is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A pipe: it is closed.
    Close,
    /// A terminal: a character says it.
    Character,
    /// A socket, whose other direction goes on.
    Shutdown,
}

/// What goes in, and what of it waits for room.
#[derive(Debug)]
pub struct Input {
    /// `None` when nothing goes in any more.
    file: Option<File>,
    waiting: VecDeque<u8>,
    ended: bool,
    end: End,
}

/// What [`Input::feed`] did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that were passed on.
    pub passed: usize,
    /// Whether whoever reads has just stopped reading.
    pub closed: bool,
}

impl Input {
    /// Into `file`, which does not block.
    pub fn new(file: File, end: End) -> Self {
        Self { file: Some(file), waiting: VecDeque::new(), ended: false, end }
    }

    /// Takes more; the caller keeps [`Input::waiting`] bounded.
    pub fn give(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing follows what was given.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether nothing goes in any more.
    pub fn is_over(&self) -> bool {
        self.file.is_none()
    }

    /// Passes on as far as the other side takes it. What comes after it has stopped reading is dropped.
    pub fn feed(&mut self) -> Fed {
        let mut fed = Fed::default();
        while let Some(file) = &mut self.file {
            let (bytes, _) = self.waiting.as_slices();
            if bytes.is_empty() {
                break;
            }
            match file.write(bytes) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    fed.passed += count;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // It reads no more.
                Err(_) => (self.file, fed.closed) = (None, true),
            }
        }
        if self.file.is_none() {
            self.waiting.clear();
        } else if self.ended && self.waiting.is_empty() {
            self.finish();
        }
        fed
    }

    fn finish(&mut self) {
        let Some(mut file) = self.file.take() else { return };
        // What takes nothing now has nobody who reads.
        let _ = match self.end {
            End::Close => Ok(()),
            End::Character => file.write(END_OF_INPUT).map(drop),
            End::Shutdown => rustix::net::shutdown(&file, Shutdown::Write).map_err(io::Error::from),
        };
    }

    /// What to wait for.
    pub fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(file) = self.file.as_ref().filter(|_| !self.waiting.is_empty()) {
            fds.push(PollFd::new(file, PollFlags::OUT));
        }
    }
}

/// What comes out.
#[derive(Debug)]
pub struct Source {
    /// Which of the outputs.
    pub output: Output,
    /// `None` at its end.
    file: Option<File>,
    /// How much is left in it of a command that has ended.
    rest: Option<usize>,
}

impl Source {
    /// From `file`, which does not block.
    pub fn new(output: Output, file: File) -> Self {
        Self { output, file: Some(file), rest: None }
    }

    /// What is in the pipe now is the rest.
    pub fn take_rest(&mut self) -> io::Result<()> {
        let left = self.file.as_ref().map_or(Ok(0), rustix::io::ioctl_fionread)?;
        self.rest = Some(left as usize);
        Ok(())
    }

    /// Whether nothing comes any more.
    pub fn is_over(&self) -> bool {
        self.file.is_none() || self.rest == Some(0)
    }

    /// The next of what was said, at most `most` bytes, if it can be read.
    pub fn read(&mut self, most: usize) -> Option<Vec<u8>> {
        let most = CHUNK.min(most).min(self.rest.unwrap_or(CHUNK));
        let file = self.file.as_mut().filter(|_| most > 0)?;
        let mut bytes = vec![0; most];
        let count = loop {
            match file.read(&mut bytes) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
                Ok(count) => break count,
                // `EIO` is what a terminal says when nobody holds its other end any more.
                Err(_) => break 0,
            }
        };
        if count == 0 {
            self.file = None;
            return None;
        }
        bytes.truncate(count);
        self.rest = self.rest.map(|rest| rest - count);
        Some(bytes)
    }

    /// What to wait for. What has given its rest is hung up for good, and would end every wait.
    pub fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(file) = self.file.as_ref().filter(|_| !self.is_over()) {
            fds.push(PollFd::new(file, PollFlags::IN));
        }
    }
}
