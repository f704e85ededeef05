//! How long commands take.

use std::time::Duration;

use crate::floor::Floor;
use crate::stored::{self, in_turns, timed};
use crate::table::Line;
use crate::world::World;
use crate::{BOOT, say};

/// Rounds of what takes seconds, and of what takes milliseconds.
const LONG: usize = 7;
const SHORT: usize = 31;

/// A cold `vm run --rm -- true` against the same boot without banger.
pub fn cold_start(world: &World) -> Line {
    say("cold start, and its floor");
    let floor = Floor::of_a_vm(world);
    let run = || timed(world.command(world.binary(), &["vm", "run", "--rm", "--", "true"]), world);
    let (ours, floors) = in_turns(LONG, run, || floor.round());
    Line::ratio("vm run --rm -- true / bare QEMU", &ours, &floors, 1.10)
}

/// `vm exec` by the agent against the same by ssh.
pub fn exec(world: &World) -> Line {
    say("commands by agent and by ssh");
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    let words = ["vm", "exec", "box", "--", "true"];
    let by = |carrier| {
        let world = world.with("BANGER_EXEC", carrier);
        move || timed(world.command(world.binary(), &words), &world)
    };
    let (agent, ssh) = in_turns(LONG, by("agent"), by("ssh"));
    world.banger(&["vm", "delete", "box"]).output().ok();
    Line::ratio("vm exec by agent / by ssh", &agent, &ssh, 0.3)
}

/// What is typed all day: `ps`, with few and with many VMs stored, and `--version`.
pub fn quick(world: &World) -> [Line; 3] {
    say("ps and --version");
    let full = stored::full(world);
    let timed_in = |world: &World, word: &str| timed(world.command(world.binary(), &[word]), world);
    let (many, none) = in_turns(SHORT, || timed_in(&full, "ps"), || timed_in(world, "ps"));
    let (version, _) = in_turns(SHORT, || timed_in(world, "--version"), || Duration::ZERO);
    full.banger(&["daemon", "stop"]).output().ok();
    [
        Line::time("ps", &none, Duration::from_millis(10)),
        Line::ratio("ps with 1000 stored VMs / with none", &many, &none, 2.0),
        Line::time("--version", &version, Duration::from_millis(5)),
    ]
}
