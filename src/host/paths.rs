//! Where things lie: system install, `BANGER_HOME`, or the XDG directories.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::install::INSTALL_FILE;
use crate::model::ImageName;

/// Root's cache, where an installation is another's.
pub const ROOTS_CACHE: &str = "/var/cache/banger-root";

/// What all users of this host can pull.
const SYSTEM_CATALOGUE: &str = "/etc/banger/catalogue.toml";

/// The folders and sockets of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Store, images, kernels, VMs. The owner's, 0700.
    pub state: PathBuf,
    /// What can be made again, 0700. The owner's; another's who uses this installation, such as root, is his own.
    pub cache: PathBuf,
    /// The daemon's socket, lock and log. The owner's, 0700.
    pub run: PathBuf,
    /// The helper's socket, ledger and log. Root's, 0755.
    pub root_run: PathBuf,
    /// The disks that the helper keeps. Root's, 0700.
    pub root_state: PathBuf,
    /// The user's settings.
    pub config: PathBuf,
    /// What can be pulled beside what the binary knows: the system's file, then the user's, which wins. Each may be
    /// missing.
    pub catalogues: Vec<PathBuf>,
}

/// The variables that decide.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `BANGER_HOME`.
    pub banger_home: Option<PathBuf>,
    /// `BANGER_CONFIG`.
    pub banger_config: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub xdg_state: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub xdg_cache: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime: Option<PathBuf>,
    /// Effective uid of the owner.
    pub uid: u32,
    /// Whether there is a system install.
    pub installed: bool,
}

impl Environment {
    /// This process's.
    pub fn current() -> Self {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        // banger's own are paths like any other that somebody types; relative ones of XDG are to be ignored
        // (XDG Base Directory Specification).
        let own = |name: &str| std::env::var_os(name).and_then(|path| std::path::absolute(path).ok());
        let uid = rustix::process::geteuid().as_raw();
        Self {
            banger_home: own("BANGER_HOME"),
            banger_config: own("BANGER_CONFIG"),
            home: path("HOME").or_else(|| crate::os::accounts::of_uid(uid).map(|a| a.home)),
            xdg_state: path("XDG_STATE_HOME"),
            xdg_cache: path("XDG_CACHE_HOME"),
            xdg_config: path("XDG_CONFIG_HOME"),
            xdg_runtime: path("XDG_RUNTIME_DIR"),
            uid,
            installed: Path::new(INSTALL_FILE).exists(),
        }
    }

    /// banger's own variables, for a process that begins in another folder.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [("BANGER_HOME", &self.banger_home), ("BANGER_CONFIG", &self.banger_config)]
            .into_iter()
            .filter_map(|(name, path)| Some((name, path.as_deref()?)))
    }

    /// Whether what it leads to is the system's installation.
    pub fn is_system(&self) -> bool {
        self.installed && self.banger_home.is_none()
    }

    /// Of another account, as `daemon start --owner` needs it: only `BANGER_HOME` is inherited.
    pub fn of_account(account: &crate::os::accounts::Account) -> Self {
        let own = Self::current();
        if account.uid == own.uid {
            return own;
        }
        Self {
            banger_home: own.banger_home,
            home: Some(account.home.clone()),
            xdg_runtime: Some(PathBuf::from(format!("/run/user/{}", account.uid))).filter(|p| p.is_dir()),
            uid: account.uid,
            installed: own.installed,
            ..Self::default()
        }
    }
}

impl Paths {
    /// The paths that `environment` leads to.
    pub fn new(environment: &Environment) -> Self {
        let e = environment;
        let home = e.home.clone().unwrap_or_else(|| PathBuf::from("/"));
        let config = e.banger_config.clone();
        if let Some(base) = &e.banger_home {
            return Self {
                state: base.join("state"),
                cache: base.join("cache"),
                run: base.join("run"),
                root_run: base.join("root-run"),
                root_state: base.join("root-state"),
                catalogues: vec![base.join("catalogue.toml")],
                config: config.unwrap_or_else(|| base.join("config.toml")),
            };
        }
        let settings = e.xdg_config.clone().unwrap_or_else(|| home.join(".config")).join("banger");
        let config = config.unwrap_or_else(|| settings.join("config.toml"));
        let catalogues = vec![SYSTEM_CATALOGUE.into(), config.with_file_name("catalogue.toml")];
        if e.installed {
            return Self {
                state: "/var/lib/banger".into(),
                cache: "/var/cache/banger".into(),
                run: "/run/banger".into(),
                root_run: "/run/bangerd-root".into(),
                root_state: "/var/lib/bangerd-root".into(),
                config,
                catalogues,
            };
        }
        let run = match (&e.xdg_runtime, e.uid) {
            (_, 0) => "/run/banger".into(),
            (Some(runtime), _) => runtime.join("banger"),
            (None, _) => home.join(".local/state/banger/run"),
        };
        let roots_own = |folder: &str| match e.uid {
            0 => PathBuf::from(folder),
            uid => PathBuf::from(format!("{folder}-{uid}")),
        };
        Self {
            state: e.xdg_state.clone().unwrap_or_else(|| home.join(".local/state")).join("banger"),
            cache: e.xdg_cache.clone().unwrap_or_else(|| home.join(".cache")).join("banger"),
            run,
            root_run: roots_own("/run/bangerd-root"),
            root_state: roots_own("/var/lib/bangerd-root"),
            config,
            catalogues,
        }
    }

