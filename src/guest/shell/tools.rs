//! What the agent can do by itself, whatever the image has: each a process of its own, this very
//! binary, so that to a channel it is a command like any other.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::jobs;
use crate::guest::agent::SELF;
use crate::guest::error::chain;
use crate::os::archive;
use crate::protocol::frame::{self, HEADER};
use crate::protocol::shell::Tool;

/// Before the tool's own words: its frame's body in hexadecimal digits.
pub const FLAG: &str = "--tool";

/// The tool could not do it.
const FAILED: u8 = 125;

/// The process that does it.
pub fn command(tool: &Tool) -> Command {
    let mut command = Command::new(SELF);
    command.arg0("banger-agent").arg(FLAG).arg(to_word(tool));
    command
}

/// Fails only above the limit of a frame, and then decodes to nothing either.
fn to_word(tool: &Tool) -> String {
    let frame = frame::encode(tool).unwrap_or_default();
    frame.iter().skip(HEADER).map(|byte| format!("{byte:02x}")).collect()
}

fn of_word(word: &OsStr) -> Option<Tool> {
    let digits = word.to_str()?.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let body: Vec<u8> = digits.chunks(2).map(byte).collect::<Option<_>>()?;
    frame::decode(&body).ok()
}

/// Does what `word` says; the exit code.
pub fn run(word: &OsString) -> ExitCode {
    let Some(tool) = of_word(word) else { return fail("the tool is not known") };
    match perform(tool) {
        Ok(code) => ExitCode::from(code),
        // Who reads the output went away, and needs no words.
        Err(e) if is_broken_pipe(e.as_ref()) => ExitCode::from(FAILED),
        Err(e) => fail(&chain(e.as_ref())),
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Says on standard error why a tool failed.
fn fail(text: &str) -> ExitCode {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr(), "banger: {text}");
    ExitCode::from(FAILED)
}

fn perform(tool: Tool) -> Result<u8, Box<dyn std::error::Error>> {
    match tool {
        Tool::Probe { path } => probe(path_of(&path))?,
        Tool::Pack { folder, name } => {
            let name = OsStr::from_bytes(&name);
            let as_name = if name == "." { OsStr::new("") } else { name };
            say_skipped(&archive::pack(path_of(&folder), name, as_name, io::BufWriter::new(io::stdout().lock()))?);
        }
        Tool::Unpack { folder } => say_skipped(&archive::unpack(path_of(&folder), None, io::stdin().lock())?),
        Tool::Detach => jobs::detach()?,
        Tool::Attach { job, from, follow } => return Ok(jobs::attach(job, from, follow)?),
        Tool::Jobs => jobs::list()?,
    }
    Ok(0)
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn probe(path: &Path) -> io::Result<()> {
    let word = match (std::fs::metadata(path), path.is_symlink()) {
        (Ok(about), _) if about.is_dir() => "folder",
        (Ok(about), _) if about.is_file() => "file",
        (Ok(_), _) | (Err(_), true) => "other",
        (Err(_), false) => "nothing",
    };
    writeln!(io::stdout(), "{word}")
}

fn say_skipped(moved: &archive::Moved) {
    if moved.skipped > 0 {
        // As above.
        let _ = writeln!(io::stderr(), "banger: left out: {} devices, sockets or pipes", moved.skipped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_survives_its_word_and_nothing_else_is_one() {
        let tools = [
            Tool::Probe { path: b"/a\xff\n".to_vec() },
            Tool::Pack { folder: b"/".to_vec(), name: b".".to_vec() },
            Tool::Attach { job: 3, from: u64::MAX, follow: true },
            Tool::Jobs,
        ];
        for tool in tools {
            assert_eq!(of_word(OsStr::new(&to_word(&tool))), Some(tool));
        }
        for word in ["", "0", "zz", "ff", "05ff"] {
            assert_eq!(of_word(OsStr::new(word)), None, "{word}");
        }
    }
}
