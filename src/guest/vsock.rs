//! The guest's end of a vsock (vsock(7)): listening for the host, and telling it that one listens.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with};

use super::sys::{VsockAddress, is_peer_host};

/// Devices on the virtio bus.
const DEVICES: &str = "/sys/bus/virtio/devices";

/// A socket device's number (virtio specification 1.2, section 5).
const SOCKET_DEVICE: &str = "0x0013";

/// Connections that wait: a host makes one at a time.
const BACKLOG: i32 = 4;

/// Whether this machine has a vsock whose driver is there.
pub fn is_there() -> bool {
    is_in(Path::new(DEVICES))
}

fn is_in(devices: &Path) -> bool {
    let is_socket = |device: &Path| {
        fs::read_to_string(device.join("device")).is_ok_and(|d| d.trim() == SOCKET_DEVICE)
            && device.join("driver").exists()
    };
    fs::read_dir(devices).is_ok_and(|found| found.flatten().any(|device| is_socket(&device.path())))
}

fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::VSOCK, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// A socket that listens on a port for the host.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens on `port`; `AddrInUse` when somebody does.
    pub fn bind(port: u32) -> io::Result<Self> {
        let socket = socket()?;
        bind(&socket, &VsockAddress::any(port))?;
        listen(&socket, BACKLOG)?;
        Ok(Self(socket))
    }

    /// The next connection of the host. A process of this guest may come as well, where its kernel has
    /// loopback for vsock, and must not: whoever is let in is root.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        loop {
            match accept_with(&self.0, SocketFlags::CLOEXEC) {
                Ok(socket) if is_peer_host(&socket).unwrap_or(false) => return Ok(socket),
                // It was gone before it was taken; or is somebody else.
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The next connection, if it comes within `limit`.
    pub fn accept_within(&self, limit: Duration) -> io::Result<Option<OwnedFd>> {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit))? {
            0 => Ok(None),
            _ => self.accept().map(Some),
        }
    }
}

/// Rings at `port` of the host: it hears that somebody listens here now. A host that does not wait
/// for it refuses, and will ask by itself.
pub fn ring(port: u32) -> io::Result<()> {
    Ok(connect(&socket()?, &VsockAddress::host(port))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_device_with_its_driver_is_one() {
        let devices = tempfile::tempdir().expect("a folder");
        assert!(!is_in(&devices.path().join("absent")));
        let device = devices.path().join("virtio2");
        fs::create_dir(&device).expect("made");
        fs::write(device.join("device"), "0x0013\n").expect("written");
        assert!(!is_in(devices.path()), "its driver is not there yet");
        fs::create_dir(device.join("driver")).expect("made");
        assert!(is_in(devices.path()));
        fs::write(device.join("device"), "0x0003\n").expect("written");
        assert!(!is_in(devices.path()));
    }
}
