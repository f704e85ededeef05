//! The descriptors of this side, one per channel: reading and writing them without ever waiting, and descriptors that
//! travel.
//!
//! Ends that this side has made are non-blocking. A descriptor that was handed over may be shared with other processes,
//! so nothing is set on it: it is read once when poll(2) says that it can be.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::Lost;
use crate::os::random;
use crate::os::socket::{receive_with_files, send_with_files};
use crate::protocol::relay::Passed;

/// Largest file that is copied.
const MAX_FILE: u64 = 1 << 30;

/// What a channel's descriptor is here.
#[derive(Debug)]
pub enum End {
    /// A connection to the daemon that is being made.
    Awaited,
    /// A connection: the command line's here, or the daemon's there.
    Connection {
        /// It.
        socket: UnixStream,
        /// Where whoever asked for it learns why it has ended.
        lost: Option<Arc<Lost>>,
    },
    /// A socket that was handed over, or the end of a pair in its place.
    Stream(OwnedFd),
    /// What was handed over to be read.
    Source(OwnedFd),
    /// A file that was handed over to be copied.
    Original {
        /// It.
        file: File,
        /// Bytes that were announced and not read yet.
        left: u64,
    },
    /// The pipe that is read in its place.
    Sink(OwnedFd),
    /// The copy of a file, as long as it is not whole.
    Copy {
        /// It.
        file: File,
        /// Bytes that are missing.
        missing: u64,
    },
    /// Nothing more to be done with it here.
    Closed,
}

/// What came of an attempt to read.
#[derive(Debug)]
pub enum Inflow {
    /// Nothing yet.
    Nothing,
    /// The end.
    Over,
    /// Bytes, and what stood beside them.
    Bytes(Vec<u8>, Vec<OwnedFd>),
}

/// What came of an attempt to write.
#[derive(Debug, PartialEq, Eq)]
pub enum Outflow {
    /// Not now.
    Nothing,
    /// Nobody will ever take anything.
    Gone,
    /// So many bytes.
    Bytes(usize),
}

