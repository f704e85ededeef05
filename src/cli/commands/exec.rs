//! `vm exec` and `vm attach`: a command in a running VM, with its caller or without.

use std::ffi::OsString;

use super::super::args::{Usage, VmAttach, VmExec};
use super::super::report::Failure;
use super::super::{autostart, render};
use super::{program, session, toolbox, workspace};
use crate::host::paths::Paths;
use crate::model::VmName;
use crate::protocol::owner::{Carrier, OwnerRequest};
use crate::protocol::shell::Tool;
use crate::protocol::{Fault, FaultKind, frame};
use crate::shell::{self, Command, Outcome, capture_heeding};

/// Most bytes of a guest's answer to a command that is left behind.
const MAX_ANSWER: u64 = 4096;

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
    let command = match &place {
        Some(brought) => toolbox::command_in(brought, command),
        None => program::command(&program::config(&mut client, &vm.spec.image)?, command),
    };
    let way = session::open(&mut client, &asked.name, carriers)?;
    drop(client);
    if asked.detach {
        let job = left_behind(way, &command)?;
        let view = serde_json::json!({ "id": job.parse::<u64>().ok() });
        return render::either(&view, || job).map(|()| 0);
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

/// Has the guest run `command` by itself; its number.
pub fn left_behind(way: session::Way, command: &Command) -> Result<String, Failure> {
    let begin = shell::begin(command).map_err(|e| session::of_shell(&e))?;
    let content = frame::encode(&begin).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    let mut signals = session::signals()?;
    let mut shell = session::connect(way, &mut signals)?;
    let command = Command::tool(Tool::Detach);
    let said = capture_heeding(&mut *shell, &command, &content, MAX_ANSWER, Some(&mut signals));
    let said = said.map_err(|e| session::of_shell(&e))?;
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().chars().take(200).collect::<String>();
    match said.outcome {
        Outcome::Exited(0) => Ok(words(&said.stdout)),
        Outcome::Signaled { number, .. } if number > 0 => Err(Failure::Signalled(number)),
        Outcome::Exited(_) | Outcome::Signaled { .. } => {
            let fault = Fault::new(FaultKind::OperationFailed, "the guest could not begin the command");
            Err(fault.cause(words(&said.stderr)).into())
        }
    }
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
