//! What banger costs, held against its limits: `release/bench` builds what is measured and calls this.
//!
//! Worlds, kernel and image are those of the tests (`smoke/`). The process that was called makes a
//! world, measures in a second one inside that world's network namespace, and cleans up whatever
//! becomes of it, Ctrl-C included. What even that cannot clean up, the next `smoke/run` does.

#![forbid(unsafe_code)]
// Talking to the person who measures is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[allow(dead_code)]
#[path = "../../smoke/base.rs"]
mod base;
#[allow(dead_code)]
#[path = "../../smoke/census.rs"]
mod census;
#[allow(dead_code)]
#[path = "../../smoke/command.rs"]
mod command;
#[allow(dead_code)]
#[path = "../../smoke/direct.rs"]
mod direct;
#[allow(dead_code)]
#[path = "../../smoke/runner.rs"]
mod runner;
#[allow(dead_code)]
#[path = "../../smoke/stored.rs"]
mod stored;
#[allow(dead_code)]
#[path = "../../smoke/world.rs"]
mod world;

/// How long commands take.
mod commands;
/// The same boot without banger.
mod floor;
/// Daemon and helper at rest.
mod idle;
/// Samples, medians, lines.
mod table;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use banger::os::process;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use runner::Stage;
use world::World;

/// Seconds that a boot in software may take.
pub const BOOT: u64 = 240;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--make") => {
            base::make(&World::inherited());
            ExitCode::SUCCESS
        }
        Some("--measure") => measure(&World::inherited()),
        _ if rustix::process::geteuid().is_root() => run(),
        _ => {
            eprintln!("network namespaces and the root helper need root: run release/bench, which asks for it");
            ExitCode::from(2)
        }
    }
}

/// One line of progress.
pub fn say(text: &str) {
    eprintln!("measuring: {text}");
}

/// Prints the table of everything.
fn measure(world: &World) -> ExitCode {
    world.start();
    let mut lines = vec![commands::cold_start(world), commands::exec(world)];
    lines.extend(commands::quick(world));
    lines.extend(idle::lines(world));
    let (text, held) = table::table(&lines);
    let version = world.banger(&["--version"]).output().ok().text();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{version}, {cpus} CPUs\n\n{text}");
    ExitCode::from(u8::from(!held))
}

/// Plays both parts on a stage of their own.
fn run() -> ExitCode {
    let stage = Stage::set("");
    say("kernel and image, made when they are not there for this binary");
    let made = play(&stage, "--make");
    ExitCode::from(if made == 0 { play(&stage, "--measure") } else { made })
}

/// Plays one part in a world of its own, and removes the world; the part's exit code. A signal ends
/// the part, not this process, which cleans up.
fn play(stage: &Stage, part: &str) -> u8 {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).expect("signals can be waited for");
    let world = stage.world(part);
    if part == "--measure" {
        base::clone_into(&world.home().join("state")).expect("kernel and image to begin with");
    }
    let status = in_namespace(&world, part, &mut signals);
    world.kill_all();
    if status.code().is_some_and(|code| code > 1) {
        eprintln!("{}", world.report());
    }
    world.remove();
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// This program again, inside the world's namespace, to its end, which a signal brings about.
fn in_namespace(world: &World, part: &str, signals: &mut Signals) -> ExitStatus {
    let own = std::env::current_exe().expect("this program's path");
    let netns = format!("--net=/run/netns/{}", world.netns());
    let mut command = Command::new("nsenter");
    command.arg(netns).arg(own).arg(part).envs(world.variables()).stdin(Stdio::null());
    let mut child = command.spawn().expect("nsenter starts");
    let pid = i32::try_from(child.id()).expect("a pid");
    let pidfd = process::open(process::reference(pid).expect("a child that was not reaped")).expect("a pidfd");
    let handle = signals.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let (Some(_), Some(pidfd)) = (signals.forever().next(), &pidfd) {
                process::kill(pidfd).expect("it can be killed");
            }
        });
        let status = child.wait().expect("it can be reaped");
        handle.close();
        status
    })
}
