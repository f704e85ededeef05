//! A host that systemd runs: systemd-nspawn(1) boots one from Debian's packages, helper and daemon are its
//! services.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger::os::checksum::fnv1a;

use crate::base::{cache, outside};
use crate::command::Run;
use crate::fake::on_the_fake_monitor;
use crate::runner::skip;
use crate::world::World;

/// What the root is made of, beside the smallest Debian.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,nftables,iproute2,procps,ca-certificates,systemd-resolved";

/// What VMs on QEMU need beside that, and those who use them.
const FOR_QEMU: &str = "qemu-system-x86,openssh-client,git,kmod,passwd,util-linux";

/// Boots `$1` with the folder `$2` in it. A host with mixed hierarchies shows its unified one there.
const BOOT: &str = r#"
mount --make-rprivate /
[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$4"
echo $$ >"/sys/fs/cgroup/$4/cgroup.procs"
exec systemd-nspawn --boot --quiet --directory="$1" --volatile=overlay --machine="$4" --register=no --keep-unit \
    --private-network --capability=all --console=pipe --link-journal=no --bind="$2" --bind-ro="$3" \
    --bind=/dev/net/tun
"#;

/// The world of a container on the fake monitor, where one can be booted.
pub fn world_of(world: &World) -> World {
    can_be_booted();
    on_the_fake_monitor(world)
}

/// Skips the scenario where no container can be booted.
pub fn can_be_booted() {
    if Command::new("systemd-nspawn").arg("--version").stdout(Stdio::null()).status().is_err() {
        skip("systemd-nspawn is missing: apt-get install systemd-container");
    }
    if !Path::new("/dev/net/tun").exists() {
        skip("there is no /dev/net/tun");
    }
}

/// A small Debian with systemd, made once.
fn root(world: &World, packages: &str) -> PathBuf {
    // Another list makes another root.
    let include = format!("--include={packages}");
    let name = format!("systemd-root-{:08x}", fnv1a(include.as_bytes()) as u32);
    let (root, made) = (cache().join(&name), cache().join(format!("{name}.made")));
    if made.exists() {
        return root;
    }
    if root.exists() {
        std::fs::remove_dir_all(&root).expect("half a root can be removed");
    }
    std::fs::create_dir_all(cache()).expect("the cache's folder can be created");
    let path = root.to_str().expect("a plain path");
    let arguments = ["mmdebstrap", "--quiet", "--variant=minbase", &include, "bookworm", path];
    outside(world, &arguments).limit(400).output().ok();
    std::fs::write(made, "").expect("the mark can be written");
    root
}

/// A VM as `vm list --json` shows it.
pub struct Seen {
    /// Its id.
    pub id: String,
    /// Its monitor.
    pub pid: i64,
    /// Its address.
    pub address: String,
}

/// What runs in the container, and how to run more in it.
pub struct Host<'w> {
    world: &'w World,
    container: Child,
    leader: i32,
    name: String,
}

impl<'w> Host<'w> {
    /// Boots one, with helper and daemon running.
    pub fn boot(world: &'w World) -> Self {
        let host = Self::boot_root(world, &root(world, PACKAGES));
        host.install_services();
        host
    }

    /// Boots one in which banger is not installed, and VMs on QEMU can be.
    pub fn boot_without_banger(world: &'w World) -> Self {
        Self::boot_root(world, &root(world, &format!("{PACKAGES},{FOR_QEMU}")))
    }

    fn boot_root(world: &'w World, root: &Path) -> Self {
        let name = format!("banger-smoke-{}", std::process::id());
        let container = Command::new("setpriv")
            // What is left of a scenario that was killed would live on: it ends with the first process
            // of a pid namespace, which ends with the one that this process waits for.
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-ec", BOOT, "sh"])
            .args([root, world.folder(), world.binary()])
            .arg(&name)
            .stdin(Stdio::null())
            .spawn()
            .expect("setpriv starts");
        let mut host = Self { world, container, leader: 0, name };
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            host.leader = host.find_leader().unwrap_or(0);
            let state = match host.leader {
                0 => "no leader".to_owned(),
                _ => host.run("systemctl", &["is-system-running"]).output().text(),
            };
            // `degraded`: a service of the distribution's own that a container lacks something for.
            if state == "running" || state == "degraded" {
                return host;
            }
            assert!(Instant::now() < deadline, "systemd does not come up: {state}");
            // Another process's progress: no event tells.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The first process of the container, a child of systemd-nspawn, which is unshare's.
    fn find_leader(&self) -> Option<i32> {
        let child = |pid: i32| -> Option<i32> {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
            children.split_ascii_whitespace().next()?.parse().ok()
        };
        let leader = child(child(self.container.id() as i32)?)?;
        let command = std::fs::read_to_string(format!("/proc/{leader}/cmdline")).ok()?;
        command.contains("systemd\0").then_some(leader)
    }

    /// A program in it.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Run {
        let leader = self.leader.to_string();
        let mut all = vec!["--target", &leader, "--all", "--wd=/", program];
        all.extend(arguments);
        self.world.tool("nsenter", &all)
    }

