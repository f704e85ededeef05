//! A system install on a host that systemd runs: from `system install` to a host that is as it was before.

use std::path::Path;

use crate::command::Run;
use crate::container::{Host, can_be_booted};
use crate::world::World;

/// Everything that an installation may touch, line by line: kind, mode, owner, size or target, sum, name. What systemd
/// itself keeps of its units comes and goes.
const LOOK: &str = r#"
find /etc /usr/local /run /var/lib/systemd /usr/lib/systemd -xdev \
    \( -path /run/systemd -o -path /run/log -o -path /run/udev/data -o -path /run/dbus -o -path /var/lib/systemd/catalog \
       -o -path /run/host -o -path /run/banger-test \) -prune \
    -o -printf '%y %m %U:%G %l %p\n' | sort
find /etc /usr/local -xdev -type f -exec sha256sum {} + | sort -k 2
find /run/systemd/system /run/systemd/transient /run/systemd/generator ! -type d -printf '%y %p %l\n' 2>/dev/null | sort
nft list ruleset
ip -o link | sed 's/^[0-9]*: //'
cat /proc/sys/net/ipv4/ip_forward
systemctl list-unit-files --no-legend 'banger*' || true
systemctl list-units --all --no-legend --plain 'banger*'
"#;

/// Puts kernel and image there as an earlier installation would have left them, and an owner.
const PREPARE: &str = r#"
useradd --create-home --shell /bin/bash alice
useradd --create-home bob
mkdir -p /run/banger-test
"#;

/// From nothing to an installation, restarts, a second installation, and back to nothing.
pub fn from_install_to_purge(world: &World) {
    can_be_booted();
    let host = Host::boot_without_banger(world);
    host.sh(PREPARE).output().ok();
    host.give_base("alice");
    let before = host.look();
    refusals_before(&host);
    let installed = host.banger(&["system", "install", "--owner", "alice"]).limit(60).output().ok();
    println!("| installed | `system install` | {} |", last_line(&installed.stderr));
    let first = host.of_alice(&["vm", "run", "--name", "box", "--", "cat", BOOT_ID]).limit(120).output().ok().text();
    restarts(&host, &first);
    second_installation(&host, &first);
    completes(&host);
    looked_at(&host);
    uninstalled(&host, &before);
    host.banger(&["system", "install", "--owner", "alice"]).limit(60).output().ok();
    let again = host.of_alice(&["vm", "start", "box"]).limit(120).output();
    again.ok();
    println!("| installed | a second `system install` | its VM 'box' starts from the data that was kept |");
    host.banger(&["system", "uninstall", "--purge", "-f"]).limit(120).output().ok();
    let gone =
        host.sh("ls -d /var/lib/banger* /var/cache/banger* /etc/banger 2>/dev/null || true").output().ok().text();
    assert_eq!(gone, "", "purged data is left");
    host.is_as_before(&before);
    println!("| installed | `system uninstall --purge -f` while it runs | no data; all as before |");
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().to_owned()
}

fn refusals_before(host: &Host<'_>) {
    host.banger(&["system", "install"]).output().ends(2).refuses(&["--owner"]);
    host.banger(&["system", "install", "--owner", "nobody-of-that-name"]).output().ends(3).refuses(&["no account"]);
    host.of_alice(&["system", "install"]).output().ends(5).refuses(&["sudo banger system install"]);
    host.banger(&["system", "status"]).output().ends(3).refuses(&["sudo banger system install"]);
    host.banger(&["system", "restart"]).output().ends(3);
    host.sh("echo x >/etc/systemd/system/bangerd.service").output().ok();
    host.banger(&["system", "install", "--owner", "alice"]).output().ends(4).refuses(&["bangerd.service"]);
    host.sh("rm /etc/systemd/system/bangerd.service").output().ok();
}

/// Neither a restart of the services nor their violent end touches a VM or a command in it.
fn restarts(host: &Host<'_>, first: &str) {
    let long = "echo begun; sleep 25; echo done; exit 42";
    let running = host.of_alice(&["vm", "run", "--rm", "--name", "long", "--", "sh", "-c", long]).limit(180).spawn();
    running.wait_for_output("begun");
    let disturbances = [
        ("`system restart`", "$banger system restart"),
        ("`systemctl restart` of both", "systemctl restart bangerd-root bangerd"),
        ("stop of both, and a start", "systemctl stop bangerd bangerd-root && systemctl start bangerd-root bangerd"),
        ("kill -9 of both", "systemctl kill -s KILL bangerd bangerd-root"),
        ("`daemon-reexec`", "systemctl daemon-reexec"),
    ];
    for (what, command) in disturbances {
        let command = format!("banger={}; {command}", host.binary().display());
        host.sh(&command).limit(60).output().ok();
        // Asked at once: whoever comes while they start waits at their sockets.
        host.of_alice(&["vm", "list", "--quiet"]).output().ok();
        let id = host.of_alice(&["vm", "exec", "box", "--", "cat", BOOT_ID]).limit(60).output().ok().text();
        assert_eq!(id, first, "{what} has restarted the VM");
        println!("| installed | {what} | same boot id |");
    }
    let ended = running.wait();
    assert_eq!((ended.code, ended.text().as_str()), (42, "begun\ndone"), "{}", ended.stderr);
    println!("| installed | `vm run --rm -- …` through all of it | its output, exit code 42 |");
    let left = host.of_alice(&["vm", "list", "--quiet"]).output().ok().text();
    assert_eq!(left, "box");
}

