//! A shell or a command in a guest. The daemon only brokers: the stream to the guest is this
//! process's own, so a restarted daemon does not cut it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};
use std::time::Instant;

use super::super::autostart;
use super::super::client::{Client, unexpected};
use super::super::interrupt::{Interrupts, Waited, wait_readable};
use super::super::report::Failure;
use super::super::{remote, render};
use crate::host::config::{Config, ExecSetting};
use crate::host::paths::Paths;
use crate::model::{GuestFolder, TimeSpan, VmName};
use crate::os::process;
use crate::os::tty::{self, RawMode};
use crate::protocol::owner::{Carrier, OwnerReply, OwnerRequest, ShellAccess};
use crate::protocol::shell::Token;
use crate::protocol::{Fault, FaultKind};
use crate::shell::{
    AgentShell, Command, Control, GuestShell, HostSignals, Io, Outcome, Pty, ShellError, TimeLimit, Timeouts,
};
use crate::ssh::{Access, SshError, SshShell, UserSsh};

/// Exit code of a command whose time was over, as timeout(1) has it.
pub const OUT_OF_TIME: u8 = 124;

/// `TERM` where the caller has none: what every terminfo database knows.
const PLAIN_TERMINAL: &str = "dumb";

/// `vm ssh`.
pub fn ssh(name: &VmName, command: Option<Vec<OsString>>) -> Result<u8, Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let way = open(&mut client, name, vec![Carrier::Ssh])?;
    drop(client);
    Ok(run(way, command.map(Command::new), None, None)?.code)
}

/// A way into a guest.
pub enum Way {
    /// To its ssh server.
    Ssh(Box<ShellAccess>, OwnedFd),
    /// To its agent.
    Agent(VmName, Token, OwnedFd),
}

/// What is to carry `command`, or a shell, as configured. A person's shell is their own ssh's, which
/// knows terminals better than anybody else.
pub fn carriers(paths: &Paths, command: Option<&[OsString]>) -> Result<Vec<Carrier>, Failure> {
    let config = Config::load(&paths.config).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    Ok(match config.exec {
        ExecSetting::Agent => vec![Carrier::Agent],
        ExecSetting::Ssh => vec![Carrier::Ssh],
        ExecSetting::Auto if command.is_none() && is_on_terminal() => vec![Carrier::Ssh, Carrier::Agent],
        ExecSetting::Auto => vec![Carrier::Agent, Carrier::Ssh],
    })
}

fn is_on_terminal() -> bool {
    tty::is_terminal(io::stdin().as_fd()) && tty::is_terminal(io::stdout().as_fd())
}

/// Asks for a way into `name`.
pub fn open(client: &mut Client, name: &VmName, carriers: Vec<Carrier>) -> Result<Way, Failure> {
    // Over ssh, files of that machine would be needed here.
    let carriers = if remote::current().is_some() { vec![Carrier::Agent] } else { carriers };
    let request = OwnerRequest::OpenShell { name: name.clone(), carriers };
    let (reply, mut files) = client.call(request, Vec::new(), &mut |_| {})?;
    match (reply, files.pop()) {
        (OwnerReply::Shell(access), Some(socket)) if files.is_empty() => Ok(Way::Ssh(Box::new(access), socket)),
        (OwnerReply::Channel { token }, Some(socket)) if files.is_empty() => {
            Ok(Way::Agent(name.clone(), token, socket))
        }
        (other, _) => Err(unexpected(&other)),
    }
}

/// How a session ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// The exit code to give.
    pub code: u8,
    /// The signal that ended the command, without `SIG`.
    pub signal: Option<String>,
    /// Whether its time was over.
    pub is_late: bool,
}

impl Ended {
    fn with_code(code: u8) -> Self {
        Self { code, signal: None, is_late: false }
    }
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        let code = outcome.exit_code();
        match outcome {
            Outcome::Exited(_) => Self::with_code(code),
            Outcome::Signaled { name, .. } => Self { signal: Some(name), ..Self::with_code(code) },
        }
    }
}

