//! Notices when somebody takes rules away: `nft flush ruleset` in a service's file takes banger's, too, and
//! guests would go on without. The kernel tells of every change to its tables (nfnetlink's group
//! `NFNLGRP_NFTABLES`, linux/netfilter/nfnetlink.h); of interest is only that a table is gone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

use super::error::{Doing, Result};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE` (linux/netfilter/nf_tables.h).
const TABLE_GONE: u16 = 10 << 8 | 2;

/// What is told.
pub struct Vigil {
    socket: Socket,
}

impl Vigil {
    /// Listens from now on.
    pub fn begin() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.add_membership(GROUP)?;
            socket.set_non_blocking(true)?;
            Ok::<_, io::Error>(Self { socket })
        };
        open().doing("listen for changes of the rules")
    }

    /// Readable when something was told.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Hears all that was told; whether a table is gone, or so much was told that it may be.
    pub fn a_table_is_gone(&self) -> bool {
        let mut gone = false;
        loop {
            match self.socket.recv_from_full() {
                // Port 0 is the kernel; anybody may send to a netlink socket.
                Ok((told, from)) => gone |= from.port_number() == 0 && is_about_a_table(&told),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return gone,
                // Told faster than it was heard.
                Err(_) => return true,
            }
        }
    }
}

/// Whether one of the messages says that a table is gone.
fn is_about_a_table(mut rest: &[u8]) -> bool {
    while let Some((head, _)) = rest.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if u16::from_ne_bytes([head[4], head[5]]) == TABLE_GONE {
            return true;
        }
        if length < 16 {
            return false;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

impl std::fmt::Debug for Vigil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vigil({})", self.socket.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, content: usize) -> Vec<u8> {
        let mut message = vec![0; 16 + content];
        message[..4].copy_from_slice(&((16 + content) as u32).to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn a_table_that_is_gone_is_heard_among_others_and_rubbish_is_not() {
        let others = [message(0x0a0c, 20), message(0x0a0f, 7)].concat();
        assert!(!is_about_a_table(&others));
        assert!(is_about_a_table(&[others.clone(), message(TABLE_GONE, 20)].concat()));
        assert!(!is_about_a_table(&[0; 40]) && !is_about_a_table(&others[..30]) && !is_about_a_table(&[]));
    }
}
