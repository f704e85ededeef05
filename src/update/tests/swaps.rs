//! One binary for another on a host that is played: every failure, and a cut, as by kill -9 or a power failure, at every
//! place, also of the way back. Whatever happened, in the end there is one whole banger, and everything follows it.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::os::fault_point::Moment;
use crate::update::journal::Journal;
use crate::update::stage::Staged;
use crate::update::swap::Swap;
use crate::update::{
    Back, Digest, Host, Installed, RecoverError, Recovered, Site, Step, SwapError, Trouble, Version, abandon, recover,
};

const OLD: &[u8] = b"the old program";
const NEW: &[u8] = b"the new program, which is longer";

/// What happens at a place of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fails,
    /// The process is no more.
    Cut,
}

/// A host, and the folder of its binary.
struct World {
    folder: tempfile::TempDir,
    site: Site,
    staged: Staged,
    units: RefCell<Vec<u8>>,
    helper: RefCell<Vec<u8>>,
    daemon: RefCell<Vec<u8>>,
    /// Which banger has last brought the store up.
    store: RefCell<Vec<u8>>,
    failed_checks: RefCell<Vec<&'static str>>,
    /// What the new one's doctor finds beside.
    new_failed_checks: RefCell<Vec<&'static str>>,
    /// Where something happens: at the so-manieth passage of the place of this name.
    fates: RefCell<Vec<(String, usize, Fate)>>,
    passed: RefCell<Vec<String>>,
    restarts: Cell<u32>,
}

impl World {
    fn new() -> Self {
        // In memory where that is possible: hundreds of lives, each with a dozen trips to the disk.
        let shared = Path::new("/dev/shm");
        let folder = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
        let folder = folder.expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["bin", "etc", "cache"] {
            std::fs::create_dir(at(name)).expect("made");
        }
        std::fs::write(at("bin/banger"), OLD).expect("written");
        std::fs::write(at("cache/banger"), NEW).expect("written");
        let site = Site { binary: at("bin/banger"), journal: at("etc/update.toml") };
        let staged = Staged { version: version("0.2.0"), digest: Digest::of(NEW), path: at("cache/banger") };
        let old = || RefCell::new(OLD.to_vec());
        Self {
            folder,
            site,
            staged,
            units: old(),
            helper: old(),
            daemon: old(),
            store: old(),
            failed_checks: RefCell::default(),
            new_failed_checks: RefCell::default(),
            fates: RefCell::default(),
            passed: RefCell::default(),
            restarts: Cell::new(0),
        }
    }

    fn with(place: &str, fate: Fate) -> Self {
        let world = Self::new();
        world.fates.borrow_mut().push((place.to_owned(), 1, fate));
        world
    }

    /// Passes the place of this name; what is to happen there happens.
    fn pass(&self, place: &str) -> io::Result<()> {
        let mut passed = self.passed.borrow_mut();
        passed.push(place.to_owned());
        let count = passed.iter().filter(|p| *p == place).count();
        drop(passed);
        let fates = self.fates.borrow();
        match fates.iter().find(|(p, at, _)| p == place && *at == count).map(|(.., fate)| *fate) {
            Some(Fate::Cut) => {
                drop(fates);
                std::panic::panic_any("cut")
            }
            Some(Fate::Fails) => Err(io::Error::other(format!("told to fail at {place}"))),
            None => Ok(()),
        }
    }

    fn gate(&self, step: &str, moment: Moment) -> io::Result<()> {
        if step == Step::Lay.name() && moment == Moment::Before {
            // A cut in the midst of writing leaves this.
            std::fs::write(self.site.new_binary(), &NEW[..5])?;
        }
        self.pass(&format!("{step} {moment:?}"))
    }

    /// `None`: cut.
    fn update(&self) -> Option<Result<Vec<Trouble>, SwapError>> {
        let gate = |step: &str, moment| self.gate(step, moment);
        let mut tell = |_: crate::update::Told| {};
        let swap = Swap { site: &self.site, host: self, gate: &gate, tell: &mut tell };
        catch_unwind(AssertUnwindSafe(|| swap.replace(version("0.1.0"), &self.staged))).ok()
    }

    fn recover(&self) -> Option<Result<Option<Recovered>, RecoverError>> {
        let gate = |step: &str, moment| self.gate(step, moment);
        catch_unwind(AssertUnwindSafe(|| recover(&self.site.journal, self, &gate, &mut |_| {}))).ok()
    }

    fn binary(&self) -> Vec<u8> {
        std::fs::read(&self.site.binary).expect("there is a banger")
    }

