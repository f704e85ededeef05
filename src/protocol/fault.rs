//! What goes wrong, for people and for programs: the only form in which an error crosses a socket.

use std::fmt;

/// The kind of a fault decides the exit code, here and nowhere else. Append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// What was named does not exist.
    NotFound,
    /// A name is taken.
    AlreadyExists,
    /// It exists, and something uses it or its state forbids the request.
    InUse,
    /// The request itself is wrong.
    BadRequest,
    /// The other side speaks another protocol.
    BadVersion,
    /// The caller may not do this.
    Unauthorized,
    /// A limit or policy forbids it.
    Refused,
    /// The other side does not know this request.
    UnknownMethod,
    /// It was tried and failed.
    OperationFailed,
    /// The daemon or the helper does not answer.
    Unavailable,
    /// It was cancelled.
    Cancelled,
    /// The guest booted or not, but ssh never answered; the VM is kept.
    NeverReady,
}

impl FaultKind {
    /// The exit code of a command that ended with this fault, where no guest command's code is
    /// returned.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::OperationFailed | Self::Cancelled | Self::NeverReady => 1,
            Self::BadRequest => 2,
            Self::NotFound => 3,
            Self::AlreadyExists | Self::InUse => 4,
            Self::Unauthorized | Self::Refused => 5,
            Self::BadVersion | Self::Unavailable => 6,
            Self::UnknownMethod => 70,
        }
    }
}

/// A failure that can be shown: what happened, why, and what to type next.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Fault {
    /// What a program acts on.
    pub kind: FaultKind,
    /// What happened, to what. Lower case, no full stop.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// Next steps; a command where there is one.
    pub hints: Vec<String>,
}

impl Fault {
    /// A fault without cause and hint.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// A fault of `error` and all its sources.
    pub fn of(kind: FaultKind, error: &dyn std::error::Error) -> Self {
        Self::new(kind, error.to_string()).with_sources(error)
    }

    /// `OperationFailed`: what was being done, and the error that ended it.
    pub fn failed(doing: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut fault = Self::new(FaultKind::OperationFailed, doing);
        fault.causes.push(error.to_string());
        fault.with_sources(error)
    }

    fn with_sources(mut self, error: &dyn std::error::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            self.causes.push(cause.to_string());
            source = cause.source();
        }
        self
    }

    /// Adds a cause.
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds a next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
