//! What a failed update is to whoever asked: its kind, and what to type next.

use super::super::report::Failure;
use crate::protocol::{Fault, FaultKind};
use crate::update::{KeyError, ProofError, RecoverError, Refusal, SwapError, Unrepaired, UpdateError};

const LOGS: &str = "journalctl --unit bangerd --unit bangerd-root --lines 20";

/// The failure that `error` is.
pub fn fault(error: &UpdateError) -> Failure {
    let fault = Fault::of(kind(error), error);
    let fault = match error {
        UpdateError::Swap(SwapError::Broken { left, .. }) | UpdateError::Recover(RecoverError::Broken { left, .. }) => {
            with_left(fault, left)
        }
        UpdateError::Swap(SwapError::TakenBack { .. }) => fault.hint(LOGS),
        _ => fault,
    };
    match hint(error) {
        Some(hint) => fault.hint(hint).into(),
        None => fault.into(),
    }
}

fn kind(error: &UpdateError) -> FaultKind {
    match error {
        UpdateError::Refused(Refusal::Unknown { .. }) => FaultKind::NotFound,
        UpdateError::Refused(_)
        | UpdateError::Key(_)
        | UpdateError::NoAddress
        | UpdateError::NotInstalled
        | UpdateError::Packaged(_)
        | UpdateError::Digest { .. }
        | UpdateError::Sums(_)
        | UpdateError::Unpack(_)
        | UpdateError::Proof(ProofError::Version { .. } | ProofError::Store { .. }) => FaultKind::Refused,
        UpdateError::Operations(_) | UpdateError::Busy | UpdateError::Interrupted(_) => FaultKind::InUse,
        UpdateError::Download(_)
        | UpdateError::Manifest(_)
        | UpdateError::Proof(_)
        | UpdateError::Journal(_)
        | UpdateError::Host(_)
        | UpdateError::Recover(_)
        | UpdateError::Swap(_)
        | UpdateError::Folder(_)
        | UpdateError::File(_) => FaultKind::OperationFailed,
    }
}

fn hint(error: &UpdateError) -> Option<String> {
    Some(match error {
        UpdateError::Key(KeyError::Placeholder) => {
            "install a released banger, or build with the key of your releases in release/update.pub".to_owned()
        }
        UpdateError::NoAddress => "[update] manifest_url = \"https://HOST/manifest.json\" in config.toml".to_owned(),
        UpdateError::Refused(Refusal::Unknown { .. }) => "banger update --check".to_owned(),
        UpdateError::Refused(Refusal::Older { wanted, .. }) => format!("sudo banger update --to v{wanted} --force"),
        UpdateError::Refused(Refusal::TooFar { .. }) => "sudo banger update      (goes as far as it can)".to_owned(),
        UpdateError::NotInstalled => "sudo banger system install".to_owned(),
        UpdateError::Packaged(_) => "sudo apt-get install --only-upgrade banger      (dnf upgrade banger)".to_owned(),
        UpdateError::Operations(_) => "wait for them, or: sudo banger update --force".to_owned(),
        UpdateError::Interrupted(_) => "sudo banger update".to_owned(),
        UpdateError::Journal(_) => "sudo banger system install      (makes all of it anew)".to_owned(),
        _ => return None,
    })
}

/// All that did not work, and a command for each in the order in which they are to be typed.
fn with_left(fault: Fault, left: &[Unrepaired]) -> Fault {
    left.iter().fold(fault, |fault, one| {
        fault.cause(format!("cannot {}: {}", one.back.doing(), one.trouble)).hint(one.command.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::{Back, Step, Trouble};

    fn parts(error: UpdateError) -> (FaultKind, Vec<String>, Vec<String>) {
        match fault(&error) {
            Failure::Fault { fault, .. } => (fault.kind, fault.causes, fault.hints),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_could_not_be_taken_back_is_said_with_its_commands_in_order() {
        let one =
            |back, command: &str| Unrepaired { back, trouble: Trouble("no room".into()), command: command.to_owned() };
        let left = vec![one(Back::Units, "first"), one(Back::Restart, "second")];
        let to = "0.2.0".parse().expect("a version");
        let broken = SwapError::Broken { step: Step::Doctor, cause: Trouble("sick".into()), to, left };
        let (kind, causes, hints) = parts(broken.into());
        assert_eq!((kind, hints), (FaultKind::OperationFailed, vec!["first".to_owned(), "second".to_owned()]));
        assert_eq!(causes, ["sick", "cannot refresh the units: no room", "cannot restart helper and daemon: no room"]);
    }

    #[test]
    fn refusals_have_the_codes_of_their_kinds_and_a_cure() {
        let version = |text: &str| text.parse().expect("a version");
        let older = Refusal::Older { wanted: version("0.1.0"), running: version("0.2.0") };
        assert_eq!(parts(older.into()).2, ["sudo banger update --to v0.1.0 --force"]);
        let unknown = Refusal::Unknown { wanted: version("9.9.9"), newest: "v0.2.0".into() };
        assert_eq!(parts(unknown.into()).0, FaultKind::NotFound);
        for error in [KeyError::Placeholder.into(), UpdateError::NoAddress, UpdateError::NotInstalled] {
            let (kind, _, hints) = parts(error);
            assert_eq!((kind, hints.len()), (FaultKind::Refused, 1));
        }
        assert_eq!(parts(UpdateError::Operations(2)).0, FaultKind::InUse);
    }
}
