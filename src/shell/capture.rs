//! Running a command for its output instead of for a person.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;

use rustix::fs::{SealFlags, fcntl_add_seals};

use crate::os::memfd;

use super::{Command, Control, GuestShell, Io, Outcome, ShellError};

/// What a command said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// How it ended.
    pub outcome: Outcome,
    /// Its output.
    pub stdout: Vec<u8>,
    /// Its errors.
    pub stderr: Vec<u8>,
}

/// Runs `command` with `stdin` as its input and keeps its outputs; an output of more than `limit`
/// bytes is an error, so that a guest cannot fill the host's memory.
pub fn capture(
    shell: &mut dyn GuestShell,
    command: &Command,
    stdin: &[u8],
    limit: u64,
) -> Result<Captured, ShellError> {
    capture_heeding(shell, command, stdin, limit, None)
}

/// The same for whoever may be told to end meanwhile.
pub fn capture_heeding(
    shell: &mut dyn GuestShell,
    command: &Command,
    stdin: &[u8],
    limit: u64,
    mut control: Option<&mut dyn Control>,
) -> Result<Captured, ShellError> {
    let input = prepared(stdin).map_err(failed("read", "stdin"))?;
    let mut stdout = bounded(limit).map_err(failed("write", "stdout"))?;
    let mut stderr = bounded(limit).map_err(failed("write", "stderr"))?;
    // A control of no longer life than the streams'.
    let control = control.as_mut().map(|control| &mut **control as &mut dyn Control);
    let io = Io { stdin: input.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd(), control };
    let outcome = shell.run(command, io)?;
    Ok(Captured {
        outcome,
        stdout: written(&mut stdout).map_err(failed("read", "stdout"))?,
        stderr: written(&mut stderr).map_err(failed("read", "stderr"))?,
    })
}

fn failed(verb: &'static str, stream: &'static str) -> impl FnOnce(io::Error) -> ShellError {
    move |source| ShellError::Stream { verb, stream, source }
}

fn prepared(content: &[u8]) -> io::Result<File> {
    let mut file = memfd::create("banger-stdin")?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// A file that refuses to grow beyond `limit` (`F_SEAL_GROW`, fcntl(2)).
fn bounded(limit: u64) -> io::Result<File> {
    let file = memfd::create("banger-output")?;
    file.set_len(limit)?;
    fcntl_add_seals(&file, SealFlags::GROW)?;
    Ok(file)
}

/// What was written: the descriptor's position says how much.
fn written(file: &mut File) -> io::Result<Vec<u8>> {
    let length = file.stream_position()?;
    file.rewind()?;
    let mut content = Vec::new();
    file.take(length).read_to_end(&mut content)?;
    Ok(content)
}
