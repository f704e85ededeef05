//! The host restarts: no process, no runtime folder, no link, no rule is left, and the kernel has
//! another boot id. What lies on the disk is all there is.

use crate::census::{remove_cgroups_of, wait_for_equality};
use crate::exec::BOOT;
use crate::world::World;

use std::time::Duration;

/// VMs that ran are stopped and start again with their disks; one that was to end with its command
/// is gone.
pub fn vms_survive_a_reboot(world: &World) {
    let before = world.start_and_count();
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    world.guest("box", &["sh", "-c", "echo kept >/root/file; sync"]).output().ok();
    let passing = ["vm", "run", "--rm", "--name", "passing", "--", "sh", "-c", "echo begun; sleep 300"];
    let passing = world.banger(&passing).limit(BOOT).spawn();
    passing.wait_for_output("begun");

    restart_the_host(world);
    passing.wait().ends(-9);
    start_with_another_boot_id(world);
    let stopped = world.owner().vm("box");
    assert_eq!((stopped.state.as_str(), stopped.process), ("stopped", None));
    assert!(stopped.reason.is_some(), "it does not say why it is stopped");
    world.banger(&["vm", "start", "box"]).limit(BOOT).output().ok();
    assert_eq!(world.guest("box", &["cat", "/root/file"]).output().ok().text(), "kept");
    world.banger(&["vm", "delete", "box"]).output().ok();
    // What the other boot id is mounted for ends with daemon and helper.
    world.banger(&["daemon", "stop"]).output().ok();
    world.start();
    wait_for_equality(world, &before, Duration::from_secs(20));
}

fn restart_the_host(world: &World) {
    world.kill_all();
    remove_cgroups_of(&world.home());
    for folder in ["run", "root-run"] {
        std::fs::remove_dir_all(world.home().join(folder)).expect("the runtime folder can be removed");
    }
    world.tool("ip", &["link", "del", "br-banger"]).output().ok();
    world.tool("nft", &["flush", "ruleset"]).output().ok();
}

/// Daemon and helper see a boot id of their own, in a mount namespace (random(4)).
fn start_with_another_boot_id(world: &World) {
    let boot_id = world.folder().join("boot_id");
    std::fs::write(&boot_id, "01234567-89ab-cdef-0123-456789abcdef\n").expect("a boot id");
    let script = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id; shift; exec \"$@\" daemon start";
    let (boot_id, binary) = (boot_id.display().to_string(), world.binary().display().to_string());
    world.tool("unshare", &["--mount", "sh", "-ec", script, "sh", &boot_id, &binary]).output().ok();
}
