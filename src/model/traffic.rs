//! Where a guest went, and where it was refused to go.

use std::fmt;
use std::net::Ipv4Addr;

/// What carries a packet (the protocol number of IPv4; IANA's registry of protocol numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub struct Transport(pub u8);

impl Transport {
    /// ICMP: ping.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.pad("icmp"),
            Self::TCP => f.pad("tcp"),
            Self::UDP => f.pad("udp"),
            Self(number) => write!(f, "ip-{number}"),
        }
    }
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Flow {
    /// Where to.
    pub to: Ipv4Addr,
    /// How.
    pub transport: Transport,
    /// The port, of what has ports.
    pub port: Option<u16>,
    /// How often: connections that passed, packets that were refused.
    pub count: u64,
}

/// All destinations that there was room for, each way, and how much there was in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Traffic {
    /// Where it went.
    pub reached: Vec<Flow>,
    /// Connections in all.
    pub reached_in_all: u64,
    /// Where it was refused to go.
    pub refused: Vec<Flow>,
    /// Refused packets in all.
    pub refused_in_all: u64,
}
