//! Lengths of time as people write them.

use std::fmt;
use std::str::FromStr;

/// Units, largest first, and their seconds.
const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// A length of time was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeSpanError {
    /// Not numbers with known units, largest first.
    #[error("{0:?} is not a length of time: write 90s, 10m, 2h, 1d, 1h30m, or a number of seconds")]
    Syntax(String),
    /// Nothing.
    #[error("{0:?} is no time at all")]
    Zero(String),
    /// More than fits.
    #[error("{0:?} is too long: at most {max} is possible", max = TimeSpan(u32::MAX))]
    TooLong(String),
}

/// A whole number of seconds, up to 136 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub struct TimeSpan(u32);

impl TimeSpan {
    /// 10 seconds.
    pub const TEN_SECONDS: Self = Self(10);
    /// 3600 seconds.
    pub const HOUR: Self = Self(3600);
    /// 7200 seconds.
    pub const TWO_HOURS: Self = Self(7200);

    /// In seconds.
    pub fn seconds(self) -> u64 {
        u64::from(self.0)
    }

    /// As a duration.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.seconds())
    }
}

impl FromStr for TimeSpan {
    type Err = TimeSpanError;
    fn from_str(text: &str) -> Result<Self, TimeSpanError> {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let total = if is_number { text.parse().ok() } else { sum(text)? };
        match total {
            Some(0) => Err(TimeSpanError::Zero(text.to_owned())),
            Some(total) => Ok(Self(total)),
            None => Err(TimeSpanError::TooLong(text.to_owned())),
        }
    }
}

/// The seconds of numbers with units; `None` when they do not fit.
fn sum(text: &str) -> Result<Option<u32>, TimeSpanError> {
    let syntax = || TimeSpanError::Syntax(text.to_owned());
    let (mut rest, mut smaller, mut total) = (text, &UNITS[..], Some(0_u32));
    loop {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let unit = tail.chars().next().filter(|_| digits > 0).ok_or_else(syntax)?;
        let at = smaller.iter().position(|(letter, _)| *letter == unit).ok_or_else(syntax)?;
        let seconds = number.parse().ok().and_then(|n: u32| n.checked_mul(smaller[at].1));
        total = total.zip(seconds).and_then(|(total, seconds)| total.checked_add(seconds));
        (smaller, rest) = (&smaller[at + 1..], &tail[unit.len_utf8()..]);
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (letter, seconds) in UNITS {
            if rest >= seconds {
                write!(f, "{}{letter}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_documented_form_and_prints_the_shortest() {
        for (text, seconds, printed) in [
            ("90s", 90, "1m30s"),
            ("10m", 600, "10m"),
            ("2h", 7200, "2h"),
            ("1d", 86_400, "1d"),
            ("1h30m", 5400, "1h30m"),
            ("1d2h3m4s", 93_784, "1d2h3m4s"),
            ("45", 45, "45s"),
        ] {
            let span: TimeSpan = text.parse().expect(text);
            assert_eq!((span.seconds(), span.to_string().as_str()), (seconds, printed));
            assert_eq!(printed.parse(), Ok(span));
        }
    }

    #[test]
    fn refuses_what_is_no_length_of_time() {
        let bad =
            ["", "s", "-1", "1.5h", "1h 30m", "30m1h", "1h1h", "1h30", "90S", "1w", "2hours", "ten", "1ü", "0x1", "+5"];
        for bad in bad {
            assert_eq!(bad.parse::<TimeSpan>(), Err(TimeSpanError::Syntax(bad.into())));
        }
        for zero in ["0", "0s", "0h0m"] {
            assert_eq!(zero.parse::<TimeSpan>(), Err(TimeSpanError::Zero(zero.into())));
        }
        for long in ["4294967296", "49711d", "99999999999999999999", "49710d24h"] {
            assert_eq!(long.parse::<TimeSpan>(), Err(TimeSpanError::TooLong(long.into())));
        }
    }
}
