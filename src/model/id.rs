//! Identifiers that banger chooses: of VMs, of operations, and of slots.

use std::fmt;
use std::str::FromStr;

use super::checked_string_codec;

/// An identifier was not of its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: 12 lower-case hexadecimal digits are expected")]
pub struct IdError(pub String);

/// A VM's identity for life: 12 lower-case hexadecimal digits (48 random bits), never reused by
/// a later VM of the same name. It names folders, cgroups and jails.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(String);

impl VmId {
    /// Makes an id of the low 48 bits of `random`.
    pub fn from_random(random: u64) -> Self {
        Self(hex48(random))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VmId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_hex48(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
checked_string_codec!(VmId);

/// One operation, from the person who asked to the last log line about it in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct OpId(u64);

impl OpId {
    /// For work that nobody asked for: start-up, reconciling, an exit noticed.
    pub const BACKGROUND: OpId = OpId(0);

    /// Makes an id of the low 48 bits of `random`.
    pub fn from_random(random: u64) -> Self {
        Self((random & 0xffff_ffff_ffff).max(1))
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex48(self.0))
    }
}

/// A place for one VM, `1..=250`: its address, MAC, tap and uid all follow from it.
///
/// The upper bound leaves room in a /24 beside the network (.0), the bridge (.1) and the
/// broadcast address (.255).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// The number of slots.
    pub const COUNT: u8 = 250;

    /// `None` outside `1..=250`.
    pub fn new(number: u8) -> Option<Self> {
        (1..=Self::COUNT).contains(&number).then_some(Self(number))
    }

    /// The slot's number, `1..=250`.
    pub fn number(self) -> u8 {
        self.0
    }

    /// All slots in order.
    pub fn all() -> impl Iterator<Item = Slot> {
        (1..=Self::COUNT).map(Slot)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl bincode::Encode for Slot {
    fn encode<E: bincode::enc::Encoder>(&self, e: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.0.encode(e)
    }
}

impl<C> bincode::Decode<C> for Slot {
    fn decode<D: bincode::de::Decoder<Context = C>>(d: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let number = <u8 as bincode::Decode<C>>::decode(d)?;
        Slot::new(number)
            .ok_or_else(|| bincode::error::DecodeError::OtherString(format!("slot {number} is outside 1..=250")))
    }
}

impl<'de, C> bincode::BorrowDecode<'de, C> for Slot {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        <Self as bincode::Decode<C>>::decode(d)
    }
}

fn hex48(number: u64) -> String {
    format!("{:012x}", number & 0xffff_ffff_ffff)
}

fn parse_hex48(text: &str) -> Result<(), IdError> {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() == 12 && text.bytes().all(digit) { Ok(()) } else { Err(IdError(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_twelve_hexadecimal_digits() {
        assert_eq!(VmId::from_random(0xabc).as_str(), "000000000abc");
        for bad in ["", "abc", "00000000000G", "../../../../", "0000000000abc"] {
            assert!(bad.parse::<VmId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slot_outside_its_range_does_not_decode() {
        let config = bincode::config::standard();
        for bad in [0u8, 251, 255] {
            let bytes = bincode::encode_to_vec(bad, config).expect("encodes");
            assert!(bincode::decode_from_slice::<Slot, _>(&bytes, config).is_err());
        }
    }
}
