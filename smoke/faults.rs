//! Every step of a VM's life × what can go wrong there: the step fails, the daemon is killed, the
//! helper is killed. On the monitor of the tests; all that surrounds it is real.
//!
//! Daemon or helper waits at the step until the victim is dead (`BANGER_FAULT`), so each case hits
//! its step exactly. Afterwards both are started again: no state is left hanging, nothing is held
//! for a VM that does not run, the VM can be started or is gone, the next one works, nothing leaks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use banger::model::{VmRecord, VmState};
use banger::os::fault_point::VARIABLE;
use banger::os::process;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::census::{Census, wait_for_equality};
use crate::command::Output;
use crate::daemons::{end, pids};
use crate::fake::on_the_fake_monitor;
use crate::world::World;

/// The VM that suffers.
const VM: &str = "victim";

/// How long a process may take until it comes to a step.
const ARRIVAL: Duration = Duration::from_secs(30);

/// How long states and resources may take to settle after a restart.
const SETTLING: Duration = Duration::from_secs(20);

/// An operation, what must have been done before it, and the steps that it consists of.
struct Operation {
    name: &'static str,
    before: &'static [&'static [&'static str]],
    command: &'static [&'static str],
    steps: &'static [&'static str],
}

const MADE: &[&str] = &["vm", "create", "--no-start", "--name", VM];
const STARTED: &[&str] = &["vm", "create", "--name", VM];

const OPERATIONS: [Operation; 7] = [
    Operation { name: "create", before: &[], command: MADE, steps: &["MakeFiles", "MakeDisk", "Mark(Created)"] },
    Operation {
        name: "start",
        before: &[MADE],
        command: &["vm", "start", VM],
        steps: &["Launch", "AwaitReady", "Mark(Running)"],
    },
    Operation { name: "start", before: &[MADE], command: &["vm", "start", VM], steps: &LAUNCH },
    Operation {
        name: "stop",
        before: &[STARTED],
        command: &["vm", "stop", VM],
        steps: &["Mark(Stopping)", "AskShutdown", "PressPower", "Release", "Mark(Stopped)"],
    },
    Operation { name: "stop", before: &[STARTED], command: &["vm", "stop", VM], steps: &RELEASE },
    Operation {
        name: "delete",
        before: &[STARTED],
        command: &["vm", "delete", VM],
        steps: &["Mark(Stopping)", "Release", "RemoveFiles", "Forget"],
    },
    Operation { name: "delete", before: &[STARTED], command: &["vm", "delete", VM], steps: &RELEASE },
];

/// What the helper does for a launch.
const LAUNCH: [&str; 13] = [
    "launch record",
    "launch tap",
    "launch rules",
    "launch cgroup",
    "launch sockets",
    "launch jail",
    "launch disks",
    "launch console",
    "launch process",
    "launch note",
    "launch scope",
    "launch leave",
    "launch answer",
];

/// What the helper does for a release.
const RELEASE: [&str; 6] =
    ["release process", "release cgroup", "release disks", "release rules", "release tap", "release record"];

/// The steps that differ with a jail: a network of its own, the jail, its disks, and a process that waits
/// outside of it.
const JAILED: [(usize, &[&str]); 2] = [
    (2, &["launch rules", "launch jail", "launch disks", "launch console", "launch note", "launch answer"]),
    (6, &["release process", "release disks", "release cgroup", "release record"]),
];

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    StepFails,
    DaemonKilled,
    HelperKilled,
}

/// One line of the table.
struct Case<'a> {
    operation: &'a Operation,
    step: &'a str,
    moment: &'a str,
    wrong: Wrong,
}

/// All operations × steps × faults. After a step is before the next one; so "after" is played for
/// the last step alone.
pub fn every_step_may_fail_or_die(world: &World) {
    let world = &on_the_fake_monitor(world);
    let before = world.start_and_count();
    let wrongs = [Wrong::StepFails, Wrong::DaemonKilled, Wrong::HelperKilled];
    for operation in &OPERATIONS {
        let last = operation.steps.last().map(|step| (*step, "after"));
        for (step, moment) in operation.steps.iter().map(|step| (*step, "before")).chain(last) {
            for wrong in wrongs {
                play(world, &before, &Case { operation, step, moment, wrong });
            }
        }
    }
}

/// The same for monitors in jails, whose disks are loops here.
pub fn a_jail_may_fail_or_die(world: &World) {
    let world = &on_the_fake_monitor(world).with("BANGER_ACCEL", "kvm");
    let before = world.start_and_count();
    for (at, steps) in JAILED {
        for step in steps {
            for wrong in [Wrong::StepFails, Wrong::HelperKilled] {
                play(world, &before, &Case { operation: &OPERATIONS[at], step, moment: "after", wrong });
            }
        }
    }
}

