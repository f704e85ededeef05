//! Installing banger for an owner, refreshing what belongs to it, and taking it away again. What an installation
//! consists of is data (`plan`); each part is made so that it can be taken back.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::completions::Shell;
use super::deeds::{self, Deed, Done};
use super::units::{self, SERVICES, SOCKETS};
use super::{SystemError, failed, services};
use crate::host::install::{INSTALL_FILE, InstallRecord};
use crate::host::paths::{Environment, Paths, ROOTS_CACHE};
use crate::os::accounts::Account;
use crate::os::files::{read_limited, remove_file, remove_tree};

/// Where a binary that is copied somewhere by hand is installed.
pub const BINARY: &str = "/usr/local/bin/banger";

/// Where a package's binary is: it stays the package's.
const PACKAGED: &str = "/usr/bin/banger";

/// Names beside the binary, of its services.
const LINKS: [&str; 2] = ["bangerd", "bangerd-root"];

/// Longest unit or script that is looked at, in bytes.
const MOST_FILE: u64 = 1 << 16;

/// What the helper tells udev, while udev runs.
const UDEV_RULE: &str = "/run/udev/rules.d/60-banger-blocks.rules";

/// An installation to be made.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Whose VMs it runs.
    pub owner: Account,
    /// Version of the running binary, as `1.2.3`.
    pub version: String,
    /// Its commit.
    pub commit: String,
    /// Where the running binary lies.
    pub binary: PathBuf,
}

/// What came of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// There was none.
    Anew,
    /// Something is otherwise than it was.
    Changed,
    /// All was as it should be.
    Unchanged,
}

/// Has the binary of an installation that is back use the store that a newer one may have brought up meanwhile.
pub type RestoreStore<'a> = &'a dyn Fn(&Path) -> Result<(), String>;

/// Installs and starts; done when daemon and helper have said that they answer. After a failure all is as before.
pub fn install(wish: &Wish, restore_store: RestoreStore) -> Result<Installed, (SystemError, Vec<SystemError>)> {
    let found = InstallRecord::of_this_host().ok().flatten();
    check(wish, found.as_ref()).map_err(|e| (e, Vec::new()))?;
    let mut done = Done::default();
    match make(&mut done, &plan(wish, found.as_ref())) {
        Ok(()) => {}
        Err(error) => return Err((error, go_back(done, found.as_ref(), restore_store))),
    }
    let outcome = match (found, done.has_changed()) {
        (None, _) => Installed::Anew,
        (Some(_), true) => Installed::Changed,
        (Some(_), false) => Installed::Unchanged,
    };
    done.keep().map_err(|e| (e, Vec::new()))?;
    Ok(outcome)
}

fn make(done: &mut Done, deeds: &[Deed]) -> Result<(), SystemError> {
    done.make(deeds)?;
    services::reload()?;
    start_sockets()?;
    if done.has_changed() { start_anew() } else { services::start(&SERVICES) }
}

/// Makes running services those of the files that are there, and has them start at boot.
fn start_anew() -> Result<(), SystemError> {
    for service in SERVICES {
        services::restart(&[service])?;
    }
    services::start(&SERVICES)
}

/// Starts what listens; anew where its unit has changed, which it can only be while its service does not run. VMs go on.
fn start_sockets() -> Result<(), SystemError> {
    let is_old = |unit: &&str| services::is_older_than_its_file(unit, &Path::new(units::FOLDER).join(unit));
    if SOCKETS.iter().map(is_old).collect::<Result<Vec<_>, _>>()?.contains(&true) {
        services::halt(&[SERVICES, SOCKETS].concat())?;
    }
    services::start(&SOCKETS)
}

