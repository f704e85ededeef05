//! What goes wrong, as a model is told: as under `--json`.

use serde_json::Value;

use super::super::failure_view::FailureView;
use super::super::report::Failure;
use crate::model::VmName;
use crate::protocol::FaultKind;
use crate::workspace::WorkspaceError;

/// `failure` as an object.
pub fn trouble(failure: &Failure) -> Value {
    let view = FailureView::of(failure, failure.exit_code(false)).map(serde_json::to_value);
    let mut view = match view {
        Some(Ok(view)) => view,
        // What was said already stands in the log.
        Some(Err(_)) | None => {
            serde_json::json!({"code": "operation_failed", "message": "it failed; why stands in this server's log", "causes": [], "hints": []})
        }
    };
    if let Some(fields) = view.as_object_mut() {
        // Of a command in the guest a model expects one, and this would be another.
        fields.remove("exit_code");
    }
    view
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
