//! VMs that are stopped when nobody uses them, and when their consoles said what.

use std::time::{Duration, Instant};

use crate::base::NAME;
use crate::exec::BOOT;
use crate::world::World;

/// A command keeps a VM up, work keeps another up, and what nobody uses stops and says why; a restarted daemon knows it.
pub fn is_stopped(world: &World) {
    let flags = ["--image", NAME, "--memory", "512M", "--init", "minimal", "--idle-stop", "10s"];
    let create =
        |name: &str| world.banger(&[&["vm", "create", "--name", name], &flags[..]].concat()).limit(BOOT).spawn();
    let starting = ["held", "busy"].map(create);
    starting.into_iter().for_each(|start| drop(start.wait().ok()));
    let state = |name: &str| world.owner().vm(name).state.as_str();
    // Nearly nothing, for longer than it takes; and a loop that nobody is connected to.
    let held = world.banger(&["vm", "exec", "held", "--", "sleep", "20"]).limit(90).spawn();
    let busy = "while :; do :; done";
    world.banger(&["vm", "exec", "-d", "busy", "--", "timeout", "16", "sh", "-c", busy]).limit(60).output().ok();
    let begun = Instant::now();
    world.banger(&["daemon", "stop"]).output().ok();
    world.start();
    held.wait().ok();
    assert!(begun.elapsed() >= Duration::from_secs(15), "the command was cut short");
    assert_eq!(state("held"), "running", "it was stopped under a command");
    let waited = world.banger(&["vm", "wait", "held", "busy"]).limit(60).output().ok().text();
    for name in ["held", "busy"] {
        let reason = "it was idle for 10s (--idle-stop)";
        assert!(waited.lines().any(|line| line == format!("{name}: stopped: {reason}")), "{waited}");
        let shown = world.banger(&["vm", "show", name, "--json"]).output().ok().json();
        assert_eq!((&shown["reason"], &shown["idle_stop_seconds"]), (&reason.into(), &10.into()));
    }
    can_be_changed(world);
}

fn can_be_changed(world: &World) {
    let shown = || world.banger(&["vm", "show", "held", "--json"]).output().ok().json()["idle_stop_seconds"].clone();
    world.banger(&["vm", "set", "held", "--idle-stop", "off"]).output().ok();
    assert!(shown().is_null());
    world.banger(&["vm", "set", "held", "--idle-stop", "2h"]).output().ok();
    assert_eq!(shown(), 7200);
    world.banger(&["vm", "set", "held", "--idle-stop", "5s"]).output().ends(2).refuses(&["at least 10s"]);
    world.banger(&["vm", "set", "held", "--idle-stop", "never"]).output().ends(2).refuses(&["--idle-stop"]);
}
