//! Images made of VMs' disks.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::census::wait_for_equality;
use crate::daemons::pids;
use crate::exec::BOOT;
use crate::guests::boot_id;
use crate::world::World;

/// Writes on while its VM is committed, everything on the disk: what is behind a gap would be a disk that never was.
const WRITER: &str =
    "touch /root/started; n=0; while :; do n=$((n+1)); echo $n >>/root/numbers; sync /root/numbers; done";

/// A running VM, then the same one stopped: what is on the disk comes along, what made it that VM does not.
pub fn of_a_running_and_a_stopped_vm(world: &World) {
    let before = world.start_and_count();
    world.banger(&["vm", "create", "--name", "box", "--disk-size", "2G"]).limit(BOOT).output().ok();
    let fill = "head -c 20000000 /dev/urandom >/root/big; sha256sum /root/big | cut -d' ' -f1";
    let sum = world.guest("box", &["sh", "-c", fill]).limit(60).output().ok().text();
    let keep = "echo 'ssh-ed25519 AAAATHEIRS' >>/root/.ssh/authorized_keys; echo '10.9.9.9 db' >>/etc/hosts; ln -s big /root/link";
    world.guest("box", &["sh", "-c", keep]).output().ok();
    let kept = kept_outside(world);
    let boot = boot_id(world, "box");
    let writer = world.guest("box", &["sh", "-c", WRITER]).limit(BOOT).spawn();
    world.guest("box", &["sh", "-c", "until test -s /root/numbers; do sleep 0.1; done"]).output().ok();

    let begun = Instant::now();
    let made = world.banger(&["image", "commit", "box", "made"]).limit(BOOT).output().ok();
    let log = std::fs::read_to_string(world.home().join("run/bangerd.log")).expect("the daemon's log");
    let paused = log.lines().find_map(|line| line.split("was paused for ").nth(1)).expect("it was paused");
    println!("| committed in {:.1} s | paused for {paused} |", begun.elapsed().as_secs_f64());
    assert_eq!(made.text(), "made");
    world.banger(&["image", "commit", "box", "made"]).output().ends(4).refuses(&["made"]);
    world.banger(&["image", "commit", "no-such-vm", "other"]).output().ends(3).refuses(&["no-such-vm"]);

    // It goes on, with the right time, and still writes.
    assert_eq!(boot_id(world, "box"), boot);
    let count = || world.guest("box", &["sh", "-c", "wc -l </root/numbers"]).output().ok().text();
    let seen = count();
    world
        .guest("box", &["sh", "-c", &format!("until test $(wc -l </root/numbers) -gt {seen}; do sleep 0.1; done")])
        .output()
        .ok();
    is_on_time(world);
    writer.signal(Signal::KILL);
    writer.wait().ends(-9);

    is_free_of(world, "made", &kept);
    assert_eq!(world.owner().vms().len(), 1, "the copy was left");
    let look = [
        "sha256sum /root/link | cut -d' ' -f1",
        "hostname",
        "grep -c . /root/.ssh/authorized_keys",
        "grep -c THEIRS /root/.ssh/authorized_keys",
        "grep -c '# banger' /etc/hosts",
        "grep -c '10.9.9.9 db' /etc/hosts",
        "findmnt -rno FSTYPE,OPTIONS / | cut -c1-7",
        "ls /var/log/journal; cat /etc/machine-id /etc/hostname /etc/hosts /etc/ssh/ssh_host_*.pub",
        // Of the last line its length may be on the disk and its bytes not yet: ext4 orders new blocks alone.
        "awk '$1 != NR { bad = NR } END { if (bad && bad < NR) print \"gap at \" bad \" of \" NR }' /root/numbers",
    ];
    let look = look.join("; ");
    let run = ["vm", "run", "--rm", "--name", "new", "--image", "made", "--", "sh", "-c", &look];
    let seen = world.banger(&run).limit(BOOT).output().ok().text();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(&lines[..7], [sum.as_str(), "new", "2", "1", "1", "1", "ext4 rw"], "{seen}");
    let old = world.owner().vm("box").id;
    for word in [old.as_str(), "box", "gap"].into_iter().chain(kept.iter().map(|(_, secret)| secret.as_str())) {
        assert!(!seen.contains(word), "{word}: {seen}");
    }

    world.banger(&["vm", "stop", "box"]).limit(60).output().ok();
    world.banger(&["image", "commit", "box", "again"]).limit(BOOT).output().ok();
    is_free_of(world, "again", &kept);
    world.banger(&["vm", "start", "box"]).limit(BOOT).output().ok();
    assert_eq!(
        world.guest("box", &["sh", "-c", "grep -c THEIRS /root/.ssh/authorized_keys"]).output().ok().text(),
        "1"
    );
    world.banger(&["vm", "delete", "box"]).limit(60).output().ok();
    for image in ["made", "again"] {
        world.banger(&["image", "delete", image]).output().ok();
    }
    wait_for_equality(world, &before, Duration::from_secs(5));
}