    /// The binary under test, which is there at the same place.
    pub fn binary(&self) -> &Path {
        self.world.binary()
    }

    /// The world's folder, which is there at the same place.
    pub fn world_folder(&self) -> &Path {
        self.world.folder()
    }

    /// `banger ARGUMENTS` in it.
    pub fn banger(&self, arguments: &[&str]) -> Run {
        self.run(self.world.binary().to_str().expect("a plain path"), arguments)
    }

    fn install_services(&self) {
        let units = [("bangerd-root", "bangerd-root --owner 0"), ("bangerd", "bangerd")];
        for (name, arguments) in units {
            let unit = format!(
                "[Unit]\nDescription={name}\n[Service]\nExecStart={} --as {arguments}\n\
                 Environment=BANGER_HOME={} BANGER_VMM=fake BANGER_FAKE_VMM=1 HOME={}\nRestart=no\n",
                self.world.binary().display(),
                self.world.home().display(),
                self.world.person().display()
            );
            let path = format!("/run/systemd/system/{name}.service");
            self.run("sh", &["-ec", "cat >\"$1\"", "sh", &path]).input(unit).output().ok();
        }
        self.run("systemctl", &["daemon-reload"]).output().ok();
        self.run("systemctl", &["start", "bangerd-root", "bangerd"]).output().ok();
        self.wait_for_sockets();
    }

    /// Waits until both services answer.
    pub fn wait_for_sockets(&self) {
        let sockets = ["root-run/bangerd-root.sock", "run/bangerd.sock"].map(|s| self.world.home().join(s));
        let deadline = Instant::now() + Duration::from_secs(20);
        let answers = |path: &PathBuf| std::os::unix::net::UnixStream::connect(path).is_ok();
        while !sockets.iter().all(answers) {
            assert!(Instant::now() < deadline, "the services do not listen");
            // Started by systemd: no event tells.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The installation's number.
    pub fn installation(&self) -> String {
        let path = self.world.home().join("root-run/installation");
        std::fs::read_to_string(path).expect("an installation's number").trim_end().to_owned()
    }

    /// Asked inside: for the daemon, this process would be one of unknown origin.
    pub fn vm(&self, name: &str) -> Seen {
        let listed = self.banger(&["vm", "list", "--all", "--json"]).output().ok().json();
        let vm = listed.as_array().expect("an array").iter().find(|vm| vm["name"] == name).expect("it is listed");
        let id = vm["id"].as_str().expect("an id").to_owned();
        let address = vm["address"].as_str().expect("it runs").to_owned();
        Seen { id, pid: vm["pid"].as_i64().expect("it runs"), address }
    }

    /// What systemd says of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run("systemctl", &["show", "--value", "--property", name, unit]).output().ok().text()
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && self.leader != 0 {
            let log = self.run("journalctl", &["--no-pager", "--lines=60"]).output().text();
            println!("{log}");
        }
        // Its end is that of the pid namespace.
        let _ = self.container.kill();
        let _ = self.container.wait();
        let leader = PathBuf::from(format!("/proc/{}", self.leader));
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.leader != 0 && leader.exists() && Instant::now() < deadline {
            // Not a child of this process: no event tells.
            std::thread::sleep(Duration::from_millis(50));
        }
        remove_groups(&self.name);
    }
}

/// Removes the cgroups that were the container's, the innermost first, once nothing is in them.
fn remove_groups(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut groups = Vec::new();
        crate::census::walk(Path::new("/sys/fs/cgroup"), &mut |path, is_folder| {
            if is_folder && path.iter().any(|part| part == name) {
                groups.push(path.to_owned());
            }
        });
        let left = groups.iter().rev().filter(|group| std::fs::remove_dir(group).is_err()).count();
        if left == 0 || Instant::now() > deadline {
            return;
        }
        // The last processes are still ending: no event tells for all of them.
        std::thread::sleep(Duration::from_millis(50));
    }
}
