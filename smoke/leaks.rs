//! What is left when a VM is gone: nothing, however it went.

use std::time::Duration;

use rustix::process::Signal;

use crate::census::wait_for_equality;
use crate::command::{Output, Running};
use crate::daemons::{end, pids};
use crate::exec::BOOT;
use crate::world::World;

/// How long cleaning up may take that no command waits for.
const CLEANING: Duration = Duration::from_secs(20);

/// Seconds for ten at once, two at a time in software.
const TEN: u64 = 220;

/// Two at once both succeed, and everything is as before.
pub fn two_at_once_leave_nothing(world: &World) {
    let before = world.start_and_count();
    let run = |name| {
        let command = ["vm", "run", "--rm", "--name", name, "--", "hostname"];
        world.banger(&command).limit(BOOT).spawn()
    };
    let both = [run("one"), run("two")];
    let said = both.map(|running| running.wait().ok().text());
    assert_eq!(said, ["one", "two"]);
    wait_for_equality(world, &before, Duration::from_secs(5));
}

/// Ten at once all succeed, and everything is as before. On few processors those that came late wait
/// for the boots of those before them, and say so.
pub fn ten_at_once(world: &World) {
    let before = world.start_and_count();
    let names: Vec<String> = (0..10).map(|number| format!("one-of-{number}")).collect();
    let start =
        |name: &String| world.banger(&["vm", "run", "--rm", "--name", name, "--", "hostname"]).limit(TEN).spawn();
    let all: Vec<Running> = names.iter().map(start).collect();
    let ended: Vec<_> = all.into_iter().map(|running| running.wait().ok()).collect();
    assert_eq!(ended.iter().map(Output::text).collect::<Vec<_>>(), names);
    wait_for_equality(world, &before, Duration::from_secs(5));
}

/// Ctrl-C, while the guest command runs and while the guest boots.
pub fn ctrl_c_cleans_up(world: &World) {
    let before = world.start_and_count();
    let running = begun(world);
    running.signal(Signal::INT);
    running.wait().ends(130);
    wait_for_equality(world, &before, Duration::from_secs(5));

    let booting = world.banger(&["vm", "run", "--rm", "--name", "early", "--", "true"]).limit(BOOT).spawn();
    wait_for_row(world, "early");
    booting.signal(Signal::INT);
    booting.wait().ends(130);
    wait_for_equality(world, &before, CLEANING);
}

/// A command line that is killed cannot clean up; the daemon does.
pub fn killed_keeper_leaves_nothing(world: &World) {
    let before = world.start_and_count();
    let running = begun(world);
    running.signal(Signal::KILL);
    running.wait().ends(-9);
    wait_for_equality(world, &before, CLEANING);
}

/// Daemon, helper or both are killed while a VM is being made, each time at another step; the next
/// command works, and once the VMs are deleted nothing is left.
pub fn killed_midway_leaves_nothing(world: &World) {
    let world = &crate::fake::on_the_fake_monitor(world);
    let before = world.start_and_count();
    for round in 0..12 {
        // Starts again what was killed: this is what a command that misses the helper says to type.
        world.start();
        let (daemon, helper) = pids(world);
        let name = format!("round-{round}");
        let command = ["vm", "create", "--name", &name];
        let making = world.banger(&command).spawn();
        making.wait_for_lines(round / 3 + 1);
        let victims = &[vec![daemon], vec![helper], vec![daemon, helper]][round % 3];
        victims.iter().for_each(|pid| end(*pid));
        // It may have been done already; what counts is what is left.
        let made = making.wait();
        println!("round {round}: killed {victims:?} of {daemon}, {helper}; {}: {}", made.code, made.stderr);
        world.banger(&["ps", "-a"]).output().ok();
    }
    world.start();
    let left = world.banger(&["vm", "list", "-a", "--quiet"]).output().ok().text();
    for name in left.lines() {
        world.banger(&["vm", "delete", name]).output().ok();
    }
    wait_for_equality(world, &before, CLEANING);
}

/// A `vm run --rm` whose guest command has begun and does not end by itself.
fn begun(world: &World) -> Running {
    let command = ["vm", "run", "--rm", "--name", "box", "--", "sh", "-c", "echo begun; sleep 300"];
    let running = world.banger(&command).limit(BOOT).spawn();
    running.wait_for_output("begun");
    running
}

fn wait_for_row(world: &World, name: &str) {
    for _ in 0..200 {
        if world.owner().vms().iter().any(|vm| vm.spec.name.as_str() == name) {
            return;
        }
        // The store of another process: there is no event to wait for.
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{name} never appeared in the store");
}