fn is_on_time(world: &World) {
    let now: i64 = world.guest("box", &["date", "+%s"]).output().ok().text().parse().expect("seconds");
    let ours: i64 = world.tool("date", &["+%s"]).output().ok().text().parse().expect("seconds");
    assert!((now - ours).abs() <= 2, "its clock is {} s late", ours - now);
}

/// What must not be in an image, with where it is found: keys and id.
fn kept_outside(world: &World) -> Vec<(String, String)> {
    let vm = world.owner().vm("box");
    let folder = world.home().join("state/vms").join(vm.id.as_str());
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a key");
    let host = read("host_ed25519");
    let secret = host.lines().nth(3).expect("a line of the key").to_owned();
    let public = |name: &str| read(name).split(' ').nth(1).expect("a key").trim().to_owned();
    vec![
        ("the host key".to_owned(), secret),
        ("the host key's public half".to_owned(), public("host_ed25519.pub")),
        ("the key that may log in".to_owned(), public("id_ed25519.pub")),
    ]
}

/// Not in any of its bytes, in use or not; and fsck has nothing to say.
fn is_free_of(world: &World, image: &str, kept: &[(String, String)]) {
    let file: PathBuf = world.home().join("state/images").join(format!("{image}.ext4"));
    let path = file.display().to_string();
    world.tool("e2fsck", &["-fn", &path]).output().ok();
    for (what, text) in kept {
        // 1: it is not there.
        let found = world.tool("grep", &["-c", "-a", "-F", "-e", text, &path]).limit(60).output();
        assert_eq!(found.text(), "0", "{what} is in image {image}");
    }
}

/// The daemon is killed, or whoever asked, at every stage: the VM goes on, and nothing else is left.
pub fn cut_short(world: &World) {
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    world.guest("box", &["sh", "-c", "head -c 200000000 /dev/urandom >/root/big"]).limit(120).output().ok();
    let boot = boot_id(world, "box");
    let before = world.census();
    for stage in ["copying the disk", "removing the identity", "writing the image"] {
        for victim in ["daemon", "client", "terminated"] {
            // Stages are told on standard error.
            let told = format!("exec {} image commit box made 2>&1", world.binary().display());
            let commit = world.tool("sh", &["-c", &told]).limit(BOOT).spawn();
            commit.wait_for_output(stage);
            let code = match victim {
                "daemon" => {
                    crate::daemons::end(pids(world).0);
                    6
                }
                "client" => {
                    commit.signal(Signal::KILL);
                    -9
                }
                _ => {
                    // Not SIGINT, which whoever is started in the background of a script ignores.
                    commit.signal(Signal::TERM);
                    -15
                }
            };
            let ended = commit.wait();
            if ended.code == 0 && stage == "writing the image" {
                // Faster than whoever came to cut it short.
                println!("| {victim} came too late |");
                world.start();
                world.banger(&["image", "delete", "made"]).output().ok();
            } else {
                ended.ends(code);
            }
            world.start();
            assert_eq!(boot_id(world, "box"), boot, "{stage}, {victim}");
            is_on_time(world);
            wait_for_equality(world, &before, Duration::from_secs(20));
            assert!(!world.banger(&["image", "list", "-q"]).output().ok().text().contains("made"), "{stage}, {victim}");
        }
    }
    world.banger(&["image", "commit", "box", "made"]).limit(BOOT).output().ok();
}
