//! Daemon, helper, command line and monitor are killed at random moments while real VMs are made,
//! started, stopped, deleted and used. What is not killed goes on as if nothing had been.
//!
//! The order follows from a seed, which is printed; `SMOKE_SEED` plays one again.

use std::time::{Duration, Instant};

use banger::model::{ProcessRef, VmRecord, VmState};
use banger::os::random;
use rustix::process::Signal;

use crate::census::wait_for_equality;
use crate::command::Running;
use crate::daemons::{end, pids};
use crate::exec::BOOT;
use crate::faults::is_passing;
use crate::guests::boot_id;
use crate::world::World;

/// How many are killed.
const KILLS: usize = 30;

/// The latest moment of a kill, in milliseconds after its operation began: a boot and some more.
const LATEST: u64 = 5000;

/// How long cleaning up and states may take to settle: a boot may have to come to its end.
const SETTLING: Duration = Duration::from_secs(BOOT);

/// The VM that nobody kills; a command runs in it all the time.
const ROCK: &str = "rock";

/// The VM that suffers.
const OTHER: &str = "other";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Daemon,
    Helper,
    CommandLine,
    Monitor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    Start,
    Stop,
    Delete,
    Run,
}

/// Thirty kills; then the command that has run all the time returns its own exit code.
pub fn thirty_random_kills(world: &World) {
    let asked = std::env::var("SMOKE_SEED").ok().filter(|seed| !seed.is_empty());
    let seed = asked.map_or_else(random::number, |seed| seed.parse().expect("SMOKE_SEED is a number"));
    println!("| SMOKE_SEED={seed}");
    let mut dice = Dice(seed);
    let before = world.start_and_count();
    let command = "echo begun; while [ ! -e /run/enough ]; do sleep 0.2; done; exit 7";
    let lasting = world.banger(&["vm", "run", "--name", ROCK, "--", "sh", "-c", command]).limit(600).spawn();
    lasting.wait_for_output("begun");
    let rock = identity(world);
    let mut kills = 0;
    while kills < KILLS {
        // A monitor that had ended already was not killed.
        kills += usize::from(play(world, kills + 1, &mut dice));
        assert_eq!(identity(world), rock, "the VM that nobody killed is another");
    }
    world.guest(ROCK, &["touch", "/run/enough"]).output().ok();
    lasting.wait().ends(7);
    for vm in world.owner().vms() {
        world.banger(&["vm", "delete", vm.spec.name.as_str()]).output().ok();
    }
    wait_for_equality(world, &before, SETTLING);
    println!("| {KILLS} kills, nothing left");
}

/// The process and the boot of the VM that nobody kills.
fn identity(world: &World) -> (Option<ProcessRef>, String) {
    (world.owner().vm(ROCK).process, boot_id(world, ROCK))
}

/// One operation and one kill; false where there was nothing to kill.
fn play(world: &World, round: usize, dice: &mut Dice) -> bool {
    let other = other(world).map(|vm| vm.state);
    let victim = dice.pick(&[Victim::Daemon, Victim::Helper, Victim::CommandLine, Victim::Monitor]);
    let operation = match (victim, other) {
        // A killed command line says something only where the VM was to end with it.
        (Victim::CommandLine, Some(_)) => return_to_nothing(world),
        (Victim::CommandLine, None) => Operation::Run,
        (Victim::Daemon | Victim::Helper | Victim::Monitor, None) => dice.pick(&[Operation::Create, Operation::Run]),
        (Victim::Daemon | Victim::Helper | Victim::Monitor, Some(VmState::Running)) => {
            dice.pick(&[Operation::Stop, Operation::Delete])
        }
        (Victim::Daemon | Victim::Helper | Victim::Monitor, Some(_)) => {
            dice.pick(&[Operation::Start, Operation::Start, Operation::Delete])
        }
    };
    let after = Duration::from_millis(dice.below(LATEST));
    let running = begin(world, operation, victim);
    // The moment is what is tried; there is no event to wait for.
    std::thread::sleep(after);
    let killed = kill(world, victim, &running);
    world.start();
    let ended = running.wait();
    let begun = ended.text().contains("begun");
    if operation == Operation::Run && begun && matches!(victim, Victim::Daemon | Victim::Helper) {
        assert_eq!(ended.code, 5, "the command ran and its exit code was lost: {}", ended.stderr);
    }
    let left = settled(world, operation);
    if victim == Victim::Monitor && killed {
        dead_says_why(operation, ended.code, left.as_ref());
    }
    let shown = left.map_or("no VM".to_owned(), |vm| format!("{}, {}", vm.state, vm.reason.unwrap_or_default()));
    let (what, at) = (format!("{operation:?}"), after.as_millis());
    let victim = format!("{victim:?}{}", if killed { "" } else { " (none there)" });
    println!("| {round:2} | {what:6} | {victim:22} | after {at:4} ms | exit {:3} | {shown:.90} |", ended.code);
    killed
}