fn second_installation(host: &Host<'_>, first: &str) {
    let again = host.banger(&["system", "install"]).limit(60).output().ok();
    assert!(again.stderr.contains("is up to date; daemon and helper answer"), "{}", again.stderr);
    host.banger(&["system", "install", "--owner", "bob"]).output().ends(4).refuses(&["installed for alice"]);
    host.sh("sed -i s/WatchdogSec=60/WatchdogSec=61/ /etc/systemd/system/bangerd.service").output().ok();
    let stale = host.of_alice(&["doctor"]).output();
    assert!(stale.text().contains("sudo banger system install"), "{}", stale.text());
    let repaired = host.banger(&["system", "install"]).limit(60).output().ok();
    assert!(repaired.stderr.contains("were restarted"), "{}", repaired.stderr);
    let id = host.of_alice(&["vm", "exec", "box", "--", "cat", BOOT_ID]).limit(60).output().ok().text();
    assert_eq!(id, first, "a second installation has restarted the VM");
    println!("| installed | `system install` over a changed unit | repaired, same boot id |");
    changed_socket(host, first);
    lost_and_damaged(host);
    host.of_bob(&["vm", "list"]).output().ends(5);
    host.of_alice(&["daemon", "stop"]).output().ends(5).refuses(&["systemctl stop"]);
}

/// What listens is started anew when its unit has changed, and only then.
fn changed_socket(host: &Host<'_>, first: &str) {
    let since = || host.sh("systemctl show -p ActiveEnterTimestampMonotonic bangerd.socket").output().ok().text();
    let before = since();
    host.banger(&["system", "restart"]).limit(60).output().ok();
    assert_eq!(since(), before, "a restart of the services has closed the socket");
    host.sh("sed -i s/SocketMode=0600/SocketMode=0640/ /etc/systemd/system/bangerd.socket").output().ok();
    host.banger(&["system", "install"]).limit(60).output().ok();
    assert_ne!(since(), before, "the socket listens on as before");
    let id = host.of_alice(&["vm", "exec", "box", "--", "cat", BOOT_ID]).limit(60).output().ok().text();
    assert_eq!(id, first, "a new socket has restarted the VM");
    println!("| installed | `system install` over a changed socket | it listens anew, same boot id |");
}

/// Neither a lost record nor the remains of an update that nobody can read is the end.
fn lost_and_damaged(host: &Host<'_>) {
    host.sh("mv /etc/banger/install.toml /run/banger-test; echo damaged >/etc/banger/update.toml").output().ok();
    host.banger(&["system", "uninstall"]).output().ends(3).refuses(&["is lost", "system install --owner"]);
    let mended = host.banger(&["system", "install", "--owner", "alice"]).limit(60).output().ok();
    assert!(mended.stderr.contains("is forgotten"), "{}", mended.stderr);
    host.sh("test ! -e /etc/banger/update.toml; mv /run/banger-test/install.toml /etc/banger").output().ok();
    println!(
        "| installed | `system install` without the record, after half an update | both are written anew or forgotten |"
    );
}

/// Where shells look lie the scripts; what they ask does not wake a daemon for whom systemd listens.
fn completes(host: &Host<'_>) {
    let scripts = "/usr/local/share/bash-completion/completions/banger /usr/local/share/zsh/site-functions/_banger \
        /etc/fish/completions/banger.fish";
    let asking = host.sh(&format!("grep -l banger-complete {scripts} | wc -l")).output().ok().text();
    assert_eq!(asking, "3", "not all scripts are there");
    let names =
        || host.of_alice(&["--as", "banger-complete", "bash", "banger vm delete ", "", "9", "80"]).output().ok();
    assert_eq!(names().text(), "\nbox");
    host.sh("systemctl stop bangerd.service").output().ok();
    assert_eq!(names().stdout, b"\n", "names without a daemon");
    host.sh("systemctl is-active bangerd.service").output().ends(3);
    host.banger(&["system", "restart"]).limit(60).output().ok();
    println!("| installed | Tab while the daemon is stopped | no names, and it stays stopped |");
}