impl End {
    /// What to wait on.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Connection { socket, .. } => Some(socket.as_fd()),
            Self::Stream(fd) | Self::Source(fd) | Self::Sink(fd) => Some(fd.as_fd()),
            Self::Original { file, .. } => Some(file.as_fd()),
            Self::Copy { .. } | Self::Awaited | Self::Closed => None,
        }
    }

    /// Whether it is a socket, whose other end may be closed whole.
    pub fn is_socket(&self) -> bool {
        matches!(self, Self::Connection { .. } | Self::Stream(_))
    }

    /// Whether bytes come from it.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Connection { .. } | Self::Stream(_) | Self::Source(_) | Self::Original { .. })
    }

    /// Reads at most `room` bytes, once. Nothing but what is polled before is read from.
    pub fn read(&mut self, room: usize) -> Inflow {
        let mut piece = vec![0; room];
        let mut files = Vec::new();
        let read = match self {
            Self::Connection { socket, .. } => receive_with_files(&*socket, &mut piece, &mut files),
            Self::Stream(fd) => {
                rustix::net::recv(&*fd, piece.as_mut_slice(), RecvFlags::DONTWAIT).map_err(Into::into).map(|(n, _)| n)
            }
            Self::Source(fd) => rustix::io::read(&*fd, piece.as_mut_slice()).map_err(Into::into),
            Self::Original { file, left } => {
                // It may grow meanwhile: what was announced is what is sent.
                file.take(*left).read(&mut piece).inspect(|count| *left -= *count as u64)
            }
            Self::Sink(_) | Self::Copy { .. } | Self::Awaited | Self::Closed => Ok(0),
        };
        match read {
            Ok(0) => Inflow::Over,
            Ok(count) => {
                piece.truncate(count);
                Inflow::Bytes(piece, files)
            }
            Err(e) if is_passing(&e) => Inflow::Nothing,
            // Whoever waits for more of it sees its end; what that means is the affair of its language.
            Err(_) => Inflow::Over,
        }
    }

    /// Writes what it takes without waiting; a connection with `files` beside the first byte.
    pub fn write(&mut self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> Outflow {
        let wrote = match self {
            Self::Connection { socket, .. } => send_with_files(&*socket, bytes, files),
            Self::Stream(fd) => {
                rustix::net::send(&*fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(Into::into)
            }
            Self::Sink(fd) => rustix::io::write(&*fd, bytes).map_err(Into::into),
            Self::Copy { file, missing } => copied(file, missing, bytes),
            Self::Awaited => return Outflow::Nothing,
            Self::Source(_) | Self::Original { .. } | Self::Closed => return Outflow::Gone,
        };
        match wrote {
            Ok(count) => Outflow::Bytes(count),
            Err(e) if is_passing(&e) => Outflow::Nothing,
            Err(_) => Outflow::Gone,
        }
    }

    /// Nothing more will be written. A copy that is whole is at its beginning then.
    pub fn finish(&mut self) {
        match self {
            // It fails where the other side has closed already.
            Self::Connection { socket, .. } => drop(socket.shutdown(std::net::Shutdown::Write)),
            Self::Stream(fd) => drop(rustix::net::shutdown(&*fd, rustix::net::Shutdown::Write)),
            Self::Sink(_) => *self = Self::Closed,
            Self::Copy { .. } | Self::Source(_) | Self::Original { .. } | Self::Awaited | Self::Closed => {}
        }
    }
}

fn copied(file: &mut File, missing: &mut u64, bytes: &[u8]) -> io::Result<usize> {
    let rest = missing.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
    file.write_all(bytes)?;
    *missing = rest;
    Ok(bytes.len())
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// What travels for a descriptor that was handed over, and its end here.
pub fn hand_over(fd: OwnedFd) -> io::Result<(Passed, End)> {
    let refused = |what| Err(io::Error::new(io::ErrorKind::Unsupported, what));
    let about = fstat(&fd)?;
    let is_readable = !matches!(fcntl_getfl(&fd)? & OFlags::ACCMODE, OFlags::WRONLY);
    match FileType::from_raw_mode(about.st_mode) {
        FileType::Socket => {
            rustix::io::ioctl_fionbio(&fd, true)?;
            Ok((Passed::Stream, End::Stream(fd)))
        }
        FileType::RegularFile if is_readable => {
            let mut file = File::from(fd);
            let bytes = (about.st_size as u64).saturating_sub(file.stream_position()?);
            if bytes > MAX_FILE {
                return refused("a file of this size cannot be passed to another machine");
            }
            Ok((Passed::File { bytes }, End::Original { file, left: bytes }))
        }
        FileType::Fifo | FileType::CharacterDevice if is_readable => Ok((Passed::Source, End::Source(fd))),
        _ => refused("a descriptor of this kind cannot be passed to another machine"),
    }
}

/// What is handed over in the place of a descriptor of the other side, and its end here. A copy is handed over itself,
/// once it is whole.
pub fn receive(kind: Passed) -> io::Result<(End, Option<OwnedFd>)> {
    match kind {
        Passed::Stream => {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            Ok((End::Stream(ours.into()), Some(theirs.into())))
        }
        Passed::Source => {
            let (theirs, ours) = io::pipe()?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            Ok((End::Sink(ours.into()), Some(theirs.into())))
        }
        Passed::File { bytes } if bytes > MAX_FILE => Err(io::ErrorKind::FileTooLarge.into()),
        Passed::File { bytes } => Ok((End::Copy { file: nameless()?, missing: bytes }, None)),
    }
}

/// A file without a name, in the folder for such.
fn nameless() -> io::Result<File> {
    let folder = std::env::temp_dir();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let flags = OFlags::TMPFILE.bits() as i32;
    match options.clone().custom_flags(flags).open(&folder) {
        // A filesystem that has none (open(2)).
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT)) => {
            let path = folder.join(format!(".banger-{:x}", random::number()));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        opened => opened,
    }
}

/// A copy that is whole, to be read from its beginning.
pub fn rewound(file: &File) -> io::Result<OwnedFd> {
    let mut copy = file.try_clone()?;
    copy.rewind()?;
    Ok(copy.into())
}
