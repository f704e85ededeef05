//! Messages of rtnetlink(7): a kind, a header of fixed length, attributes. Only what banger says and asks; a crate
//! that knows every attribute of every kind of link weighs more than a third of a megabyte.

use std::net::Ipv4Addr;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_HEADER_SIZE, NetlinkDeserializable, NetlinkHeader, NetlinkPayload,
    NetlinkSerializable, NlasIterator,
};

/// `RTM_*` (linux/rtnetlink.h).
pub const NEW_LINK: u16 = 16;
pub const DELETE_LINK: u16 = 17;
pub const GET_LINK: u16 = 18;
pub const SET_LINK: u16 = 19;
pub const NEW_ADDRESS: u16 = 20;
pub const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

/// `AF_INET`.
const INET: u8 = 2;
/// `IFF_UP` (linux/if.h).
const UP: u32 = 1;
/// `RT_TABLE_MAIN`, `RTPROT_BOOT`, `RTN_UNICAST` (linux/rtnetlink.h); the scope `RT_SCOPE_UNIVERSE` is 0.
const MAIN: u8 = 254;
const BOOT: u8 = 3;
const UNICAST: u8 = 1;
/// `sizeof(struct ifinfomsg)`, `ifaddrmsg`, `rtmsg`.
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;

/// A message: one to send, or one that the kernel has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMessage {
    kind: u16,
    /// Header and attributes as they travel.
    body: Vec<u8>,
}

impl RouteMessage {
    /// About the link `index`; 0 for one that is named by an attribute, or for all.
    pub fn link(kind: u16, index: u32) -> Self {
        Self { kind, body: link(index, 0) }
    }

    /// Sets the link `index` up.
    pub fn link_up(index: u32) -> Self {
        Self { kind: SET_LINK, body: link(index, UP) }
    }

    /// About an IPv4 address of the link `index`; 0 with a prefix of 0 for all of all.
    pub fn address(kind: u16, index: u32, prefix: u8) -> Self {
        let body = [&[INET, prefix, 0, 0][..], &index.to_ne_bytes()].concat();
        Self { kind, body }
    }

    /// Asks for all of IPv4's routes.
    pub fn all_routes() -> Self {
        Self { kind: GET_ROUTE, body: [&[INET][..], &[0; ROUTE - 1]].concat() }
    }

    /// IPv4's way to everything that has no other, in the main table.
    pub fn default_route() -> Self {
        Self { kind: NEW_ROUTE, body: vec![INET, 0, 0, 0, MAIN, BOOT, 0, UNICAST, 0, 0, 0, 0] }
    }

    /// With one more attribute.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.body.extend(attribute(kind, value));
        self
    }

    /// What it carries when it is no message of its own but an attribute's value (`VETH_INFO_PEER`).
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Of a link that the kernel tells of: index and whether it is up.
    pub fn as_link(&self) -> Option<(u32, bool)> {
        let index = self.word(4).filter(|_| self.kind == NEW_LINK)?;
        Some((index, self.word(8)? & UP != 0))
    }

    /// Of an address that the kernel tells of: the link's index and the prefix in bits.
    pub fn as_address(&self) -> Option<(u32, u8)> {
        let index = self.word(4).filter(|_| self.kind == NEW_ADDRESS)?;
        Some((index, *self.body.get(1)?))
    }

    /// Of a route that the kernel tells of: the destination's prefix in bits and the route's type (`RTN_*`).
    pub fn as_route(&self) -> Option<(u8, u8)> {
        let kind = *self.body.get(7).filter(|_| self.kind == NEW_ROUTE)?;
        Some((*self.body.get(1)?, kind))
    }

    /// The value of its first attribute of this kind.
    pub fn find(&self, kind: u16) -> Option<&[u8]> {
        let header = match self.kind {
            NEW_LINK..=SET_LINK => LINK,
            NEW_ADDRESS..=GET_ADDRESS => ADDRESS,
            _ => ROUTE,
        };
        find(self.body.get(header..)?, kind)
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.body.get(at..)?.first_chunk()?))
    }
}

impl NetlinkSerializable for RouteMessage {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for RouteMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { kind: header.message_type, body: payload.to_vec() })
    }
}

impl From<RouteMessage> for NetlinkPayload<RouteMessage> {
    fn from(message: RouteMessage) -> Self {
        Self::InnerMessage(message)
    }
}

/// One attribute as it travels, padded.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attributes = [DefaultNla::new(kind, value.to_vec())];
    let attributes = attributes.as_slice();
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// The value of the first attribute of this kind in `attributes`; what is cut short ends the search.
pub fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(attributes).map_while(Result::ok).find(|attribute| attribute.kind() == kind)?;
    let length = usize::from(found.length());
    found.into_inner().get(NLA_HEADER_SIZE..length)
}

/// A text that the kernel ends with a zero.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// An IPv4 address.
pub fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

/// `struct ifinfomsg`: family, type, index, flags, which flags are meant.
fn link(index: u32, flags: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others_and_never_beyond_the_end() {
        let message = RouteMessage::link(NEW_LINK, 7).with(3, b"lo\0").with(4, &9u32.to_ne_bytes());
        assert_eq!(message.find(3).map(text).as_deref(), Some("lo"));
        assert_eq!(message.find(4), Some(&9u32.to_ne_bytes()[..]));
        assert_eq!((message.find(5), message.as_link(), message.as_route()), (None, Some((7, false)), None));
        for cut in 0..message.body.len() {
            let cut = RouteMessage { kind: NEW_LINK, body: message.body[..cut].to_vec() };
            let _ = (cut.as_link(), cut.find(3), cut.find(4));
        }
        for length in [0u16, 3, 5, 0xffff] {
            let mut bytes = attribute(3, b"lo\0");
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert!(find(&bytes, 3).is_none_or(|value| value.len() <= 4), "{length}");
        }
    }

    #[test]
    fn a_text_ends_at_its_zero() {
        assert_eq!((text(b"a\0b").as_str(), text(b"ab").as_str(), text(b"").as_str()), ("a", "ab", ""));
        assert_eq!(ipv4(&[1, 2, 3, 4]), Some(Ipv4Addr::new(1, 2, 3, 4)));
        assert_eq!(ipv4(&[1, 2, 3]), None);
    }
}
