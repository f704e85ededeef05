//! On a host that systemd runs: systemd-nspawn(1) boots one from Debian's packages, helper and daemon
//! are its services, and each VM is in a scope that systemd made.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::base::{cache, outside};
use crate::command::Run;
use crate::fake::on_the_fake_monitor;
use crate::runner::skip;
use crate::world::World;

/// What the root is made of, beside the smallest Debian.
const PACKAGES: &str = "--include=systemd,systemd-sysv,dbus,nftables,iproute2,procps,ca-certificates";

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

/// Every VM is in a scope; nothing that systemd does to the services or to itself ends it; its
/// deletion leaves none.
pub fn systemd_scopes(world: &World) {
    if Command::new("systemd-nspawn").arg("--version").stdout(Stdio::null()).status().is_err() {
        skip("systemd-nspawn is missing: apt-get install systemd-container");
    }
    if !Path::new("/dev/net/tun").exists() {
        skip("there is no /dev/net/tun");
    }
    let world = &on_the_fake_monitor(world);
    let host = Host::boot(world, &root(world));
    host.install_services();
    host.banger(&["vm", "create", "--name", "box"]).limit(60).output().ok();
    let scope = format!("banger-{}-{}.scope", host.installation(), host.vm("box").id);
    host.has_limits(&scope);
    let member = host.monitor("box", &scope);
    for (what, command) in DISTURBANCES {
        let began = Instant::now();
        host.run("sh", &["-ec", command]).limit(60).output().ok();
        host.wait_for_sockets();
        assert_eq!(host.monitor("box", &scope), member, "{what} harmed the VM");
        println!(
            "| systemd | {what} | the VM's process lives, its scope is active | {:.1} s |",
            began.elapsed().as_secs_f32()
        );
    }
    let stats = host.banger(&["vm", "stats", "box", "--json"]).output().ok().text();
    println!("| systemd | `vm stats` | {} |", stats.replace(['\n', '|'], " "));
    assert!(stats.contains("\"cgroup\"") || !host.has_controllers(), "stats do not come from the scope: {stats}");
    host.banger(&["vm", "restart", "box"]).limit(60).output().ok();
    host.monitor("box", &scope);
    host.banger(&["vm", "delete", "box"]).output().ok();
    host.has_no_scope();
    without_an_answer(&host);
    host.has_no_scope();
    println!("| systemd | `vm delete` | no scope, no cgroup, no process |");
}

const DISTURBANCES: [(&str, &str); 5] = [
    ("`systemctl daemon-reexec`", "systemctl daemon-reexec"),
    ("`systemctl restart` of the helper's service", "systemctl restart bangerd-root"),
    ("`systemctl restart` of the daemon's service", "systemctl restart bangerd"),
    ("kill -9 of the helper", "systemctl kill -s KILL bangerd-root && sleep 1 && systemctl restart bangerd-root"),
    ("stop of both, and a start", "systemctl stop bangerd bangerd-root && systemctl start bangerd-root bangerd"),
];

/// Where systemd cannot be asked the VM gets a plain group, the log says so, and it goes as well.
fn without_an_answer(host: &Host<'_>) {
    host.run("mv", &["/run/systemd/private", "/run/systemd/elsewhere"]).output().ok();
    host.banger(&["vm", "create", "--name", "plain"]).limit(60).output().ok();
    let vm = host.vm("plain");
    let memberships = host.memberships(vm.pid);
    let group = format!("/banger/{}/{}", host.installation(), vm.id);
    assert!(memberships.contains(&group), "it is not in {group}: {memberships}");
    let log = host.run("journalctl", &["--no-pager", "--unit=bangerd-root"]).output().ok().text();
    assert!(log.contains("it gets a plain cgroup"), "the helper's log does not say it");
    host.banger(&["vm", "delete", "plain"]).output().ok();
    host.run("mv", &["/run/systemd/elsewhere", "/run/systemd/private"]).output().ok();
    let left = host.run("sh", &["-c", "ls -d /sys/fs/cgroup/banger/*/*/ 2>/dev/null; true"]).output().ok().text();
    assert_eq!(left, "", "a plain group was left");
    println!("| systemd | it cannot be asked | a plain cgroup and a warning |");
}

/// A small Debian with systemd, made once.
fn root(world: &World) -> PathBuf {
    let root = cache().join("systemd-root");
    let made = cache().join("systemd-root.made");
    if made.exists() {
        return root;
    }
    if root.exists() {
        std::fs::remove_dir_all(&root).expect("half a root can be removed");
    }
    std::fs::create_dir_all(cache()).expect("the cache's folder can be created");
    let path = root.to_str().expect("a plain path");
    let arguments = ["mmdebstrap", "--quiet", "--variant=minbase", PACKAGES, "bookworm", path];
    outside(world, &arguments).limit(400).output().ok();
    std::fs::write(made, "").expect("the mark can be written");
    root
}

