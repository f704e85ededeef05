//! Connections that the kernel remembers are forgotten when a guest goes or may go less far: what was let
//! pass once would pass for as long as the memory lasts, five days for TCP, even for the guest that has the
//! address next. One message of ctnetlink (linux/netfilter/nfnetlink_conntrack.h) for each direction.

use std::io;
use std::net::Ipv4Addr;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::authority::Root;
use super::error::{Doing, Result};
use crate::os::netlink::attribute;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 0x0102;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const FLAGS: u16 = 0x5;
/// `NLMSG_ERROR`: an acknowledgement, too.
const ERROR: u16 = 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `CTA_TUPLE_IP`, in a tuple.
const ADDRESSES: u16 = NESTED | 1;
/// `CTA_FILTER` (Linux 5.8).
const FILTER: u16 = NESTED | 25;

/// Where in a connection's record the guest stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// `CTA_TUPLE_ORIG` or `CTA_TUPLE_REPLY`; in the filter, `CTA_FILTER_ORIG_FLAGS` and `CTA_FILTER_REPLY_FLAGS`
    /// have the same numbers.
    tuple: u16,
    /// `CTA_IP_V4_SRC` or `CTA_IP_V4_DST`.
    end: u16,
    /// The same in the filter: which field of the tuple counts.
    flag: u32,
}

/// It has begun the connection.
const BEGAN: Place = Place { tuple: 1, end: 1, flag: 1 << 0 };
/// It was begun to it.
const MEANT: Place = Place { tuple: 1, end: 2, flag: 1 << 1 };
/// It answers: also where the connection was begun to another address, a published port's.
const ANSWERS: Place = Place { tuple: 2, end: 1, flag: 1 << 0 };

/// Which connections of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that it began. Those of its host to it (ssh) go on.
    Begun,
    /// All: it is gone.
    All,
}

impl Which {
    fn places(self) -> &'static [Place] {
        match self {
            Self::Begun => &[BEGAN],
            Self::All => &[BEGAN, MEANT, ANSWERS],
        }
    }
}

/// Has the kernel forget connections of the guest with `address`.
pub fn forget(_: &Root, address: Ipv4Addr, which: Which) -> Result<()> {
    let ask = || {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        for place in which.places() {
            match exchange(&socket, &message(address, *place)) {
                // None there to forget.
                Err(e) if e.raw_os_error() == Some(ENOENT) => {}
                other => other?,
            }
        }
        Ok::<(), io::Error>(())
    };
    match ask() {
        // A kernel that keeps track of nothing.
        Err(e) if matches!(e.raw_os_error(), Some(EPROTONOSUPPORT)) => Ok(()),
        // Without the module, which the kernel loads by itself where it can, or before Linux 5.8.
        Err(e) if matches!(e.raw_os_error(), Some(EINVAL | EOPNOTSUPP)) => {
            log::warn!(
                "connections of {address} are remembered until they time out: modprobe nf_conntrack_netlink ({e})"
            );
            Ok(())
        }
        other => other.doing(format!("forget the connections of {address}")),
    }
}

const ENOENT: i32 = rustix::io::Errno::NOENT.raw_os_error();
const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();
const EPROTONOSUPPORT: i32 = rustix::io::Errno::PROTONOSUPPORT.raw_os_error();

fn message(address: Ipv4Addr, Place { tuple, end, flag }: Place) -> Vec<u8> {
    let filter = attribute(FILTER, &attribute(tuple, &flag.to_ne_bytes()));
    let tuple = attribute(NESTED | tuple, &attribute(ADDRESSES, &attribute(end, &address.octets())));
    // nfgenmsg: the family, a version that has it heeded, no resource.
    let body = [&[2, 1, 0, 0], tuple.as_slice(), filter.as_slice()].concat();
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(((16 + body.len()) as u32).to_ne_bytes());
    message.extend(DELETE.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    // One request at a time on a socket of its own: any number will do. The kernel fills in the port.
    message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(body);
    message
}

fn exchange(socket: &Socket, message: &[u8]) -> io::Result<()> {
    socket.send(message, 0)?;
    loop {
        let (answer, from) = socket.recv_from_full()?;
        // Port 0 is the kernel; anybody may send to a netlink socket.
        if from.port_number() != 0 {
            continue;
        }
        let field = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        return match (kind, field(16).map(i32::from_ne_bytes)) {
            (Some(ERROR), Some(0)) => Ok(()),
            (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel answered something else")),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_its_length_at_every_depth() {
        let message = message(Ipv4Addr::new(172, 30, 0, 2), BEGAN);
        assert_eq!(message.len(), 16 + 4 + 16 + 12);
        assert_eq!(message[..4], 48u32.to_ne_bytes());
        assert_eq!(message[32..36], [172, 30, 0, 2]);
    }
}
