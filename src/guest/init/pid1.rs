//! The small pid 1 that stays: reaps, and in the end shuts down cleanly.

use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::guest::console::say;
use crate::guest::error::{Doing, GuestError};

/// `SIGPWR` on Linux (signal(7)); signal-hook does not name it.
const SIGPWR: i32 = 30;

/// What may end this pid 1: the agent and `kill 1` (TERM), busybox's `poweroff`, `halt` (USR2,
/// USR1), a power failure (PWR), ctrl-alt-del (INT).
const ENDING: [i32; 5] = [SIGTERM, SIGUSR1, SIGUSR2, SIGPWR, SIGINT];

/// How long processes may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// How long they may take after SIGKILL: only one that hangs in the kernel takes longer.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// What `/proc/1/comm` says of this pid 1: the agent knows by it whom it asks for a shutdown.
pub const NAME: &str = "banger-init";

/// This process as pid 1 for good.
pub struct Pid1(Signals);

/// Takes signals and the name from here on: before the agent starts, for pid 1 is not reached by
/// a signal that it has no handler for.
pub fn prepare() -> Result<Pid1, GuestError> {
    let signals = Signals::new(ENDING.iter().chain([&SIGCHLD])).doing(|| "wait for signals".into())?;
    rustix::thread::set_name(c"banger-init").doing(|| "take the name of pid 1".into())?;
    Ok(Pid1(signals))
}

/// Reaps until told to end, then ends everything; the caller powers off.
pub fn stay(pid1: Pid1, agent: Option<u32>) {
    let Pid1(mut signals) = pid1;
    say("pid 1 is banger's");
    // Those that ended before the handler was there gave no signal.
    reap_all(agent);
    for signal in signals.forever() {
        if signal != SIGCHLD {
            say(&format!("signal {signal}: going down"));
            break;
        }
        reap_all(agent);
    }
    end_everything();
}

/// Takes every ended child; orphans are pid 1's children too.
fn reap_all(agent: Option<u32>) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid.as_raw_nonzero().get() as u32) == agent {
            say(&format!("trouble: the agent ended ({status:?})"));
        }
    }
}

fn end_everything() {
    signal_all(Signal::TERM);
    // A stopped process takes SIGTERM only when it goes on.
    signal_all(Signal::CONT);
    if !wait_for_none(GRACE) {
        say("some processes did not end; killing them");
        signal_all(Signal::KILL);
        wait_for_none(KILL_GRACE);
    }
    rustix::fs::sync();
    match mount_remount("/", MountFlags::RDONLY, c"") {
        Ok(()) => say("root disk is read only; powering off"),
        Err(error) => say(&format!("trouble: cannot make the root disk read only: {error}")),
    }
}

/// The group of pid 1, negated, is -1: everything but the caller (kill(2)).
fn signal_all(signal: Signal) {
    if std::process::id() != 1 {
        return;
    }
    // `ESRCH`: there is nothing else any more.
    let _ = kill_process_group(Pid::INIT, signal);
}

/// Waits until this process has no child, so until no process is left; false at the limit.
fn wait_for_none(limit: Duration) -> bool {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        while !matches!(wait(WaitOptions::empty()), Err(Errno::CHILD)) {}
        // Nobody listens when the limit was reached first.
        let _ = done.send(());
    });
    ended.recv_timeout(limit).is_ok()
}
