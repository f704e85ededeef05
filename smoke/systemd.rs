//! On a host that systemd runs each VM is in a scope that systemd made.

use std::time::Instant;

use crate::container::{Host, world_of};
use crate::world::World;

/// Every VM is in a scope; nothing that systemd does to the services or to itself ends it; its
/// deletion leaves none.
pub fn systemd_scopes(world: &World) {
    let world = &world_of(world);
    let host = Host::boot(world);
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

impl Host<'_> {
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
