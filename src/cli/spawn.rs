//! Starting this binary again under another name, and waiting until it says that it is ready.
//!
//! The contract with both daemons: once it answers on its socket, a daemon writes `ready\n` to
//! standard output and replaces it by `/dev/null`. The end of the stream without that word is the
//! end of the daemon; no waiting in between, no polling.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::interrupt::{Waited, wait_readable};
use super::report::Failure;
use crate::host::paths::Environment;
use crate::os::accounts::Account;
use crate::os::child::{Credentials, spawn_as};
use crate::protocol::{Fault, FaultKind};

/// This binary, even when its file was replaced meanwhile.
const SELF: &str = "/proc/self/exe";

/// How long a daemon may take until it answers.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// What a daemon says when it answers.
const READY: &[u8] = b"ready\n";

/// Lines of the log that are shown when a daemon did not come up.
const TAIL_LINES: usize = 5;

/// Where a daemon logs.
pub struct Log {
    /// The path to open it by, through a descriptor where a plain one could be led astray.
    pub open: PathBuf,
    /// The path that people see.
    pub shown: PathBuf,
}

/// Starts the daemon `name` and returns when it answers.
pub fn start_daemon(name: &str, arguments: &[String], log: &Log) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::from(Fault::failed(format!("cannot start {name}"), &e));
    let log_file = open_log(&log.open).map_err(failed)?;
    let before = log_file.metadata().map_or(0, |m| m.len());
    let mut child = Command::new(SELF)
        .arg0(name)
        .args(arguments)
        .current_dir("/")
        .envs(Environment::current().variables())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .map_err(failed)?;
    let ready = child.stdout.take().map_or(Ok(false), |mut stdout| wait_for_ready(&mut stdout)).map_err(failed)?;
    if ready {
        return Ok(());
    }
    // It either has ended or hangs before it answers: in both cases it is of no use to anybody.
    let _ = child.kill();
    let status = child.wait().map_err(failed)?;
    Err(not_ready(name, &status.to_string(), log, before))
}

fn open_log(path: &Path) -> io::Result<File> {
    let open = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    open.map_err(crate::os::files::named("open", path))
}

fn wait_for_ready(stdout: &mut (impl Read + AsFd)) -> io::Result<bool> {
    let deadline = Instant::now() + READY_LIMIT;
    let mut said = Vec::new();
    let mut piece = [0; 64];
    while said.len() < READY.len() {
        let rest = deadline.saturating_duration_since(Instant::now());
        if wait_readable(stdout.as_fd(), None, Some(rest))? == Waited::TimedOut {
            return Ok(false);
        }
        match stdout.read(&mut piece)? {
            0 => return Ok(false),
            count => said.extend_from_slice(&piece[..count]),
        }
    }
    Ok(said.starts_with(READY))
}

fn not_ready(name: &str, status: &str, log: &Log, before: u64) -> Failure {
    let mut fault = Fault::new(FaultKind::Unavailable, format!("{name} did not come up ({status})"));
    for line in tail(&log.open, before) {
        fault = fault.cause(line);
    }
    fault.hint(format!("tail {}", log.shown.display())).into()
}

/// The last lines that were written to `log` since it had `before` bytes.
fn tail(log: &Path, before: u64) -> Vec<String> {
    let content = std::fs::read(log).unwrap_or_default();
    let start = usize::try_from(before).unwrap_or(usize::MAX).min(content.len());
    let text = String::from_utf8_lossy(&content[start..]).into_owned();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|l| (*l).to_owned()).collect()
}

/// Runs `banger WORDS` as `account` with its groups and a clean environment; returns its exit code.
pub fn run_as(account: &Account, words: &[&str]) -> Result<u8, Failure> {
    let failed = |e: io::Error| Failure::from(Fault::failed(format!("cannot run as {}", account.name), &e));
    let mut command = Command::new(SELF);
    command.arg0("banger").args(words).current_dir("/").env_clear().envs(environment_of(account));
    command.envs(Environment::current().variables());
    let status = spawn_as(&mut command, &Credentials::of(account)).and_then(|mut child| child.wait());
    let status = status.map_err(failed)?;
    Ok(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(FaultKind::OperationFailed.exit_code()))
}

fn environment_of(account: &Account) -> Vec<(String, std::ffi::OsString)> {
    let mut variables: Vec<(String, std::ffi::OsString)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("BANGER_") || name == "NO_COLOR" || name == "TERM" || name == "LANG")
        .collect();
    variables.push(("HOME".into(), account.home.clone().into()));
    variables.push(("USER".into(), account.name.clone().into()));
    variables.push(("LOGNAME".into(), account.name.clone().into()));
    variables.push(("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()));
    let runtime = format!("/run/user/{}", account.uid);
    if Path::new(&runtime).is_dir() {
        variables.push(("XDG_RUNTIME_DIR".into(), runtime.into()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn heard(text: &[u8]) -> bool {
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(text).expect("written");
        drop(writer);
        wait_for_ready(&mut reader).expect("read")
    }

    #[test]
    fn only_the_word_means_ready() {
        assert!(heard(b"ready\n"));
        for other in [&b""[..], b"ready", b"error: no\n", b"not ready\n"] {
            assert!(!heard(other), "{other:?}");
        }
    }

    #[test]
    fn the_tail_holds_only_what_is_new() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        std::fs::write(&log, "old\none\ntwo\n\n").expect("written");
        assert_eq!(tail(&log, 4), ["one", "two"]);
        assert_eq!(tail(&log, 400), Vec::<String>::new());
    }
}