/// What failed on the way back.
fn go_back(done: Done, old: Option<&InstallRecord>, restore_store: RestoreStore) -> Vec<SystemError> {
    let mut failures = Vec::new();
    if old.is_none() {
        failures.extend(services::stop(&[SOCKETS, SERVICES].concat()).err());
    }
    failures.extend(done.take_back());
    failures.extend(services::reload().err());
    let Some(old) = old else {
        failures.extend(remove_runtime());
        return failures;
    };
    let restored = restore_store(&old.binary).map_err(io::Error::other);
    failures.extend(restored.map_err(failed("give the old version its store back")).err());
    failures.extend(restart(First::Helper).err());
    failures
}

/// Rewrites units and record as this binary wants them, and has systemd read them. Starts nothing.
pub fn refresh(record: &InstallRecord, wish: &Wish) -> Result<(), SystemError> {
    let deeds: Vec<Deed> = plan(wish, Some(record)).into_iter().filter(|d| !matches!(d, Deed::Program(_))).collect();
    let mut done = Done::default();
    if let Err(error) = done.make(&deeds) {
        // The error that matters is the first.
        done.take_back();
        return Err(error);
    }
    done.keep()?;
    services::reload()
}

/// Which service is restarted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// For versions that understand each other: the helper keeps the sockets that guests' questions come in at.
    Daemon,
    /// For a change of versions: a new daemon finds its VMs again with a helper of its own version.
    Helper,
}

/// Restarts helper and daemon; done when both answer. VMs go on.
pub fn restart(first: First) -> Result<(), SystemError> {
    // One that failed too often is not started again unless that is forgotten.
    services::forget_failures(&[SOCKETS, SERVICES].concat());
    start_sockets()?;
    let [helper, daemon] = SERVICES;
    let order = if first == First::Daemon { [daemon, helper] } else { [helper, daemon] };
    order.iter().try_for_each(|service| services::restart(&[service]))
}

/// Takes the installation away: services, units, links, binary, runtime folders. Everything is tried; what failed.
pub fn uninstall(record: &InstallRecord) -> Vec<SystemError> {
    let mut failures: Vec<SystemError> = services::stop(&[SOCKETS, SERVICES].concat()).err().into_iter().collect();
    // The record goes last of the files: what is left can be taken away by asking again.
    let (last, made): (Vec<_>, Vec<_>) =
        record.made.iter().rev().partition(|path| Path::new(INSTALL_FILE).starts_with(path.as_path()));
    failures.extend(made.into_iter().filter_map(|path| deeds::remove(path).err()));
    failures.extend(services::reload().err());
    failures.extend(remove_runtime());
    if failures.is_empty() {
        failures.extend(last.into_iter().filter_map(|path| deeds::remove(path).err()));
    }
    failures
}

/// Removes all data: VMs, images, kernels, caches, settings of the system. Everything is tried; what failed.
pub fn purge() -> Vec<SystemError> {
    let removed =
        purged().into_iter().map(|path| remove_data(&path).map_err(failed(format!("remove {}", path.display()))));
    removed.filter_map(Result::err).collect()
}

/// A filesystem that is mounted there is emptied, and so is what a link leads to: both are the administrator's.
fn remove_data(path: &Path) -> io::Result<()> {
    let is_link = path.is_symlink();
    if !is_link && !is_mounted(path)? {
        return remove_tree(path);
    }
    for entry in std::fs::read_dir(path)? {
        remove_tree(&entry?.path())?;
    }
    if is_link { remove_file(path) } else { Ok(()) }
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    let above = path.parent().map(std::fs::metadata).transpose()?;
    Ok(above.is_some_and(|above| std::fs::metadata(path).is_ok_and(|about| about.dev() != above.dev())))
}

/// All that [`purge`] removes, where it is there.
pub fn purged() -> Vec<PathBuf> {
    let settings = Path::new(INSTALL_FILE).parent().map(Path::to_owned);
    data().into_iter().chain([PathBuf::from(ROOTS_CACHE)]).chain(settings).filter(|path| path.exists()).collect()
}

/// Where data is kept when an installation goes.
pub fn data() -> Vec<PathBuf> {
    let paths = system_paths();
    vec![paths.state, paths.root_state, paths.cache]
}

