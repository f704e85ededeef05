//! Unix sockets: descriptors beside bytes, peers' credentials, listening (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};

/// Most descriptors that one message may bring; more are refused and closed.
pub const MAX_FILES: usize = 8;

/// Room for what the kernel may deliver at most (`SCM_MAX_FD`), so that too many are seen, not cut.
const KERNEL_MAX_FILES: usize = 253;

/// Sends a prefix of `bytes`, with `files` beside the first of them; returns how many bytes went.
pub fn send_with_files(socket: impl AsFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives into `buffer` and appends the descriptors that came along to `files`; returns how many
/// bytes came, 0 at the end. More than [`MAX_FILES`] in all are an error, and all are closed.
pub fn receive_with_files(socket: impl AsFd, buffer: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_MAX_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    if files.len() > MAX_FILES {
        files.clear();
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors arrived"));
    }
    Ok(received.bytes)
}

/// Sends all of `bytes` on a blocking socket, with `files` beside the first byte.
pub fn send_all(socket: impl AsFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        let beside = if sent == 0 { files } else { &[] };
        match send_with_files(&socket, &bytes[sent..], beside) {
            Ok(count) => sent += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Who is on the other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process when it connected.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
}

/// The credentials of the peer of a connected socket (`SO_PEERCRED`).
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer { pid: credentials.pid.as_raw_nonzero().get(), uid: credentials.uid.as_raw() })
}

/// A connection to the socket at `path` that waits for nothing: a full queue is an error (`EAGAIN`,
/// connect(2)), and so is reading where there is nothing.
pub fn connect_at_once(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// Listens at `path` with mode 0600. A socket file that nobody listens on is replaced; one that
/// answers is `AddrInUse`.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} answers already", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_descriptor_travels_beside_its_bytes() {
        let (left, right) = UnixStream::pair().expect("a pair");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"inside").expect("written");
        file.rewind().expect("rewound");
        send_all(&left, b"abc", &[file.as_fd()]).expect("sent");
        let (mut buffer, mut files) = ([0; 16], Vec::new());
        assert_eq!(receive_with_files(&right, &mut buffer, &mut files).expect("received"), 3);
        let mut text = String::new();
        std::fs::File::from(files.remove(0)).read_to_string(&mut text).expect("read");
        assert_eq!((&buffer[..3], text.as_str()), (&b"abc"[..], "inside"));
    }

    #[test]
    fn more_descriptors_than_asked_for_are_refused_and_closed() {
        let (left, right) = UnixStream::pair().expect("a pair");
        let file = tempfile::tempfile().expect("a file");
        send_all(&left, b"a", &[file.as_fd(); MAX_FILES]).expect("sent");
        send_all(&left, b"b", &[file.as_fd()]).expect("sent");
        let (mut buffer, mut files) = ([0; 1], Vec::new());
        receive_with_files(&right, &mut buffer, &mut files).expect("the first is within bounds");
        assert!(receive_with_files(&right, &mut buffer, &mut files).is_err());
        assert!(files.is_empty());
    }

    #[test]
    fn the_peer_is_this_process() {
        let (left, _right) = UnixStream::pair().expect("a pair");
        assert_eq!(peer(&left).expect("credentials").pid, std::process::id() as i32);
    }
}