    /// This process's.
    pub fn current() -> Self {
        let environment = Environment::current();
        let mut paths = Self::new(&environment);
        // What root writes into a folder of the owner's, the owner can neither use nor remove; and the owner decides
        // where links in it lead.
        if is_of_another(&paths.cache, environment.uid) {
            paths.cache = own_cache(&environment);
        }
        paths
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("bangerd.sock")
    }

    /// Held while somebody starts the daemon, so that it is started once.
    pub fn start_lock(&self) -> PathBuf {
        self.run.join("start.lock")
    }

    /// The daemon's log where there is no journal.
    pub fn log(&self) -> PathBuf {
        self.run.join("bangerd.log")
    }

    /// The helper's socket.
    pub fn root_socket(&self) -> PathBuf {
        self.root_run.join("bangerd-root.sock")
    }

    /// Held by the daemon for as long as it lives.
    pub fn daemon_lock(&self) -> PathBuf {
        self.run.join("bangerd.lock")
    }

    /// The helper's log where there is no journal.
    pub fn root_log(&self) -> PathBuf {
        self.root_run.join("bangerd-root.log")
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.state.join("banger.redb")
    }

    /// Host keys of the VMs, for the user's own ssh; never the user's file.
    pub fn known_hosts(&self) -> PathBuf {
        self.state.join("known_hosts")
    }

    /// Images: `NAME.ext4`.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// The file of one image.
    pub fn image(&self, name: &ImageName) -> PathBuf {
        self.images().join(format!("{name}.ext4"))
    }

    /// Kernels: a folder each.
    pub fn kernels(&self) -> PathBuf {
        self.state.join("kernels")
    }

    /// VMs: a folder each, named by id.
    pub fn vms(&self) -> PathBuf {
        self.state.join("vms")
    }
}

/// Whether `path`, or where it is not there the folder that it would be made in, belongs to somebody else than `uid`.
/// Folders above that are root's are everybody's.
fn is_of_another(path: &Path, uid: u32) -> bool {
    let there = path.ancestors().find_map(|at| Some((at, at.symlink_metadata().ok()?.uid())));
    there.is_some_and(|(at, owner)| owner != uid && (at == path || owner != 0))
}

/// A cache that depends on nobody else.
fn own_cache(environment: &Environment) -> PathBuf {
    let home = || environment.home.clone().unwrap_or_else(|| PathBuf::from("/")).join(".cache");
    match environment.uid {
        0 => ROOTS_CACHE.into(),
        _ => environment.xdg_cache.clone().unwrap_or_else(home).join("banger"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banger_home_moves_everything() {
        let e = Environment { banger_home: Some("/h".into()), uid: 1000, installed: true, ..Default::default() };
        let p = Paths::new(&e);
        let folders = [&p.state, &p.cache, &p.run, &p.root_run, &p.root_state, &p.config];
        for path in folders.into_iter().chain(&p.catalogues) {
            assert!(path.starts_with("/h"), "{}", path.display());
        }
    }

    #[test]
    fn a_cache_of_somebody_else_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let (uid, there) = (rustix::process::geteuid().as_raw(), folder.path().join("cache"));
        std::fs::create_dir(&there).expect("made");
        assert!(!is_of_another(&there, uid) && !is_of_another(&there.join("not/there"), uid));
        assert!(is_of_another(&there, uid + 1));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/", &link).expect("laid");
        assert!(is_of_another(&link, uid + 1), "a link's owner, not that of what it leads to");
        assert!(!is_of_another(Path::new("/not-there/cache"), uid), "root's folder above");
        let e = Environment { home: Some("/home/u".into()), ..Default::default() };
        assert_eq!(own_cache(&e), Path::new("/var/cache/banger-root"));
        assert_eq!(own_cache(&Environment { uid: 1000, ..e }), Path::new("/home/u/.cache/banger"));
    }

    #[test]
    fn the_users_catalogue_lies_beside_the_settings_and_comes_last() {
        let e = Environment { home: Some("/home/u".into()), uid: 1000, ..Default::default() };
        let files = |e: &Environment| Paths::new(e).catalogues;
        let system = PathBuf::from(SYSTEM_CATALOGUE);
        assert_eq!(files(&e), [system.clone(), "/home/u/.config/banger/catalogue.toml".into()]);
        let e = Environment { banger_config: Some("/x/my.toml".into()), installed: true, ..e };
        assert_eq!(files(&e), [system, "/x/catalogue.toml".into()]);
    }

    #[test]
    fn runtime_directories_of_daemon_and_helper_are_apart() {
        for (uid, installed) in [(0, false), (0, true), (1000, false), (1000, true)] {
            let home = Some(PathBuf::from("/home/u"));
            let p = Paths::new(&Environment { uid, installed, home, ..Default::default() });
            assert!(!p.root_run.starts_with(&p.run) && !p.run.starts_with(&p.root_run));
        }
    }
}
