//! The guest's side of a workspace: shell scripts that need no more than the image's `sh` and `git`, run
//! one after the other over one channel. What they answer is hostile: bounded, and believed in nothing
//! that matters to the host.

use std::fs::File;
use std::io::{self, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::JoinHandle;

use super::error::WorkspaceError;
use super::git::words_of;
use crate::protocol::shell::Tool;
use crate::shell::{Command, Control, ControlEvent, GuestShell, Io, Outcome, ShellError, capture_heeding};

const COMMON: &str = include_str!("guest/common.sh");
const SNAPSHOT: &str = include_str!("guest/snapshot.sh");

/// Makes or recognizes the folder.
pub const OPEN: &[&str] = &[COMMON, include_str!("guest/open.sh")];
/// Takes a pack in.
pub const RECEIVE: &[&str] = &[COMMON, include_str!("guest/receive.sh")];
/// Brings index and files to a commit.
pub const CHECKOUT: &[&str] = &[COMMON, include_str!("guest/checkout.sh")];
/// The rest, once all files are there.
pub const SETTLE: &[&str] = &[COMMON, include_str!("guest/settle.sh")];
/// What the guest has changed.
pub const CHANGED: &[&str] = &[COMMON, SNAPSHOT, include_str!("guest/changed.sh")];
/// The patch.
pub const EXPORT: &[&str] = &[COMMON, SNAPSHOT, include_str!("guest/export.sh")];

/// Most bytes of an answer.
const MAX_ANSWER: u64 = 64 << 10;

/// Most characters that are shown of what a guest says went wrong.
const MAX_SAID: usize = 400;

/// A way into a guest, and the caller's signals.
pub struct Guest<'a> {
    /// The way.
    pub shell: &'a mut dyn GuestShell,
    /// The signals.
    pub control: &'a mut dyn Control,
}

impl Guest<'_> {
    /// What `script` answers; `doing` says in errors what it was for.
    pub fn ask(
        &mut self,
        doing: &'static str,
        script: &[&str],
        words: &[&str],
        input: &[u8],
    ) -> Result<Vec<u8>, WorkspaceError> {
        let command = command(script, words);
        let mut noted = Noted { inner: self.control, passed_on: None };
        let answered = capture_heeding(self.shell, &command, input, MAX_ANSWER, Some(&mut noted))?;
        judge(doing, &noted.outcome(answered.outcome), &answered.stderr)?;
        Ok(answered.stdout)
    }

    /// Runs `command` with what `source` writes as its input; what it says is not kept unless it fails.
    pub fn feed<T: Send + 'static>(
        &mut self,
        doing: &'static str,
        command: &Command,
        source: impl FnOnce(PipeWriter) -> Result<T, WorkspaceError> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        let (input, writer) = io::pipe().map_err(WorkspaceError::Pipe)?;
        let sending = std::thread::spawn(move || source(writer));
        let outcome = self.run(command, &input, &null()?);
        drop(input);
        let sent = finished(sending);
        match (outcome, sent) {
            (Ok((outcome, words)), sent) => match judge(doing, &outcome, &words) {
                // Cut short because the source ended too soon: that is the reason.
                Err(WorkspaceError::Guest { .. }) if sent.as_ref().is_err_and(is_own) => sent,
                Err(e) => Err(e),
                Ok(()) => sent,
            },
            (Err(e), _) => Err(e.into()),
        }
    }

    /// Runs `command`; gives how it ended, and the beginning of its errors.
    pub fn run(
        &mut self,
        command: &Command,
        stdin: &impl AsFd,
        stdout: &impl AsFd,
    ) -> Result<(Outcome, Vec<u8>), ShellError> {
        let stream = |source| ShellError::Stream { verb: "make", stream: "stderr", source };
        let (errors, writer) = io::pipe().map_err(stream)?;
        let hearing = std::thread::spawn(move || words_of(errors));
        let mut noted = Noted { inner: self.control, passed_on: None };
        let control: Option<&mut dyn Control> = Some(&mut noted);
        let io = Io { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: writer.as_fd(), control };
        let outcome = self.shell.run(command, io);
        drop(writer);
        Ok((noted.outcome(outcome?), hearing.join().unwrap_or_default()))
    }
}

