//! Clocks.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Time since the host's start, without the time that it slept (`CLOCK_MONOTONIC`, clock_gettime(2)).
pub fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Seconds since the epoch; 0 on a host whose clock stands before it.
pub fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}

/// Nanoseconds since the epoch; 0 on a host whose clock stands before it.
pub fn unix_nanos() -> u64 {
    since_epoch().as_nanos().try_into().unwrap_or(u64::MAX)
}

/// A descriptor that becomes readable when the host's clock shows `at`, Unix seconds, or later: at
/// once when it does already, and also after the clock was set or the host slept (timerfd_create(2)).
pub fn alarm(at: u64) -> io::Result<OwnedFd> {
    let alarm = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Zero would disarm it.
    let at = Timespec { tv_sec: i64::try_from(at).unwrap_or(i64::MAX).max(1), tv_nsec: 0 };
    timerfd_settime(&alarm, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: never, it_value: at })?;
    Ok(alarm)
}

fn since_epoch() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::wait_for_end;
    use std::time::Duration;

    #[test]
    fn an_alarm_rings_at_its_time_and_not_before() {
        let rings = |at: u64, limit: Duration| wait_for_end(alarm(at).expect("set"), limit).expect("polled");
        assert!(rings(0, Duration::ZERO) && rings(unix_seconds(), Duration::ZERO));
        assert!(!rings(unix_seconds() + 3600, Duration::ZERO));
        assert!(!rings(u64::MAX, Duration::ZERO));
        assert!(rings(unix_seconds() + 1, Duration::from_secs(10)));
    }
}
