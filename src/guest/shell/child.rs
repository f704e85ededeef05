//! Starting a command as sshd would: root's environment, home and shell, a process group of its own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::{tools, user};
use crate::guest::agent::SELF;
use crate::guest::init::PATH;
use crate::guest::{environment, sys};
use crate::os::accounts::{self, Account};
use crate::protocol::shell::{Begin, Program, Terminal};

/// Where images keep a shell: the last one's is that of distroless images for debugging.
const SHELLS: [&str; 5] = ["/bin/sh", "/bin/bash", "/bin/ash", "/usr/bin/sh", "/busybox/sh"];

/// What a shell says of a program that is not there, and of one that is none.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// The command could not begin: nothing of it ran.
const NOT_BEGUN: u8 = 125;

/// A command that runs, and its ends of the streams.
#[derive(Debug)]
pub struct Started {
    /// Its process, the leader of its group.
    pub child: Child,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Where its input goes.
    pub stdin: File,
    /// Where its output comes from.
    pub stdout: File,
    /// Where its errors come from; with a terminal they are in the output.
    pub stderr: Option<File>,
    /// The terminal's other end.
    pub terminal: Option<OwnedFd>,
}

/// Why nothing was started: the exit code that says so, and the words for standard error.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 125, 126 or 127.
    pub code: u8,
    /// One line.
    pub text: String,
}

impl Refusal {
    fn of(code: u8, what: &str, why: impl std::fmt::Display) -> Self {
        Self { code, text: format!("banger: {what}: {why}\n") }
    }
}

/// Starts what `begin` says.
pub fn start(begin: &Begin) -> Result<Started, Refusal> {
    let account = account(&begin.program)?;
    let folder = folder(begin, &account)?;
    let mut command = prepare(begin, &account, &folder)?;
    command.current_dir(&folder);
    let name = command.get_program().to_string_lossy().into_owned();
    let started = match &begin.pty {
        Some(terminal) => on_terminal(&mut command, terminal, account.uid),
        None => on_pipes(&mut command),
    };
    let started = started.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Refusal::of(NOT_FOUND, &name, e),
        io::ErrorKind::PermissionDenied => Refusal::of(NOT_EXECUTABLE, &name, e),
        _ if Errno::from_io_error(&e) == Some(Errno::NOEXEC) => Refusal::of(NOT_EXECUTABLE, &name, e),
        _ => Refusal::of(NOT_BEGUN, &name, e),
    })?;
    // The agent is the last to be chosen by the out-of-memory killer, and this was inherited.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", started.child.id()), "0");
    Ok(started)
}

/// Whose rights it gets.
fn account(program: &Program) -> Result<Account, Refusal> {
    match program {
        Program::Login | Program::Argv(_) | Program::Tool(_) => {
            Ok(accounts::of_uid(0).unwrap_or_else(root_of_no_database))
        }
        Program::As { user, .. } => accounts::of_image_user(user)
            .ok_or_else(|| Refusal::of(NOT_BEGUN, user, "the image knows no such user or group")),
    }
}

fn root_of_no_database() -> Account {
    Account { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell: "/bin/sh".into() }
}

/// Where to start; a home that is not there is `/`, as login(1) has it.
fn folder(begin: &Begin, account: &Account) -> Result<PathBuf, Refusal> {
    let wanted = account.home.join(begin.cwd.as_deref().unwrap_or_default());
    match (wanted.is_dir(), &begin.cwd) {
        (true, _) => Ok(wanted),
        (false, None) => Ok("/".into()),
        (false, Some(_)) => Err(Refusal::of(NOT_BEGUN, &wanted.display().to_string(), "no such folder")),
    }
}

