//! Decisions as data: what is wanted × what is seen → steps, and each step's undo.
//!
//! The daemon executes; nothing here does. Each step is idempotent, so a plan may be carried out
//! again from its beginning after a crash.

use super::VmState;

/// What somebody wants of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Complete and not started.
    Created,
    /// Running and answering.
    Running,
    /// Not running, after a graceful shutdown.
    Stopped,
    /// Not running, at once.
    Killed,
    /// No trace left.
    Gone,
}

impl Wanted {
    /// Whether it makes something, and so can be given up half-way; taking away is brought to its end.
    pub fn is_making(self) -> bool {
        match self {
            Self::Created | Self::Running => true,
            Self::Stopped | Self::Killed | Self::Gone => false,
        }
    }

    /// Whether somebody who wants this need not wait until what `other` wants is done: a boot is
    /// given up for a stop, a graceful stop is cut short for a kill.
    pub fn overrides(self, other: Self) -> bool {
        let strength = |wanted| match wanted {
            Self::Created | Self::Running => 0,
            Self::Stopped => 1,
            Self::Killed | Self::Gone => 2,
        };
        strength(self) > strength(other)
    }
}

/// What is seen of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What the store says.
    pub state: VmState,
    /// Whether its monitor's process lives.
    pub alive: bool,
}

/// One named step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write a state to the store.
    Mark(VmState),
    /// Make the VM's folder with its keys.
    MakeFiles,
    /// Make the copy-on-write disk.
    MakeDisk,
    /// Reserve a place, which marks the VM as starting in the same transaction, and have the helper
    /// make tap, cgroup and process.
    Launch,
    /// Wait until the guest says that it answers.
    AwaitReady,
    /// Ask the guest's agent to shut down, and wait.
    AskShutdown,
    /// Press the machine's power button, and wait.
    PressPower,
    /// Kill the monitor and have the helper take back what it made.
    Release,
    /// Remove the VM's folder.
    RemoveFiles,
    /// Remove the VM's row.
    Forget,
}

impl Step {
    /// What takes this step back; `None` when there is nothing to take back.
    pub fn undo(self) -> Option<Step> {
        match self {
            Self::MakeFiles | Self::MakeDisk => Some(Self::RemoveFiles),
            Self::Launch => Some(Self::Release),
            Self::Mark(_)
            | Self::AwaitReady
            | Self::AskShutdown
            | Self::PressPower
            | Self::Release
            | Self::RemoveFiles
            | Self::Forget => None,
        }
    }

    /// What people read while it goes on.
    pub fn stage(self) -> Option<&'static str> {
        match self {
            Self::MakeFiles | Self::MakeDisk => Some("creating disk"),
            Self::Launch => Some("starting"),
            Self::AwaitReady => Some("waiting for ssh"),
            Self::AskShutdown => Some("shutting down"),
            Self::Release => Some("releasing resources"),
            Self::RemoveFiles => Some("removing files"),
            // Pressed, and said, only when the guest did not listen to its agent.
            Self::PressPower | Self::Mark(_) | Self::Forget => None,
        }
    }
}

/// The wish cannot be met from this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is {state}")]
pub struct NotFrom {
    /// The state that forbids it.
    pub state: VmState,
}

/// The steps from `seen` to `wanted`; empty when there is nothing to do.
pub fn plan(wanted: Wanted, seen: Seen) -> Result<Vec<Step>, NotFrom> {
    use Step::{AskShutdown, AwaitReady, Forget, Launch, MakeDisk, MakeFiles, Mark, PressPower, Release, RemoveFiles};
    use VmState::{Created, Creating, Error, Running, Starting, Stopped, Stopping};
    let refused = Err(NotFrom { state: seen.state });
    let steps = match (wanted, seen.state) {
        (Wanted::Created, Creating) => vec![MakeFiles, MakeDisk, Mark(Created)],
        (Wanted::Created, Created) => vec![],
        (Wanted::Created, Starting | Running | Stopping | Stopped | Error) => return refused,

        (Wanted::Running, Creating | Stopping) => return refused,
        (Wanted::Running, Starting | Running) if seen.alive => vec![],
        (Wanted::Running, Created | Stopped) if !seen.alive => vec![Launch, AwaitReady, Mark(Running)],
        (Wanted::Running, Created | Stopped | Starting | Running | Error) => {
            vec![Release, Launch, AwaitReady, Mark(Running)]
        }

        (Wanted::Stopped, Creating) => return refused,
        (Wanted::Stopped, Created | Stopped) => vec![],
        (Wanted::Stopped, Starting | Running | Stopping | Error) if seen.alive => {
            vec![Mark(Stopping), AskShutdown, PressPower, Release, Mark(Stopped)]
        }
        (Wanted::Stopped, Starting | Running | Stopping | Error) => vec![Release, Mark(Stopped)],

        (Wanted::Killed, Creating) => return refused,
        (Wanted::Killed, Created | Stopped) => vec![],
        (Wanted::Killed, Starting | Running | Stopping | Error) => vec![Mark(Stopping), Release, Mark(Stopped)],

        (Wanted::Gone, Creating | Created | Stopped | Starting | Running | Stopping | Error) => {
            vec![Mark(Stopping), Release, RemoveFiles, Forget]
        }
    };
    Ok(steps)
}

