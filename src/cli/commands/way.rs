//! A way into a guest that takes several commands, and what goes wrong on it.

use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::super::client::Client;
use super::super::report::Failure;
use super::session;
use crate::model::VmName;
use crate::protocol::owner::Carrier;
use crate::protocol::shell::Tool;
use crate::protocol::{Fault, FaultKind};
use crate::shell::{Command, Control, GuestShell, HostSignals, Io, Outcome, TimeLimit};
use crate::workspace::{Guest, WorkspaceError};

/// How long a guest may take to take a repository in, or to make a patch, where nothing else is asked for.
pub const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A way into a guest that takes several commands, one after the other.
pub struct Way {
    shell: Box<dyn GuestShell>,
    signals: HostSignals,
}

impl Way {
    /// Over the agent, which every guest has.
    pub fn open(client: &mut Client, name: &VmName) -> Result<Self, Failure> {
        let way = session::open(client, name, vec![Carrier::Agent, Carrier::Ssh])?;
        let mut signals = session::signals()?;
        let shell = session::connect(way, &mut signals)?;
        Ok(Self { shell, signals })
    }

    /// Unpacks what `source` writes in `folder`; `doing` says in errors what it was for.
    pub fn unpack(
        &mut self,
        doing: &'static str,
        folder: &str,
        source: impl FnOnce(PipeWriter) -> Result<(), WorkspaceError> + Send + 'static,
    ) -> Result<(), WorkspaceError> {
        let mut guest = Guest { shell: &mut *self.shell, control: &mut self.signals };
        guest.feed(doing, &Command::tool(Tool::Unpack { folder: folder.as_bytes().to_vec() }), source)
    }

    /// Does `act` with a limit of time; what it gave, and whether the time was over.
    pub fn within<T>(&mut self, limit: Duration, act: impl FnOnce(Guest<'_>) -> T) -> Result<(T, bool), Failure> {
        let limited = TimeLimit::new(&mut self.signals, Some(limit));
        let mut control = limited.map_err(|e| Fault::failed("cannot measure the time", &e))?.for_all();
        let done = act(Guest { shell: &mut *self.shell, control: &mut control });
        Ok((done, control.is_over()))
    }

    /// Runs `command` without input; what it says as errors is shown, its output is not.
    pub fn show(&mut self, command: &Command) -> Result<Outcome, Failure> {
        let (null, stderr) = (File::options().read(true).write(true).open("/dev/null"), io::stderr());
        let null = null.map_err(|e| Fault::failed("cannot open /dev/null", &e))?;
        let control: Option<&mut dyn Control> = Some(&mut self.signals);
        let io = Io { stdin: null.as_fd(), stdout: null.as_fd(), stderr: stderr.as_fd(), control };
        self.shell.run(command, io).map_err(|e| session::of_shell(&e))
    }

    /// Fails once a signal has come that nobody else has taken.
    pub fn heed(&mut self) -> Result<(), Failure> {
        self.signals.end_asked_for().map_or(Ok(()), |signal| Err(Failure::Signalled(signal)))
    }
}

/// Says that a guest has had its time.
pub fn too_slow(name: &VmName, what: &str, limit: Duration) -> Failure {
    let message = format!("VM '{name}' has not {what} within {limit:?}");
    Failure::new(FaultKind::OperationFailed, message).hint("--timeout gives it more time")
}

/// What an error is to whoever asked.
pub fn failure(error: &WorkspaceError) -> Failure {
    let kind = match error {
        WorkspaceError::Signalled(signal) => return Failure::Signalled(*signal),
        WorkspaceError::Path { source, .. } if source.kind() == io::ErrorKind::NotFound => FaultKind::NotFound,
        WorkspaceError::Path { .. }
        | WorkspaceError::NoFolder(_)
        | WorkspaceError::NoRepository(_)
        | WorkspaceError::Bare(_)
        | WorkspaceError::Elsewhere(_)
        | WorkspaceError::Submodules { .. }
        | WorkspaceError::NoCommit(_)
        | WorkspaceError::BranchName(_)
        | WorkspaceError::NoCommits
        | WorkspaceError::Outside { .. }
        | WorkspaceError::NothingThere(_)
        | WorkspaceError::Folder(_) => FaultKind::BadRequest,
        WorkspaceError::Taken(_) | WorkspaceError::Changed(_) => FaultKind::InUse,
        WorkspaceError::Patch(_) | WorkspaceError::TooLarge(_) => FaultKind::Refused,
        WorkspaceError::Git(_)
        | WorkspaceError::Archive(_)
        | WorkspaceError::Shell(_)
        | WorkspaceError::Guest { .. }
        | WorkspaceError::NoGit
        | WorkspaceError::File { .. }
        | WorkspaceError::Pipe(_)
        | WorkspaceError::DoesNotFit(_) => FaultKind::OperationFailed,
    };
    let failure = Failure::from(Fault::of(kind, error));
    match error {
        WorkspaceError::Path { path, source } if source.kind() == io::ErrorKind::NotFound && is_word(path) => {
            failure.hint(format!("banger vm run -- {}      (for a command)", path.display()))
        }
        WorkspaceError::NoRepository(path) => {
            let path = path.display();
            failure
                .hint(format!("git -C {path} init && git -C {path} add .      (makes it one)"))
                .hint("banger vm cp SRC NAME:DST      (copies any folder)")
        }
        WorkspaceError::TooLarge(_) => {
            failure.hint("--max-size permits more").hint("--stat tells which files they are")
        }
        WorkspaceError::Submodules { .. } => failure.hint("--no-submodules leaves their folders empty"),
        WorkspaceError::Outside { path, top } if top.join(path).symlink_metadata().is_ok() => failure
            .hint(format!("--include {}      (a path counts from the folder you are in)", top.join(path).display())),
        _ => failure,
    }
}

fn is_word(path: &Path) -> bool {
    path.components().count() == 1 && !path.as_os_str().as_bytes().starts_with(b".")
}

/// What to type next, where that depends on the VM.
pub fn for_vm(failure: Failure, error: &WorkspaceError, name: &VmName) -> Failure {
    match error {
        WorkspaceError::Changed(_) => failure
            .hint(format!("banger vm workspace export {name} -o changes.patch      (keeps it)"))
            .hint(format!("banger vm workspace prepare {name} PATH --force      (overwrites it)")),
        WorkspaceError::Taken(folder) => failure.hint(format!("banger vm exec {name} -- ls -la {folder}")),
        _ => failure,
    }
}
