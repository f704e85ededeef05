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

#[cfg(test)]
mod tests {
    use super::*;
    use FaultKind::{
        AlreadyExists, BadRequest, BadVersion, Cancelled, InUse, NeverReady, NotFound, OperationFailed, Refused,
        Unauthorized, Unavailable, UnknownMethod,
    };

    const KINDS: [FaultKind; 12] = [
        NotFound,
        AlreadyExists,
        InUse,
        BadRequest,
        BadVersion,
        Unauthorized,
        Refused,
        UnknownMethod,
        OperationFailed,
        Unavailable,
        Cancelled,
        NeverReady,
    ];

    /// Exit code and error codes of each row of the page.
    fn rows() -> Vec<(String, Vec<&'static str>)> {
        let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
        let rows = include_str!("JSON.md").lines().filter(|line| line.starts_with("| ")).map(cells);
        let row = |cells: Vec<&'static str>| {
            (cells[0].to_owned(), cells[2].split('`').filter(|word| !word.trim().is_empty()).collect())
        };
        rows.skip(1).map(row).collect()
    }

    #[test]
    fn the_page_has_each_exit_code_and_each_word_for_a_failure_once() {
        let view = |failure: &Failure, for_guest| {
            let exit_code = failure.exit_code(for_guest);
            FailureView::of(failure, exit_code).map_or(("", exit_code), |view| (view.code, exit_code))
        };
        let usage = Failure::Usage(super::super::args::Usage::new("", &[]));
        let mut said: Vec<(&str, u8)> = KINDS.iter().map(|kind| view(&Failure::new(*kind, ""), false)).collect();
        said.push(view(&usage, false));
        said.push(view(&Failure::Signalled(2), false));
        let of = |code: &str| rows().iter().find(|(exit, _)| exit == code).map(|(_, words)| words.clone());
        for (word, exit_code) in &said {
            assert!(of(&exit_code.to_string()).is_some_and(|words| words.contains(word)), "{exit_code} {word}");
        }
        let on_page: Vec<&str> = rows().into_iter().flat_map(|(_, words)| words).collect();
        for word in &on_page {
            let times = if *word == "signalled" { 2 } else { 1 };
            assert_eq!(on_page.iter().filter(|w| w == &word).count(), times, "{word}");
            assert!(said.iter().any(|(w, _)| w == word), "{word} is no code");
        }
        for exit_code in
            [view(&usage, true).1, Failure::ReaderGone.exit_code(false), super::super::commands::OUT_OF_TIME, 0]
        {
            assert_eq!(of(&exit_code.to_string()), Some(Vec::new()), "{exit_code}");
        }
        assert!(of("128+N").is_some());
    }
}
