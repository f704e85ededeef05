//! One command for several names: it goes on after a failure, says what came of each, and ends as they agree.

use serde::Serialize;

use super::super::failure_view::FailureView;
use super::super::manner;
use super::super::render;
use super::super::report::Failure;
use crate::protocol::FaultKind;

/// What came of one name, for programs.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    error: Option<FailureView>,
}

/// What came of each so far.
#[derive(Debug, Default)]
pub struct Outcomes {
    shown: Vec<Outcome>,
    failed: Vec<Failure>,
}

impl Outcomes {
    /// What came of `name`. For people: its name once it is done, or what failed, at once.
    pub fn add(&mut self, name: &str, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let json = manner::current().json;
        let error = match outcome {
            Ok(()) if json => None,
            Ok(()) => return render::line(name),
            Err(Failure::ReaderGone) => return Err(Failure::ReaderGone),
            Err(failure) => {
                if !json {
                    failure.say();
                }
                let view = FailureView::of(&failure, failure.exit_code(false));
                self.failed.push(failure);
                view
            }
        };
        self.shown.push(Outcome { name: name.to_owned(), error });
        Ok(())
    }

    /// The end of the command: with the failures' exit code where they agree, else with 1.
    pub fn end(self) -> Result<(), Failure> {
        if manner::current().json {
            render::json(&self.shown)?;
        }
        ended(&self.failed)
    }
}

/// The end of a command of which these failed; people have been told of each, programs are told of all at once.
pub fn ended(failed: &[Failure]) -> Result<(), Failure> {
    match (failed, manner::current().json) {
        ([], _) => Ok(()),
        ([only], true) => Err(only.clone()),
        (failed, true) => Err(summary(failed)),
        (failed, false) => Err(Failure::Said(common_code(failed))),
    }
}

fn common_code(failed: &[Failure]) -> u8 {
    let mut codes = failed.iter().map(|failure| failure.exit_code(false));
    let first = codes.next().unwrap_or(0);
    if codes.all(|code| code == first) { first } else { FaultKind::OperationFailed.exit_code() }
}

/// One for all: of their kind where they agree.
fn summary(failed: &[Failure]) -> Failure {
    let first = failed.first().and_then(Failure::kind).unwrap_or(FaultKind::OperationFailed);
    let agree = failed.iter().all(|failure| failure.kind() == Some(first));
    let kind = if agree { first } else { FaultKind::OperationFailed };
    Failure::new(kind, format!("{} of them failed", failed.len())).causes(failed.iter().map(Failure::line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_agree_keep_their_code() {
        let failure = |kind| Failure::new(kind, "no");
        let same = [failure(FaultKind::NotFound), failure(FaultKind::NotFound)];
        let mixed = [failure(FaultKind::NotFound), failure(FaultKind::InUse)];
        assert_eq!((common_code(&same), common_code(&mixed), common_code(&[])), (3, 1, 0));
        assert_eq!((summary(&same).exit_code(false), summary(&mixed).exit_code(false)), (3, 1));
    }
}
