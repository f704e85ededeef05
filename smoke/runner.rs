//! Plays scenarios, each in a process of its own, and counts. Two lanes go on at once, one scenario after the other in
//! each: what takes minutes and measures nothing stands beside all the others.
//!
//! The process that counts never enters a namespace and never runs banger: it can always clean up.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use banger::os::process;

use crate::world::World;

/// Exit code of a scenario that cannot be played here.
const SKIPPED: i32 = 77;

/// One promise.
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    limit: Duration,
    base: bool,
    /// Why it is played only where it is named, or required.
    only_asked: Option<&'static str>,
    /// Played in the second lane.
    is_beside: bool,
    play: fn(&World),
}

impl Scenario {
    /// A scenario that begins with kernel and image in its store.
    pub const fn new(name: &'static str, seconds: u64, play: fn(&World)) -> Self {
        Self { name, limit: Duration::from_secs(seconds), base: true, only_asked: None, is_beside: false, play }
    }

    /// A measurement: played where it is named, or required.
    pub const fn measurement(name: &'static str, seconds: u64, play: fn(&World)) -> Self {
        Self { only_asked: Some("a measurement"), ..Self::new(name, seconds, play) }
    }

    /// One that takes minutes and measures no time: it is played beside the others.
    pub const fn beside(name: &'static str, seconds: u64, play: fn(&World)) -> Self {
        Self { is_beside: true, ..Self::new(name, seconds, play) }
    }

    /// A scenario that begins with nothing.
    pub const fn bare(name: &'static str, seconds: u64, play: fn(&World)) -> Self {
        Self { base: false, ..Self::new(name, seconds, play) }
    }
}

enum Outcome {
    /// With the rows of the tables that it has printed.
    Passed(String),
    Failed(String),
    Skipped(String),
}

/// Prints the names.
pub fn list(scenarios: &[Scenario]) -> ExitCode {
    scenarios.iter().for_each(|s| println!("{}", s.name));
    ExitCode::SUCCESS
}

/// Ends this scenario: it cannot be played here, because of `reason`.
pub fn skip(reason: &str) -> ! {
    println!("skip: {reason}");
    std::process::exit(SKIPPED)
}

/// Plays one scenario in this process, in the world that its parent made.
pub fn play_here(scenarios: &[Scenario], name: &str) -> ExitCode {
    let Some(scenario) = scenarios.iter().find(|s| s.name == name) else {
        eprintln!("no scenario is called {name:?}");
        return ExitCode::from(2);
    };
    (scenario.play)(&World::inherited());
    ExitCode::SUCCESS
}

/// Plays all scenarios whose name contains one of `filters`; all without filters.
pub fn run(scenarios: &[Scenario], filters: &[String]) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "the scenarios make network namespaces and start the root helper: run smoke/run, which asks for root"
        );
        return ExitCode::from(2);
    }
    let filters: Vec<&String> = filters.iter().filter(|f| !f.starts_with('-')).collect();
    let required = required();
    let unknown = unknown(scenarios, &filters, &required);
    if !unknown.is_empty() {
        eprintln!("no scenario is called so; their names are printed by --list: {}", unknown.join(", "));
        return ExitCode::from(2);
    }
    let asked = |s: &&Scenario| filters.is_empty() || filters.iter().any(|f| s.name.contains(f.as_str()));
    let chosen: Vec<&Scenario> = scenarios.iter().filter(asked).collect();
    // A filter that leaves the base out still needs it; `base` is quick when it is there.
    let needs_base = chosen.iter().any(|s| s.base) && !chosen.iter().any(|s| s.name == "base");
    let first = scenarios.iter().filter(|s| needs_base && s.name == "base");
    let chosen: Vec<&Scenario> = first.chain(chosen).collect();
    clear_away_stages_of_the_dead();
    let is_asked = |s: &Scenario| !filters.is_empty() || required.iter().any(|name| name == s.name || name == "all");
    let score = play_in_lanes(&chosen, &is_asked);
    recap(&score.failures);
    println!("{} passed, {} failed, {} skipped", score.passed, score.failures.len(), score.skipped);
    ExitCode::from(u8::from(!score.failures.is_empty()))
}

/// What has been counted.
#[derive(Default)]
struct Score {
    passed: u32,
    skipped: u32,
    failures: Vec<String>,
}

