//! When a VM counts as idle: nobody is in it, and its guest does next to nothing. Pure; the daemon counts and asks.
//!
//! What the thresholds were measured against: a guest of the default image that nobody uses takes 0.5 % of a CPU in
//! software emulation, where everything costs most, and sends nothing for minutes.

use std::str::FromStr;
use std::time::Duration;

use super::TimeSpan;
use super::time_span::TimeSpanError;

/// Whether an idle VM is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum IdleStop {
    /// It is not.
    Off,
    /// Once it was idle for so long.
    After(TimeSpan),
}

impl IdleStop {
    /// The least time: below it a pause between two commands is taken for the end of the work.
    pub const LEAST: TimeSpan = TimeSpan::TEN_SECONDS;

    /// After how long, if at all.
    pub fn span(self) -> Option<TimeSpan> {
        match self {
            Self::Off => None,
            Self::After(span) => Some(span),
        }
    }
}

impl FromStr for IdleStop {
    type Err = TimeSpanError;
    fn from_str(text: &str) -> Result<Self, TimeSpanError> {
        if text == "off" { Ok(Self::Off) } else { text.parse().map(Self::After) }
    }
}

/// What was counted of a VM so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Microseconds of CPU time of its monitor.
    pub cpu_us: u64,
    /// Bytes over its tap, both ways.
    pub bytes: u64,
    /// How often somebody was let into it.
    pub entries: u64,
}

/// How long a VM has been idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idleness {
    /// When it was last seen to be used.
    used_at: Duration,
    looked_at: Duration,
    seen: Counters,
}

impl Idleness {
    /// A guest that does more than this, in thousandths of one CPU, works: ten times what an idle one takes, a
    /// twentieth of one busy thread.
    const MOST_CPU: u64 = 50;

    /// Bytes in a second that are more than chatter: above ARP, NTP and keep-alives, and far below one page of a web
    /// server in each interval.
    const MOST_BYTES: u64 = 100;

    /// How often it is looked at, at most: what comes in between counts in full at the next look.
    const LONGEST: Duration = Duration::from_secs(60);

    /// Begins now, `now` being any clock that never goes back; what was counted before is not of this time.
    pub fn begin(now: Duration, seen: Counters) -> Self {
        Self { used_at: now, looked_at: now, seen }
    }

    /// Until the next look at a VM that is to be stopped after `span`: a tenth of that, so that it is stopped at most
    /// a tenth too late.
    pub fn interval(span: TimeSpan) -> Duration {
        (span.duration() / 10).min(Self::LONGEST)
    }

    /// Takes what is counted now; whether it did next to nothing since the last look.
    pub fn look(&mut self, now: Duration, seen: Counters) -> bool {
        let (since, before) = (now.saturating_sub(self.looked_at), self.seen);
        (self.looked_at, self.seen) = (now, seen);
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        // Thousandths of a CPU are microseconds in a millisecond.
        let cpu = seen.cpu_us.saturating_sub(before.cpu_us) / millis;
        let bytes = seen.bytes.saturating_sub(before.bytes).saturating_mul(1000) / millis;
        let is_quiet = cpu <= Self::MOST_CPU && bytes <= Self::MOST_BYTES && seen.entries == before.entries;
        if !is_quiet {
            self.used_at = now;
        }
        is_quiet
    }

    /// It is used, whatever was counted.
    pub fn is_used(&mut self) {
        self.used_at = self.looked_at;
    }

    /// Whether it was idle for `span`, as of the last look.
    pub fn has_lasted(&self, span: TimeSpan) -> bool {
        self.looked_at.saturating_sub(self.used_at) >= span.duration()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> TimeSpan {
        text.parse().expect("a time")
    }

    /// Looks every 2 s, each time after `each` more; after how many looks it was idle for long enough, out of 100.
    fn idle_after(each: Counters) -> Option<u32> {
        let (mut idleness, mut seen) = (Idleness::begin(Duration::ZERO, Counters::default()), Counters::default());
        (1..=100).find(|look| {
            seen.cpu_us += each.cpu_us;
            seen.bytes += each.bytes;
            seen.entries += each.entries;
            idleness.look(Duration::from_secs(2) * *look, seen);
            idleness.has_lasted(span("20s"))
        })
    }

    #[test]
    fn is_off_or_after_a_time() {
        assert_eq!("off".parse(), Ok(IdleStop::Off));
        assert_eq!("30m".parse::<IdleStop>().map(IdleStop::span), Ok(Some(span("1800"))));
        assert!("none".parse::<IdleStop>().is_err() && "0".parse::<IdleStop>().is_err());
    }

    #[test]
    fn a_guest_that_does_next_to_nothing_is_idle_after_its_time() {
        assert_eq!(idle_after(Counters::default()), Some(10));
        assert_eq!(idle_after(Counters { cpu_us: 100_000, bytes: 200, entries: 0 }), Some(10));
    }

    #[test]
    fn work_traffic_and_whoever_comes_keep_it_up() {
        assert_eq!(idle_after(Counters { cpu_us: 110_000, ..Counters::default() }), None);
        assert_eq!(idle_after(Counters { bytes: 300, ..Counters::default() }), None);
        assert_eq!(idle_after(Counters { entries: 1, ..Counters::default() }), None);
    }

    #[test]
    fn use_begins_the_time_anew() {
        let mut idleness = Idleness::begin(Duration::ZERO, Counters::default());
        let quiet = |idleness: &mut Idleness, at: u64| idleness.look(Duration::from_secs(at), Counters::default());
        assert!(quiet(&mut idleness, 18));
        idleness.is_used();
        assert!(quiet(&mut idleness, 37) && !idleness.has_lasted(span("20s")));
        assert!(quiet(&mut idleness, 38) && idleness.has_lasted(span("20s")));
    }

    #[test]
    fn counters_that_begin_anew_and_two_looks_at_once_are_no_use() {
        let mut idleness = Idleness::begin(Duration::ZERO, Counters { cpu_us: 1 << 40, bytes: 1 << 40, entries: 0 });
        assert!(idleness.look(Duration::ZERO, Counters::default()));
        assert!(!idleness.look(Duration::ZERO, Counters { cpu_us: u64::MAX, bytes: u64::MAX, entries: 0 }));
    }

    #[test]
    fn it_is_looked_at_ten_times_in_a_short_time_and_once_a_minute_in_a_long_one() {
        assert_eq!(Idleness::interval(span("20s")), Duration::from_secs(2));
        assert_eq!(Idleness::interval(span("1d")), Duration::from_secs(60));
    }
}
