//! `docker-credential-NAME get`: programs that keep credentials (docker/docker-credential-helpers).
//!
//! The server's name goes to standard input, the answer comes from standard output; neither is logged.
//! Bounded in time and in what it may say. It stays in this process's group, so that it can ask on the terminal, and
//! Ctrl-C is its as well.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use crate::os::process::wait_for_end;

use super::credentials::Credential;
use super::hidden::Hidden;

/// It may ask the person for a passphrase.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of its answer.
const MOST_ANSWER: u64 = 64 << 10;
/// The user that stands for "this is a token that gets others".
const TOKEN: &str = "<token>";

/// What came of asking.
#[derive(Debug)]
pub(super) enum Answered {
    Credential(Credential),
    /// It has none for this server.
    None,
    Trouble(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the program called `name`, found in `folder` or in `PATH`, for what it has for `server`.
pub(super) fn get(name: &str, server: &str, folder: Option<&Path>) -> Answered {
    let fine = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !fine || name.is_empty() || name.len() > 100 {
        return Answered::Trouble(
            "a credential helper's name has other characters than letters, digits and ._-".into(),
        );
    }
    let program = format!("docker-credential-{name}");
    let path = folder.map_or_else(|| program.clone().into(), |folder| folder.join(&program));
    match run(&path, server, PATIENCE) {
        Ok(Some(output)) => read(&program, &output),
        Ok(None) => Answered::None,
        Err(trouble) => Answered::Trouble(format!("`{program} get`: {trouble}")),
    }
}

/// Its output; `None` when it says that there is none.
fn run(path: &Path, server: &str, patience: Duration) -> Result<Option<Vec<u8>>, String> {
    let mut command = Command::new(path);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("cannot be run: {e}"))?;
    let deadline = Instant::now() + patience;
    let output = converse(&mut child, server, patience).and_then(|output| {
        // Some say all and go on.
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|e| e.to_string())?;
        let rest = deadline.saturating_duration_since(Instant::now());
        match wait_for_end(&pidfd, rest).map_err(|e| e.to_string())? {
            true => Ok(output),
            false => Err(format!("does not end for {} s", patience.as_secs())),
        }
    });
    if output.is_err() {
        // It may have ended by itself; what counts is said already.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    let output = output?;
    match status.success() {
        true => Ok(Some(output)),
        // The one failure that is an answer (credentials/error.go, errCredentialsNotFound).
        false if String::from_utf8_lossy(&output).contains("credentials not found") => Ok(None),
        false => Err(format!("failed ({status})")),
    }
}

fn converse(child: &mut Child, server: &str, patience: Duration) -> Result<Vec<u8>, String> {
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("has no standard input or output".into());
    };
    // A name is shorter than a pipe; a program that ended without reading is judged by its answer.
    if let Err(e) = input.write_all(server.as_bytes())
        && e.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(e.to_string());
    }
    drop(input);
    let (sender, answer) = mpsc::channel();
    let reader = move || {
        let mut bytes = Vec::new();
        let result = output.take(MOST_ANSWER + 1).read_to_end(&mut bytes).map(|_| bytes);
        // Nobody waits any more when it came too late.
        let _ = sender.send(result);
    };
    std::thread::Builder::new().name("credentials".into()).spawn(reader).map_err(|e| e.to_string())?;
    let bytes = answer.recv_timeout(patience).map_err(|_| format!("no answer for {} s", patience.as_secs()))?;
    let bytes = bytes.map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MOST_ANSWER {
        return Err(format!("more than {MOST_ANSWER} bytes of answer"));
    }
    Ok(bytes)
}

fn read(program: &str, output: &[u8]) -> Answered {
    match serde_json::from_slice::<Answer>(output) {
        Ok(answer) if answer.secret.is_empty() => Answered::None,
        Ok(answer) if answer.username == TOKEN => Answered::Credential(Credential::Refresh(Hidden::new(answer.secret))),
        Ok(answer) => Answered::Credential(Credential::Password(answer.username, Hidden::new(answer.secret))),
        Err(_) => Answered::Trouble(format!("`{program} get`: its answer is not what such programs say")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn asked(script: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        match get("test", "registry.example", Some(folder.path())) {
            Answered::Credential(Credential::Password(user, secret)) => format!("{user}/{}", secret.expose()),
            Answered::Credential(Credential::Refresh(token)) => format!("refresh {}", token.expose()),
            Answered::None => "none".into(),
            Answered::Trouble(trouble) => trouble,
        }
    }

    #[test]
    fn a_program_is_asked_on_its_input() {
        let answer = r#"test "$1" = get && printf '{"ServerURL":"x","Username":"me","Secret":"s %s"}' "$(cat)""#;
        assert_eq!(asked(answer), "me/s registry.example");
        assert_eq!(asked(r#"echo '{"Username":"<token>","Secret":"t"}'"#), "refresh t");
        assert_eq!(asked("echo 'credentials not found in native keychain'; exit 1"), "none");
    }

    #[test]
    fn a_program_that_fails_is_told_without_its_words() {
        assert!(asked("echo hunter2; exit 3").ends_with("failed (exit status: 3)"));
        assert!(asked("echo hunter2").contains("not what such programs say"));
        assert!(asked("yes").contains("65536 bytes"));
        assert!(matches!(get("../x", "s", None), Answered::Trouble(_)));
        assert!(matches!(get("there-is-none-such", "s", None), Answered::Trouble(t) if t.contains("cannot be run")));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hang");
        for (script, what) in [("exec sleep 100", "no answer"), ("exec sleep 100 >&-", "does not end")] {
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
            let error = run(&path, "", Duration::from_millis(500)).expect_err("hangs");
            assert!(error.contains(what), "{error}");
        }
    }
}
