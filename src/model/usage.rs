//! How much of the host a VM uses.

/// What a VM's monitor uses, as the host's kernel counts it; `None` where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct HostUsage {
    /// Where the numbers of the memory come from.
    pub source: UsageSource,
    /// Bytes now.
    pub memory: Option<u64>,
    /// Bytes at most so far.
    pub memory_peak: Option<u64>,
    /// Bytes that are allowed.
    pub memory_limit: Option<u64>,
    /// Microseconds of CPU time so far.
    pub cpu_us: Option<u64>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageSource {
    /// The VM's own cgroup, page cache included.
    Cgroup,
    /// The monitor's process: it has no cgroup of its own.
    Process,
}
