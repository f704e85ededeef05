//! A host that has been used a lot: an installation with many stored VMs, and how long commands take beside one with
//! none.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger::model::choice::{Accel, VmmKind};
use banger::model::{Limits, Mib, VmId, VmRecord, VmSpec, VmState};
use banger::os::process;
use banger::store::Store;

use crate::base;
use crate::world::World;

/// Stored VMs on a host that has been used a lot.
const MANY: u64 = 1000;

/// Most seconds for one command.
const LIMIT: u64 = 480;

/// Another installation in the same network namespace, with many VMs, whose daemon runs.
pub fn full(world: &World) -> World {
    let full = beside(world, "full");
    fill(&full);
    full.start();
    full
}

fn beside(world: &World, name: &str) -> World {
    let other = world.moved_to(world.folder().join(name));
    for folder in [other.folder().to_owned(), other.home(), other.person()] {
        std::fs::create_dir(&folder).expect("a folder of its own");
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&folder, private).expect("the mode can be set");
    }
    base::clone_into(&other.home().join("state")).expect("kernel and image");
    other
}

/// Rows as `vm create --no-start` leaves them, written while no daemon runs.
fn fill(world: &World) {
    let store = Store::open(&world.home().join("state")).expect("the store opens");
    for number in 1..=MANY {
        store.insert_vm(&row(number), false, &unlimited()).expect("the row is written");
    }
}

fn row(number: u64) -> VmRecord {
    let spec = base::spec(&format!("stored-{number}"), Mib(1024));
    let now = banger::os::clock::unix_seconds();
    let new = VmRecord::asked_for(VmId::from_random(number), spec, VmmKind::Qemu, Accel::Tcg, now);
    VmRecord { state: VmState::Created, ..new }
}

fn unlimited() -> Limits {
    Limits { vms: None, memory: None, disk: None, host_memory: VmSpec::MAX_MEMORY }
}

/// Both by turns, so that what else the machine does meets both alike.
pub fn in_turns(
    rounds: usize,
    mut one: impl FnMut() -> Duration,
    mut other: impl FnMut() -> Duration,
) -> (Vec<Duration>, Vec<Duration>) {
    (0..rounds).map(|_| (one(), other())).unzip()
}

/// From the start of `command` to its end, which must be a success.
pub fn timed(mut command: Command, world: &World) -> Duration {
    let errors = world.folder().join("errors");
    let file = File::create(&errors).expect("a file for errors");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let begun = Instant::now();
    let mut child = command.spawn().expect("it starts");
    let pid = i32::try_from(child.id()).expect("a pid");
    let pidfd = process::reference(pid).ok().and_then(|r| process::open(r).ok().flatten());
    let limit = Duration::from_secs(LIMIT);
    let ended = pidfd.is_none_or(|p| process::wait_for_end(&p, limit).expect("a pidfd can be polled"));
    let took = begun.elapsed();
    if !ended {
        child.kill().expect("it can be killed");
    }
    let status = child.wait().expect("it can be reaped");
    let said = || std::fs::read_to_string(&errors).unwrap_or_default();
    assert!(status.success() && ended, "{command:?}: {status}\n{}", said());
    took
}
