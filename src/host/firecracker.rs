//! Which versions of Firecracker banger drives.
//!
//! Lowest: 1.7 has the API that is used here in the shape that it has today (entropy since 1.4, `vsock`
//! without an id since 1.0) and ACPI tables for distribution kernels. Highest: Firecracker breaks its
//! interface with a major version only (its docs, RELEASE_POLICY.md); tried here: 1.17.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A version of Firecracker or its jailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Breaks interfaces.
    pub major: u16,
    /// Adds to them.
    pub minor: u16,
    /// Mends.
    pub patch: u16,
}

/// The lowest that is driven.
pub const LOWEST: Version = Version { major: 1, minor: 7, patch: 0 };

/// The lowest that is not driven any more.
pub const TOO_HIGH: Version = Version { major: 2, minor: 0, patch: 0 };

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Whether banger drives it.
    pub fn is_supported(self) -> bool {
        (LOWEST..TOO_HIGH).contains(&self)
    }
}

/// What `program --version` says; `None` when it cannot be asked or says something else.
pub fn version_of(program: &Path) -> Option<Version> {
    let output = Command::new(program).arg("--version").env_clear().stdin(Stdio::null()).output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// The first line is `Firecracker v1.17.0` or `Jailer v1.17.0-dev`.
fn parse(said: &str) -> Option<Version> {
    let word = said.lines().next()?.split_ascii_whitespace().find_map(|w| w.strip_prefix('v'))?;
    let numbers = word.split(['-', '+']).next()?;
    let mut parts = numbers.split('.').map(|n| n.parse().ok());
    let version = Version { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_is_printed() {
        let seen = parse("Firecracker v1.17.0-dev\n\nSupported snapshot data format versions: v8.0.0\n");
        assert_eq!(seen.map(|v| v.to_string()), Some("1.17.0".into()));
        assert_eq!(parse("Jailer v1.7.2\n").map(|v| v.is_supported()), Some(true));
        for bad in ["", "v1.2", "Firecracker 1.2.3", "Firecracker v1.2.3.4", "Firecracker vx.y.z", "v99999999.0.0"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_the_range_is_supported() {
        let version = |major, minor| Version { major, minor, patch: 9 };
        assert!(!version(1, 6).is_supported() && version(1, 7).is_supported());
        assert!(version(1, 99).is_supported() && !version(2, 0).is_supported());
    }
}