impl Score {
    /// Counts and prints what came of `scenario`.
    fn add(&mut self, scenario: &Scenario, outcome: Outcome, took: Duration) {
        let took = took.as_secs_f64();
        match outcome {
            Outcome::Passed(tables) => {
                self.passed += 1;
                println!("ok   {} {took:.1}s{tables}", scenario.name);
            }
            Outcome::Failed(report) => {
                let failure = format!("FAIL {} {took:.1}s\n{report}", scenario.name);
                println!("{failure}");
                self.failures.push(failure);
            }
            Outcome::Skipped(reason) => {
                self.skipped += 1;
                println!("skip {}: {reason}", scenario.name);
            }
        }
    }
}

/// What is played before there are two lanes: what the others begin with, and times of milliseconds.
const ALONE: [&str; 2] = ["base", "quick_commands"];

/// All of them. The second lane begins behind what is played alone, where there is a processor for it and something
/// else to play.
fn play_in_lanes(chosen: &[&Scenario], is_asked: &(dyn Fn(&Scenario) -> bool + Sync)) -> Score {
    let score = Mutex::new(Score::default());
    let lane = |stage: &Stage, scenarios: &[&Scenario], patience: u32| {
        for scenario in scenarios {
            let began = Instant::now();
            let outcome = match scenario.only_asked {
                Some(why) if !is_asked(scenario) => {
                    Outcome::Skipped(format!("{why}: played when it is named: smoke/run {}", scenario.name))
                }
                _ => stage.play(scenario, patience),
            };
            score.lock().expect("nobody panics while counting").add(scenario, outcome, began.elapsed());
        }
    };
    let begins = chosen.iter().rposition(|s| ALONE.contains(&s.name)).map_or(0, |at| at + 1);
    let (first, rest) = chosen.split_at(begins);
    let (beside, rest): (Vec<&Scenario>, Vec<&Scenario>) = rest.iter().partition(|s| s.is_beside);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let main = Stage::set("");
    lane(&main, first, 1);
    if processors < 2 || rest.is_empty() || beside.is_empty() {
        lane(&main, &[rest, beside].concat(), 1);
    } else {
        // Each takes something from the other: who is slow is given more time.
        std::thread::scope(|scope| {
            scope.spawn(|| lane(&Stage::set("b"), &beside, 2));
            lane(&main, &rest, 2);
        });
    }
    score.into_inner().expect("nobody panics while counting")
}

/// How much of a failure the recap repeats, in lines.
const RECAP_LINES: usize = 30;

/// What failed once more: of an hour's log many a reader keeps only the end.
fn recap(failures: &[String]) {
    if !failures.is_empty() {
        println!("\nwhat failed, in short:");
    }
    for failure in failures {
        let mut lines = failure.lines();
        lines.by_ref().take(RECAP_LINES).for_each(|line| println!("{line}"));
        match lines.count() {
            0 => {}
            more => println!("     ({more} more lines above)"),
        }
    }
}

/// What names no scenario: words of which no name contains them, and names in `SMOKE_REQUIRE`.
fn unknown(scenarios: &[Scenario], words: &[&String], required: &[String]) -> Vec<String> {
    let words = words.iter().filter(|w| !scenarios.iter().any(|s| s.name.contains(w.as_str())));
    let required = required.iter().filter(|r| *r != "all" && !scenarios.iter().any(|s| s.name == r.as_str()));
    words.map(|w| (*w).clone()).chain(required.map(|r| format!("SMOKE_REQUIRE={r}"))).collect()
}

/// The names in `SMOKE_REQUIRE=name,…`.
fn required() -> Vec<String> {
    let text = std::env::var("SMOKE_REQUIRE").unwrap_or_default();
    text.split(',').map(|r| r.trim().to_owned()).filter(|r| !r.is_empty()).collect()
}

/// Where stages are set: not /tmp, which may be memory; short, because sockets have 108 bytes for
/// their path.
const STAGES: &str = "/var/tmp";

/// What a stage's name begins with; its runner's pid follows, and the lane where it is not the first.
const STAGE: &str = "bng-smoke-";

/// Marks a stage whose runner was asked by `SMOKE_KEEP` to leave what failed: nobody clears it away.
const KEPT: &str = "kept";