/// A VM as `vm list --json` shows it.
struct Seen {
    id: String,
    pid: i64,
}

/// What runs in the container, and how to run more in it.
struct Host<'w> {
    world: &'w World,
    container: Child,
    leader: i32,
    name: String,
}

impl<'w> Host<'w> {
    fn boot(world: &'w World, root: &Path) -> Self {
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

    fn run(&self, program: &str, arguments: &[&str]) -> Run {
        let leader = self.leader.to_string();
        let mut all = vec!["--target", &leader, "--all", "--wd=/", program];
        all.extend(arguments);
        self.world.tool("nsenter", &all)
    }

    fn banger(&self, arguments: &[&str]) -> Run {
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

    fn wait_for_sockets(&self) {
        let sockets = ["root-run/bangerd-root.sock", "run/bangerd.sock"].map(|s| self.world.home().join(s));
        let deadline = Instant::now() + Duration::from_secs(20);
        let answers = |path: &PathBuf| std::os::unix::net::UnixStream::connect(path).is_ok();
        while !sockets.iter().all(answers) {
            assert!(Instant::now() < deadline, "the services do not listen");
            // Started by systemd: no event tells.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn installation(&self) -> String {
        let path = self.world.home().join("root-run/installation");
        std::fs::read_to_string(path).expect("an installation's number").trim_end().to_owned()
    }

    /// Asked inside: for the daemon, this process would be one of unknown origin.
    fn vm(&self, name: &str) -> Seen {
        let listed = self.banger(&["vm", "list", "--all", "--json"]).output().ok().json();
        let vm = listed.as_array().expect("an array").iter().find(|vm| vm["name"] == name).expect("it is listed");
        let id = vm["id"].as_str().expect("an id").to_owned();
        Seen { id, pid: vm["pid"].as_i64().expect("it runs") }
    }

    fn property(&self, unit: &str, name: &str) -> String {
        self.run("systemctl", &["show", "--value", "--property", name, unit]).output().ok().text()
    }

    fn has_limits(&self, scope: &str) {
        // The fake monitor's guest has 64 MiB and a CPU (`Launch::memory`, `Launch::vcpus`).
        let memory = ((64 + 512) << 20).to_string();
        let wanted = [
            ("ActiveState", "active"),
            ("Slice", "machine.slice"),
            ("MemoryMax", &memory),
            ("TasksMax", "256"),
            ("CPUQuotaPerSecUSec", "1.5"),
            ("Delegate", "no"),
            ("CollectMode", "inactive-or-failed"),
        ];
        for (property, value) in wanted {
            let seen = self.property(scope, property);
            // A span of time has as many zeros as the version likes.
            let zeros = seen.strip_prefix(value).map(|rest| rest.trim_matches('0'));
            assert!(zeros == Some("") || zeros == Some("s"), "{property} of {scope} is {seen}");
            println!("| systemd | {property} of the scope | {seen} |");
        }
        if self.has_controllers() {
            let file = format!("/sys/fs/cgroup/machine.slice/{scope}/memory.max");
            assert_eq!(self.run("cat", &[&file]).output().ok().text(), memory);
        }
    }

    /// Whether the unified hierarchy limits anything here: a mixed host's controllers are elsewhere.
    fn has_controllers(&self) -> bool {
        self.run("cat", &["/sys/fs/cgroup/cgroup.controllers"]).output().text().split(' ').any(|c| c == "memory")
    }

    fn memberships(&self, pid: i64) -> String {
        self.run("cat", &[&format!("/proc/{pid}/cgroup")]).output().ok().text()
    }

    /// The VM's process, which lives in its scope with what keeps its output: its pid and start time.
    fn monitor(&self, name: &str, scope: &str) -> String {
        let pid = self.vm(name).pid;
        let memberships = self.memberships(pid);
        assert!(memberships.contains(&format!("/machine.slice/{scope}")), "it is not in {scope}: {memberships}");
        assert_eq!(self.property(scope, "ActiveState"), "active");
        let members = self.run("cat", &[&format!("/sys/fs/cgroup/machine.slice/{scope}/cgroup.procs")]).output().ok();
        assert_eq!(members.text().lines().count(), 2, "monitor and console are in the scope: {}", members.text());
        // proc_pid_stat(5): the 22nd field; this program's name has no space.
        let start = self.run("cut", &["-d ", "-f1,22", &format!("/proc/{pid}/stat")]).output().ok();
        start.text()
    }

    fn has_no_scope(&self) {
        let listed = ["list-units", "--all", "--plain", "--no-legend", "banger-*"];
        assert_eq!(self.run("systemctl", &listed).output().ok().text(), "", "a scope was left");
        let groups = self.run("find", &["/sys/fs/cgroup", "-name", "banger-*"]).output().ok().text();
        assert_eq!(groups, "", "a cgroup was left");
        let monitors = self.run("pgrep", &["-f", "banger-fake-vmm|banger-console"]).output().text();
        assert_eq!(monitors, "", "a process was left");
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
