//! Frames with descriptors over an asynchronous unix socket.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use smol::Async;

use crate::os::socket::{receive_with_files, send_with_files};
use crate::protocol::{FrameBuffer, FrameError, frame};
use crate::vmm::deadline::within;

/// A frame that has begun is whole within this: both ends are on one host.
const FRAME_LIMIT: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };

/// A conversation broke.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// What came over it.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The other side has closed it.
    #[error("the connection was closed")]
    Closed,
}

/// One end of a conversation.
#[derive(Debug)]
pub struct Wire {
    stream: Async<UnixStream>,
    buffer: FrameBuffer,
    files: Vec<OwnedFd>,
}

impl Wire {
    /// Takes over a connected socket, to ask over it.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { stream: Async::new(stream)?, buffer: FrameBuffer::default(), files: Vec::new() })
    }

    /// Takes over a connected socket, to be asked over it: no frame is longer than a request.
    pub fn for_requests(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { buffer: FrameBuffer::for_requests(), ..Self::new(stream)? })
    }

    /// The socket, for its credentials.
    pub fn socket(&self) -> &UnixStream {
        self.stream.get_ref()
    }

    /// Sends one value, with `files` beside its first byte.
    pub async fn send<T: bincode::Encode>(&self, value: &T, files: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        let bytes = frame::encode(value)?;
        let mut sent = 0;
        while sent < bytes.len() {
            let beside = if sent == 0 { files } else { &[] };
            sent += self.stream.write_with(|s| send_with_files(s, &bytes[sent..], beside)).await?;
        }
        Ok(())
    }

    /// The next frame's body and the descriptors that have come so far; `None` at a clean end. Waits
    /// as long as it takes for a frame to begin, and [`FRAME_LIMIT`] for the rest of it.
    pub async fn receive(&mut self) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>, WireError> {
        let mut begun = None;
        loop {
            if let Some(body) = self.buffer.next_body()? {
                return Ok(Some((body, std::mem::take(&mut self.files))));
            }
            let came = match self.buffer.is_empty() {
                true => self.fill().await?,
                false => self.fill_before(*begun.get_or_insert_with(Instant::now) + FRAME_LIMIT).await?,
            };
            if !came {
                self.buffer.at_end()?;
                return Ok(None);
            }
        }
    }

    /// The next frame as a value.
    pub async fn receive_value<T: bincode::Decode<()>>(&mut self) -> Result<(T, Vec<OwnedFd>), WireError> {
        let (body, files) = self.receive().await?.ok_or(WireError::Closed)?;
        Ok((frame::decode(&body)?, files))
    }

    /// Ends when the other side has closed the connection or broken its rules. What arrives
    /// meanwhile is kept, up to a frame.
    pub async fn closed(&mut self) {
        loop {
            match self.fill().await {
                Ok(true) if !self.buffer.is_full() => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Whether the other side has not closed it yet, as far as is known without waiting.
    pub fn is_open(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let mut byte = [0; 1];
        let peeked = recv(self.stream.get_ref(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        // Nobody speaks unasked here: anything but silence means that the conversation is over.
        matches!(peeked, Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// Like [`Wire::fill`], but no longer than until `deadline`.
    async fn fill_before(&mut self, deadline: Instant) -> io::Result<bool> {
        let rest = deadline.saturating_duration_since(Instant::now());
        let late = || io::Error::new(io::ErrorKind::TimedOut, "a frame has begun and does not end");
        within(rest, self.fill()).await.unwrap_or_else(|| Err(late()))
    }

    /// Reads once; false at the end. Nothing is lost when the future is dropped before it is done.
    async fn fill(&mut self) -> io::Result<bool> {
        let (files, buffer) = (&mut self.files, &mut self.buffer);
        let read = self.stream.read_with(|socket| {
            // Here and not across the wait: it would be part of every future that waits for a frame.
            let mut chunk = [0; 16 << 10];
            let count = receive_with_files(socket, &mut chunk, files)?;
            buffer.push(&chunk[..count]);
            Ok(count)
        });
        Ok(read.await? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_frame_that_comes_too_slowly_ends_the_conversation_and_an_idle_one_goes_on() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut wire = Wire::for_requests(ours).expect("taken over");
        let idle = smol::block_on(within(2 * FRAME_LIMIT, wire.receive()));
        assert!(idle.is_none(), "an idle peer is waited for: {idle:?}");
        let slow = std::thread::spawn(move || {
            // One byte after the other, each in time, but never a whole frame.
            theirs.write_all(&1000u32.to_le_bytes()).expect("heard");
            while theirs.write_all(&[9]).is_ok() {
                std::thread::sleep(FRAME_LIMIT / 20);
            }
        });
        let error = smol::block_on(wire.receive()).expect_err("refused");
        assert!(error.to_string().contains("does not end"), "{error}");
        drop(wire);
        slow.join().expect("ended");
    }
}