/// A runner that was killed could not clean up: its worlds are removed with all that lives there.
/// Only root's folders count: anybody may write into /var/tmp.
fn clear_away_stages_of_the_dead() {
    for entry in std::fs::read_dir(STAGES).expect("the stages can be listed").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (Some(runner), Ok(about)) = (name.strip_prefix(STAGE), entry.metadata()) else { continue };
        let kept = entry.path().join(KEPT).exists();
        let pid = runner.trim_end_matches(|c: char| c.is_ascii_lowercase());
        if kept || !about.is_dir() || about.uid() != 0 || Path::new("/proc").join(pid).exists() {
            continue;
        }
        for world in std::fs::read_dir(entry.path()).into_iter().flatten().flatten().filter(|w| w.path().is_dir()) {
            let world = World::left_behind(&entry.path(), runner, &world.file_name().to_string_lossy());
            world.kill_all();
            world.remove();
        }
        println!("     cleared away what runner {runner} left");
        // Only a file or two are left in it, which harm nobody.
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

/// Where all scenarios of a lane are played.
pub struct Stage {
    folder: PathBuf,
    runner: String,
}

impl Stage {
    /// A new one for `lane` of this runner, with the binary under test in it.
    pub fn set(lane: &str) -> Self {
        let runner = format!("{}{lane}", std::process::id());
        let folder = Path::new(STAGES).join(format!("{STAGE}{runner}"));
        std::fs::create_dir(&folder).expect("a new folder in /var/tmp");
        if std::env::var_os("SMOKE_KEEP").is_some() {
            std::fs::write(folder.join(KEPT), "").expect("the mark can be written");
        }
        std::fs::copy(tested_binary(), folder.join("banger")).expect("the binary can be copied");
        Self { folder, runner }
    }

    /// A new world on this stage.
    pub fn world(&self, name: &str) -> World {
        World::build(&self.folder, &self.runner, name, &self.folder.join("banger"))
    }

    /// Plays it, `patience` times as long as it may take alone.
    fn play(&self, scenario: &Scenario, patience: u32) -> Outcome {
        let world = self.world(scenario.name);
        if scenario.base
            && let Err(reason) = crate::base::clone_into(&world.home().join("state"))
        {
            world.remove();
            return Outcome::Failed(format!("     no kernel and image to begin with: {reason}"));
        }
        let outcome = self.perform(scenario, &world, patience);
        world.kill_all();
        let outcome = match outcome {
            Outcome::Failed(why) => Outcome::Failed(format!("{why}\n{}", world.report())),
            fine @ (Outcome::Passed(_) | Outcome::Skipped(_)) => fine,
        };
        if matches!(outcome, Outcome::Failed(_)) && std::env::var_os("SMOKE_KEEP").is_some() {
            println!("     kept: {}", world.folder().display());
        } else {
            world.remove();
        }
        outcome
    }

    fn perform(&self, scenario: &Scenario, world: &World, patience: u32) -> Outcome {
        let limit = scenario.limit * patience;
        let output = File::create(world.output()).expect("the scenario's output file");
        let own = std::env::current_exe().expect("this program's path");
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", world.netns()))
            .arg(own)
            .args(["--one", scenario.name])
            .envs(world.variables())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a second descriptor"))
            .stdout(output)
            .spawn()
            .expect("nsenter starts");
        let ended = match process::reference(child.id() as i32).ok().and_then(|r| process::open(r).ok().flatten()) {
            Some(pidfd) => process::wait_for_end(&pidfd, limit).expect("pidfd can be polled"),
            None => true,
        };
        if !ended {
            child.kill().expect("the scenario can be killed");
        }
        let status = child.wait().expect("the scenario can be reaped");
        let said = std::fs::read_to_string(world.output()).unwrap_or_default();
        match status.code() {
            Some(0) => Outcome::Passed(tables(&said)),
            Some(SKIPPED) => skipped_or_required(scenario.name, &said),
            _ if !ended => Outcome::Failed(format!("     not done after {limit:?}\n{}", indent(&said))),
            _ => Outcome::Failed(format!("     {status}\n{}", indent(&said))),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::env::var_os("SMOKE_KEEP").is_none() {
            // Left behind it harms nobody, and each world has been removed by itself.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// What a scenario has measured is of interest when it has passed, too.
fn tables(said: &str) -> String {
    said.lines().filter(|line| line.starts_with('|')).map(|row| format!("\n     {row}")).collect()
}

/// `SMOKE_REQUIRE=name,…` turns skips into failures.
fn skipped_or_required(name: &str, said: &str) -> Outcome {
    let reason = said.lines().find_map(|l| l.strip_prefix("skip: ")).unwrap_or("no reason given").to_owned();
    if required().iter().any(|r| r == name || r == "all") {
        return Outcome::Failed(format!("     required by SMOKE_REQUIRE, but skipped: {reason}"));
    }
    Outcome::Skipped(reason)
}

/// The release binary that `smoke/run` names, else the one that cargo built beside this test.
pub fn tested_binary() -> PathBuf {
    std::env::var_os("BANGER_BIN").map_or_else(|| Path::new(env!("CARGO_BIN_EXE_banger")).to_owned(), PathBuf::from)
}

/// `text` set off from the runner's own lines.
pub fn indent(text: &str) -> String {
    text.lines().map(|l| format!("     | {l}")).collect::<Vec<_>>().join("\n")
}
