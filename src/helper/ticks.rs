//! How fast this host's time stamp counter counts.
//!
//! Under software emulation a guest reads the host's counter. Its kernel would measure the speed
//! against emulated timers, which on a busy host fails, and then it hangs: so it is told.

use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

use super::sys;

/// Least time to measure over: one percent of a percent of it is more than reading costs.
const LEAST: Duration = Duration::from_millis(50);

/// A measurement that has begun.
#[derive(Debug)]
pub struct Ticks {
    begun: Option<(u64, Instant)>,
    khz: Option<u32>,
}

impl Ticks {
    /// Begins to measure, where there is a counter that neither stops nor changes its speed.
    pub fn begin() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let begun = if is_steady(&cpuinfo) { now() } else { None };
        Self { begun, khz: None }
    }

    /// Thousands of ticks in a second. Measured over the time since it began.
    pub fn khz(&mut self) -> Option<u32> {
        if self.khz.is_none() {
            self.khz = self.measure();
        }
        self.khz
    }

    fn measure(&self) -> Option<u32> {
        let (ticks, time) = self.begun?;
        let rest = LEAST.saturating_sub(time.elapsed());
        if !rest.is_zero() {
            // Not a wait for anything: the measurement itself. Cut short by a signal it is coarser.
            let rest = Timespec { tv_sec: 0, tv_nsec: i64::from(rest.subsec_nanos()) };
            let _ = poll(&mut [], Some(&rest));
        }
        let (later_ticks, later_time) = now()?;
        let elapsed = u128::from(later_ticks.checked_sub(ticks)?);
        let nanoseconds = later_time.duration_since(time).as_nanos();
        u32::try_from(elapsed.checked_mul(1_000_000)?.checked_div(nanoseconds)?).ok().filter(|khz| *khz > 0)
    }
}

fn now() -> Option<(u64, Instant)> {
    sys::ticks().map(|ticks| (ticks, Instant::now()))
}

/// Flags that Linux shows for a counter that one may rely on (arch/x86/include/asm/cpufeatures.h).
fn is_steady(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find_map(|l| l.strip_prefix("flags")).unwrap_or_default();
    ["constant_tsc", "nonstop_tsc"].iter().all(|wanted| flags.split_ascii_whitespace().any(|f| f == *wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_near_what_the_kernel_says() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("read");
        let Some(khz) = Ticks::begin().khz() else { return };
        let shown = cpuinfo.lines().find_map(|l| l.strip_prefix("cpu MHz")?.split(": ").nth(1)?.parse::<f64>().ok());
        // The present clock of the CPU may be another than that of its counter, but not by much.
        let shown = shown.expect("shown") * 1000.0;
        assert!((0.2..5.0).contains(&(f64::from(khz) / shown)), "{khz} {shown}");
    }

    #[test]
    fn an_unsteady_counter_is_not_relied_on() {
        assert!(is_steady("flags\t\t: fpu constant_tsc nonstop_tsc sse\n"));
        assert!(!is_steady("flags\t\t: fpu constant_tsc sse\n"));
        assert_eq!(Ticks { begun: None, khz: None }.khz(), None);
    }
}
