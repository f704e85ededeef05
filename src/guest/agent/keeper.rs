//! What starts the agent, and starts it again should it die: without it nobody gets into the guest,
//! because the image's own ssh server is masked, and nobody watches over a process that was there
//! before systemd.

use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use super::{GUEST, SELF};
use crate::guest::console::say;
use crate::guest::init::handover::PATH;

/// An agent that lived shorter than this has not recovered.
const RECOVERED: Duration = Duration::from_secs(10);

/// How often in a row it may die before that: what kills it each time will do so for ever.
const MAX_DEATHS: u32 = 5;

/// Runs until the agent ends as it should.
pub(super) fn run() -> ExitCode {
    super::become_independent(c"banger-keeper");
    let mut deaths = 0;
    loop {
        let began = Instant::now();
        let ended = match start().and_then(|mut child| child.wait()) {
            Ok(ended) => ended,
            Err(error) => {
                say(&format!("trouble: cannot start the agent: {error}"));
                return ExitCode::FAILURE;
            }
        };
        if ended.success() {
            return ExitCode::SUCCESS;
        }
        deaths = deaths_in_a_row(deaths, began.elapsed());
        if deaths > MAX_DEATHS {
            say(&format!("trouble: the agent died {deaths} times in a row ({ended}); given up"));
            return ExitCode::FAILURE;
        }
        say(&format!("trouble: the agent died ({ended}); starting it again"));
    }
}

fn deaths_in_a_row(before: u32, lived: Duration) -> u32 {
    if lived >= RECOVERED { 1 } else { before + 1 }
}

fn start() -> std::io::Result<Child> {
    use std::os::unix::process::CommandExt;
    Command::new(SELF).arg0("banger-agent").arg(GUEST).env_clear().env("PATH", PATH).current_dir("/").spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deaths_that_follow_each_other_count() {
        assert_eq!(deaths_in_a_row(4, Duration::from_secs(1)), 5);
        assert_eq!(deaths_in_a_row(4, RECOVERED), 1);
    }
}
