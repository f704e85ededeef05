//! Which release, and whether it may be: decided from the signed manifest alone. Pure.
//!
//! A server, or whoever stands before it, can always show an old manifest with an old signature. So nothing leads back by
//! itself: an older release than the one that runs needs both its name and force.

use super::manifest::{Manifest, Release};
use super::version::Version;

/// What is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// This one; none: the newest.
    pub to: Option<Version>,
    /// Also back, and also again.
    pub force: bool,
}

/// What shall be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'a> {
    /// Nothing: it is there.
    UpToDate,
    /// Go to this one. `after` is a newer one that can be reached from there only.
    Go {
        /// Which.
        release: &'a Release,
        /// Which next.
        after: Option<Version>,
    },
}

/// Why nothing may be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such release.
    #[error("there is no release v{wanted}: the newest is {newest}")]
    Unknown {
        /// What was asked for.
        wanted: Version,
        /// What there is, in words.
        newest: String,
    },
    /// No release at all, or none for people who did not name it.
    #[error("the manifest names no release")]
    None,
    /// It is not made for machines like this one.
    #[error("release v{version} is not made for {arch}")]
    Arch {
        /// Which.
        version: Version,
        /// Of this machine.
        arch: String,
    },
    /// It is older.
    #[error("release v{wanted} is older than v{running}, which is installed: going back needs --force")]
    Older {
        /// What was asked for.
        wanted: Version,
        /// What runs.
        running: Version,
    },
    /// All that is announced is older: an old manifest, perhaps a replayed one.
    #[error("the newest release that is announced is v{newest}, older than v{running}, which is installed")]
    Stale {
        /// What is announced.
        newest: Version,
        /// What runs.
        running: Version,
    },
    /// What runs is too old for it.
    #[error("release v{wanted} can be reached from v{from} on, and v{running} is installed")]
    TooFar {
        /// What was asked for.
        wanted: Version,
        /// From where on.
        from: Version,
        /// What runs.
        running: Version,
    },
}

/// The newest release that nobody has to name.
pub fn newest(manifest: &Manifest) -> Option<&Release> {
    manifest.releases.iter().rfind(|release| !release.version.is_candidate())
}

/// What to do where `running` is installed on a machine of `arch`.
pub fn choose<'a>(manifest: &'a Manifest, running: Version, wish: Wish, arch: &str) -> Result<Choice<'a>, Refusal> {
    match wish.to {
        Some(wanted) => named(manifest, running, wanted, wish.force, arch),
        None => forward(manifest, running, arch),
    }
}

fn named<'a>(
    manifest: &'a Manifest,
    running: Version,
    wanted: Version,
    force: bool,
    arch: &str,
) -> Result<Choice<'a>, Refusal> {
    let Some(release) = manifest.releases.iter().find(|release| release.version == wanted) else {
        let newest = newest(manifest).map_or("none".to_owned(), |release| format!("v{}", release.version));
        return Err(Refusal::Unknown { wanted, newest });
    };
    if wanted == running && !force {
        return Ok(Choice::UpToDate);
    }
    if wanted < running && !force {
        return Err(Refusal::Older { wanted, running });
    }
    fits(release, running, arch)?;
    Ok(Choice::Go { release, after: None })
}

fn forward<'a>(manifest: &'a Manifest, running: Version, arch: &str) -> Result<Choice<'a>, Refusal> {
    let newest = newest(manifest).ok_or(Refusal::None)?;
    if newest.version == running {
        return Ok(Choice::UpToDate);
    }
    if newest.version < running {
        return Err(Refusal::Stale { newest: newest.version, running });
    }
    // The newest that can be reached; where that is not the newest, it may be reached from there.
    let newer = manifest.releases.iter().rev().filter(|r| r.version > running && !r.version.is_candidate());
    let reachable = newer.clone().find(|release| fits(release, running, arch).is_ok());
    match reachable {
        Some(release) => {
            let is_newest = release.version == newest.version;
            Ok(Choice::Go { release, after: (!is_newest).then_some(newest.version) })
        }
        None => fits(newest, running, arch).map(|()| Choice::Go { release: newest, after: None }),
    }
}

