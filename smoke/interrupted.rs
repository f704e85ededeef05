//! A repository on its way into a guest, or out of it, and somebody presses Ctrl-C, or the daemon dies.

use std::time::Duration;

use rustix::process::Signal;

use crate::census::{Census, wait_for_equality};
use crate::command::Running;
use crate::daemons::{end, pids};
use crate::exec::BOOT;
use crate::world::World;

/// How long cleaning up may take that no command waits for.
const CLEANING: Duration = Duration::from_secs(20);

/// A repository of some thousand files, which take a guest some seconds.
const MAKE: &str = r#"set -e
git init -q -b trunk repo && cd repo
git config user.name P && git config user.email p@example.org
mkdir d && cd d
for n in $(seq 3000); do echo "content of $n" >$n; done
git add . && git commit -q -m one
echo edited >1"#;

/// A moment of `vm run`: so many lines of what it says, and so long after the last of them.
struct Moment {
    what: &'static str,
    lines: usize,
    then: Duration,
}

const fn moment(what: &'static str, lines: usize, milliseconds: u64) -> Moment {
    Moment { what, lines, then: Duration::from_millis(milliseconds) }
}

/// `spec:`, `creating disk`, `starting`, `waiting for ssh`, `ready`, `bringing in`.
const MOMENTS: [Moment; 6] = [
    moment("the disk is made", 2, 0),
    moment("the VM boots", 4, 0),
    moment("the folder is made", 6, 0),
    moment("the history travels", 6, 700),
    moment("the index is settled", 6, 3500),
    moment("the command runs", 6, 0),
];

/// Ctrl-C at each moment: with `--rm` nothing is left, without it a VM that can be used, or none.
pub fn by_ctrl_c(world: &World) {
    world.tool("sh", &["-c", MAKE]).output().ok();
    let before = world.start_and_count();
    println!("| Ctrl-C while | with --rm | without |");
    for moment in &MOMENTS {
        let running = begun(world, &["--rm"], moment);
        running.signal(Signal::INT);
        let code = running.wait().code;
        assert!([130, -2].contains(&code), "{}: {code}", moment.what);
        wait_for_equality(world, &before, CLEANING);

        let running = begun(world, &[], moment);
        running.signal(Signal::INT);
        let code = running.wait().code;
        assert!([130, -2].contains(&code), "{}: {code}", moment.what);
        println!("| {} | nothing left | {} |", moment.what, usable_or_absent(world, &before));
    }
}

/// The same with a daemon that is killed: the command goes on, or says what failed.
pub fn by_a_dead_daemon(world: &World) {
    world.tool("sh", &["-c", MAKE]).output().ok();
    let before = world.start_and_count();
    println!("| the daemon is killed while | with --rm | without |");
    for moment in MOMENTS.iter().filter(|m| m.lines > 2) {
        let mut said = Vec::new();
        for flags in [&["--rm"][..], &[]] {
            let running = begun(world, flags, moment);
            end(pids(world).0);
            let ended = running.wait();
            assert!([0, 125].contains(&ended.code), "{}: {}", moment.what, ended.stderr);
            let how = if ended.code == 0 { "ended as if nothing were" } else { "said that it failed" };
            // Whatever comes next starts a daemon that tidies up.
            world.banger(&["ps", "-a"]).limit(BOOT).output().ok();
            if flags.is_empty() {
                said.push(format!("{how}, {}", usable_or_absent(world, &before)));
            } else {
                world.start();
                wait_for_equality(world, &before, CLEANING);
                said.push(format!("{how}, nothing left"));
            }
        }
        println!("| {} | {} | {} |", moment.what, said[0], said[1]);
    }
}

/// `vm run` of the repository, at this moment.
fn begun(world: &World, flags: &[&str], moment: &Moment) -> Running {
    let runs = moment.what == "the command runs";
    // One that is to be interrupted before does not keep anybody waiting.
    let script = if runs { "echo begun; sleep 5" } else { "true" };
    let command =
        [&["vm", "run", "--name", "box", "repo"], flags, &["--export", "out.patch", "--", "sh", "-c", script]];
    let running = world.banger(&command.concat()).limit(BOOT).spawn();
    if runs {
        running.wait_for_output("begun");
    } else {
        running.wait_for_lines(moment.lines);
        // Within what it does now there is nothing to wait for.
        std::thread::sleep(moment.then);
    }
    running
}

/// What is left without `--rm`, and taken away: a VM into which the repository can be brought, or nothing.
fn usable_or_absent(world: &World, before: &Census) -> &'static str {
    let listed = world.banger(&["vm", "list", "-q"]).limit(BOOT).output().ok().text();
    // One that is listed may still be taken back.
    let started = |name| world.banger(&["vm", "start", name]).limit(BOOT).output().code == 0;
    let left = if listed.is_empty() || !started("box") {
        "no VM"
    } else {
        world.banger(&["vm", "workspace", "prepare", "box", "repo", "--force"]).limit(BOOT).output().ok();
        let status =
            world.banger(&["vm", "exec", "box", "--", "git", "status", "--porcelain"]).limit(BOOT).output().ok();
        assert_eq!(status.text(), " M d/1");
        world.banger(&["vm", "delete", "box"]).limit(BOOT).output().ok();
        "a VM that can be used"
    };
    wait_for_equality(world, before, CLEANING);
    left
}
