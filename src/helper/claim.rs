//! One helper per network namespace: two installations would fight over bridge and rules.
//!
//! The claim is an abstract socket (unix(7)): those are per network namespace and vanish with their
//! process. Anybody may take the name first; only root's claim counts, so that a user who squats on
//! it stops nobody.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use super::authority::Root;
use super::error::{Doing, HelperError, Result};

const NAME: &[u8] = b"bangerd-root-network";

/// Askers that a claim holds: nobody accepts them, they have gone when they have seen whose it is. The
/// kernel's own bound (`net.core.somaxconn`) is no lower on any distribution.
const ASKERS: i32 = 4096;

/// This helper's claim, once it was needed.
#[derive(Debug, Default)]
pub struct Claim {
    held: Option<Held>,
}

#[derive(Debug)]
enum Held {
    Name(#[expect(dead_code, reason = "held, not read")] OwnedFd),
    /// A user squats on the name.
    Without,
}

impl Claim {
    /// Claims the network of this namespace; refused while another helper has it.
    pub fn ensure(&mut self, _: &Root) -> Result<()> {
        self.ensure_as(NAME)
    }

    fn ensure_as(&mut self, name: &[u8]) -> Result<()> {
        if self.held.is_some() {
            return Ok(());
        }
        let doing = "claim the network";
        let (own, address) = (socket().doing(doing)?, SocketAddrUnix::new_abstract_name(name).doing(doing)?);
        self.held = Some(match bind(&own, &address) {
            Ok(()) => {
                listen(&own, ASKERS).doing(doing)?;
                Held::Name(own)
            }
            Err(rustix::io::Errno::ADDRINUSE) if holder_is_root(&address)? => return Err(HelperError::NetworkTaken),
            Err(rustix::io::Errno::ADDRINUSE) => {
                log::warn!("a user holds the name that helpers use to agree who manages the network");
                Held::Without
            }
            other => return other.doing(doing),
        });
        Ok(())
    }

    /// Lets another helper have it.
    pub fn give_up(&mut self) {
        self.held = None;
    }
}

fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Who listens: by the credentials of whoever called listen(2) (`SO_PEERCRED`, unix(7)). A full queue
/// (`EAGAIN`) does not tell; a helper's is practically never full, and a user can fill his own. The
/// bridge's alias still keeps installations apart.
fn holder_is_root(address: &SocketAddrUnix) -> Result<bool> {
    let asking = socket().doing("ask who has claimed the network")?;
    match connect(&asking, address) {
        Ok(()) => Ok(crate::os::socket::peer(&asking).doing("ask who has claimed the network")?.uid == 0),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_helper_is_refused_until_the_first_gives_up() {
        if Root::claim().is_err() {
            return;
        }
        let name = format!("banger-test-{:x}", crate::os::random::number());
        let (mut first, mut second) = (Claim::default(), Claim::default());
        first.ensure_as(name.as_bytes()).expect("free");
        for _ in 0..10 {
            assert!(matches!(second.ensure_as(name.as_bytes()), Err(HelperError::NetworkTaken)));
        }
        first.give_up();
        second.ensure_as(name.as_bytes()).expect("free again");
    }

    #[test]
    fn a_full_queue_proves_no_helper() {
        let name = format!("banger-test-{:x}", crate::os::random::number());
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a name");
        let (squatter, full) = (socket().expect("made"), socket().expect("made"));
        bind(&squatter, &address).expect("bound");
        listen(&squatter, 0).expect("listens");
        connect(&full, &address).expect("connected");
        Claim::default().ensure_as(name.as_bytes()).expect("goes on without the name");
    }
}
