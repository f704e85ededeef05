//! How fast this CPU's time stamp counter runs: software emulation gives guests the host's counter
//! as it is, and a microvm has nothing against which a guest's kernel could measure it. On a busy
//! host its attempt fails and the boot hangs, so the number is given on the kernel's command line
//! (`tsc_early_khz`, Documentation/admin-guide/kernel-parameters.txt).

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::sys;

/// A shorter time gives too coarse a number: 10 ms with a microsecond's error is one in 10,000.
const SHORTEST: Duration = Duration::from_millis(10);

static BEGIN: OnceLock<Option<(u64, Instant)>> = OnceLock::new();

fn begin() -> Option<(u64, Instant)> {
    *BEGIN.get_or_init(|| {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let ticks = sys::time_stamp_counter().filter(|_| is_steady(&cpuinfo))?;
        Some((ticks, Instant::now()))
    })
}

/// Whether the counter neither stops nor changes its speed: only then may a guest rely on it
/// (arch/x86/include/asm/cpufeatures.h).
fn is_steady(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find_map(|l| l.strip_prefix("flags")).unwrap_or_default();
    ["constant_tsc", "nonstop_tsc"].iter().all(|wanted| flags.split_ascii_whitespace().any(|f| f == *wanted))
}

/// Begins to measure: called at the helper's start, so that nobody waits later.
pub fn watch() {
    begin();
}

/// Thousands of ticks per second; `None` where there is no steady counter.
pub fn kilohertz() -> Option<u32> {
    let (first, at) = begin()?;
    // Only when the first launch comes within 10 ms of the start.
    std::thread::sleep(SHORTEST.saturating_sub(at.elapsed()));
    let ticks = sys::time_stamp_counter()?.checked_sub(first)?;
    let nanoseconds = at.elapsed().as_nanos();
    u32::try_from(u128::from(ticks) * 1_000_000 / nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsteady_counter_is_not_relied_on() {
        assert!(is_steady("flags\t\t: fpu constant_tsc nonstop_tsc sse\n"));
        assert!(!is_steady("flags\t\t: fpu constant_tsc sse\n"));
    }

    #[test]
    fn two_measurements_agree() {
        let Some(first) = kilohertz() else { return };
        let second = kilohertz().expect("still there");
        assert!(first > 100_000, "{first} kHz");
        assert!(first.abs_diff(second) < first / 100, "{first} and {second} kHz");
    }
}