fn return_to_nothing(world: &World) -> Operation {
    world.banger(&["vm", "delete", OTHER]).output().ok();
    Operation::Run
}

fn begin(world: &World, operation: Operation, victim: Victim) -> Running {
    let lasts = if victim == Victim::CommandLine { "echo begun; sleep 300" } else { "echo begun; sleep 3; exit 5" };
    let command: &[&str] = match operation {
        Operation::Create => &["vm", "create", "--name", OTHER],
        Operation::Start => &["vm", "start", OTHER],
        Operation::Stop => &["vm", "stop", OTHER],
        Operation::Delete => &["vm", "delete", OTHER],
        Operation::Run => &["vm", "run", "--rm", "--name", OTHER, "--", "sh", "-c", lasts],
    };
    world.banger(command).limit(BOOT).spawn()
}

/// Whether there was one to kill.
fn kill(world: &World, victim: Victim, running: &Running) -> bool {
    let (daemon, helper) = pids(world);
    match victim {
        Victim::Daemon => end(daemon),
        Victim::Helper => end(helper),
        Victim::CommandLine => running.signal(Signal::KILL),
        Victim::Monitor => match other(world).and_then(|vm| vm.process) {
            // It may be ending just now.
            Some(process) => return kill_exactly(process),
            None => return false,
        },
    }
    true
}

fn kill_exactly(process: ProcessRef) -> bool {
    let Some(pidfd) = banger::os::process::open(process).expect("it can be looked at") else { return false };
    banger::os::process::kill(&pidfd).expect("it can be killed");
    assert!(banger::os::process::wait_for_end(&pidfd, SETTLING).expect("it can be waited for"), "it does not end");
    true
}

fn other(world: &World) -> Option<VmRecord> {
    world.owner().vms().into_iter().find(|vm| vm.spec.name.as_str() == OTHER)
}

/// The VM once it is in no state that must pass, and gone where it was to end with its command.
fn settled(world: &World, operation: Operation) -> Option<VmRecord> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let found = other(world);
        let passing = found.as_ref().is_some_and(|vm| operation == Operation::Run || is_passing(vm));
        if !passing {
            return found;
        }
        assert!(Instant::now() < deadline, "it never settled: {found:?}");
        // The store of another process: there is no event to wait for.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A VM whose monitor was killed does not run, and says why, unless its end was asked for.
fn dead_says_why(operation: Operation, code: i32, left: Option<&VmRecord>) {
    let Some(vm) = left else {
        return assert!(matches!(operation, Operation::Delete | Operation::Run), "it is gone after {operation:?}");
    };
    assert!(matches!(vm.state, VmState::Stopped | VmState::Error), "its monitor was killed and it is {}", vm.state);
    let asked = matches!(operation, Operation::Stop | Operation::Delete) && code == 0;
    assert!(asked || vm.reason.is_some(), "it is {} and does not say why", vm.state);
}

/// splitmix64: the same seed, the same kills.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize]
    }
}
