//! What daemon and helper cost while nobody asks for anything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::direct::helper_pid;
use crate::say;
use crate::table::Line;
use crate::world::World;

/// How long wakeups are counted.
const COUNTED: Duration = Duration::from_secs(10);

/// How long both may take to come to rest after the last command.
const SETTLING: Duration = Duration::from_secs(15);

/// Memory and wakeups of both, after all that was measured before.
pub fn lines(world: &World) -> [Line; 4] {
    say("daemon and helper at rest");
    let daemon = world.owner().pid();
    let helper = helper_pid(&world.home().join("root-run/bangerd-root.sock"));
    settle(&[daemon, helper]);
    let before = [daemon, helper].map(wakeups);
    std::thread::sleep(COUNTED);
    let [daemon_woke, helper_woke] =
        [(daemon, &before[0]), (helper, &before[1])].map(|(pid, then)| more(then, &wakeups(pid)));
    [
        Line::amount("memory of the idle daemon", resident_mib(daemon), 12.0, "MiB"),
        Line::amount("memory of the idle helper", resident_mib(helper), 6.0, "MiB"),
        Line::amount("wakeups of the idle daemon", daemon_woke, 0.0, "per s"),
        Line::amount("wakeups of the idle helper", helper_woke, 0.0, "per s"),
    ]
}

/// Waits for a second without a wakeup. One that never rests is counted all the same.
fn settle(pids: &[i32]) {
    let deadline = Instant::now() + SETTLING;
    let counts = || pids.iter().map(|pid| wakeups(*pid)).collect::<Vec<_>>();
    let mut last = counts();
    while Instant::now() < deadline {
        // Rest is the absence of events: only time can show it.
        std::thread::sleep(Duration::from_secs(1));
        let now = counts();
        if now == last {
            return;
        }
        last = now;
    }
}

/// How often each thread has given up the processor by itself, which it does to wait
/// (proc_pid_status(5)). A thread that has ended is not there any more.
fn wakeups(pid: i32) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").flatten();
    let count = |task: &std::fs::DirEntry| number(&task.path().join("status"), "voluntary_ctxt_switches:");
    tasks.filter_map(|task| Some((task.file_name().to_string_lossy().into_owned(), count(&task)?))).collect()
}

/// Wakeups per second that `now` has more than `before`; a new thread counts from nothing, one that
/// has ended has woken to do so.
fn more(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> f64 {
    let added: u64 = now.iter().map(|(task, count)| count - before.get(task).unwrap_or(&0)).sum();
    let ended = before.keys().filter(|task| !now.contains_key(*task)).count();
    (added as f64 + ended as f64) / COUNTED.as_secs_f64()
}

fn resident_mib(pid: i32) -> f64 {
    let kib = number(format!("/proc/{pid}/status").as_ref(), "VmRSS:").expect("the process lives");
    kib as f64 / 1024.0
}

fn number(file: &std::path::Path, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
