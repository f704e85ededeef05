//! Addresses, all derived from a subnet and a slot.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::Slot;

/// Where the host's own programs ask banger's DNS. All of 127/8 is this host (RFC 1122 section 3.2.1.3),
/// and the customary 127.0.0.1 and 127.0.0.53 belong to others.
pub const DNS_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 98, 103);

/// The port, on the host's address in the guests' network, where the daemon takes requests that carry secrets.
/// Below 1024, so that no other user of the host can take it, and below 665, from where on NFS and others take
/// ports for what they send (bindresvport(3)).
pub const SECRETS_PORT: u16 = 643;

/// A private IPv4 /24 (RFC 1918), by its network address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet([u8; 3]);

/// A subnet was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a private IPv4 /24: write for instance 172.30.7.0/24")]
pub struct SubnetError(pub String);

impl Subnet {
    /// `None` unless `address` is the network address of a private /24.
    pub fn new(address: Ipv4Addr) -> Option<Self> {
        let [a, b, c, host] = address.octets();
        (host == 0 && address.is_private()).then_some(Self([a, b, c]))
    }

    /// The network address, ending in `.0`.
    pub fn network(self) -> Ipv4Addr {
        self.host(0)
    }

    /// The bridge's address: the guests' gateway and DNS server.
    pub fn gateway(self) -> Ipv4Addr {
        self.host(1)
    }

    /// The address of the VM in `slot`: `.2` to `.251`.
    pub fn address(self, slot: Slot) -> Ipv4Addr {
        self.host(slot.number() + 1)
    }

    /// The slot whose address is `address`.
    pub fn slot_of(self, address: Ipv4Addr) -> Option<Slot> {
        let [a, b, c, host] = address.octets();
        if [a, b, c] != self.0 {
            return None;
        }
        Slot::new(host.checked_sub(1)?)
    }

    /// The first of `routes`, destinations with their prefix, that shares an address with it. A prefix of 0 is the
    /// default route, and VPNs write it as two halves with a prefix of 1.
    pub fn first_met(self, routes: &[(Ipv4Addr, u8)]) -> Option<(Ipv4Addr, u8)> {
        let network = u32::from(self.network());
        routes.iter().copied().find(|(route, prefix)| {
            let common = u32::from((*prefix).min(24));
            *prefix > 1 && (network ^ u32::from(*route)) >> (32 - common) == 0
        })
    }

    fn host(self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.0;
        Ipv4Addr::new(a, b, c, number)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/24", self.network())
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        text.strip_suffix("/24")
            .and_then(|a| a.parse().ok())
            .and_then(Subnet::new)
            .ok_or_else(|| SubnetError(text.to_owned()))
    }
}

impl bincode::Encode for Subnet {
    fn encode<E: bincode::enc::Encoder>(&self, e: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.0.encode(e)
    }
}

impl<C> bincode::Decode<C> for Subnet {
    fn decode<D: bincode::de::Decoder<Context = C>>(d: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let [a, b, c] = <[u8; 3] as bincode::Decode<C>>::decode(d)?;
        Subnet::new(Ipv4Addr::new(a, b, c, 0))
            .ok_or_else(|| bincode::error::DecodeError::OtherString(format!("{a}.{b}.{c}.0/24 is not private")))
    }
}

impl<'de, C> bincode::BorrowDecode<'de, C> for Subnet {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        <Self as bincode::Decode<C>>::decode(d)
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of the VM in `slot`: locally administered, unicast (IEEE 802 section 8.4),
    /// `02:62:67` ("bg") and the VM's IPv4 host part.
    pub fn of(slot: Slot) -> Self {
        Self([0x02, 0x62, 0x67, 0, 0, slot.number()])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The host's end of a VM's network link: `bng-1` to `bng-250`. Below the kernel's limit of 15
/// characters (`IFNAMSIZ`, linux/if.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TapName(Slot);

impl TapName {
    /// What all taps of banger begin with.
    pub const PREFIX: &str = "bng-";

    /// The tap of the VM in `slot`.
    pub fn of(slot: Slot) -> Self {
        Self(slot)
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gives_every_address() {
        let subnet: Subnet = "172.30.7.0/24".parse().expect("a subnet");
        let slot = Slot::new(250).expect("a slot");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 30, 7, 1));
        assert_eq!(subnet.address(slot), Ipv4Addr::new(172, 30, 7, 251));
        assert_eq!(subnet.slot_of(subnet.address(slot)), Some(slot));
        assert_eq!(subnet.slot_of(subnet.gateway()), None);
        assert_eq!(MacAddr::of(slot).to_string(), "02:62:67:00:00:fa");
        assert_eq!(TapName::of(slot).to_string(), "bng-250");
    }

    #[test]
    fn only_private_networks_are_subnets() {
        for bad in ["8.8.8.0/24", "172.30.7.1/24", "172.30.7.0/16", "172.30.7.0", "x"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
