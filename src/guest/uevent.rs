//! The kernel's word that a device has come (netlink(7), `NETLINK_KOBJECT_UEVENT`).
//!
//! The content of an event is not read: each one is a reason to look again. So no message of the
//! kernel is parsed, and none can be misread.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// The kernel's own events; udev's come in group 2 (lib/kobject_uevent.c).
const KERNEL_GROUP: u32 = 1;

/// Listens for events.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// From here on no event is missed.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// Looks with `look` now and after each event, until it sees something or `limit` is over.
    pub fn wait_for<T>(&self, limit: Duration, mut look: impl FnMut() -> Option<T>) -> io::Result<Option<T>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(seen) = look() {
                return Ok(Some(seen));
            }
            if !self.next(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Waits for at least one event and takes all that are there; false at the deadline.
    fn next(&self, deadline: Instant) -> io::Result<bool> {
        let rest = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        self.drain()?;
        Ok(true)
    }

    fn drain(&self) -> io::Result<()> {
        let mut event = [0u8; 8192];
        loop {
            match recv(&self.0, &mut event[..], RecvFlags::empty()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Events were lost: a reason to look again like any other.
                Err(Errno::NOBUFS | Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_needs_no_event() {
        let events = Uevents::open().expect("opens");
        assert_eq!(events.wait_for(Duration::ZERO, || Some(7)).expect("works"), Some(7));
    }

    #[test]
    fn waiting_ends_at_the_limit() {
        let events = Uevents::open().expect("opens");
        assert_eq!(events.wait_for(Duration::from_millis(5), || None::<()>).expect("works"), None);
    }
}