fn prepare(begin: &Begin, account: &Account, folder: &Path) -> Result<Command, Refusal> {
    let variables = environment::read();
    let path = variable(&begin.env, "PATH").or_else(|| variable(&variables, "PATH"));
    let mut command = match &begin.program {
        Program::Login => login(account)?,
        Program::Argv(words) => of_words(words, path, folder)?,
        Program::As { words, .. } => as_user(&of_words(words, path, folder)?, words, account),
        Program::Tool(tool) => tools::command(tool),
    };
    command.env_clear().env("PATH", PATH).env("HOME", &account.home);
    command.env("SHELL", shell_of(account).unwrap_or_else(|| account.shell.clone()));
    command.env("USER", &account.name).env("LOGNAME", &account.name);
    if let Some(terminal) = &begin.pty {
        command.env("TERM", &terminal.term);
    }
    command.envs(variables);
    for (name, value) in &begin.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Refusal::of(NOT_BEGUN, name, "not an environment variable"));
        }
        command.env(name, value);
    }
    Ok(command)
}

fn variable<'a>(variables: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    variables.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

/// Whoever gives up root's groups with root's uid needs them set before: the agent itself does that in
/// another process, which then becomes the program.
fn as_user(command: &Command, words: &[Vec<u8>], account: &Account) -> Command {
    let program = Path::new(command.get_program());
    let typed = words.first().map(|word| Path::new(OsStr::from_bytes(word)));
    // What it is called beside its file (execve(2)): as typed, unless its interpreter is what runs.
    let name = typed.filter(|typed| typed.file_name() == program.file_name()).unwrap_or(program);
    let mut other = Command::new(SELF);
    other.arg0("banger-agent").args(user::words(account)).arg(program).arg(name).args(command.get_args());
    other
}

/// Root's shell: what the database names, else what images call theirs. None in an image without any.
pub fn login_shell() -> Option<PathBuf> {
    shell_of(&accounts::of_uid(0).unwrap_or_else(root_of_no_database))
}

fn shell_of(account: &Account) -> Option<PathBuf> {
    // What only says that nobody may log in is none.
    let is_shell = |path: &PathBuf| path.file_name().is_some_and(|name| name != "nologin" && name != "false");
    let own = Some(account.shell.clone()).filter(is_shell);
    own.into_iter().chain(SHELLS.map(PathBuf::from)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// A login shell's own name begins with `-` (login(1)).
fn login(account: &Account) -> Result<Command, Refusal> {
    let shell = shell_of(account).ok_or_else(|| Refusal {
        code: NOT_FOUND,
        text: "banger: this image has no shell: run a program with `banger vm exec NAME -- PROGRAM`\n".to_owned(),
    })?;
    let mut name = OsString::from("-");
    name.push(shell.file_name().unwrap_or(OsStr::new("sh")));
    let mut command = Command::new(shell);
    command.arg0(name);
    Ok(command)
}

fn of_words(words: &[Vec<u8>], path: Option<&str>, folder: &Path) -> Result<Command, Refusal> {
    let Some((first, rest)) = words.split_first() else {
        return Err(Refusal::of(NOT_BEGUN, "the command", "empty"));
    };
    let shown = String::from_utf8_lossy(first).into_owned();
    if words.iter().any(|w| w.contains(&0)) {
        return Err(Refusal::of(NOT_BEGUN, &shown, "a word holds a NUL byte"));
    }
    let found = find(first, path.unwrap_or(PATH)).map_err(|code| {
        let why = if code == NOT_FOUND { "not found" } else { "permission denied" };
        Refusal::of(code, &shown, why)
    })?;
    let mut command = if is_script_without_interpreter(&folder.join(&found)) {
        let mut shell = Command::new("/bin/sh");
        shell.arg(&found);
        shell
    } else {
        let mut command = Command::new(&found);
        command.arg0(OsStr::from_bytes(first));
        command
    };
    command.args(rest.iter().map(|word| OsString::from_vec(word.clone())));
    Ok(command)
}

/// The file that `name` means (execvp(3)); else the exit code that says why there is none.
fn find(name: &[u8], path: &str) -> Result<PathBuf, u8> {
    if name.is_empty() {
        return Err(NOT_FOUND);
    }
    if name.contains(&b'/') {
        // Looked at by the kernel, from the folder that it starts in.
        return Ok(PathBuf::from(OsStr::from_bytes(name)));
    }
    let mut code = NOT_FOUND;
    for folder in path.split(':') {
        let file = Path::new(if folder.is_empty() { "." } else { folder }).join(OsStr::from_bytes(name));
        match std::fs::metadata(&file) {
            Ok(about) if about.is_file() && about.permissions().mode() & 0o111 != 0 => return Ok(file),
            Ok(about) if about.is_file() => code = NOT_EXECUTABLE,
            Ok(_) | Err(_) => {}
        }
    }
    Err(code)
}

/// Executable text without `#!`, which execvp(3) and every shell hand to `sh`.
fn is_script_without_interpreter(file: &Path) -> bool {
    use std::io::Read;
    // Before it is opened: a pipe would make that wait.
    if !is_executable(file) {
        return false;
    }
    let mut beginning = Vec::new();
    let read = File::open(file).and_then(|f| f.take(64).read_to_end(&mut beginning));
    let is_text = !beginning.contains(&0) && !beginning.starts_with(b"#!") && !beginning.starts_with(b"\x7fELF");
    read.is_ok() && is_text
}

fn on_pipes(command: &mut Command) -> io::Result<Started> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("the streams are missing"));
    };
    let (stdin, stdout) = (unblocked(stdin.into())?, unblocked(stdout.into())?);
    let stderr = Some(unblocked(stderr.into())?);
    let (child, pidfd) = watched(child)?;
    Ok(Started { child, pidfd, stdin, stdout, stderr, terminal: None })
}

