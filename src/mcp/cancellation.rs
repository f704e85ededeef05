//! Whether a call is still wanted, for whoever waits: as a descriptor to poll, and by ending connections.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The end of a call that its client may ask for at any time.
#[derive(Debug)]
pub struct Cancellation {
    asked: AtomicBool,
    near: UnixStream,
    far: UnixStream,
    leashed: Mutex<Vec<UnixStream>>,
}

impl Cancellation {
    /// One that nobody has asked for.
    pub fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        Ok(Self { asked: AtomicBool::new(false), near, far, leashed: Mutex::default() })
    }

    /// Asks for the end.
    pub fn ask(&self) {
        let mut leashed = self.leashed.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.asked.swap(true, Ordering::AcqRel) {
            // One byte always fits, and both ends live as long as this.
            let _ = (&self.far).write_all(&[0]);
        }
        for socket in leashed.drain(..) {
            // What is closed already needs no closing.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether the end was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Whether the end was asked for, told once: from then on the descriptor is silent.
    pub fn is_asked_anew(&self) -> bool {
        // It does not block.
        matches!((&self.near).read(&mut [0]), Ok(1))
    }

    /// Readable once the end was asked for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }

    /// Has the end of the call end the connection of which `socket` is another handle.
    pub fn leash(&self, socket: UnixStream) {
        let mut leashed = self.leashed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_asked() {
            let _ = socket.shutdown(Shutdown::Both);
        } else {
            leashed.push(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_end_with_the_call_whenever_they_were_made() {
        let cancellation = Cancellation::new().expect("a pair");
        let (early, mut early_end) = UnixStream::pair().expect("a pair");
        let (late, mut late_end) = UnixStream::pair().expect("a pair");
        cancellation.leash(early.try_clone().expect("a handle"));
        assert!(!cancellation.is_asked());
        cancellation.ask();
        cancellation.leash(late.try_clone().expect("a handle"));
        assert!(cancellation.is_asked());
        for end in [&mut early_end, &mut late_end] {
            assert_eq!(end.read(&mut [0]).expect("an end"), 0);
        }
        cancellation.ask();
        assert!(cancellation.is_asked_anew() && !cancellation.is_asked_anew() && cancellation.is_asked());
    }
}
