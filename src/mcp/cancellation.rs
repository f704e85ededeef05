//! Whether a call is still wanted, for whoever waits: as a descriptor to poll, and by ending connections.

use std::io;
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
        Ok(Self { asked: AtomicBool::new(false), near, far, leashed: Mutex::default() })
    }

    /// Asks for the end.
    pub fn ask(&self) {
        let mut leashed = self.leashed.lock().unwrap_or_else(PoisonError::into_inner);
        self.asked.store(true, Ordering::Release);
        // What is closed already needs no closing.
        let _ = self.far.shutdown(Shutdown::Both);
        for socket in leashed.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether the end was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Readable from then on.
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
    use std::io::Read;

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
        assert_eq!((&cancellation.near).read(&mut [0]).expect("readable"), 0);
    }
}