fn on_terminal(command: &mut Command, terminal: &Terminal, uid: u32) -> io::Result<Started> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    if uid != 0 {
        rustix::fs::fchown(&slave, Some(rustix::process::Uid::from_raw(uid)), None)?;
    }
    resize(&master, terminal.cols, terminal.rows)?;
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    let stdin = unblocked(master.try_clone()?)?;
    let stdout = stdin.try_clone()?;
    let (child, pidfd) = watched(sys::spawn_on_terminal(command)?)?;
    // The command's own copies must be the only ones, or its end would not hang the terminal up.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Started { child, pidfd, stdin, stdout, stderr: None, terminal: Some(master) })
}

/// The child and what tells of its end; one that cannot be watched does not go on.
fn watched(mut child: Child) -> io::Result<(Child, OwnedFd)> {
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(pidfd) => Ok((child, pidfd)),
        Err(e) => {
            child.kill()?;
            child.wait()?;
            Err(e.into())
        }
    }
}

/// Gives the terminal behind `master` another size; its command hears SIGWINCH.
pub fn resize(master: &OwnedFd, cols: u16, rows: u16) -> io::Result<()> {
    Ok(tcsetwinsize(master, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// Only this end is not to wait: the command has a description of its own.
fn unblocked(fd: OwnedFd) -> io::Result<File> {
    let flags = rustix::fs::fcntl_getfl(fd.as_fd())?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(words: &[&str]) -> Begin {
        let words = words.iter().map(|w| w.as_bytes().to_vec()).collect();
        Begin { program: Program::Argv(words), env: Vec::new(), cwd: None, pty: None }
    }

    #[test]
    fn what_cannot_begin_has_the_exit_code_that_a_shell_would_give() {
        let code = |begin: &Begin| start(begin).expect_err("refused").code;
        assert_eq!(code(&begin(&["no-such-program"])), 127);
        assert_eq!(code(&begin(&["/no/such/program"])), 127);
        assert_eq!(code(&begin(&["/etc/passwd"])), 126);
        assert_eq!(code(&begin(&["/"])), 126);
        assert_eq!(code(&begin(&[])), 125);
        assert_eq!(code(&Begin { cwd: Some("/no/such/folder".into()), ..begin(&["true"]) }), 125);
        assert_eq!(code(&Begin { env: vec![("A=B".into(), "c".into())], ..begin(&["true"]) }), 125);
    }

    #[test]
    fn a_script_without_interpreter_is_the_shells() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("script");
        std::fs::write(&file, "exit 9\n").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("set");
        let mut started = start(&begin(&[file.to_str().expect("text")])).expect("starts");
        assert_eq!(started.child.wait().expect("ends").code(), Some(9));
    }
}
