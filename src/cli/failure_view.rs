//! A failure as `--json` shows it (`JSON.md`, "Failures"): on one line of standard error, or beside the name that it is
//! about.

use serde::Serialize;

use super::report::Failure;
use crate::protocol::FaultKind;

/// What failed.
#[derive(Debug, Serialize)]
pub struct FailureView {
    /// The kind of failure, in words that stay.
    code: &'static str,
    /// What the process ends with, were this all.
    exit_code: u8,
    message: String,
    causes: Vec<String>,
    /// What to type, the best first.
    hints: Vec<String>,
    /// The operation, for the logs of daemon and helper.
    op: Option<String>,
}

impl FailureView {
    /// `failure`, of a process that ends with `exit_code`; `None` where there is nothing to say.
    pub fn of(failure: &Failure, exit_code: u8) -> Option<Self> {
        let (code, message, causes, hints, op) = match failure {
            Failure::Usage(usage) => ("usage", usage.message.clone(), Vec::new(), vec![usage.hint.clone()], None),
            Failure::Fault { fault, op } => (
                code(fault.kind),
                fault.message.clone(),
                fault.causes.clone(),
                fault.hints.clone(),
                op.map(|op| op.to_string()),
            ),
            Failure::Signalled(signal) => {
                ("signalled", format!("signal {signal} asked for the end"), Vec::new(), Vec::new(), None)
            }
            Failure::ReaderGone | Failure::Said(_) => return None,
        };
        Some(Self { code, exit_code, message, causes, hints, op })
    }
}

/// The word for a kind.
pub fn code(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::NotFound => "not_found",
        FaultKind::AlreadyExists => "already_exists",
        FaultKind::InUse => "in_use",
        FaultKind::BadRequest => "bad_request",
        FaultKind::BadVersion => "bad_version",
        FaultKind::Unauthorized => "unauthorized",
        FaultKind::Refused => "refused",
        FaultKind::UnknownMethod => "unknown_method",
        FaultKind::OperationFailed => "operation_failed",
        FaultKind::Unavailable => "unavailable",
        FaultKind::Cancelled => "cancelled",
        FaultKind::NeverReady => "never_ready",
    }
}
