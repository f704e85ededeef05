//! Since when, as people write it.

use std::str::FromStr;

use super::TimeSpan;

/// Numbers from here on are seconds since the epoch, not seconds ago: 1e9 s were 31 years.
const LEAST_UNIX: u64 = 1_000_000_000;

/// A time in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Since {
    /// So long ago, by the clock of whoever is asked.
    Ago(TimeSpan),
    /// Seconds since the epoch.
    At(u64),
}

/// A time was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time: write 10m, 2h, 1h30m, or 2026-01-31T12:34:56Z (or with +01:00)")]
pub struct SinceError(String);

impl Since {
    /// Milliseconds since the epoch, `now_ms` being the same.
    pub fn unix_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Ago(span) => now_ms.saturating_sub(span.seconds().saturating_mul(1000)),
            Self::At(seconds) => seconds.saturating_mul(1000),
        }
    }
}

impl FromStr for Since {
    type Err = SinceError;
    fn from_str(text: &str) -> Result<Self, SinceError> {
        if let Ok(seconds) = text.parse::<u64>()
            && seconds >= LEAST_UNIX
        {
            return Ok(Self::At(seconds));
        }
        let at = || rfc3339(text).map(Self::At).ok_or_else(|| SinceError(text.to_owned()));
        text.parse().map(Self::Ago).or_else(|_| at())
    }
}

/// The seconds since the epoch of a time of RFC 3339; fractions are cut off.
fn rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
    let is_possible = (1970..=9999).contains(&year) && day >= 1 && day <= days_in(year, month)?;
    if !(is_fraction && is_possible && hour < 24 && minute < 60 && second <= 60) {
        return None;
    }
    let seconds = ((days_before(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    u64::try_from(seconds - offset(zone)?).ok()
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
    let seconds = (hours * 60 + minutes) * 60;
    (hours < 24 && minutes < 60).then_some(if zone.starts_with('-') { -seconds } else { seconds })
}

/// Numbers of exactly these many digits.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|b| b.is_ascii_digit());
        *number = part.parse().ok().filter(|_| is_number)?;
    }
    parts.next().is_none().then_some(numbers)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> Option<i64> {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if is_leap(year) { 29 } else { 28 }),
        _ => None,
    }
}

/// Days from the epoch to this day.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    years + (1..month).filter_map(|month| days_in(year, month)).sum::<i64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lengths_times_and_seconds_since_the_epoch() {
        assert_eq!("10m".parse(), Ok(Since::Ago("600".parse().expect("a time"))));
        assert_eq!("90".parse(), Ok(Since::Ago("90s".parse().expect("a time"))));
        assert_eq!("1795453445".parse(), Ok(Since::At(1_795_453_445)));
        for text in [
            "2026-11-23T17:04:05Z",
            "2026-11-23t17:04:05.999z",
            "2026-11-23 18:04:05+01:00",
            "2026-11-23T11:34:05.5-05:30",
        ] {
            assert_eq!(text.parse(), Ok(Since::At(1_795_453_445)), "{text}");
        }
    }

    #[test]
    fn knows_leap_years_and_the_ends_of_months() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1972-02-29T23:59:59Z", 68_255_999),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2099-12-31T23:59:59Z", 4_102_444_799),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(rfc3339(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for bad in [
            "",
            "yesterday",
            "10x",
            "-5m",
            "0",
            "2026-11-23",
            "2026-11-23T17:04:05",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "2026-11-23T24:00:00Z",
            "2026-11-23T17:60:00Z",
            "2026-11-23T17:04:05.Z",
            "2026-11-23T17:04:05+1:00",
            "2026-11-23T17:04:05ZZ",
            "+026-11-23T17:04:05Z",
            "２026-11-23T17:04:05Z",
        ] {
            assert_eq!(bad.parse::<Since>(), Err(SinceError(bad.into())));
        }
    }

    #[test]
    fn a_length_counts_from_now() {
        let ago: Since = "10s".parse().expect("a time");
        assert_eq!((ago.unix_ms(15_000), ago.unix_ms(1)), (5000, 0));
        assert_eq!(Since::At(7).unix_ms(0), 7000);
    }
}
