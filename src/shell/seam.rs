//! The seam between what a user runs in a guest and what carries it there.
//!
//! A carrier takes one [`Command`] and three descriptors, and gives back how the command ended.
//! It never guesses: unless the guest itself said how the command ended, the answer is an error.
//! Descriptors instead of readers, because a carrier has to wait on all of them at once.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;

use crate::protocol::shell::Tool;

/// Whatever can run a command in a guest.
pub trait GuestShell {
    /// Runs `command` to its end: `io.stdin` reaches it, its two outputs reach `io.stdout` and
    /// `io.stderr` apart and byte for byte. Output that arrived before an error is written.
    ///
    /// With a pty the caller has put its terminal into raw mode before ([`crate::os::tty::RawMode`]).
    fn run(&mut self, command: &Command, io: Io<'_>) -> Result<Outcome, ShellError>;
}

/// A program in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Program {
    /// The user's login shell.
    #[default]
    Login,
    /// Program and arguments, found through the guest's `PATH`.
    Argv(Vec<OsString>),
    /// Something that banger's agent can do by itself. Another carrier does what the image's own
    /// programs can, and refuses the rest.
    Tool(Tool),
}

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// The program.
    pub program: Program,
    /// Added to the guest's environment; names are shell identifiers.
    pub env: Vec<(String, String)>,
    /// Folder to start in; `None` is the user's home. A folder that cannot be entered ends the
    /// command with status 125.
    pub cwd: Option<String>,
    /// A terminal for the command; `None` keeps stdout and stderr apart.
    pub pty: Option<Pty>,
    /// Whose rights the program has: user or uid, and perhaps `:` and group or gid; `None` is root.
    /// Only for words, and only over the agent.
    pub user: Option<String>,
}

impl Command {
    /// Program and arguments.
    pub fn new<A: Into<OsString>>(argv: impl IntoIterator<Item = A>) -> Self {
        Self { program: Program::Argv(argv.into_iter().map(Into::into).collect()), ..Self::default() }
    }

    /// Something that the agent can do by itself.
    pub fn tool(tool: Tool) -> Self {
        Self { program: Program::Tool(tool), ..Self::default() }
    }

    /// The login shell.
    pub fn login() -> Self {
        Self::default()
    }

    /// The same, started in `folder`.
    pub fn in_folder(self, folder: impl Into<String>) -> Self {
        Self { cwd: Some(folder.into()), ..self }
    }

    /// The same with the rights of `user`.
    pub fn as_user(self, user: Option<String>) -> Self {
        Self { user, ..self }
    }

    /// The same with one more variable.
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The same on a terminal.
    pub fn on_pty(self, pty: Pty) -> Self {
        Self { pty: Some(pty), ..self }
    }
}

/// The terminal a command gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pty {
    /// `TERM`.
    pub term: String,
    /// Width in characters.
    pub cols: u16,
    /// Height in characters.
    pub rows: u16,
}

/// The three streams, and what may happen beside them.
pub struct Io<'a> {
    /// Read until its end, which reaches the command; may be a file, pipe, terminal or `/dev/null`.
    pub stdin: BorrowedFd<'a>,
    /// Where the command's output goes. May block: the guest is then held back.
    pub stdout: BorrowedFd<'a>,
    /// Where its errors go.
    pub stderr: BorrowedFd<'a>,
    /// Signals and window changes; `None` when there are none to pass on.
    pub control: Option<&'a mut dyn Control>,
}

/// What may happen while a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlEvent {
    /// Pass this signal (its Linux number) to the command, which decides what it means. The third
    /// one ends the wait.
    Signal(i32),
    /// The local terminal has this size now.
    Resize {
        /// Width in characters.
        cols: u16,
        /// Height in characters.
        rows: u16,
    },
    /// End the wait now and cut the command off: it is killed, best effort, and the outcome is
    /// `Signaled` with this number.
    Abandon(i32),
}

/// A source of events that can be waited on.
pub trait Control {
    /// Readable when [`Control::next`] has something to say.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// The next event; `None` when there is none for now. Never blocks.
    fn next(&mut self) -> Option<ControlEvent>;
    /// A signal that has come and asks this process to end; it stays for [`Control::next`]. Never blocks.
    fn end_asked_for(&mut self) -> Option<i32>;
    /// The command has ended; only its last words are still being written.
    fn command_ended(&mut self) {}
}

impl<C: Control + ?Sized> Control for &mut C {
    fn descriptor(&self) -> BorrowedFd<'_> {
        (**self).descriptor()
    }

    fn next(&mut self) -> Option<ControlEvent> {
        (**self).next()
    }

    fn end_asked_for(&mut self) -> Option<i32> {
        (**self).end_asked_for()
    }

    fn command_ended(&mut self) {
        (**self).command_ended();
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with this status.
    Exited(u8),
    /// By a signal: the guest's kernel's, or the one that ended the wait for it.
    Signaled {
        /// Without `SIG`: `KILL`.
        name: String,
        /// Its Linux number; 0 for a name that Linux does not have.
        number: i32,
    },
}

impl Outcome {
    /// The outcome for signal `number`.
    pub fn signaled(number: i32) -> Self {
        Self::Signaled { name: signal_name(number).unwrap_or("?").to_owned(), number }
    }

    /// What a shell would say: the status, or 128 and the signal's number.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited(status) => *status,
            // A shell has no number for an unknown signal either; 255 is what ssh(1) answers.
            Self::Signaled { number: 0, .. } => 255,
            Self::Signaled { number, .. } => u8::try_from(128 + number).unwrap_or(255),
        }
    }
}

/// Why nobody can say how a command ended.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The connection ended first.
    #[error(
        "the connection to vm '{name}' was lost while the command ran ({reason}); whether it goes on in the guest is unknown: see `banger vm logs {name}`"
    )]
    ConnectionLost {
        /// The VM.
        name: String,
        /// How it showed.
        reason: String,
    },
    /// The guest refused to start anything.
    #[error("vm '{name}' refused to {what}")]
    Refused {
        /// The VM.
        name: String,
        /// What was asked of it.
        what: &'static str,
        /// The carrier's words.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The command cannot be said to the guest; nothing was run.
    #[error("cannot pass the command to the guest")]
    Command(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A local stream failed.
    #[error("cannot {verb} {stream} of the command")]
    Stream {
        /// `read` or `write`.
        verb: &'static str,
        /// Which of the three.
        stream: &'static str,
        /// The failure.
        #[source]
        source: io::Error,
    },
}

/// Signals of Linux on x86-64 and arm64, signal(7), that a command can die of or is sent.
const SIGNALS: [(&str, i32); 24] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CONT", 18),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Linux's number of the signal called `name`, without `SIG`.
pub fn signal_number(name: &str) -> Option<i32> {
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of signal `number`, without `SIG`.
pub fn signal_name(number: i32) -> Option<&'static str> {
    SIGNALS.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}
