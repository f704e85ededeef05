//! The virtio-serial port.
//!
//! What the driver does (drivers/char/virtio_console.c): a port can be open once; a read without
//! host returns 0 at once; a blocking write without host waits for one; `poll` without host says
//! readable and hung up all the time, but the wait queue is woken whenever a host comes or goes.
//! So only an *edge-triggered* epoll(7) can wait for a host: each coming and going is one event,
//! and none is lost between a read and the wait, because the registration stays.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;

use super::mouth::Mouth;
use super::requests::Worker;
use super::serve::{Line, serve};
use super::{connections, start};
use crate::guest::console::say;
use crate::guest::error::{Doing, GuestError, chain};
use crate::guest::uevent::Uevents;
use crate::guest::vsock;
use crate::protocol::guest::PORT_NAME;

/// The driver announces a port some milliseconds after its module was loaded.
const LIMIT: Duration = Duration::from_secs(30);

const CLASS: &str = "/sys/class/virtio-ports";

/// What leads to the host.
enum Way {
    Port(PathBuf),
    Vsock,
}

/// Finds the way to the host, a port or a vsock, and talks over it for as long as it is there.
pub fn talk(mouth: &Arc<Mouth>, worker: &Worker) -> Result<(), GuestError> {
    let path = match wait_for_way()? {
        Way::Port(path) => path,
        Way::Vsock => return connections::talk(mouth, worker),
    };
    let file = OpenOptions::new().read(true).write(true).open(&path).doing(|| format!("open {}", path.display()))?;
    let mut voice = file.try_clone().doing(|| "share the port".into())?;
    let speaker = mouth.clone();
    start("port writer", move || {
        if let Err(error) = speaker.speak(&mut voice).doing(|| "write to the port".into()) {
            say(&format!("trouble: {}", chain(&error)));
        }
    });
    let mut port = Port::new(file).doing(|| "watch the port".into())?;
    serve(&mut port, mouth, worker).doing(|| format!("read {}", path.display()))
}

fn wait_for_way() -> Result<Way, GuestError> {
    let look = || {
        let port = find(Path::new(CLASS)).map(Way::Port);
        port.or_else(|| vsock::is_there().then_some(Way::Vsock))
    };
    let events = Uevents::open().doing(|| "listen for devices".into())?;
    let found = events.wait_for(LIMIT, look).doing(|| "wait for devices".into())?;
    let device = || format!("port {PORT_NAME} or a vsock");
    found.ok_or_else(|| GuestError::NoDevice { device: device(), seconds: LIMIT.as_secs() })
}

/// The device of the port whose name is ours. The name's attribute appears with the port's
/// `PORT_NAME` message, after the device itself (`handle_control_message`), with an event.
fn find(class: &Path) -> Option<PathBuf> {
    let ports = fs::read_dir(class).ok()?;
    let ours = |port: &fs::DirEntry| fs::read_to_string(port.path().join("name")).is_ok_and(|n| n.trim() == PORT_NAME);
    let device = Path::new("/dev").join(ports.flatten().find(ours)?.file_name());
    device.exists().then_some(device)
}

/// The open port, and where its comings and goings are seen.
struct Port {
    file: File,
    epoll: OwnedFd,
}

impl Port {
    fn new(file: File) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ET;
        epoll::add(&epoll, &file, epoll::EventData::new_u64(0), flags)?;
        Ok(Self { file, epoll })
    }
}

impl Line for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }

    fn wait_for_host(&mut self) -> io::Result<bool> {
        let mut event = Vec::with_capacity(1);
        loop {
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut event), None) {
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_another_name_is_not_ours() {
        let class = tempfile::tempdir().expect("a folder");
        assert_eq!(find(&class.path().join("absent")), None);
        fs::create_dir(class.path().join("null")).expect("made");
        assert_eq!(find(class.path()), None);
        fs::write(class.path().join("null/name"), "org.other\n").expect("written");
        assert_eq!(find(class.path()), None);
        fs::write(class.path().join("null/name"), format!("{PORT_NAME}\n")).expect("written");
        assert_eq!(find(class.path()), Some("/dev/null".into()));
    }
}
