//! What happens inside guests.

use std::time::Duration;

use crate::exec::BOOT;
use crate::world::World;

/// A VM of this name, booted.
fn create(world: &World, arguments: &[&str]) {
    let mut command = vec!["vm", "create"];
    command.extend(arguments);
    world.banger(&command).limit(BOOT).output().ok();
}

/// Waits until the distribution in a guest has started, and competes with nobody for the CPU. On a
/// busy machine a handshake in the middle of that may take longer than it may.
pub fn wait_for_distribution(world: &World, name: &str) {
    for _ in 0..4 {
        let asked = world.guest(name, &["systemctl", "is-system-running", "--wait"]).limit(BOOT).output();
        if ["running", "degraded"].contains(&asked.text().as_str()) {
            return;
        }
    }
    panic!("the distribution of {name} does not come up");
}

/// A command that begins as soon as ssh answers is not disturbed by the distribution's start.
pub fn tmp_survives_systemd(world: &World) {
    let wait = "echo kept >/tmp/kept
        for _ in $(seq 120); do
            state=$(systemctl is-system-running 2>/dev/null)
            case $state in running|degraded) break ;; esac
            sleep 1
        done
        systemctl --failed --no-legend --plain >&2
        cat /tmp/kept; echo $state";
    let first = world.banger(&["vm", "run", "--name", "box", "--", "sh", "-c", wait]).limit(200).output().ok();
    assert_eq!(first.text(), "kept\nrunning", "{}", first.stderr);
    let again = world.guest("box", &["sh", "-c", "cat /tmp/kept; cat /proc/1/comm"]).output().ok();
    assert_eq!(again.text(), "kept\nsystemd");
}

/// Stop and start keep the disk and make a new boot; delete keeps nothing.
pub fn stop_start_delete(world: &World) {
    create(world, &["--name", "box", "--disk-size", "12G"]);
    let before = boot_id(world, "box");
    let blocks = world.guest("box", &["sh", "-c", "df --output=size -BG / | tail -n 1"]).output().ok().text();
    let gigabytes: u32 = blocks.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("a number");
    assert!((11..=12).contains(&gigabytes), "the root file system has {gigabytes} GiB of 12");
    world.guest("box", &["sh", "-c", "echo kept >/root/file"]).output().ok();
    world.banger(&["vm", "stop", "box"]).output().ok();
    let stopped = world.owner().vm("box");
    assert_eq!((stopped.state.as_str(), stopped.process), ("stopped", None));
    world.guest("box", &["true"]).output().ends(125);

    world.banger(&["vm", "start", "box"]).limit(BOOT).output().ok();
    assert_eq!(world.guest("box", &["cat", "/root/file"]).output().ok().text(), "kept");
    assert_ne!(boot_id(world, "box"), before);
    was_unmounted_cleanly(world);
    let log = world.banger(&["vm", "logs", "box"]).output().ok();
    assert!(log.text().contains("init starts"), "the serial log does not show the start");

    world.banger(&["vm", "delete", "box"]).output().ok();
    assert!(world.owner().vms().is_empty());
    world.banger(&["vm", "show", "box"]).output().ends(3).refuses(&["box"]);
}

/// The kernel's own id of a boot.
pub fn boot_id(world: &World, name: &str) -> String {
    world.guest(name, &["cat", "/proc/sys/kernel/random/boot_id"]).output().ok().text()
}

/// banger's own pid 1: reaps orphans, shuts down cleanly.
pub fn minimal_init(world: &World) {
    create(world, &["--name", "box", "--init", "minimal"]);
    let first = world.guest("box", &["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; cat /proc/1/comm"]).output().ok();
    assert!(!first.text().contains("systemd"), "pid 1 is {}", first.text());
    let orphan = "(sh -c 'sleep 0.2' & ) ; sleep 1; ps -eo stat= | grep -c '^Z' || true";
    assert_eq!(world.guest("box", &["sh", "-c", orphan]).output().ok().text(), "0");
    world.guest("box", &["sh", "-c", "echo kept >/root/file"]).output().ok();
    world.banger(&["vm", "stop", "box"]).output().ok();
    world.banger(&["vm", "start", "box"]).limit(BOOT).output().ok();
    assert_eq!(world.guest("box", &["cat", "/root/file"]).output().ok().text(), "kept");
    was_unmounted_cleanly(world);
}

/// The kernel replays the journal of a file system that was not, and says so.
fn was_unmounted_cleanly(world: &World) {
    let said = world.guest("box", &["dmesg"]).output().ok();
    assert!(said.text().contains("EXT4-fs"), "the kernel says nothing of the root file system");
    assert!(!said.text().contains("recovery complete"), "the file system was not unmounted cleanly");
}

/// A guest that fills its console fills no disk, and its newest lines are kept.
pub fn serial_log_is_bounded(world: &World) {
    const BOUND: u64 = 16 << 20;
    create(world, &["--name", "box"]);
    let fill = "head -c 20M /dev/zero | tr '\\0' x | fold -w 99 >/dev/console; echo the-last-line >/dev/console";
    world.guest("box", &["sh", "-c", fill]).limit(180).output().ok();
    let id = world.owner().vm("box").id;
    let folder = world.home().join("state/vms").join(id.as_str());
    let logs = crate::census::files_below(&folder).into_iter().filter(|p| p.to_string_lossy().contains("console"));
    let size: u64 = logs.map(|p| std::fs::metadata(p).expect("a log").len()).sum();
    assert!((1..=BOUND).contains(&size), "the serial log has {size} bytes");
    let shown = world.banger(&["vm", "logs", "box"]).output().ok();
    assert!(shown.text().contains("the-last-line"), "the newest lines are lost");
    its_lines_have_times(world);
}

/// Since a time, by its length and as such; the last lines; and both while it grows.
fn its_lines_have_times(world: &World) {
    let logs = |flags: &[&str]| world.banger(&[&["vm", "logs", "box"], flags].concat()).limit(30).output().ok().text();
    let say = |text: &str| {
        world.guest("box", &["sh", "-c", &format!("echo {text} >/dev/console")]).output().ok();
    };
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    // Marks are a second apart.
    std::thread::sleep(Duration::from_secs(3));
    let later = now();
    say("said-later");
    let since = banger_timestamp(world, later);
    for flags in [["--since", &since], ["--since", &later.to_string()], ["--since", "2s"]] {
        let shown = logs(&flags);
        assert!(shown.contains("said-later") && !shown.contains("the-last-line"), "{flags:?}: {shown}");
    }
    let shown = logs(&["--since", "10m"]);
    assert!(shown.contains("the-last-line") && shown.contains("said-later"), "{} bytes", shown.len());
    assert_eq!(logs(&["--since", "2100-01-01T00:00:00Z"]), "");
    assert_eq!(logs(&["-n", "1"]).trim(), "said-later");
    assert_eq!(logs(&["--tail", "1", "--since", "10m"]).trim(), "said-later");
    assert_eq!(logs(&["-n", "0"]), "");
    let following = world.banger(&["vm", "logs", "-f", "--since", &since, "-n", "5", "box"]).spawn();
    following.wait_for_output("said-later");
    say("said-last");
    following.wait_for_output("said-last");
    following.signal(rustix::process::Signal::INT);
    let seen = following.wait().ends(-2).text();
    assert!(!seen.contains("the-last-line"), "{seen}");
    world.banger(&["vm", "logs", "--since", "yesterday", "box"]).output().ends(2).refuses(&["is no time", "10m"]);
}

/// As `date` writes it.
fn banger_timestamp(world: &World, seconds: u64) -> String {
    world.tool("date", &["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]).output().ok().text()
}
