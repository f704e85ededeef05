//! Sizes as people write them and as machines need them.

use std::fmt;
use std::str::FromStr;

/// A size was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with a known unit.
    #[error("{0:?} is not a size: write 512M, 4G, 512MiB, 4GiB, or a number of MiB")]
    Syntax(String),
    /// Larger than a size can be.
    #[error("size {0:?} is too large")]
    TooLarge(String),
}

/// A number of mebibytes (2^20 bytes).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    bincode::Encode,
    bincode::Decode,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Mib(pub u32);

impl Mib {
    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) << 20
    }

    /// The least number of mebibytes that holds `bytes`, saturating at `u32::MAX` MiB.
    pub fn holding(bytes: u64) -> Self {
        Self(u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX))
    }
}

impl FromStr for Mib {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let syntax = || SizeError::Syntax(text.to_owned());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(syntax());
        }
        let factor: u64 = match unit {
            "" | "M" | "MiB" => 1,
            "G" | "GiB" => 1 << 10,
            "T" | "TiB" => 1 << 20,
            _ => return Err(syntax()),
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(factor))
            .and_then(|n| u32::try_from(n).ok())
            .map(Mib)
            .ok_or_else(|| SizeError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&human(self.bytes()))
    }
}

/// `bytes` for people: `640 B`, `1.2 GiB`, `8 GiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = bytes.saturating_mul(10);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {}", UNITS[unit]),
        (whole, tenth) => format!("{whole}.{tenth} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_documented_form() {
        for (text, mib) in [("512M", 512), ("4G", 4096), ("4GiB", 4096), ("512MiB", 512), ("7", 7), ("1T", 1 << 20)] {
            assert_eq!(text.parse(), Ok(Mib(mib)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_size() {
        for bad in ["", "G", "4g", "-1", "1.5G", "4 G", "4GB", "0x10", "99999999999999999999", "9999999T"] {
            assert!(bad.parse::<Mib>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prints_for_people() {
        assert_eq!(human(640), "640 B");
        assert_eq!(human(1 << 30), "1 GiB");
        assert_eq!(human(1_288_490_189), "1.2 GiB");
        assert_eq!(Mib(2048).to_string(), "2 GiB");
    }
}
