//! The monitor of the tests: it boots at once, so lives and failures can be played quickly. All
//! that surrounds it is real: helper, tap, cgroup, rules, store.

use std::time::{Duration, Instant};

use banger::model::Mib;
use banger::model::launch::FakeFailure;
use banger::protocol::FaultKind;
use banger::protocol::owner::OwnerRequest;

use crate::base;
use crate::census::wait_for_equality;
use crate::world::World;

/// A whole life, quickly, and each failure without a leak.
pub fn life_and_failures(world: &World) {
    let world = &on_the_fake_monitor(world);
    let before = world.start_and_count();
    let began = Instant::now();
    for round in 0..5 {
        whole_life(world, &format!("round-{round}"));
    }
    assert!(began.elapsed() < Duration::from_secs(30), "five lives took {:?}", began.elapsed());
    wait_for_equality(world, &before, Duration::from_secs(5));
    for failure in [FakeFailure::AtSpawn, FakeFailure::AfterHello] {
        fails(world, failure);
        wait_for_equality(world, &before, Duration::from_secs(10));
    }
    stubborn_is_killed(world);
    wait_for_equality(world, &before, Duration::from_secs(10));
}

/// This world with the monitor of the tests for every VM.
pub fn on_the_fake_monitor(world: &World) -> World {
    world.with("BANGER_VMM", "fake").with("BANGER_FAKE_VMM", "1")
}

/// A guest that never says a word is a failure, and its VM is kept for a look at it, `--rm` or not.
pub fn silent_guest_is_kept(world: &World) {
    let world = &on_the_fake_monitor(world);
    let before = world.start_and_count();
    let command = ["vm", "run", "--rm", "--name", "silent", "--fail", "silent-guest", "--", "true"];
    world.banger(&command).limit(30).output().ends(125).refuses(&["kept", "banger vm delete silent"]);
    let listed = world.banger(&["vm", "list", "-a", "--quiet"]).output().ok();
    assert_eq!(listed.text(), "silent", "it is not kept");
    world.banger(&["vm", "delete", "silent"]).output().ok();
    wait_for_equality(world, &before, Duration::from_secs(10));
}

fn whole_life(world: &World, name: &str) {
    let banger = |arguments: &[&str]| world.banger(arguments).output().ok();
    banger(&["vm", "create", "--name", name]);
    assert_eq!(world.owner().vm(name).state.as_str(), "running");
    world.banger(&["vm", "create", "--name", name]).output().ends(4);
    banger(&["vm", "stop", name]);
    assert_eq!(world.owner().vm(name).state.as_str(), "stopped");
    banger(&["vm", "start", name]);
    banger(&["vm", "kill", name]);
    banger(&["vm", "start", name]);
    banger(&["vm", "delete", name]);
    world.banger(&["vm", "delete", name]).output().ends(3);
}

fn ask(world: &World, name: &str, fail: FakeFailure) -> Result<(), banger::protocol::Fault> {
    let spec = base::spec(name, Mib(256));
    let request =
        OwnerRequest::CreateVm { spec, start: true, ephemeral: false, ttl: None, values: vec![], fail: Some(fail) };
    world.owner().ask(request).map(drop)
}

/// A VM that fails may be kept for a look at it; after its deletion nothing is left.
fn fails(world: &World, failure: FakeFailure) {
    let fault = ask(world, "broken", failure).expect_err("a monitor that ends while it boots is a failure");
    assert_eq!(fault.kind, FaultKind::OperationFailed, "{failure:?}: {fault}");
    assert!(!fault.message.is_empty(), "{failure:?}");
    if world.owner().vms().iter().any(|vm| vm.spec.name.as_str() == "broken") {
        world.banger(&["vm", "delete", "broken"]).output().ok();
    }
}

/// It is asked, its button is pressed, it is killed: `vm stop` ends also what ignores both.
fn stubborn_is_killed(world: &World) {
    ask(world, "stubborn", FakeFailure::IgnoresShutdown).expect("it boots");
    let stopped = world.banger(&["vm", "stop", "stubborn"]).limit(90).output().ok();
    for step in ["pressing the power button", "ignored its power button"] {
        assert!(stopped.stderr.contains(step), "{step:?} is not on standard error:\n{}", stopped.stderr);
    }
    assert_eq!(world.owner().vm("stubborn").state.as_str(), "stopped");
    world.banger(&["vm", "delete", "stubborn"]).output().ok();
}