/// Runs `command`, or a login shell, in `folder` or at home, to its end or that of its time.
pub fn run(
    way: Way,
    command: Option<Command>,
    folder: Option<&GuestFolder>,
    limit: Option<TimeSpan>,
) -> Result<Ended, Failure> {
    let placed = |command: Command| match folder {
        Some(folder) => command.in_folder(folder.as_str()),
        None => command,
    };
    match (command, is_on_terminal(), way) {
        (Some(command), _, way) => carried(way, &placed(command), limit),
        (None, false, way) => carried(way, &placed(Command::login()), limit),
        (None, true, Way::Ssh(access, socket)) => match program_of_user("ssh") {
            Some(program) => {
                let shell = folder.map(|_| placed(Command::login()).on_pty(terminal()));
                with_own_ssh(&access, socket, &program, shell.as_ref(), limit)
            }
            None => carried(Way::Ssh(access, socket), &placed(Command::login()).on_pty(terminal()), limit),
        },
        (None, true, way @ Way::Agent(..)) => carried(way, &placed(Command::login()).on_pty(terminal()), limit),
    }
}

fn failed(doing: &str, error: &dyn std::error::Error) -> Failure {
    Fault::failed(format!("cannot {doing}"), error).into()
}

fn terminal() -> Pty {
    let (cols, rows) = tty::size(io::stdout().as_fd()).unwrap_or((80, 24));
    Pty { term: std::env::var("TERM").unwrap_or_else(|_| PLAIN_TERMINAL.to_owned()), cols, rows }
}

/// Over a carrier of banger's own. Signals are passed on: how the command ends is the guest's affair.
pub fn carried(way: Way, command: &Command, limit: Option<TimeSpan>) -> Result<Ended, Failure> {
    let limited = TimeLimit::new(signals()?, limit.map(TimeSpan::duration));
    let mut control = limited.map_err(|e| failed("measure the time", &e))?;
    let ended = over_carrier(way, command, &mut control);
    match (control.is_over(), limit) {
        (true, Some(limit)) if ended.is_ok() || matches!(ended, Err(Failure::Signalled(_))) => Ok(out_of_time(limit)),
        _ => ended,
    }
}

fn over_carrier(way: Way, command: &Command, control: &mut dyn Control) -> Result<Ended, Failure> {
    let mut shell = connect(way, control)?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    // Not before there is an ssh session: until then Ctrl-C is a signal, and ends the wait for it. An
    // agent has no session to wait for.
    let raw = command.pty.is_some().then(|| RawMode::enter(stdin.as_fd())).transpose();
    let _raw = raw.map_err(|e| failed("prepare the terminal", &e))?;
    let io = Io { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd(), control: Some(control) };
    Ok(shell.run(command, io).map_err(|e| of_shell(&e))?.into())
}

/// Says that the time was over.
fn out_of_time(limit: TimeSpan) -> Ended {
    render::note(&format!("banger: not done within {limit}: ended"));
    Ended { is_late: true, ..Ended::with_code(OUT_OF_TIME) }
}

/// This process's signals, from now on passed on.
pub fn signals() -> Result<HostSignals, Failure> {
    HostSignals::listen(io::stdout()).map_err(|e| failed("listen for signals", &e))
}

/// What a carrier's error is to whoever asked.
pub fn of_shell(error: &ShellError) -> Failure {
    Fault::of(FaultKind::OperationFailed, error).into()
}

/// The carrier, ready for commands.
pub fn connect(way: Way, control: &mut dyn Control) -> Result<Box<dyn GuestShell>, Failure> {
    match way {
        Way::Agent(name, token, socket) => {
            let shell = AgentShell::open(socket, token, name.as_str(), Timeouts::default());
            Ok(Box::new(shell.map_err(|e| of_shell(&e))?))
        }
        Way::Ssh(access, socket) => {
            let keys = Access {
                name: access.name.to_string(),
                user: access.user.clone(),
                private_key: access.private_key.clone(),
                host_key: access.host_key.clone(),
            };
            let connected = SshShell::connect(socket, &keys, Timeouts::default(), Some(control));
            Ok(Box::new(connected.map_err(|e| no_session(&e))?))
        }
    }
}

/// What there is without a session: a signal, a guest that let nobody in, or a failure.
fn no_session(error: &SshError) -> Failure {
    let kind = match error {
        SshError::Interrupted { signal, .. } => return Failure::Signalled(*signal),
        SshError::TimedOut { .. } | SshError::Handshake { .. } | SshError::Login { .. } => FaultKind::NeverReady,
        SshError::HostKey { .. }
        | SshError::Socket { .. }
        | SshError::Key(_)
        | SshError::PublicKey { .. }
        | SshError::KnownHosts { .. } => FaultKind::OperationFailed,
    };
    Fault::of(kind, error).into()
}

