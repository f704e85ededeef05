//! Programs of the host that answer soon or are ended: this helper does one thing at a time.

use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use crate::os::{memfd, process};

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Most of an answer that is read.
const ANSWER_LIMIT: u64 = 1 << 20;

/// Most of its own words that are passed on.
const SAID_LIMIT: u64 = 2048;

/// Runs `program` with `arguments` and nothing of this process's environment; whether it went well.
pub fn succeeds(root: &Root, program: &Path, arguments: &[&str], doing: &str) -> Result<bool> {
    ended(root, program, arguments, Stdio::null(), doing).map(|(succeeded, _)| succeeded)
}

/// Runs `program`, which must succeed; else the error says what it said.
pub fn run(root: &Root, program: &Path, arguments: &[&str], doing: &str) -> Result<()> {
    match ended(root, program, arguments, Stdio::null(), doing)? {
        (true, _) => Ok(()),
        (false, said) => Err(HelperError::Program { doing: doing.to_owned(), said }),
    }
}

/// What `program`, which must succeed, says; of more than 1 MiB the beginning.
pub fn says(root: &Root, program: &Path, arguments: &[&str], doing: &str) -> Result<String> {
    let running = || format!("run {} to {doing}", program.display());
    let mut answer = memfd::create("answer").doing(running())?;
    let output = Stdio::from(answer.try_clone().doing(running())?);
    if let (false, said) = ended(root, program, arguments, output, doing)? {
        return Err(HelperError::Program { doing: doing.to_owned(), said });
    }
    let mut text = Vec::new();
    answer.rewind().and_then(|()| answer.take(ANSWER_LIMIT).read_to_end(&mut text)).doing(running())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether it succeeded, and the first that it said of errors.
fn ended(_: &Root, program: &Path, arguments: &[&str], output: Stdio, doing: &str) -> Result<(bool, String)> {
    let running = || format!("run {} to {doing}", program.display());
    let mut errors = memfd::create("errors").doing(running())?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors.try_clone().doing(running())?)
        .spawn()
        .doing(running())?;
    let pidfd = i32::try_from(child.id()).ok().and_then(|pid| process::reference(pid).ok());
    let pidfd = pidfd.and_then(|process| process::open(process).ok().flatten());
    // One that cannot be watched has ended already.
    let in_time = pidfd.is_none_or(|pidfd| process::wait_for_end(&pidfd, LIMIT).unwrap_or(true));
    if !in_time {
        child.kill().doing(running())?;
    }
    let status = child.wait().doing(running())?;
    let mut said = String::new();
    // What cannot be read cannot be told.
    let _ = errors.rewind().and_then(|()| errors.take(SAID_LIMIT).read_to_string(&mut said));
    let said = said.lines().next().unwrap_or(if in_time { "it failed" } else { "it did not end in time" });
    Ok((status.success(), said.to_owned()))
}
