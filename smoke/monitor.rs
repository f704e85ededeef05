//! Who a monitor is and what it may: shown from its `/proc`, and by trying.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::exec::BOOT;
use crate::world::World;

/// A uid of its own, no capability, seccomp, nothing of the owner's readable, nothing of its neighbour's.
pub fn is_confined(world: &World) {
    world.start();
    let secret = world.person().join("secret");
    std::fs::write(&secret, "the owner's").expect("the secret is written");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("the secret is private");
    let create = |name| world.banger(&["vm", "create", "--name", name]).limit(BOOT).spawn();
    for creating in [create("one"), create("two")] {
        creating.wait().ok();
    }
    let monitors = ["one", "two"].map(|name| Monitor::of(world, name));
    assert_ne!(monitors[0].uid, monitors[1].uid, "each VM has a uid of its own");
    for (monitor, other) in [(&monitors[0], &monitors[1]), (&monitors[1], &monitors[0])] {
        monitor.has_no_power();
        monitor.holds_only_its_own_files(world, other);
        monitor.does_not_see(&secret);
        monitor.cannot(world, &["cat", &secret.display().to_string()]);
        monitor.cannot(world, &["ls", &world.home().join("state").display().to_string()]);
        monitor.cannot(world, &["kill", "-0", &other.pid.to_string()]);
        assert!(monitor.cgroup().contains(&monitor.id), "its cgroup is not its own: {}", monitor.cgroup());
    }
}

struct Monitor {
    id: String,
    pid: i32,
    uid: u32,
    gid: u32,
}

impl Monitor {
    fn of(world: &World, name: &str) -> Self {
        let record = world.owner().vm(name);
        let pid = record.process.expect("it runs").pid;
        let mut monitor = Self { id: record.id.to_string(), pid, uid: 0, gid: 0 };
        monitor.uid = monitor.only_number("Uid");
        monitor.gid = monitor.only_number("Gid");
        monitor
    }

    /// A field of `/proc/PID/status` (proc(5)).
    fn status(&self, field: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("its status");
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{field}:")));
        line.unwrap_or_else(|| panic!("no {field} in its status")).trim().to_owned()
    }

    /// Real, effective, saved and file system id, which must be one and not root's.
    fn only_number(&self, field: &str) -> u32 {
        let text = self.status(field);
        let numbers: BTreeSet<u32> = text.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        assert!(numbers.len() == 1 && !numbers.contains(&0), "{field} of the monitor: {text}");
        numbers.into_iter().next().expect("one number")
    }

    fn has_no_power(&self) {
        for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(self.status(field), "0000000000000000", "{field}");
        }
        assert_eq!(self.status("NoNewPrivs"), "1");
        assert_eq!(self.status("Seccomp"), "2");
        assert_eq!(self.status("Groups"), "", "it keeps supplementary groups");
    }

    fn holds_only_its_own_files(&self, world: &World, other: &Self) {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("its descriptors");
        let open: Vec<PathBuf> = folder.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
        for path in open.iter().filter(|p| p.starts_with(world.folder())) {
            let text = path.to_string_lossy();
            let own = text.contains(&self.id) && !text.contains("ed25519");
            let shared = text.contains("/state/images/") || text.contains("/state/kernels/");
            assert!((own || shared) && !text.contains(&other.id), "the monitor holds {text}");
        }
    }

    fn cgroup(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).expect("its cgroup")
    }

    /// Root looks with this monitor's eyes: there is a `/proc`, and no `path`.
    fn does_not_see(&self, path: &Path) {
        let seen = |path: &Path| Path::new(&format!("/proc/{}/root{}", self.pid, path.display())).exists();
        assert!(seen(Path::new("/proc")), "its root cannot be looked at");
        assert!(path.exists() && !seen(path), "it sees {}", path.display());
    }

    /// Tries `command`, which root can, as this monitor's uid: it must fail.
    fn cannot(&self, world: &World, command: &[&str]) {
        world.tool(command[0], &command[1..]).output().ok();
        let (uid, gid) = (self.uid.to_string(), self.gid.to_string());
        let attempt = |command: &[&str]| {
            let become_it = ["--reuid", &uid, "--regid", &gid, "--clear-groups"];
            world.tool("setpriv", &[&become_it, command].concat()).output()
        };
        attempt(&["true"]).ok();
        let tried = attempt(command);
        assert_ne!(tried.code, 0, "uid {uid} can {command:?}");
    }
}
