//! Frames with descriptors over an asynchronous unix socket.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use smol::Async;

use crate::os::socket::{receive_with_files, send_with_files};
use crate::protocol::{FrameBuffer, FrameError, frame};

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
    /// Takes over a connected socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { stream: Async::new(stream)?, buffer: FrameBuffer::default(), files: Vec::new() })
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

    /// The next frame's body and the descriptors that have come so far; `None` at a clean end.
    pub async fn receive(&mut self) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>, WireError> {
        loop {
            if let Some(body) = self.buffer.next_body()? {
                return Ok(Some((body, std::mem::take(&mut self.files))));
            }
            if !self.fill().await? {
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
                Ok(true) if self.buffer.len() <= frame::MAX_FRAME + frame::HEADER => {}
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

    /// Reads once; false at the end. Nothing is lost when the future is dropped before it is done.
    async fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 << 10];
        let files = &mut self.files;
        let count = self.stream.read_with(|s| receive_with_files(s, &mut chunk, files)).await?;
        self.buffer.push(&chunk[..count]);
        Ok(count > 0)
    }
}