/// With the user's own `ssh`, which knows terminals better than anybody else.
fn with_own_ssh(
    access: &ShellAccess,
    socket: OwnedFd,
    program: &Path,
    shell: Option<&Command>,
    limit: Option<TimeSpan>,
) -> Result<Ended, Failure> {
    let interrupts = Interrupts::take_over().map_err(|e| failed("listen for signals", &e))?;
    let mut child = start_own_ssh(access, socket, program, shell)?;
    let waited = wait_for_end(&child, &interrupts, limit).map_err(|e| failed("wait for ssh", &e))?;
    if waited != Waited::Readable {
        // It may have ended by the same signal meanwhile.
        let _ = child.kill();
        child.wait().map_err(|e| failed("wait for ssh", &e))?;
    }
    match (waited, limit) {
        (Waited::Signal(signal), _) => return Err(Failure::Signalled(signal)),
        (Waited::TimedOut, Some(limit)) => return Ok(out_of_time(limit)),
        (Waited::TimedOut, None) | (Waited::Readable, _) => {}
    }
    let status = child.wait().map_err(|e| failed("wait for ssh", &e))?;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255);
    Ok(Ended::with_code(u8::try_from(code).unwrap_or(255)))
}

/// It connects by itself: `socket` would only keep a second sshd in the guest for as long as the shell.
fn start_own_ssh(
    access: &ShellAccess,
    socket: OwnedFd,
    program: &Path,
    shell: Option<&Command>,
) -> Result<Child, Failure> {
    drop(socket);
    let ssh = UserSsh {
        name: &access.name,
        address: access.address,
        user: &access.user,
        identity: Path::new(&access.identity_file),
        known_hosts: Path::new(&access.known_hosts_file),
    };
    let argv = ssh.argv(shell).map_err(|e| Fault::of(FaultKind::OperationFailed, &e))?;
    Process::new(program).args(&argv[1..]).spawn().map_err(|e| failed("start ssh", &e))
}

/// Waits for the end of `child`, which is `Readable`, a signal, or the end of its time. SIGINT went to
/// the child as well, which decides what it means.
fn wait_for_end(child: &Child, interrupts: &Interrupts, limit: Option<TimeSpan>) -> io::Result<Waited> {
    let Some(pidfd) = i32::try_from(child.id()).ok().and_then(|pid| process::reference(pid).ok()) else {
        return Ok(Waited::Readable);
    };
    let Some(pidfd) = process::open(pidfd)? else { return Ok(Waited::Readable) };
    let deadline = limit.map(|limit| Instant::now() + limit.duration());
    loop {
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match wait_readable(pidfd.as_fd(), Some(interrupts), rest)? {
            Waited::Signal(signal_hook::consts::SIGINT) => {}
            waited => return Ok(waited),
        }
    }
}

/// The program called `name` that the user's own `PATH` leads to.
fn program_of_user(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).filter(|p| p.is_absolute()).map(|p| p.join(name)).find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::choice::VmmKind;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn access() -> ShellAccess {
        ShellAccess {
            name: "box".parse().expect("a name"),
            address: std::net::Ipv4Addr::LOCALHOST,
            port: 22,
            user: "root".into(),
            private_key: String::new(),
            host_key: String::new(),
            identity_file: "/id".into(),
            known_hosts_file: "/hosts".into(),
            vmm: VmmKind::Qemu,
        }
    }

    /// A connection over which something is said, and then no more.
    fn greeted_with(banner: &[u8]) -> Failure {
        use std::io::Write;
        let (near, mut far) = UnixStream::pair().expect("a pair");
        far.write_all(banner).expect("sent");
        drop(far);
        let keys = crate::ssh::generate().expect("a key");
        let access =
            Access { name: "box".into(), user: "root".into(), private_key: keys.private, host_key: keys.public };
        no_session(&SshShell::connect(near.into(), &access, Timeouts::default(), None).err().expect("no session"))
    }

    #[test]
    fn a_guest_that_lets_nobody_in_was_never_ready() {
        assert_eq!(greeted_with(b"").kind(), Some(FaultKind::NeverReady));
        assert_eq!(greeted_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").kind(), Some(FaultKind::NeverReady));
        let signal = SshError::Interrupted { name: "box".into(), signal: 2 };
        assert_eq!(no_session(&signal).exit_code(true), 130);
        let local = SshError::Socket { name: "box".into(), source: io::ErrorKind::Other.into() };
        assert_eq!(no_session(&local).kind(), Some(FaultKind::OperationFailed));
    }

    #[test]
    fn the_users_own_ssh_leaves_no_second_connection_open() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        far.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let mut child = start_own_ssh(&access(), near.into(), Path::new("/bin/true"), None).expect("starts");
        assert_eq!(far.read(&mut [0]).expect("closed, not silent"), 0);
        child.wait().expect("reaped");
    }
}
