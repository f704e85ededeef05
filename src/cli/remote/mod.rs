//! `--host ssh://…`: the same commands against another machine's daemon, through the user's own ssh (`REMOTE.md`).

mod far;
mod leash;
mod machine;
mod near;
mod place;
mod ssh;
mod there;

use std::sync::OnceLock;

use super::args::{Command, ImageCommand, Invocation, Usage};
use super::commands;
use super::report::Failure;
use crate::model::ProcessRef;
use crate::protocol::{Fault, FaultKind};
use near::Near;
use place::{Place, place};

pub use far::relay;
pub use leash::leash;
pub use machine::Machine;

/// The machine that is meant, once that is known: one for the whole process.
static NEAR: OnceLock<Near> = OnceLock::new();

/// The variable that names a machine where nothing is said.
const VARIABLE: &str = "BANGER_HOST";

/// The way to the other machine, where one is meant.
pub fn current() -> Option<&'static Near> {
    NEAR.get()
}

/// The process that the daemon takes for this one, where it is another's.
pub fn process() -> Option<ProcessRef> {
    current().and_then(Near::process)
}

/// Has the other machine do `banger WORDS`; false where no other machine is meant.
pub fn errand(words: &[&str]) -> Result<bool, Failure> {
    let Some(near) = current() else { return Ok(false) };
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    there::errand(near.machine(), &words).map(|()| true)
}

/// Does what was asked, of the machine that is meant; `words` are those that were typed.
pub fn run(mut invocation: Invocation, words: &[String]) -> Result<u8, Failure> {
    let asked = invocation.host.take();
    match (place(&invocation.command), asked) {
        (Place::Asked | Place::Own(_), None) => commands::run(invocation),
        (Place::Own(why), Some(_)) => {
            let message = format!("{} cannot be asked of another machine: {why}", words.first().map_or("", |w| w));
            Err(Failure::new(FaultKind::BadRequest, message))
        }
        (Place::There | Place::Asked, Some(machine)) => on(&machine, &invocation.command, words),
        (Place::Here, Some(machine)) => over_relay(machine, invocation),
        (place, None) => match (named()?, place) {
            (None, _) => commands::run(invocation),
            (Some(machine), Place::Here) => over_relay(machine, invocation),
            (Some(machine), _) => on(&machine, &invocation.command, words),
        },
    }
}

/// Has `machine` do it. A path of that machine is complete: nobody is in a folder there.
fn on(machine: &Machine, command: &Command, words: &[String]) -> Result<u8, Failure> {
    if let Command::Image(group) = command
        && let ImageCommand::Register(asked) = &group.command
        && asked.rootfs.is_relative()
    {
        let message = format!("{} shall be a file of {machine}: write its path from / on", asked.rootfs.display());
        return Err(Usage::new(message, &["image", "register"]).into());
    }
    there::run(machine, words)
}

/// The machine that the environment names.
fn named() -> Result<Option<Machine>, Failure> {
    let Some(text) = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |e| Usage::new(format!("{VARIABLE}: {e}"), &[]).into();
    text.parse().map(Some).map_err(wrong)
}

fn over_relay(machine: Machine, invocation: Invocation) -> Result<u8, Failure> {
    let near = NEAR.get_or_init(|| Near::new(machine));
    let ended = commands::run(invocation);
    let lost = near.lost();
    near.finish();
    ended.map_err(|failure| after_loss(failure, lost))
}

/// What failed because the way was lost, failed because of that.
fn after_loss(failure: Failure, lost: Option<Fault>) -> Failure {
    match (failure, lost) {
        (Failure::Fault { mut fault, op }, Some(lost)) => {
            fault.kind = FaultKind::Unavailable;
            if fault.message != lost.message {
                fault.causes.push(lost.to_string());
            }
            Failure::Fault { fault, op }
        }
        (Failure::Said(_), Some(lost)) => Failure::Said(lost.kind.exit_code()),
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_by_a_lost_way_is_no_failure_of_the_command() {
        let lost = || Some(Fault::new(FaultKind::Unavailable, "the connection to box was lost"));
        let failure = || Failure::new(FaultKind::OperationFailed, "no answer");
        let after = after_loss(failure(), lost());
        assert_eq!((after.exit_code(false), after.exit_code(true)), (6, 125));
        assert!(after.line().contains("the connection to box was lost"));
        assert_eq!(after_loss(failure(), None), failure());
        assert_eq!(after_loss(Failure::Said(1), lost()).exit_code(false), 6);
        assert_eq!(after_loss(Failure::Signalled(2), lost()), Failure::Signalled(2));
    }
}
