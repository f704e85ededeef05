//! `vm exec` and `vm attach`: a command in a running VM, with its caller or without.

use std::ffi::OsString;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;

use super::super::args::{Usage, VmAttach, VmExec};
use super::super::autostart;
use super::super::report::Failure;
use super::{session, workspace};
use crate::host::paths::Paths;
use crate::model::VmName;
use crate::os::memfd;
use crate::protocol::owner::{Carrier, OwnerRequest};
use crate::protocol::shell::Tool;
use crate::protocol::{Fault, FaultKind, frame};
use crate::shell::{self, Command, Io};

/// Runs `command` in a VM; returns its exit code.
pub fn exec(asked: &VmExec, command: Option<Vec<OsString>>) -> Result<u8, Failure> {
    let Some(command) = command else {
        return Err(Usage::new("what is to run stands behind `--`", &["vm", "exec"]).into());
    };
    if asked.detach && asked.timeout.is_some() {
        return Err(Usage::new("--timeout is for a command that is waited for", &["vm", "exec"]).into());
    }
    let paths = Paths::current();
    let carriers = if asked.detach { vec![Carrier::Agent] } else { session::carriers(&paths, Some(&command))? };
    let mut client = autostart::connect(&paths)?;
    let vm = workspace::show(&mut client, &asked.name)?;
    let place = match &vm.workspace {
        Some(known) => Some(workspace::up_to_date(&mut client, &asked.name, known, asked.auto_prepare)?),
        None if asked.auto_prepare => return Err(workspace::none_in(&asked.name)),
        None => None,
    };
    let way = session::open(&mut client, &asked.name, carriers)?;
    drop(client);
    let command = match &place {
        Some(folder) => Command::new(command).in_folder(folder.as_str()),
        None => Command::new(command),
    };
    if asked.detach {
        return leave(way, &command);
    }
    let ended = session::carried(way, &command, asked.timeout)?;
    if place.is_some() {
        note_exit(&paths, &asked.name, ended.code);
    }
    Ok(ended.code)
}

/// For the header of a patch; the command's end is what counts, whether this is heard or not.
fn note_exit(paths: &Paths, name: &VmName, code: u8) {
    let request = OwnerRequest::NoteExit { name: name.clone(), code };
    if let Err(failure) = autostart::connect(paths).and_then(|mut client| client.ask(request)) {
        failure.say();
    }
}

/// Has the guest run `command` by itself and prints its number.
fn leave(way: session::Way, command: &Command) -> Result<u8, Failure> {
    let begin = shell::begin(command).map_err(|e| session::of_shell(&e))?;
    let frame = frame::encode(&begin).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    let failed = |e: &io::Error| Fault::failed("cannot hand the command over", e);
    let mut stdin = memfd::create("command").map_err(|e| failed(&e))?;
    stdin.write_all(&frame).and_then(|()| stdin.rewind()).map_err(|e| failed(&e))?;
    let mut signals = session::signals()?;
    let mut shell = session::connect(way, &mut signals)?;
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let io = Io { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd(), control: Some(&mut signals) };
    Ok(shell.run(&Command::tool(Tool::Detach), io).map_err(|e| session::of_shell(&e))?.exit_code())
}

/// Shows what a detached command says, or which there are; returns its exit code.
pub fn attach(asked: &VmAttach) -> Result<u8, Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let way = session::open(&mut client, &asked.name, vec![Carrier::Agent])?;
    drop(client);
    let tool = match asked.id {
        Some(job) => Tool::Attach { job, from: asked.from, follow: !asked.no_follow },
        None => Tool::Jobs,
    };
    Ok(session::carried(way, &Command::tool(tool), None)?.code)
}
