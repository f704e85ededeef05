//! One channel's bytes, without ever waiting in a read or write.
//!
//! What the port's driver does (drivers/char/virtio_console.c): `poll` says hung up for as long as
//! no host is there, so waiting needs an *edge-triggered* epoll(7), whose own descriptor can be
//! polled beside others. And the host's coming and going travels on another queue than its bytes:
//! the first bytes may be there before the coming was noticed, so an absence counts only once a
//! presence was seen. A socket (vsock) is simpler: its end is a read of nothing.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::protocol::FrameBuffer;
use crate::protocol::frame::{self, FrameError};
use crate::protocol::shell::{FromShell, Hunt, ToShell, Token};

/// Bytes read in one turn, so that a flood cannot starve the command's own streams.
const TURN: usize = 64 << 10;

/// With more than this waiting for the host, no more of the command's output is read.
const ENOUGH: usize = 128 << 10;

/// What the descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A virtio-serial port, which stays when the host goes.
    Port,
    /// A connection, which ends with the host.
    Connection,
}

/// One end of a channel.
#[derive(Debug)]
pub struct Wire {
    file: File,
    epoll: OwnedFd,
    kind: Kind,
    heard: FrameBuffer,
    scratch: Vec<u8>,
    to_say: Vec<u8>,
    said: usize,
    /// Whether reading stopped before there was nothing more.
    has_more: bool,
    was_here: bool,
    /// Until when an absence may be a presence that was not noticed yet.
    unnoticed_until: Instant,
    is_gone: bool,
}

/// How long the coming of a host, whose first bytes are here, may take to be noticed.
const NOTICE: Duration = Duration::from_secs(10);

impl Wire {
    /// Takes an open port or a connection over.
    pub fn new(file: File, kind: Kind) -> io::Result<Self> {
        rustix::fs::fcntl_setfl(&file, OFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::HUP | epoll::EventFlags::ET;
        epoll::add(&epoll, &file, epoll::EventData::new_u64(0), flags)?;
        let (heard, to_say, was_here) = (FrameBuffer::default(), Vec::new(), kind == Kind::Connection);
        let scratch = vec![0; TURN];
        Ok(Self {
            file,
            epoll,
            kind,
            heard,
            scratch,
            to_say,
            said: 0,
            has_more: true,
            was_here,
            unnoticed_until: Instant::now(),
            is_gone: false,
        })
    }

    /// Readable when [`Wire::turn`] has something to do.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Whether [`Wire::turn`] has something to do without waiting.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether the host was there and is no longer.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether there is room for more of a command's output.
    pub fn has_room(&self) -> bool {
        self.to_say.len() - self.said < ENOUGH
    }

    /// Begins a conversation: skips what is there, up to the host's token, and says it too. False
    /// when it did not come within `limit`.
    pub fn begin(&mut self, token: Token, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        (self.heard, self.to_say, self.said) = (FrameBuffer::default(), token.to_vec(), 0);
        (self.was_here, self.is_gone, self.has_more) = (self.kind == Kind::Connection, false, true);
        self.unnoticed_until = deadline;
        let mut hunt = Hunt::new(token);
        loop {
            let count = self.read()?;
            if let Some(rest) = hunt.hear(&self.scratch[..count]) {
                self.heard.push(&rest);
                self.unnoticed_until = Instant::now() + NOTICE;
                return Ok(true);
            }
            let late = Instant::now() >= deadline;
            if self.is_gone || late {
                return Ok(false);
            }
            if !self.has_more {
                self.wait(deadline)?;
            }
        }
    }

    /// The next frame, if a whole one is there.
    pub fn next_frame(&mut self) -> Result<Option<ToShell>, FrameError> {
        self.heard.next_body()?.map(|body| frame::decode(&body)).transpose()
    }

    /// Says it as soon as there is room.
    pub fn say(&mut self, frame: &FromShell) {
        if self.said > ENOUGH {
            self.to_say.drain(..self.said);
            self.said = 0;
        }
        // Fails only above the limit of a frame, of which no word of this language is capable.
        self.to_say.extend(frame::encode(frame).unwrap_or_default());
    }

    /// Reads and writes what is possible without waiting.
    pub fn turn(&mut self) -> io::Result<()> {
        self.clear_edges()?;
        let count = self.read()?;
        self.heard.push(&self.scratch[..count]);
        self.flush()?;
        self.look_for_host();
        Ok(())
    }

    /// Waits for the next thing to do, and for no command.
    pub fn wait_alone(&mut self) -> io::Result<()> {
        if self.has_more {
            return Ok(());
        }
        poll_until(&mut [PollFd::from_borrowed_fd(self.epoll.as_fd(), PollFlags::IN)], self.deadline())
    }

    /// When to look again even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.was_here).then_some(self.unnoticed_until)
    }

    /// Waits until the host has gone, and forgets what it says.
    pub fn wait_until_gone(&mut self) -> io::Result<()> {
        loop {
            self.turn()?;
            self.heard = FrameBuffer::default();
            if self.is_gone || !self.is_host_here() {
                return Ok(());
            }
            self.wait_alone()?;
        }
    }

    fn wait(&mut self, deadline: Instant) -> io::Result<()> {
        poll_until(&mut [PollFd::from_borrowed_fd(self.epoll.as_fd(), PollFlags::IN)], Some(deadline))?;
        self.clear_edges()?;
        self.look_for_host();
        Ok(())
    }

    fn clear_edges(&mut self) -> io::Result<()> {
        let mut event = Vec::with_capacity(1);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut event), Some(&Timespec::default())) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Fills the scratch as far as that does not wait; how far that was.
    fn read(&mut self) -> io::Result<usize> {
        let mut count = 0;
        while count < TURN {
            match self.file.read(&mut self.scratch[count..]) {
                // Of a port: no host, as far as is known.
                Ok(0) => {
                    self.is_gone |= self.kind == Kind::Connection;
                    break;
                }
                Ok(more) => count += more,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) if self.kind == Kind::Connection => {
                    self.is_gone = true;
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        self.has_more = count == TURN;
        Ok(count)
    }

    /// Writes what is possible without waiting.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.said < self.to_say.len() {
            match self.file.write(&self.to_say[self.said..]) {
                // Of a port: its queue has filled up meanwhile.
                Ok(0) => return Ok(()),
                Ok(count) => self.said += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) if self.kind == Kind::Connection => {
                    self.is_gone = true;
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        (self.said, self.to_say) = (0, Vec::new());
        Ok(())
    }

    fn look_for_host(&mut self) {
        if self.kind == Kind::Port {
            let here = self.is_host_here();
            self.is_gone |= !here && (self.was_here || Instant::now() >= self.unnoticed_until);
            self.was_here |= here;
        }
    }

    /// Whether a host is connected, as far as the driver has noticed.
    pub fn is_host_here(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.file.as_fd(), PollFlags::IN)];
        // A port that cannot be asked is taken for one with a host: its reads will say more.
        poll(&mut fds, Some(&Timespec::default())).is_err() || !fds[0].revents().contains(PollFlags::HUP)
    }
}

/// poll(2) until something is ready or `deadline`; a signal is no reason to return.
pub fn poll_until(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let timeout = deadline.map(|deadline| {
            let rest = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) }
        });
        match poll(fds, timeout.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
