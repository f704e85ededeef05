//! All that is refused before the swap, in an order in which nothing is changed, and nothing downloaded for nothing.

use std::path::{Path, PathBuf};

use super::releases::{Releases, elf};
use crate::update::journal::{Journal, Turn};
use crate::update::plan::Step;
use crate::update::{
    Asked, Digest, Ground, Host, Installed, Outcome, Place, Refusal, Trouble, UpdateError, Version, Wish, is_packaged,
    standing, update,
};

/// A host on which nothing is to be done.
struct Still {
    installed: Option<Installed>,
    operations: u32,
}

impl Host for Still {
    fn installed(&self) -> Result<Option<Installed>, Trouble> {
        Ok(self.installed.clone())
    }

    fn running_operations(&self) -> Result<u32, Trouble> {
        Ok(self.operations)
    }

    fn refresh_units(&self, _: &Path) -> Result<(), Trouble> {
        panic!("units")
    }

    fn restart(&self, _: &Path, _: Version) -> Result<(), Trouble> {
        panic!("restart")
    }

    fn answers(&self, _: Version) -> Result<(), Trouble> {
        panic!("answers")
    }

    fn failed_checks(&self, _: &Path) -> Result<Vec<String>, Trouble> {
        panic!("doctor")
    }

    fn restore_store(&self, _: &Path) -> Result<(), Trouble> {
        panic!("store")
    }
}

struct World {
    folder: tempfile::TempDir,
    releases: Releases,
    host: Still,
}

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

impl World {
    /// 0.2.0 is installed; there are 0.1.0, 0.2.0 and `newest`.
    fn new(newest: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let binary = folder.path().join("banger");
        std::fs::write(&binary, b"old").expect("written");
        let mut releases = Releases::new();
        releases.add("0.1.0", &elf(b"one")).add("0.2.0", &elf(b"two")).add(newest, &elf(b"three"));
        let installed = Some(Installed { binary, version: version("0.2.0"), owner: 0 });
        Self { folder, releases, host: Still { installed, operations: 0 } }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn asked(&self, asked: Asked) -> Result<Outcome, UpdateError> {
        let (journal, cache, state) = (self.at("update.toml"), self.at("cache"), self.at("state"));
        let gate = |step: &str, _| panic!("{step}");
        let mut tell = |_: crate::update::Told| {};
        let ground = Ground {
            host: &self.host,
            journal: &journal,
            turn: &journal,
            cache: &cache,
            state: &state,
            gate: &gate,
            tell: &mut tell,
        };
        let outcome = update(ground, || Ok(self.releases.origin()), asked);
        assert_eq!(std::fs::read(self.at("banger")).expect("there"), b"old");
        outcome
    }

    fn to(&self, to: &str, force: bool) -> Result<Outcome, UpdateError> {
        self.asked(Asked { wish: Wish { to: Some(version(to)), force }, dry_run: false })
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("listed");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

#[test]
fn an_unknown_version_and_an_older_one_are_refused_before_anything_is_changed() {
    let world = World::new("0.3.0");
    let unknown = world.to("9.9.9", true).expect_err("unknown");
    assert!(matches!(unknown, UpdateError::Refused(Refusal::Unknown { .. })), "{unknown}");
    let older = world.to("0.1.0", false).expect_err("older");
    assert!(matches!(older, UpdateError::Refused(Refusal::Older { .. })), "{older}");
    assert_eq!(world.to("0.2.0", false).expect("there already"), Outcome::UpToDate(version("0.2.0")));
    assert_eq!(world.names(), ["banger"]);
}

#[test]
fn a_replayed_manifest_leads_nowhere_and_is_no_news() {
    let mut world = World::new("0.2.1");
    world.host.installed.as_mut().expect("installed").version = version("0.4.0");
    let stale = world.asked(Asked::default()).expect_err("stale");
    assert!(matches!(stale, UpdateError::Refused(Refusal::Stale { .. })), "{stale}");
    let manifest = world.releases.origin().manifest().expect("read");
    assert_eq!(
        standing(&manifest, version("0.4.0")),
        "banger v0.4.0 stays: the newest release that is announced is v0.2.1, older than v0.4.0, which is installed"
    );
    assert_eq!(standing(&manifest, version("0.2.1")), "banger v0.2.1 is up to date");
    let news = standing(&manifest, version("0.2.0"));
    assert_eq!(news, "banger v0.2.1 of 2026-03-01 can be had, this is v0.2.0: sudo banger update");
}

#[test]
fn where_nothing_is_installed_or_a_package_is_nothing_is_asked_for() {
    let mut world = World::new("0.3.0");
    world.host.installed.as_mut().expect("installed").binary = "/usr/bin/banger".into();
    assert!(matches!(world.asked(Asked::default()), Err(UpdateError::Packaged(_))));
    world.host.installed = None;
    assert!(matches!(world.asked(Asked::default()), Err(UpdateError::NotInstalled)));
    assert_eq!(world.names(), ["banger"]);
    for (path, packaged) in
        [("/usr/bin/banger", true), ("/bin/banger", true), ("/usr/local/bin/banger", false), ("/opt/b/banger", false)]
    {
        assert_eq!(is_packaged(Path::new(path)), packaged, "{path}");
    }
}

#[test]
fn operations_under_way_refuse_unless_forced() {
    let mut world = World::new("0.3.0");
    world.host.operations = 2;
    assert!(matches!(world.asked(Asked::default()), Err(UpdateError::Operations(2))));
    assert_eq!(world.names(), ["banger"], "nothing was downloaded");
    let forced = world.asked(Asked { wish: Wish { to: None, force: true }, dry_run: true }).expect_err("no program");
    assert!(matches!(forced, UpdateError::Proof(_)), "it went on to the proof: {forced}");
    assert_eq!(world.names(), ["banger"], "and nothing stays of it");
}

#[test]
fn one_at_a_time_and_an_interrupted_one_first() {
    let world = World::new("0.3.0");
    let turn = Turn::attempt(&world.at("update.toml")).expect("works").expect("free");
    assert!(matches!(world.asked(Asked::default()), Err(UpdateError::Busy)));
    drop(turn);
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    let (from, to) = (version("0.2.0"), version("0.3.0"));
    let journal = Journal { step: Step::Lay, from, to, old, new, binary: world.at("banger") };
    journal.write(&world.at("update.toml")).expect("written");
    let dry = world.asked(Asked { wish: Wish::default(), dry_run: true }).expect_err("first things first");
    assert!(matches!(dry, UpdateError::Interrupted(_)), "{dry}");
    assert_eq!(world.names(), ["banger", "update.toml"]);
}

#[test]
fn a_manifest_that_cannot_be_had_changes_nothing() {
    let world = World::new("0.3.0");
    std::fs::remove_file(world.releases.path("manifest.json")).expect("removed");
    assert!(matches!(world.asked(Asked::default()), Err(UpdateError::Download(_))));
    assert_eq!(world.names(), ["banger"]);
    assert!(matches!(world.releases.origin().manifest, Place::File(_)));
}
