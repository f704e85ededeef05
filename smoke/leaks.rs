//! What is left when a VM is gone: nothing, however it went.

use std::time::Duration;

use rustix::process::Signal;

use crate::census::wait_for_equality;
use crate::command::Running;
use crate::exec::BOOT;
use crate::world::World;

/// How long cleaning up may take that no command waits for.
const CLEANING: Duration = Duration::from_secs(20);

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