    /// Everything starts from the file that is there.
    fn reboot(&self) {
        *self.helper.borrow_mut() = self.binary();
        *self.daemon.borrow_mut() = self.binary();
        self.start_store(&self.binary()).expect("a file and a store that fit");
    }

    /// A daemon's start: an older one cannot use a newer one's store.
    fn start_store(&self, binary: &[u8]) -> Result<(), Trouble> {
        if binary == OLD && *self.store.borrow() == NEW {
            return Err(Trouble("the store was written by a newer banger".into()));
        }
        *self.store.borrow_mut() = binary.to_vec();
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        let names = |folder: &str| {
            let entries = std::fs::read_dir(self.folder.path().join(folder)).expect("listed");
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let mut all = [names("bin"), names("etc")].concat();
        all.sort();
        all
    }

    /// One whole banger, everything follows it, and nothing else is there.
    fn is_whole(&self, with: &str) -> Vec<u8> {
        let binary = self.binary();
        assert!(binary == OLD || binary == NEW, "{with}: torn");
        for (what, follows) in
            [("units", &self.units), ("helper", &self.helper), ("daemon", &self.daemon), ("store", &self.store)]
        {
            assert_eq!(*follows.borrow(), binary, "{with}: {what} of another, after {:?}", self.passed.borrow());
        }
        assert_eq!(self.names(), ["banger"], "{with}");
        binary
    }
}

impl Host for World {
    fn installed(&self) -> Result<Option<Installed>, Trouble> {
        Ok(Some(Installed { binary: self.site.binary.clone(), version: version("0.1.0"), owner: 1000 }))
    }

    fn running_operations(&self) -> Result<u32, Trouble> {
        Ok(0)
    }

    fn refresh_units(&self, binary: &Path) -> Result<(), Trouble> {
        self.pass("host units")?;
        *self.units.borrow_mut() = std::fs::read(binary).map_err(Trouble::from)?;
        Ok(self.pass("host units reload")?)
    }

    fn restart(&self, binary: &Path, wanted: Version) -> Result<(), Trouble> {
        self.restarts.set(self.restarts.get() + 1);
        let content = std::fs::read(binary).map_err(Trouble::from)?;
        let is_old = content == OLD;
        self.pass("host helper")?;
        *self.helper.borrow_mut() = content.clone();
        self.pass("host daemon")?;
        self.start_store(&content)?;
        *self.daemon.borrow_mut() = content;
        self.pass("host answer")?;
        if is_old == (wanted == version("0.1.0")) { Ok(()) } else { Err(Trouble("another version answers".into())) }
    }

    fn answers(&self, wanted: Version) -> Result<(), Trouble> {
        let expected = if wanted == version("0.1.0") { OLD } else { NEW };
        let both = *self.helper.borrow() == expected && *self.daemon.borrow() == expected;
        if both { Ok(()) } else { Err(Trouble("another version answers".into())) }
    }

    fn failed_checks(&self, binary: &Path) -> Result<Vec<String>, Trouble> {
        let content = std::fs::read(binary).map_err(Trouble::from)?;
        self.pass(if content == OLD { "host old doctor" } else { "host doctor" })?;
        let beside = if content == OLD { Vec::new() } else { self.new_failed_checks.borrow().clone() };
        Ok(self.failed_checks.borrow().iter().chain(&beside).map(|check| (*check).to_owned()).collect())
    }

