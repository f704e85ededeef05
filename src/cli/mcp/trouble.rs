//! What goes wrong, as a model is told: the same fields as everywhere, in JSON.

use serde_json::{Value, json};

use super::super::report::Failure;
use crate::model::VmName;
use crate::protocol::FaultKind;
use crate::workspace::WorkspaceError;

/// `failure` as an object.
pub fn trouble(failure: &Failure) -> Value {
    match failure {
        Failure::Fault { fault, op } => json!({
            "code": fault.kind,
            "message": fault.message,
            "causes": fault.causes,
            "hints": fault.hints,
            "operation": op.map(|op| op.to_string()),
        }),
        Failure::Usage(usage) => told(FaultKind::BadRequest, &usage.message, &[&usage.hint]),
        Failure::Signalled(_) | Failure::ReaderGone => told(FaultKind::Cancelled, "it was ended from outside", &[]),
        Failure::Said(_) => told(FaultKind::OperationFailed, "it failed; why stands in this server's log", &[]),
    }
}

fn told(kind: FaultKind, message: &str, hints: &[&str]) -> Value {
    json!({"code": kind, "message": message, "causes": [], "hints": hints, "operation": null})
}

/// A wrong argument.
pub fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(FaultKind::BadRequest, message)
}

/// What an error of a workspace is; the command line's next steps are no steps of a model.
pub fn of_workspace(error: &WorkspaceError, name: &VmName) -> Failure {
    let own = super::super::commands::way::failure(error);
    let Failure::Fault { mut fault, op } = own else { return own };
    fault.hints.clear();
    let hint = match error {
        WorkspaceError::TooLarge(_) => {
            Some(format!("see which files are large: vm_run_command on {name} with git diff --stat"))
        }
        WorkspaceError::NoRepository(_) => Some("a repository is made by the person on the host: git init".to_owned()),
        _ => None,
    };
    fault.hints.extend(hint);
    Failure::Fault { fault, op }
}
