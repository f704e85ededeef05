//! The .deb on a host that systemd runs: installed, used, installed over itself while a VM runs, removed, purged.

use crate::container::{Host, can_be_booted};
use crate::packages::{built, check_out, papers, run, text};
use crate::world::World;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is left of the package or of what it has installed.
const LEFT: &str = "find / -xdev \\( -path /proc -o -path /sys -o -path /var/tmp -o -path /var/lib/dpkg -o -path /var/log \\
    -o -path /run/systemd -o -path /run/log -o -path /var/cache/man \\) -prune -o -name '*bang*' -print";

/// From `dpkg -i` to `dpkg --purge`.
pub fn lives_and_goes(world: &World) {
    can_be_booted();
    let papers = papers();
    let (checkout, out) = (world.folder().join("checkout"), world.folder().join("out"));
    check_out(world, &checkout);
    let plain = world.with("BANGER_PAPERS", &text(&papers));
    let arguments = ["--built".into(), text(&built(world)), "--out".into(), text(&out)];
    run(&plain, &text(&checkout.join("release/package")), &arguments);
    let deb = text(&out.join(format!("banger_{}-1_amd64.deb", env!("CARGO_PKG_VERSION"))));

    let host = Host::boot_without_banger(world);
    host.sh("useradd --create-home --shell /bin/bash alice").output().ok();
    let before = host.sh(LEFT).output().ok().text();
    host.give_base("alice");
    host.run("dpkg", &["-i", &deb]).output().ok();
    host.run("/usr/bin/banger", &["system", "install", "--owner", "alice"]).limit(60).output().ok();
    let record = host.run("cat", &["/etc/banger/install.toml"]).output().ok().text();
    assert!(record.contains("binary = \"/usr/bin/banger\"") && !record.contains("/usr/local"), "{record}");
    let packaged = |words: &[&str]| host.packaged(words);
    let first = packaged(&["vm", "run", "--name", "box", "--", "cat", BOOT_ID]).limit(120).output().ok().text();
    println!("| packaged | `dpkg -i`, `banger system install`, `vm run` | it runs from /usr/bin |");
    host.run("dpkg", &["-i", &deb]).limit(120).output().ok();
    let again = packaged(&["vm", "exec", "box", "--", "cat", BOOT_ID]).limit(60).output().ok().text();
    assert_eq!(again, first, "the VM was restarted");
    println!("| packaged | `dpkg -i` of the next one | services of the new one, same boot id |");
    host.run("/usr/bin/banger", &["update"]).output().refuses(&["package"]);
    let refused = host.run("dpkg", &["--remove", "banger"]).output();
    assert!(refused.code != 0 && refused.stderr.contains("box"), "{}", refused.stderr);
    packaged(&["vm", "exec", "box", "--", "true"]).output().ok();
    println!("| packaged | `dpkg --remove` while a VM runs | refused, naming it |");
    packaged(&["vm", "delete", "box"]).limit(90).output().ok();
    host.run("dpkg", &["--remove", "banger"]).limit(60).output().ok();
    let kept = host.sh("ls -d /var/lib/banger /usr/bin/banger /etc/systemd/system/bangerd* 2>/dev/null || true");
    assert_eq!(kept.output().ok().text(), "/var/lib/banger");
    host.run("dpkg", &["--purge", "banger"]).limit(60).output().ok();
    assert_eq!(host.sh(LEFT).output().ok().text(), before, "something is left");
    println!("| packaged | `dpkg --remove`, then `--purge` | data kept, then nothing |");
}

impl Host<'_> {
    fn packaged(&self, words: &[&str]) -> crate::command::Run {
        let mut all = vec!["--reuid", "alice", "--regid", "alice", "--init-groups", "env", "-i", "HOME=/home/alice"];
        all.extend(["PATH=/usr/bin:/bin", "/usr/bin/banger"]);
        all.extend(words);
        self.run("setpriv", &all)
    }
}