/// Where things lie in a system install, whether there is one or not.
pub fn system_paths() -> Paths {
    Paths::new(&Environment { installed: true, ..Environment::default() })
}

/// Where the binary is to be run from: a package's stays where it is.
pub fn place_of(running: &Path) -> PathBuf {
    if running == Path::new(PACKAGED) { running.to_owned() } else { BINARY.into() }
}

/// Everything is tried; what failed.
fn remove_runtime() -> Vec<SystemError> {
    let paths = system_paths();
    let remove = |folder: &PathBuf| remove_tree(folder).map_err(failed(format!("remove {}", folder.display())));
    let mut failures: Vec<SystemError> =
        [&paths.run, &paths.root_run].into_iter().filter_map(|f| remove(f).err()).collect();
    // The rule first, then its folder, if that was for it alone.
    let rule = Path::new(UDEV_RULE);
    failures.extend([Some(rule), rule.parent()].into_iter().flatten().filter_map(|path| deeds::remove(path).err()));
    failures
}

fn check(wish: &Wish, found: Option<&InstallRecord>) -> Result<(), SystemError> {
    if let Some(other) = found.filter(|record| record.uid != wish.owner.uid) {
        return Err(SystemError::OtherOwner { installed: other.owner.clone() });
    }
    if let Some(path) = plan(wish, found).iter().find_map(|deed| in_the_way(deed, found)) {
        return Err(SystemError::InTheWay { path });
    }
    let paths = system_paths();
    for path in [paths.state, paths.cache] {
        match path.metadata() {
            Ok(about) if about.uid() != wish.owner.uid => {
                return Err(SystemError::OthersData { path, uid: about.uid() });
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(format!("look at {}", path.display()))(e)),
        }
    }
    Ok(())
}

/// A link or a unit in the place of one, that no installation has made. A binary may have been copied there by hand.
fn in_the_way(deed: &Deed, found: Option<&InstallRecord>) -> Option<PathBuf> {
    let is_right = matches!(deed, Deed::Folder(_) | Deed::Program(_)) || is_left(deed);
    let is_made = found.is_some_and(|record| is_in(&record.made, deed.path()));
    let is_there = deed.path().symlink_metadata().is_ok() && deed.path() != Path::new(INSTALL_FILE);
    (is_there && !is_right && !is_made).then(|| deed.path().to_owned())
}

/// One of this or an earlier version, perhaps of an installation whose record is lost.
fn is_our_unit(path: &Path) -> bool {
    begins_with(path, units::HEADER)
}

fn begins_with(path: &Path, header: &str) -> bool {
    read_limited(path, MOST_FILE).is_ok_and(|there| there.starts_with(header.as_bytes()))
}

/// Whether units are there that an installation has written.
pub fn has_left_units() -> bool {
    units::names().any(|path| is_our_unit(&path))
}

/// What the installation consists of, in the order in which it is made.
fn plan(wish: &Wish, found: Option<&InstallRecord>) -> Vec<Deed> {
    plan_below(Path::new("/"), wish, found)
}

fn plan_below(root: &Path, wish: &Wish, found: Option<&InstallRecord>) -> Vec<Deed> {
    let at = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let record_file = at(Path::new(INSTALL_FILE));
    let folder = record_file.parent().map(|folder| Deed::Folder(folder.to_owned()));
    let mut rest = Vec::new();
    if wish.binary != Path::new(PACKAGED) {
        rest.push(Deed::Program(at(&wish.binary)));
        let link = |name: &&str| Deed::Link { at: at(&wish.binary.with_file_name(name)), target: "banger".into() };
        rest.extend(LINKS.iter().map(link));
        rest.extend(completions(at));
    }
    let units = units::rendered(&wish.binary, &wish.owner);
    rest.extend(units.into_iter().map(|unit| Deed::File { path: at(&unit.path), text: unit.text }));
    let mut made = found.map(|record| record.made.clone()).unwrap_or_default();
    let all = folder.iter().map(Deed::path).chain([record_file.as_path()]).chain(rest.iter().map(Deed::path));
    let own: Vec<&Path> = rest.iter().filter(|deed| is_left(deed)).map(Deed::path).collect();
    let is_new = |path: &Path| path.symlink_metadata().is_err() || own.contains(&path);
    let new: Vec<PathBuf> = all.filter(|path| is_new(path) && !is_in(&made, path)).map(Path::to_owned).collect();
    made.extend(new);
    let record = InstallRecord {
        version: wish.version.clone(),
        commit: wish.commit.clone(),
        owner: wish.owner.name.clone(),
        uid: wish.owner.uid,
        binary: wish.binary.clone(),
        made,
    };
    // Written down before it is there.
    let record = Deed::File { path: record_file, text: record.text() };
    folder.into_iter().chain([record]).chain(rest).collect()
}

