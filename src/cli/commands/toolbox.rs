//! The tools that a repository names, in a guest.

use std::ffi::OsString;

use super::super::client::Client;
use super::super::render;
use super::super::report::Failure;
use super::way::Way;
use super::{exec, session};
use crate::model::{Egress, Reach, VmName, Workspace};
use crate::protocol::FaultKind;
use crate::protocol::owner::Carrier;
use crate::shell::{Command, Outcome};
use crate::workspace::{Intake, TOOLS_LOG, Tools};

/// What the repository wants to be installed; refused, while there is no VM, where it cannot be.
pub fn tools(intake: &Intake, egress: &Egress) -> Result<Tools, Failure> {
    let tools = Tools::of(intake);
    if let Some(trouble) = &tools.trouble {
        render::note(&format!("banger: warning: {trouble}: left out"));
    }
    let reaches_nothing = egress.reach == Reach::Granted && egress.grants.is_empty();
    if !tools.mise.is_empty() && reaches_nothing {
        let message = format!("{} names tools, which the guest cannot fetch without a network", tools.mise.join(", "));
        let failure = Failure::new(FaultKind::BadRequest, message);
        return Err(failure.hint("--nat lets it reach the internet").hint("--no-bootstrap does without them"));
    }
    Ok(tools)
}

/// Installs `tools` while somebody waits, and shows what they say.
pub fn install(way: &mut Way, name: &VmName, workspace: &Workspace, tools: &Tools) -> Result<(), Failure> {
    render::note(&format!("tools: {}", tools.in_words()));
    match way.show(&tools.command(&workspace.folder))? {
        Outcome::Exited(0) => Ok(()),
        Outcome::Signaled { number, .. } if number > 0 => Err(Failure::Signalled(number)),
        Outcome::Exited(_) | Outcome::Signaled { .. } => {
            let message = format!("the tools of {} could not be installed in VM '{name}'", workspace.folder);
            let failure = Failure::new(FaultKind::OperationFailed, message);
            Err(failure
                .hint(format!("banger vm exec {name} -- cat {TOOLS_LOG}"))
                .hint("--no-bootstrap does without them"))
        }
    }
}

/// Installs `tools` while nobody waits.
pub fn install_behind(client: &mut Client, name: &VmName, workspace: &Workspace, tools: &Tools) -> Result<(), Failure> {
    let way = session::open(client, name, vec![Carrier::Agent])?;
    let job = exec::left_behind(way, &tools.command(&workspace.folder))?;
    render::note(&format!("tools: {}, in the background: banger vm attach {name} {job}", tools.in_words()));
    Ok(())
}

/// `words` as they are run in the workspace.
pub fn command_in(workspace: &Workspace, words: Vec<OsString>) -> Command {
    let command = match workspace.has_tools {
        true => Tools::wrapped(words, &workspace.folder),
        false => Command::new(words),
    };
    command.in_folder(workspace.runs_in.as_str())
}
