//! Versions of releases, and how they are ordered (semver.org, without build metadata): `1.2.3`, and before it
//! `1.2.3-rc.1`, the only kind of pre-release there is.

use std::fmt;
use std::str::FromStr;

/// One version. Greater is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    /// The number of the candidate; greatest for the release itself, so that it is newer than all of them.
    candidate: u32,
}

/// The candidate's number of what is none.
const FINAL: u32 = u32::MAX;

/// Text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version: v1.2.3 or v1.2.3-rc.1 is expected")]
pub struct NoVersion(String);

impl Version {
    /// This build's.
    pub fn of_this_build() -> Result<Self, NoVersion> {
        env!("CARGO_PKG_VERSION").parse()
    }

    /// Whether it comes before a release, and so is never chosen by itself.
    pub fn is_candidate(&self) -> bool {
        self.candidate != FINAL
    }

    /// The name of its archive for `arch`, as sums and tarballs carry it.
    pub fn tarball(&self, arch: &str) -> String {
        format!("banger-v{self}-{arch}.tar.gz")
    }
}

impl FromStr for Version {
    type Err = NoVersion;

    /// With a `v` before it or without.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        parse(text.strip_prefix('v').unwrap_or(text)).ok_or_else(|| NoVersion(text.chars().take(80).collect()))
    }
}

fn parse(text: &str) -> Option<Version> {
    let (core, candidate) = match text.split_once('-') {
        Some((core, rest)) => (core, number(rest.strip_prefix("rc.")?).filter(|n| *n != FINAL)?),
        None => (text, FINAL),
    };
    let mut parts = core.split('.');
    let mut next = || number(parts.next()?);
    let version = Version { major: next()?, minor: next()?, patch: next()?, candidate };
    parts.next().is_none().then_some(version)
}

/// Without sign and leading zeros: each version is written in one way.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok())?
}

impl fmt::Display for Version {
    /// Without a `v`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        match self.candidate {
            FINAL => Ok(()),
            number => write!(f, "-rc.{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect(text)
    }

    #[test]
    fn newer_is_greater_and_a_candidate_comes_before_its_release() {
        let rising = ["0.0.1", "0.1.0-rc.1", "0.1.0-rc.2", "0.1.0-rc.10", "0.1.0", "0.1.1", "0.2.0", "0.10.0", "1.0.0"];
        for pair in rising.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert!(version("1.0.0-rc.1").is_candidate() && !version("1.0.0").is_candidate());
    }

    #[test]
    fn each_is_written_in_one_way() {
        for text in ["0.1.0", "1.2.3-rc.4", "4294967295.0.0"] {
            assert_eq!(version(text).to_string(), text);
            assert_eq!(version(&format!("v{text}")).to_string(), text);
        }
        for bad in [
            "",
            "v",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.02.3",
            "1.2.3-",
            "1.2.3-rc",
            "1.2.3-rc.",
            "1.2.3-rc.01",
            "1.2.3-beta.1",
            "1.2.3+x",
            "+1.2.3",
            "-1.2.3",
            " 1.2.3",
            "1.2.3 ",
            "1.2.3\n",
            "1..3",
            "vv1.2.3",
            "V1.2.3",
            "4294967296.0.0",
            "1.2.3-rc.4294967295",
            "1.2.3/../x",
            "١.2.3",
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn this_build_has_one_and_archives_carry_it() {
        assert_eq!(Version::of_this_build().expect("a version").to_string(), env!("CARGO_PKG_VERSION"));
        assert_eq!(version("0.2.0").tarball("x86_64"), "banger-v0.2.0-x86_64.tar.gz");
    }
}