/// What has shells complete, each behind the folders that may be missing. A package brings its own.
fn completions(at: impl Fn(&Path) -> PathBuf) -> Vec<Deed> {
    let mut deeds: Vec<Deed> = Vec::new();
    for shell in Shell::ALL {
        let folders = shell.folders().into_iter().map(|folder| Deed::Folder(at(&folder)));
        let file = Deed::File { path: at(&shell.folder().join(shell.file())), text: shell.script("banger") };
        let missing: Vec<Deed> = folders.chain([file]).filter(|deed| !deeds.contains(deed)).collect();
        deeds.extend(missing);
    }
    deeds
}

/// What only an installation can have left.
fn is_left(deed: &Deed) -> bool {
    match deed {
        Deed::Link { at, target } => std::fs::read_link(at).is_ok_and(|there| there == *target),
        Deed::File { path, text } => is_our_unit(path) || begins_with(path, text.lines().next().unwrap_or_default()),
        Deed::Folder(_) | Deed::Program(_) => false,
    }
}

fn is_in(paths: &[PathBuf], path: &Path) -> bool {
    paths.iter().any(|known| known == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(binary: &str) -> Wish {
        let owner =
            Account { name: "alice".into(), uid: 1000, gid: 1000, home: "/home/alice".into(), shell: "/bin/sh".into() };
        Wish { owner, version: "1.2.3".into(), commit: "12345678".into(), binary: binary.into() }
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["etc/systemd/system", "usr/local/bin"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("made");
        }
        root
    }

    fn record_of(root: &Path) -> InstallRecord {
        InstallRecord::read(&root.join("etc/banger/install.toml")).expect("read").expect("there")
    }

    #[test]
    fn all_that_is_made_is_written_down_and_taken_away_again() {
        let root = root();
        let deeds = plan_below(root.path(), &wish(BINARY), None);
        Done::default().make(&deeds).expect("made");
        let record = record_of(root.path());
        assert_eq!((record.owner.as_str(), record.uid, record.binary.as_path()), ("alice", 1000, Path::new(BINARY)));
        assert_eq!(record.made.len(), 2 + 3 + 4 + 10, "{:?}", record.made);
        for path in record.made.iter().rev() {
            deeds::remove(path).expect("removed");
        }
        for folder in ["etc/systemd/system", "usr/local/bin"] {
            assert_eq!(std::fs::read_dir(root.path().join(folder)).expect("listed").count(), 0, "{folder}");
        }
        for folder in ["etc/banger", "etc/fish", "usr/local/share"] {
            assert!(!root.path().join(folder).exists(), "{folder}");
        }
    }

    #[test]
    fn what_was_there_before_stays_when_it_is_taken_away() {
        let root = root();
        std::fs::create_dir(root.path().join("etc/banger")).expect("made");
        std::fs::copy("/proc/self/exe", root.path().join("usr/local/bin/banger")).expect("copied");
        Done::default().make(&plan_below(root.path(), &wish(BINARY), None)).expect("made");
        let record = record_of(root.path());
        let made = |name: &str| record.made.contains(&root.path().join(name));
        assert!(!made("etc/banger") && !made("usr/local/bin/banger") && made("usr/local/bin/bangerd"));
    }

    #[test]
    fn a_second_installation_remembers_what_the_first_has_made() {
        let root = root();
        Done::default().make(&plan_below(root.path(), &wish(BINARY), None)).expect("made");
        let first = record_of(root.path());
        let mut newer = wish(BINARY);
        newer.version = "1.3.0".into();
        let mut done = Done::default();
        done.make(&plan_below(root.path(), &newer, Some(&first))).expect("made");
        assert!(done.has_changed());
        let second = record_of(root.path());
        assert_eq!((second.made, second.version.as_str()), (first.made, "1.3.0"));
    }

    #[test]
    fn a_packages_binary_is_left_where_it_is() {
        assert_eq!(place_of(Path::new(PACKAGED)), Path::new(PACKAGED));
        assert_eq!(place_of(Path::new("/home/alice/banger")), Path::new(BINARY));
        let deeds = plan_below(Path::new("/nowhere"), &wish(PACKAGED), None);
        assert!(deeds.iter().all(|deed| matches!(deed, Deed::File { .. } | Deed::Folder(_))), "{deeds:?}");
    }

    #[test]
    fn what_somebody_else_has_put_there_is_not_replaced() {
        let root = root();
        let unit = root.path().join("etc/systemd/system/bangerd.service");
        std::fs::write(&unit, "[Service]\n").expect("written");
        let link = root.path().join("usr/local/bin/bangerd");
        std::os::unix::fs::symlink("other", &link).expect("laid");
        let deeds = plan_below(root.path(), &wish(BINARY), None);
        let in_the_way: Vec<_> = deeds.iter().filter_map(|deed| in_the_way(deed, None)).collect();
        assert_eq!(in_the_way, [link, unit]);
    }

    #[test]
    fn units_of_an_installation_whose_record_is_lost_are_taken_over() {
        let root = root();
        Done::default().make(&plan_below(root.path(), &wish(BINARY), None)).expect("made");
        let first = record_of(root.path());
        std::fs::remove_file(root.path().join("etc/banger/install.toml")).expect("lost");
        let unit = root.path().join("etc/systemd/system/bangerd.service");
        std::fs::write(&unit, format!("{}: of v0.0.9\n[Service]\n", units::HEADER)).expect("written");
        let deeds = plan_below(root.path(), &wish(BINARY), None);
        assert_eq!(deeds.iter().find_map(|deed| in_the_way(deed, None)), None);
        Done::default().make(&deeds).expect("made");
        // A binary and a folder may be somebody else's by now.
        let may_be_anothers = |path: &PathBuf| path.is_dir() || path.ends_with("usr/local/bin/banger");
        let expected: Vec<_> = first.made.into_iter().filter(|path| !may_be_anothers(path)).collect();
        assert_eq!(record_of(root.path()).made, expected);
    }

    #[test]
    fn what_an_administrator_has_put_in_the_place_of_data_is_emptied_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (real, link) = (folder.path().join("disk"), folder.path().join("banger"));
        std::fs::create_dir_all(real.join("vms/deep")).expect("made");
        std::fs::write(real.join("store"), "").expect("written");
        std::os::unix::fs::symlink(&real, &link).expect("laid");
        remove_data(&link).expect("removed");
        assert!(!link.is_symlink() && std::fs::read_dir(&real).expect("listed").next().is_none());
        remove_data(&real).expect("removed");
        assert!(!real.exists());
        assert!(is_mounted(Path::new("/proc")).expect("told"));
    }

    #[test]
    fn a_second_owner_is_refused() {
        let record = InstallRecord {
            version: "1".into(),
            commit: "1".into(),
            owner: "bob".into(),
            uid: 1001,
            binary: BINARY.into(),
            made: vec![],
        };
        let refused = check(&wish(BINARY), Some(&record));
        assert!(matches!(refused, Err(SystemError::OtherOwner { installed }) if installed == "bob"));
    }
}
