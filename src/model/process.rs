//! A process that cannot be mistaken for another.

use std::fmt;

/// A process by pid *and* start time: pids are reused, the pair is not within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct ProcessRef {
    /// The pid, above 0.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat` (proc(5)): clock ticks after boot.
    pub start_time: u64,
    /// The kernel's boot, the leading 64 bits of `/proc/sys/kernel/random/boot_id`: a pair of
    /// another boot names nothing.
    pub boot: u64,
}

impl fmt::Display for ProcessRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)
    }
}