/// Why a plan was not carried out to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Whoever asked no longer wants it.
    Cancelled,
    /// The guest runs and its ssh never answered.
    NeverReady,
    /// A limit or policy forbids it.
    Refused,
    /// A step failed.
    Failed,
}

/// What becomes of a VM whose plan broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aftermath {
    /// What takes back that which was done.
    pub undo: Vec<Step>,
    /// The state that it is left in.
    pub left: Left,
}

/// How a broken plan leaves a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// No row.
    Nothing,
    /// Not running, as if nothing had been asked.
    AsStopped,
    /// In the state that it was in, if it did not run then; else not running.
    AsBefore,
    /// In error, with the reason.
    InError,
    /// The same, and kept for somebody to look at even where it was to end with its asker.
    Kept,
}

/// Decides what follows when the plan for `wanted` broke after `done`.
pub fn aftermath(wanted: Wanted, done: &[Step], broken: Broken) -> Aftermath {
    let left = match (wanted, broken) {
        (Wanted::Created, Broken::Cancelled | Broken::NeverReady | Broken::Refused | Broken::Failed) => Left::Nothing,
        (Wanted::Running | Wanted::Stopped | Wanted::Killed | Wanted::Gone, Broken::Cancelled) => Left::AsStopped,
        (Wanted::Running | Wanted::Stopped | Wanted::Killed | Wanted::Gone, Broken::NeverReady) => Left::Kept,
        (Wanted::Running | Wanted::Stopped | Wanted::Killed | Wanted::Gone, Broken::Refused) => Left::AsBefore,
        (Wanted::Running | Wanted::Stopped | Wanted::Killed | Wanted::Gone, Broken::Failed) => Left::InError,
    };
    // A guest whose ssh never answered is left as it is: somebody will want to look.
    let undo = if broken == Broken::NeverReady { Vec::new() } else { undo(done) };
    Aftermath { undo, left }
}

/// What takes `done` back: the list backwards, each undo once.
fn undo(done: &[Step]) -> Vec<Step> {
    let mut steps = Vec::new();
    for step in done.iter().rev().filter_map(|s| s.undo()) {
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [VmState; 7] = [
        VmState::Creating,
        VmState::Created,
        VmState::Starting,
        VmState::Running,
        VmState::Stopping,
        VmState::Stopped,
        VmState::Error,
    ];

    #[test]
    fn gone_is_possible_from_everywhere_and_ends_in_forget() {
        for state in STATES {
            for alive in [false, true] {
                let steps = plan(Wanted::Gone, Seen { state, alive }).expect("possible");
                assert_eq!(steps.last(), Some(&Step::Forget));
                assert!(steps.contains(&Step::Release), "{state} {alive}");
            }
        }
    }

    #[test]
    fn a_live_running_vm_is_left_alone() {
        let seen = Seen { state: VmState::Running, alive: true };
        assert_eq!(plan(Wanted::Running, seen), Ok(vec![]));
    }

    #[test]
    fn a_dead_running_vm_is_released_before_it_starts_again() {
        let seen = Seen { state: VmState::Running, alive: false };
        assert_eq!(plan(Wanted::Running, seen).expect("possible")[0], Step::Release);
    }

    #[test]
    fn a_guest_that_never_answers_is_kept_and_a_cancelled_start_leaves_a_stopped_vm() {
        let done = [Step::Launch, Step::AwaitReady];
        let kept = Aftermath { undo: vec![], left: Left::Kept };
        assert_eq!(aftermath(Wanted::Running, &done, Broken::NeverReady), kept);
        let stopped = Aftermath { undo: vec![Step::Release], left: Left::AsStopped };
        assert_eq!(aftermath(Wanted::Running, &done, Broken::Cancelled), stopped);
    }

    #[test]
    fn a_start_that_was_refused_leaves_the_vm_as_it_was() {
        let before = Aftermath { undo: vec![Step::Release], left: Left::AsBefore };
        assert_eq!(aftermath(Wanted::Running, &[Step::Launch], Broken::Refused), before);
    }

    #[test]
    fn a_creation_that_broke_leaves_nothing() {
        for broken in [Broken::Cancelled, Broken::Failed] {
            let nothing = Aftermath { undo: vec![Step::RemoveFiles], left: Left::Nothing };
            assert_eq!(aftermath(Wanted::Created, &[Step::MakeFiles, Step::MakeDisk], broken), nothing);
        }
    }

    #[test]
    fn a_kill_overrides_a_stop_and_a_stop_a_start_but_nothing_its_like() {
        assert!(Wanted::Killed.overrides(Wanted::Stopped) && Wanted::Gone.overrides(Wanted::Stopped));
        assert!(Wanted::Stopped.overrides(Wanted::Running) && Wanted::Gone.overrides(Wanted::Created));
        for wanted in [Wanted::Created, Wanted::Running, Wanted::Stopped, Wanted::Killed, Wanted::Gone] {
            assert!(!wanted.overrides(wanted), "{wanted:?}");
        }
        assert!(!Wanted::Running.overrides(Wanted::Stopped));
    }

    #[test]
    fn undo_runs_backwards_and_once_each() {
        let done = [Step::MakeFiles, Step::MakeDisk, Step::Mark(VmState::Created), Step::Launch];
        assert_eq!(undo(&done), vec![Step::Release, Step::RemoveFiles]);
    }
}