/// Where there is no cgroup, nothing but the helper's record leads to a monitor.
pub fn without_cgroups_nothing_is_lost(world: &World) {
    let world = &on_the_fake_monitor(world);
    let before = world.start_and_count();
    for step in ["launch process", "launch note", "launch leave", "launch answer"] {
        let operation = &OPERATIONS[2];
        let case = Case { operation, step, moment: "before", wrong: Wrong::HelperKilled };
        play_with(world, &before, &case, &|armed| {
            let script = "umount --lazy --recursive /sys/fs/cgroup; exec \"$@\"";
            let binary = armed.binary().display().to_string();
            armed.tool("unshare", &["--mount", "sh", "-ec", script, "sh", &binary, "daemon", "start"]).output().ok();
        });
    }
}

fn play(world: &World, before: &Census, case: &Case) {
    play_with(world, before, case, &|armed| drop(armed.start()));
}

fn play_with(world: &World, before: &Census, case: &Case, start: &dyn Fn(&World)) {
    let Case { operation, step, moment, wrong } = case;
    let shown = format!("{:6} {moment:6} {step:16} {wrong:?}", operation.name);
    println!("{shown}");
    world.banger(&["daemon", "stop"]).output().ok();
    let gate = Gate::make(&world.folder().join("gate"));
    let effect = if *wrong == Wrong::StepFails { "fail".to_owned() } else { gate.path.display().to_string() };
    start(&world.with(VARIABLE, &format!("{step}:{moment}:{effect}")));
    for command in operation.before {
        world.banger(command).output().ok();
    }
    let ended = suffer(world, case, &gate);
    world.start();
    let row = settled(world);
    let left = row.as_ref().map_or("no row".to_owned(), |vm| vm.state.to_string());
    holds_nothing_unless_it_runs(world, before, row.as_ref());
    // What was to be deleted may have lost its disk: it can be deleted, and that is all.
    let startable = row.is_some() && operation.name != "delete";
    works_again(world, row.is_some(), startable);
    wait_for_equality(world, before, SETTLING);
    println!("| {shown:42} | exit {:3} | {left:8} | works again, nothing left", ended.code);
}

/// Has it go wrong; gives how the command ended.
fn suffer(world: &World, case: &Case, gate: &Gate) -> Output {
    let (daemon, helper) = pids(world);
    let victim = match case.wrong {
        Wrong::StepFails => {
            let ended = world.banger(case.operation.command).output();
            assert_ne!(ended.code, 0, "the step failed and the command did not: {}", ended.stderr);
            return ended;
        }
        Wrong::DaemonKilled => daemon,
        Wrong::HelperKilled => helper,
    };
    let running = world.banger(case.operation.command).spawn();
    let open = gate.wait_for_arrival();
    end(victim);
    drop(open);
    running.wait()
}

/// The VM once it is in no state that must pass, and has no process that is dead.
fn settled(world: &World) -> Option<VmRecord> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let found = world.owner().vms().into_iter().find(|vm| vm.spec.name.as_str() == VM);
        if found.as_ref().is_none_or(|vm| !is_passing(vm)) {
            return found;
        }
        assert!(Instant::now() < deadline, "it hangs: {found:?}");
        // The store of another process: there is no event to wait for.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the daemon has still to do something about it.
pub fn is_passing(vm: &VmRecord) -> bool {
    let is_dead = |process| process::open(process).expect("it can be looked for").is_none();
    match vm.state {
        VmState::Creating | VmState::Starting | VmState::Stopping => true,
        // Without a process it is being released, and its end is noted next.
        VmState::Running => vm.process.is_none_or(is_dead),
        VmState::Error => vm.process.is_some_and(is_dead),
        VmState::Created | VmState::Stopped => false,
    }
}

fn holds_nothing_unless_it_runs(world: &World, before: &Census, row: Option<&VmRecord>) {
    match row {
        Some(vm) if vm.state == VmState::Running || vm.process.is_some() => {
            world.banger(&["vm", "ping", VM]).output().ok();
        }
        Some(_) => wait_for_equality(world, &before.with_the_vm(world), SETTLING),
        None => wait_for_equality(world, before, SETTLING),
    }
}

/// The VM itself, where it is still there, and the next one.
fn works_again(world: &World, is_there: bool, startable: bool) {
    if startable {
        world.banger(&["vm", "start", VM]).output().ok();
        assert_eq!(world.owner().vm(VM).state, VmState::Running);
    }
    if is_there {
        world.banger(&["vm", "delete", VM]).output().ok();
    }
    world.banger(&["vm", "create", "--name", "next"]).output().ok();
    world.banger(&["vm", "delete", "next"]).output().ok();
}

/// A FIFO at which a process waits for what is done to it.
struct Gate {
    path: PathBuf,
}

impl Gate {
    fn make(path: &Path) -> Self {
        banger::os::files::remove_file(path).expect("an old gate can be removed");
        mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a FIFO can be made");
        Self { path: path.to_owned() }
    }

    /// Returns once a process waits there; it goes on when what is returned is dropped.
    fn wait_for_arrival(&self) -> File {
        let (sender, arrival) = mpsc::channel();
        let path = self.path.clone();
        std::thread::spawn(move || sender.send(File::options().write(true).open(path)));
        let opened = arrival.recv_timeout(ARRIVAL).expect("nobody came to this step");
        opened.expect("the gate opens")
    }
}
