//! Clocks.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch; 0 on a host whose clock stands before it.
pub fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}

/// Nanoseconds since the epoch; 0 on a host whose clock stands before it.
pub fn unix_nanos() -> u64 {
    since_epoch().as_nanos().try_into().unwrap_or(u64::MAX)
}

fn since_epoch() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