fn fits(release: &Release, running: Version, arch: &str) -> Result<(), Refusal> {
    let wanted = release.version;
    if let Some(from) = release.from.filter(|from| running < *from) {
        return Err(Refusal::TooFar { wanted, from, running });
    }
    if !release.tarballs.contains_key(arch) {
        return Err(Refusal::Arch { version: wanted, arch: arch.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::manifest::Tarball;

    fn version(text: &str) -> Version {
        text.parse().expect(text)
    }

    /// `0.2.0` or `0.3.0<0.2.0`: reachable from 0.2.0 on; all for x86_64.
    fn manifest(releases: &[&str]) -> Manifest {
        let one = |text: &&str| {
            let (name, from) = text.split_once('<').map_or((*text, None), |(name, from)| (name, Some(version(from))));
            let tarballs = [("x86_64".to_owned(), Tarball { url: "u".into(), size: 1 })].into();
            let (date, sums) = ("2026-01-01".to_owned(), "s".to_owned());
            Release { version: version(name), date, sums, tarballs, from, notes: String::new() }
        };
        let mut releases: Vec<Release> = releases.iter().map(one).collect();
        releases.sort_by_key(|r| r.version);
        Manifest { releases }
    }

    fn chosen(releases: &[&str], running: &str, to: Option<&str>, force: bool) -> Result<String, Refusal> {
        let wish = Wish { to: to.map(version), force };
        Ok(match choose(&manifest(releases), version(running), wish, "x86_64")? {
            Choice::UpToDate => "nothing".to_owned(),
            Choice::Go { release, after: None } => release.version.to_string(),
            Choice::Go { release, after: Some(next) } => format!("{}, then {next}", release.version),
        })
    }

    fn goes(releases: &[&str], running: &str, to: Option<&str>, force: bool) -> String {
        chosen(releases, running, to, force).expect("chosen")
    }

    #[test]
    fn the_newest_is_chosen_and_no_candidate() {
        assert_eq!(goes(&["0.1.0", "0.2.0", "0.3.0-rc.1"], "0.1.0", None, false), "0.2.0");
        assert_eq!(goes(&["0.1.0", "0.2.0"], "0.2.0", None, false), "nothing");
        assert_eq!(goes(&["0.1.0", "0.2.0"], "0.2.0", None, true), "nothing");
        assert_eq!(goes(&["0.2.0"], "0.2.0-rc.1", None, false), "0.2.0");
        assert_eq!(goes(&["0.1.0", "0.2.0-rc.1"], "0.1.0", Some("0.2.0-rc.1"), false), "0.2.0-rc.1");
    }

    #[test]
    fn nothing_leads_back_without_a_name_and_force() {
        let releases = ["0.1.0", "0.2.0"];
        let stale = Err(Refusal::Stale { newest: version("0.2.0"), running: version("0.3.0") });
        assert_eq!(chosen(&releases, "0.3.0", None, false), stale);
        assert_eq!(chosen(&releases, "0.3.0", None, true), stale, "force alone names nothing");
        let older = Err(Refusal::Older { wanted: version("0.1.0"), running: version("0.3.0") });
        assert_eq!(chosen(&releases, "0.3.0", Some("0.1.0"), false), older);
        assert_eq!(goes(&releases, "0.3.0", Some("0.1.0"), true), "0.1.0");
        assert_eq!(goes(&releases, "0.2.0", Some("0.2.0"), false), "nothing");
        assert_eq!(goes(&releases, "0.2.0", Some("0.2.0"), true), "0.2.0");
    }

    #[test]
    fn what_is_too_far_is_reached_in_steps() {
        let releases = ["0.1.0", "0.2.0", "0.3.0<0.2.0"];
        assert_eq!(goes(&releases, "0.1.0", None, false), "0.2.0, then 0.3.0");
        assert_eq!(goes(&releases, "0.2.0", None, false), "0.3.0");
        let far = Refusal::TooFar { wanted: version("0.3.0"), from: version("0.2.0"), running: version("0.1.0") };
        assert_eq!(chosen(&releases, "0.1.0", Some("0.3.0"), true), Err(far.clone()));
        assert_eq!(chosen(&["0.3.0<0.2.0"], "0.1.0", None, false), Err(far));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let unknown = chosen(&["0.1.0"], "0.1.0", Some("9.9.9"), true).expect_err("unknown");
        assert_eq!(unknown.to_string(), "there is no release v9.9.9: the newest is v0.1.0");
        assert_eq!(chosen(&[], "0.1.0", None, false), Err(Refusal::None));
        assert_eq!(chosen(&["0.2.0-rc.1"], "0.1.0", None, false), Err(Refusal::None));
        let wish = Wish::default();
        let manifest = manifest(&["0.2.0"]);
        let arch = choose(&manifest, version("0.1.0"), wish, "riscv64");
        assert_eq!(arch, Err(Refusal::Arch { version: version("0.2.0"), arch: "riscv64".into() }));
    }
}
