//! What one scenario lives in: a folder, a network namespace, and what is run there.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::census::{self, Census};
use crate::command::{Output, Run};
use crate::direct::Owner;
use crate::runner::indent;

/// Most lines shown of each log of a failed scenario.
const SHOWN_LINES: usize = 80;

/// A folder (`home` is `BANGER_HOME`, `person` is `HOME`) and a network namespace.
#[derive(Clone)]
pub struct World {
    folder: PathBuf,
    netns: String,
    banger: PathBuf,
    extra: Vec<(String, String)>,
}

impl World {
    /// Makes the world of scenario `name` below `stage`, which is `runner`'s.
    pub fn build(stage: &Path, runner: &str, name: &str, banger: &Path) -> Self {
        let number = std::fs::read_dir(stage).expect("the stage can be listed").count();
        let folder = stage.join(number.to_string());
        let netns = format!("bng-s-{runner}-{number}");
        for path in [folder.clone(), folder.join("home"), folder.join("person")] {
            std::fs::create_dir(&path).unwrap_or_else(|e| panic!("{name}: cannot create {}: {e}", path.display()));
        }
        for private in ["home", "person"] {
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(folder.join(private), mode).expect("the mode can be set");
        }
        let world = Self { folder, netns, banger: banger.to_owned(), extra: Vec::new() };
        world.tool("ip", &["netns", "add", &world.netns]).output().ok();
        world.tool("ip", &["-n", &world.netns, "link", "set", "lo", "up"]).output().ok();
        world
    }

    /// What a runner that was killed has left of world `number`.
    pub fn left_behind(stage: &Path, runner: &str, number: &str) -> Self {
        let netns = format!("bng-s-{runner}-{number}");
        Self { folder: stage.join(number), netns, banger: PathBuf::new(), extra: Vec::new() }
    }

    /// The world that this process was started in.
    pub fn inherited() -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the runner"));
        Self {
            folder: variable("SMOKE_WORLD").into(),
            netns: variable("SMOKE_NETNS"),
            banger: variable("SMOKE_BINARY").into(),
            extra: Vec::new(),
        }
    }

    /// What [`World::inherited`] reads.
    pub fn variables(&self) -> [(&'static str, &OsStr); 3] {
        [
            ("SMOKE_WORLD", self.folder.as_os_str()),
            ("SMOKE_NETNS", OsStr::new(&self.netns)),
            ("SMOKE_BINARY", self.banger.as_os_str()),
        ]
    }

    /// This world with a variable more for every command.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut world = self.clone();
        world.extra.push((name.into(), value.into()));
        world
    }

    /// This world with another `BANGER_HOME` and `HOME` below its folder, which must exist.
    pub fn moved_to(&self, folder: PathBuf) -> Self {
        Self { folder, ..self.clone() }
    }

    /// The folder of it all.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `BANGER_HOME`.
    pub fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// `HOME`.
    pub fn person(&self) -> PathBuf {
        self.folder.join("person")
    }

    /// Where the scenario's own output goes.
    pub fn output(&self) -> PathBuf {
        self.folder.join("scenario.log")
    }

    /// The network namespace's name.
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// The binary under test.
    pub fn binary(&self) -> &Path {
        &self.banger
    }

    /// `banger ARGUMENTS`.
    pub fn banger(&self, arguments: &[&str]) -> Run {
        self.tool(&self.banger, arguments)
    }

    /// A program with the environment of a person in this world, and nothing else of ours.
    pub fn tool(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Run {
        Run::new(self.command(program, arguments))
    }

    /// The same before anything is decided about its streams and its limit.
    pub fn command(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = with_arguments(program, arguments);
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("BANGER_HOME", self.home()).env("HOME", self.person()).env("LC_ALL", "C");
        command.envs(self.extra.iter().map(|(k, v)| (k, v))).current_dir(self.person());
        command
    }

    /// Starts daemon and helper.
    #[track_caller]
    pub fn start(&self) -> Output {
        self.banger(&["daemon", "start"]).output().ok()
    }

    /// Starts daemon and helper; what is there then, before the first VM: no bridge, no rule.
    #[track_caller]
    pub fn start_and_count(&self) -> Census {
        self.start();
        self.census()
    }

    /// `banger vm ssh NAME -- COMMAND`.
    pub fn guest(&self, name: &str, command: &[&str]) -> Run {
        let mut arguments = vec!["vm", "ssh", name, "--"];
        arguments.extend(command);
        self.banger(&arguments)
    }

    /// A conversation with the daemon.
    #[track_caller]
    pub fn owner(&self) -> Owner {
        Owner::connect(&self.home().join("run/bangerd.sock"))
    }

    /// What is there now.
    pub fn census(&self) -> Census {
        Census::take(self)
    }

    /// Kills whatever lives in this world.
    pub fn kill_all(&self) {
        let namespace = std::fs::metadata(Path::new("/run/netns").join(&self.netns)).ok();
        let inhabitants = || census::inhabitants(&self.folder, namespace.as_ref());
        for _ in 0..50 {
            let living = inhabitants();
            for process in &living {
                process.kill();
            }
            if living.is_empty() {
                return;
            }
        }
    }

    /// Removes the world; everything in it must be dead.
    pub fn remove(&self) {
        census::remove_cgroups_of(&self.home());
        if Path::new("/run/netns").join(&self.netns).exists() {
            Run::new(with_arguments("ip", &["netns", "del", &self.netns])).output().ok();
        }
        std::fs::remove_dir_all(&self.folder).expect("the world can be removed");
    }

    /// The serial logs of all VMs and the logs of both daemons.
    pub fn report(&self) -> String {
        let mut logs = vec![self.home().join("run/bangerd.log"), self.home().join("root-run/bangerd-root.log")];
        logs.extend(
            census::files_below(&self.home().join("state/vms"))
                .into_iter()
                .filter(|p| p.extension().is_some_and(|e| e == "log")),
        );
        logs.iter().map(|log| tail(log)).collect::<Vec<_>>().join("\n")
    }
}

fn with_arguments(program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn tail(log: &Path) -> String {
    let Ok(bytes) = std::fs::read(log) else {
        return format!("     no {}", log.display());
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    format!("     {} ({} lines):\n{}", log.display(), lines.len(), indent(&shown))
}