/// Remembers whether a signal was passed on: only then is an end by one the caller's doing, and not the guest's.
struct Noted<'c> {
    inner: &'c mut dyn Control,
    passed_on: Option<i32>,
}

impl Noted<'_> {
    /// The outcome, with the signal that was passed on, and none that the guest only claims.
    fn outcome(&self, outcome: Outcome) -> Outcome {
        match (outcome, self.passed_on) {
            (Outcome::Signaled { .. }, Some(number)) => Outcome::signaled(number),
            (Outcome::Signaled { number, .. }, None) if number == signal_hook::consts::SIGPIPE => Outcome::Exited(CUT),
            (Outcome::Signaled { number, .. }, None) => Outcome::Exited(u8::try_from(128 + number).unwrap_or(CUT)),
            (exited @ Outcome::Exited(_), _) => exited,
        }
    }
}

impl Control for Noted<'_> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.inner.descriptor()
    }

    fn next(&mut self) -> Option<ControlEvent> {
        let event = self.inner.next();
        if let Some(ControlEvent::Signal(number) | ControlEvent::Abandon(number)) = event {
            self.passed_on.get_or_insert(number);
        }
        event
    }

    fn end_asked_for(&mut self) -> Option<i32> {
        let asked = self.inner.end_asked_for();
        self.passed_on = self.passed_on.or(asked);
        asked
    }

    fn command_ended(&mut self) {
        self.inner.command_ended();
    }
}

/// Exit code of a step that was cut short.
const CUT: u8 = 141;

/// Whether it is a failure of this side and not only that the guest stopped reading.
fn is_own(error: &WorkspaceError) -> bool {
    match error {
        WorkspaceError::Pipe(e) => e.kind() != io::ErrorKind::BrokenPipe,
        WorkspaceError::Archive(crate::os::archive::ArchiveError::Stream(e)) => e.kind() != io::ErrorKind::BrokenPipe,
        _ => true,
    }
}

fn finished<T>(thread: JoinHandle<Result<T, WorkspaceError>>) -> Result<T, WorkspaceError> {
    thread.join().unwrap_or_else(|_| Err(WorkspaceError::Pipe(io::Error::other("the sending broke off"))))
}

/// `script` as a command with `words` as its arguments.
pub fn command(script: &[&str], words: &[&str]) -> Command {
    let script = script.concat();
    let argv = ["sh", "-c", &script, "banger"].into_iter().chain(words.iter().copied());
    Command::new(argv.map(str::to_owned).collect::<Vec<_>>())
}

/// Unpacks a tar stream in `folder`.
pub fn unpack(folder: &str) -> Command {
    Command::tool(Tool::Unpack { folder: folder.as_bytes().to_vec() })
}

/// How a step in the guest ended.
pub fn judge(doing: &'static str, outcome: &Outcome, errors: &[u8]) -> Result<(), WorkspaceError> {
    match outcome {
        Outcome::Exited(0) => Ok(()),
        Outcome::Signaled { number, .. } if *number > 0 => Err(WorkspaceError::Signalled(*number)),
        Outcome::Exited(code) => Err(WorkspaceError::Guest { doing, said: said(errors, &format!("exit code {code}")) }),
        Outcome::Signaled { name, .. } => {
            Err(WorkspaceError::Guest { doing, said: said(errors, &format!("signal {name}")) })
        }
    }
}

/// A guest's words on one line; `otherwise` where it had none.
fn said(errors: &[u8], otherwise: &str) -> String {
    let text = String::from_utf8_lossy(errors);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let text: String = lines.join("; ").chars().take(MAX_SAID).collect();
    if text.is_empty() { otherwise.to_owned() } else { text }
}

/// Where nothing is read from and everything may be written to.
pub fn null() -> Result<File, WorkspaceError> {
    File::options().read(true).write(true).open("/dev/null").map_err(WorkspaceError::Pipe)
}

/// Reads at most `limit` bytes up to the end of a line.
pub fn first_line(input: &mut impl Read, limit: usize) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < limit && input.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