    fn restore_store(&self, binary: &Path) -> Result<(), Trouble> {
        self.pass("host store")?;
        let content = std::fs::read(binary).map_err(Trouble::from)?;
        *self.store.borrow_mut() = content;
        Ok(())
    }
}

fn cause(error: &SwapError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

/// All places that an update without trouble passes.
fn places() -> Vec<String> {
    let world = World::new();
    world.update().expect("not cut").expect("done");
    world.passed.take()
}

/// All places that the way back from the doctor passes, beside those of the way there.
fn places_back() -> Vec<String> {
    let world = World::with("doctor Before", Fate::Fails);
    world.update().expect("not cut").expect_err("told to fail");
    let passed = world.passed.take();
    let at = passed.iter().position(|place| place == "doctor Before").expect("passed");
    passed[at + 1..].to_vec()
}

#[test]
fn an_update_replaces_the_binary_and_everything_follows() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    assert_eq!(world.update().expect("not cut").expect("done"), []);
    assert_eq!(world.is_whole("update"), NEW);
    let mode = std::fs::metadata(&world.site.binary).expect("there").permissions().mode();
    assert_eq!((mode & 0o7777, world.restarts.get()), (0o755, 1));
    assert_eq!(world.recover().expect("not cut").expect("nothing to do"), None);
}

#[test]
fn a_failure_at_any_place_takes_all_of_it_back() {
    let places = places();
    assert!(places.len() >= 20, "{places:?}");
    for place in &places {
        let world = World::with(place, Fate::Fails);
        let updated = world.update().expect("not cut");
        match place.as_str() {
            // Where it cannot be told what was well before, all has to be; and it is.
            "host old doctor" => assert_eq!((updated.is_ok(), world.is_whole(place)), (true, NEW.to_vec())),
            "settle Before" | "settle After" => {
                assert_eq!(updated.expect("it is installed").len(), 1, "{place}");
                let finished = world.recover().expect("not cut").expect("brought to an end");
                assert!(matches!(finished, Some(Recovered::Finished(_)) | None), "{place}");
                assert_eq!(world.is_whole(place), NEW);
            }
            _ => {
                let error = updated.expect_err(place);
                assert!(matches!(&error, SwapError::TakenBack { .. }), "{place}: {error}");
                assert!(error.to_string().ends_with(", and v0.1.0 is back"), "{error}");
                assert_eq!(world.is_whole(place), OLD);
            }
        }
    }
}

#[test]
fn what_was_not_well_before_is_no_reason_and_what_was_is() {
    let world = World::new();
    world.failed_checks.borrow_mut().push("kvm");
    world.update().expect("not cut").expect("done");
    assert_eq!(world.is_whole("as before"), NEW);
    let world = World::new();
    world.new_failed_checks.borrow_mut().push("helper");
    let error = world.update().expect("not cut").expect_err("worse");
    assert_eq!(cause(&error), "its doctor finds failed: helper");
    assert_eq!(world.is_whole("worse"), OLD);
}

/// Cut there; and then nothing else, or a reboot, or another cut on the way back, before somebody comes again.
#[test]
fn a_cut_at_any_place_leaves_the_old_one_or_the_new_one_and_somebody_else_ends_it() {
    let (places, back) = (places(), places_back());
    assert!(back.len() >= 12, "{back:?}");
    let mut ends = (0, 0);
    for place in &places {
        for reboots in [false, true] {
            for second in std::iter::once(None).chain(back.iter().map(Some)) {
                let world = World::with(place, Fate::Cut);
                assert!(world.update().is_none(), "{place}: not cut");
                let now = world.binary();
                assert!(now == OLD || now == NEW, "{place}: torn");
                let story = format!("cut at {place}, reboot {reboots}, then at {second:?}");
                if reboots {
                    world.reboot();
                }
                world.passed.borrow_mut().clear();
                *world.fates.borrow_mut() = second.map(|p| (p.clone(), 1, Fate::Cut)).into_iter().collect();
                if world.recover().is_none() {
                    let now = world.binary();
                    assert!(now == OLD || now == NEW, "{story}: torn");
                    world.fates.borrow_mut().clear();
                }
                world.recover().expect("not cut").expect(&story);
                match world.is_whole(&story) == OLD {
                    true => ends.0 += 1,
                    false => ends.1 += 1,
                }
            }
        }
    }
    assert!(ends.0 > 100 && ends.1 > 10, "{ends:?}");
}

#[test]
fn the_way_back_goes_on_after_a_failure_and_what_is_left_is_said_with_commands() {
    let world = World::with("doctor Before", Fate::Fails);
    let failing = |place: &str, at| (place.to_owned(), at, Fate::Fails);
    world.fates.borrow_mut().extend([failing("host units", 2), failing("host helper", 2)]);
    let error = world.update().expect("not cut").expect_err("broken");
    let SwapError::Broken { step: Step::Doctor, left, .. } = &error else { panic!("{error}") };
    let told: Vec<(Back, &str)> = left.iter().map(|l| (l.back, l.command.as_str())).collect();
    let binary = world.site.binary.display();
    let (units, restart) = (format!("sudo {binary} system install"), format!("sudo {binary} system restart"));
    assert_eq!(told, [(Back::Units, units.as_str()), (Back::Restart, restart.as_str())]);
    assert_eq!(world.binary(), OLD, "the file is back all the same");
    assert_eq!(world.names(), ["banger", "update.toml"], "somebody will come back to it");
    world.fates.borrow_mut().clear();
    let recovered = world.recover().expect("not cut").expect("recovered");
    assert_eq!(recovered, Some(Recovered::TakenBack { installed: version("0.1.0"), wanted: version("0.2.0") }));
    assert_eq!(world.is_whole("later"), OLD);
}

#[test]
fn one_without_an_end_is_forgotten_with_what_it_has_laid_down() {
    for damage in [false, true] {
        let world = World::with("doctor Before", Fate::Fails);
        world.fates.borrow_mut().push(("host units".into(), 2, Fate::Fails));
        world.update().expect("not cut").expect_err("broken");
        if damage {
            std::fs::write(&world.site.journal, "schema = ").expect("written");
        }
        abandon(&world.site.journal).expect("forgotten");
        abandon(&world.site.journal).expect("once is enough");
        assert_eq!(world.names(), ["banger"], "damaged: {damage}");
        assert_eq!(world.recover().expect("not cut").expect("nothing"), None);
    }
}

#[test]
fn a_file_that_cannot_be_put_back_keeps_its_second_name() {
    let world = World::with("doctor Before", Fate::Fails);
    world.fates.borrow_mut().push(("back file Before".into(), 1, Fate::Fails));
    let error = world.update().expect("not cut").expect_err("broken");
    let SwapError::Broken { left, .. } = &error else { panic!("{error}") };
    let binary = world.site.binary.display();
    assert_eq!(left[0].command, format!("sudo mv -f {binary}.previous {binary}"));
    assert_eq!(std::fs::read(world.site.previous()).expect("kept"), OLD);
    // Later the new one is what runs, and it is well.
    world.fates.borrow_mut().clear();
    world.recover().expect("not cut").expect("recovered");
    assert_eq!(world.is_whole("later"), NEW);
}

#[test]
fn one_that_runs_and_is_well_stays_and_one_that_is_not_goes() {
    for (checks, end) in [(vec![], NEW), (vec!["helper"], OLD)] {
        let world = World::with("doctor Before", Fate::Cut);
        assert!(world.update().is_none());
        world.reboot();
        world.new_failed_checks.borrow_mut().extend(checks);
        world.recover().expect("not cut").expect("recovered");
        assert_eq!(world.is_whole("months later"), end);
    }
}

#[test]
fn what_somebody_has_installed_since_is_left_alone() {
    let world = World::with("restart Before", Fate::Cut);
    assert!(world.update().is_none());
    std::fs::write(&world.site.binary, b"a third program").expect("written");
    assert_eq!(world.recover().expect("not cut").expect("recovered"), Some(Recovered::LeftBe));
    assert_eq!((world.binary(), world.names()), (b"a third program".to_vec(), vec!["banger".to_owned()]));
}

#[test]
fn where_the_old_one_is_gone_the_new_one_stays_and_where_both_are_it_is_said() {
    let world = World::with("restart Before", Fate::Cut);
    assert!(world.update().is_none());
    std::fs::remove_file(world.site.previous()).expect("removed");
    assert_eq!(world.recover().expect("not cut").expect("recovered"), Some(Recovered::Finished(version("0.2.0"))));
    assert_eq!(world.is_whole("followed"), NEW);
    let world = World::with("restart Before", Fate::Cut);
    assert!(world.update().is_none());
    std::fs::remove_file(world.site.previous()).expect("removed");
    std::fs::remove_file(&world.site.binary).expect("removed");
    let error = world.recover().expect("not cut").expect_err("lost").to_string();
    assert!(error.contains("neither v0.1.0 nor v0.2.0") && error.contains("system install"), "{error}");
    assert!(Journal::read(&world.site.journal).expect("read").is_some());
}

#[test]
fn a_changed_second_name_is_not_put_in_the_place() {
    let world = World::with("doctor Before", Fate::Cut);
    assert!(world.update().is_none());
    std::fs::write(world.site.previous(), b"something else").expect("written");
    assert_eq!(world.recover().expect("not cut").expect("recovered"), Some(Recovered::Finished(version("0.2.0"))));
    assert_eq!(world.binary(), NEW);
}

#[test]
fn a_staged_binary_that_has_changed_is_not_installed() {
    let world = World::new();
    std::fs::write(&world.staged.path, b"something else").expect("written");
    let error = world.update().expect("not cut").expect_err("changed");
    assert!(cause(&error).ends_with("has changed meanwhile"), "{}", cause(&error));
    assert_eq!(world.is_whole("changed"), OLD);
}

#[test]
fn the_same_binary_once_more_is_an_update_too() {
    for cut in [None, Some("swap After"), Some("doctor Before"), Some("settle Before"), Some("settle After")] {
        let mut world = World::new();
        std::fs::write(&world.staged.path, OLD).expect("written");
        world.staged.digest = Digest::of(OLD);
        world.staged.version = version("0.1.0");
        *world.fates.borrow_mut() = cut.map(|place| (place.to_owned(), 1, Fate::Cut)).into_iter().collect();
        assert_eq!(world.update().is_none(), cut.is_some());
        world.recover().expect("not cut").expect("recovered");
        assert_eq!(world.is_whole("again"), OLD);
    }
}
