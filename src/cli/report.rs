//! How a command ends when it does not end well: what is said, and the exit code.

use super::args::Usage;
use super::failure_view::FailureView;
use super::manner;
use super::render;
use crate::model::OpId;
use crate::protocol::{Fault, FaultKind};

/// Exit code of banger's own failures where a guest command's code is returned otherwise.
const OWN_FAILURE: u8 = 125;

/// Exit code of a program whose reader went away: 128 + SIGPIPE, as shells show it.
const READER_GONE: u8 = 141;

/// Why a command ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The command line is wrong.
    Usage(Usage),
    /// Something failed, here or in the daemon.
    Fault {
        /// What.
        fault: Box<Fault>,
        /// The operation, for the logs.
        op: Option<OpId>,
    },
    /// A signal asked for the end.
    Signalled(i32),
    /// Nobody reads standard output any more.
    ReaderGone,
    /// All is said; only the exit code is left.
    Said(u8),
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Self {
        Self::Usage(usage)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault { fault: Box::new(fault), op: None }
    }
}

impl Failure {
    /// A fault without hint.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Fault::new(kind, message).into()
    }

    /// The kind of the fault, where it is one.
    pub fn kind(&self) -> Option<FaultKind> {
        match self {
            Self::Fault { fault, .. } => Some(fault.kind),
            Self::Usage(_) | Self::Signalled(_) | Self::ReaderGone | Self::Said(_) => None,
        }
    }

    /// Adds a next step to a fault.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Fault { fault, .. } = &mut self {
            fault.hints.push(hint.into());
        }
        self
    }

    /// Adds what went before to a fault.
    pub fn causes(mut self, causes: Vec<String>) -> Self {
        if let Self::Fault { fault, .. } = &mut self {
            fault.causes.extend(causes);
        }
        self
    }

    /// What failed, on one line.
    pub fn line(&self) -> String {
        match self {
            Self::Fault { fault, .. } => fault.to_string(),
            Self::Usage(_) | Self::Signalled(_) | Self::ReaderGone | Self::Said(_) => String::new(),
        }
    }

    /// Says it and gives the exit code.
    pub fn report(&self, for_guest: bool) -> u8 {
        let code = self.exit_code(for_guest);
        self.say_before(code);
        code
    }

    /// Says it on standard error.
    pub fn say(&self) {
        self.say_before(self.exit_code(false));
    }

    fn say_before(&self, exit_code: u8) {
        if manner::current().json {
            if let Some(error) = FailureView::of(self, exit_code) {
                render::object("error", &error);
            }
            return;
        }
        let text = self.text(render::Style::of_stderr());
        if !text.is_empty() {
            render::note(&text);
        }
    }

    /// The exit code; `for_guest`: the caller expects the exit code of a guest's command.
    pub fn exit_code(&self, for_guest: bool) -> u8 {
        match self {
            Self::Signalled(signal) => u8::try_from(128 + signal).unwrap_or(OWN_FAILURE),
            Self::ReaderGone => READER_GONE,
            Self::Usage(_) | Self::Fault { .. } | Self::Said(_) if for_guest => OWN_FAILURE,
            Self::Usage(_) => FaultKind::BadRequest.exit_code(),
            Self::Fault { fault, .. } => fault.kind.exit_code(),
            Self::Said(code) => *code,
        }
    }

    fn text(&self, style: render::Style) -> String {
        match self {
            Self::Usage(usage) => {
                format!(
                    "{} {}\n{} {}",
                    style.failed("banger:"),
                    render::plain(&usage.message),
                    style.hint("hint:"),
                    usage.hint
                )
            }
            Self::Fault { fault, op } => fault_text(fault, *op, style),
            Self::Signalled(_) | Self::ReaderGone | Self::Said(_) => String::new(),
        }
    }
}

fn fault_text(fault: &Fault, op: Option<OpId>, style: render::Style) -> String {
    let mut text = format!("{} {}", style.failed("banger:"), render::plain(&fault.message));
    if let Some(op) = op {
        text.push(' ');
        text.push_str(&style.dim(&format!("({op})")));
    }
    for cause in &fault.causes {
        text.push_str(&format!("\n  because: {}", render::plain_lines(cause, 4)));
    }
    for hint in &fault.hints {
        text.push_str(&format!("\n{} {}", style.hint("hint:"), render::plain(hint)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind) -> Failure {
        Failure::new(kind, "vm 'box' not found")
    }

    #[test]
    fn each_kind_has_its_exit_code_and_125_before_a_guest_command() {
        for (kind, code) in [
            (FaultKind::NotFound, 3),
            (FaultKind::AlreadyExists, 4),
            (FaultKind::InUse, 4),
            (FaultKind::BadRequest, 2),
            (FaultKind::BadVersion, 6),
            (FaultKind::Unauthorized, 5),
            (FaultKind::Refused, 5),
            (FaultKind::UnknownMethod, 70),
            (FaultKind::OperationFailed, 1),
            (FaultKind::Unavailable, 6),
            (FaultKind::NeverReady, 1),
        ] {
            assert_eq!((fault(kind).exit_code(false), fault(kind).exit_code(true)), (code, 125), "{kind:?}");
        }
        assert_eq!(Failure::Signalled(2).exit_code(true), 130);
        assert_eq!(Failure::Signalled(15).exit_code(false), 143);
        assert_eq!(Failure::ReaderGone.exit_code(false), 141);
    }

    #[test]
    fn a_fault_shows_causes_hints_and_its_operation() {
        let fault = Fault::new(FaultKind::NotFound, "vm 'box' not found").cause("gone").hint("banger vm list");
        let failure = Failure::Fault { fault: Box::new(fault), op: Some(OpId::from_random(0xab)) };
        let said = "banger: vm 'box' not found (0000000000ab)\n  because: gone\nhint: banger vm list";
        assert_eq!(failure.text(render::Style::PLAIN), said);
        assert!(failure.text(render::Style::COLOURED).contains("\x1b[2m(0000000000ab)\x1b[0m"));
    }

    #[test]
    fn what_a_guest_put_into_a_message_cannot_drive_the_terminal() {
        let failure = Failure::new(FaultKind::OperationFailed, "a\x1b]0;owned\x07b");
        assert!(!failure.text(render::Style::PLAIN).contains('\x1b'));
    }
}