fn looked_at(host: &Host<'_>) {
    let status = host.of_alice(&["system", "status", "--json"]).output().ok().json();
    assert_eq!((&status["owner"], status["units"].as_array().map(Vec::len)), (&"alice".into(), Some(4)), "{status}");
    assert_eq!(status["daemon"], status["helper"], "{status}");
    for (service, most) in [("bangerd", 2.0), ("bangerd-root", 3.6)] {
        let analyzed = host.run("systemd-analyze", &["security", "--no-pager", &format!("{service}.service")]).output();
        let text = analyzed.text();
        let line = text.lines().last().unwrap_or_default();
        let number: f32 =
            line.rsplit_once(": ").and_then(|(_, n)| n.split(' ').next()?.parse().ok()).expect("a number");
        assert!(number <= most, "{line}");
        println!("| installed | `systemd-analyze security` | {} |", line.trim_start_matches("→ "));
    }
    let units = "systemd-analyze verify /etc/systemd/system/bangerd*.service /etc/systemd/system/bangerd*.socket 2>&1";
    let verified = host.sh(&format!("{units} | grep -v 'man banger' || true")).output().ok().text();
    assert_eq!(verified, "", "`systemd-analyze verify` has something to say");
    println!("| installed | `systemd-analyze verify` | nothing |");
    let doctor = host.of_alice(&["doctor", "-v"]).output();
    assert!(doctor.text().contains("exposure"), "{}", doctor.text());
}

fn uninstalled(host: &Host<'_>, before: &str) {
    host.banger(&["system", "uninstall"]).limit(60).output().ends(4).refuses(&["box", "banger vm stop"]);
    host.of_alice(&["vm", "stop", "box"]).limit(90).output().ok();
    let gone = host.banger(&["system", "uninstall"]).limit(60).output().ok();
    assert!(gone.stderr.contains("/var/lib/banger"), "it does not say where data is: {}", gone.stderr);
    host.is_as_before(before);
    println!("| installed | `system uninstall` | /etc, /usr/local, /run, units, rules, links as before; data kept |");
    host.banger(&["system", "uninstall"]).output().ok();
}

impl Host<'_> {
    /// A script in it.
    pub fn sh(&self, script: &str) -> Run {
        self.run("sh", &["-ec", script])
    }

    /// By the installed binary.
    pub fn by_installed(&self, arguments: &[&str]) -> Run {
        self.as_person_with("/usr/local/bin/banger", "alice", arguments)
    }

    fn as_person(&self, name: &str, arguments: &[&str]) -> Run {
        self.as_person_with(self.binary().to_str().expect("a plain path"), name, arguments)
    }

    fn as_person_with(&self, binary: &str, name: &str, arguments: &[&str]) -> Run {
        let home = format!("HOME=/home/{name}");
        let mut words = vec!["--reuid", name, "--regid", name, "--init-groups", "env", "-i", &home, "LC_ALL=C"];
        let path = "PATH=/usr/local/bin:/usr/bin:/bin";
        words.extend([path, binary]);
        words.extend(arguments);
        self.run("setpriv", &words)
    }

    pub fn of_alice(&self, arguments: &[&str]) -> Run {
        self.as_person("alice", arguments)
    }

    fn of_bob(&self, arguments: &[&str]) -> Run {
        self.as_person("bob", arguments)
    }

    fn look(&self) -> String {
        self.sh(LOOK).output().ok().text()
    }

    fn is_as_before(&self, before: &str) {
        let now = self.look();
        let differs: Vec<&str> = diff(before, &now);
        assert!(differs.is_empty(), "not as before:\n{}", differs.join("\n"));
    }

    /// Kernel and image, as an installation of `owner` has left them.
    pub fn give_base(&self, owner: &str) {
        let state = Path::new("/var/lib/banger");
        let base = self.world_folder().join("base");
        crate::base::clone_into(&base).expect("kernel and image can be given");
        let copy = "mkdir -m 700 \"$1\"; cp -a --sparse=always \"$2\"/. \"$1\"; chown -R \"$3:$3\" \"$1\"";
        let arguments = ["-ec", copy, "sh", state.to_str().expect("plain"), base.to_str().expect("plain"), owner];
        self.run("sh", &arguments).limit(60).output().ok();
    }
}

/// Lines that only one of both has.
fn diff<'t>(one: &'t str, other: &'t str) -> Vec<&'t str> {
    let only = |this: &'t str, that: &'t str| this.lines().filter(move |line| !that.lines().any(|l| l == *line));
    only(one, other).chain(only(other, one)).collect()
}
