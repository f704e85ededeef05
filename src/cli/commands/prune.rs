//! `vm prune`: deletes what does not run, after asking.

use super::super::args::Usage;
use super::super::autostart;
use super::super::client::{Client, unexpected};
use super::super::consent;
use super::super::render;
use super::super::report::Failure;
use super::outcomes::Outcomes;
use crate::host::paths::Paths;
use crate::model::{VmName, VmState};
use crate::protocol::FaultKind;
use crate::protocol::owner::{OwnerReply, OwnerRequest};

/// Deletes all VMs that do not run, and prints their names.
pub fn prune(force: bool) -> Result<(), Failure> {
    if !force && !consent::can_be_asked() {
        let usage = Usage::new("nobody can be asked without a terminal: -f deletes without asking", &["vm", "prune"]);
        return Err(usage.hint("banger vm prune -f").into());
    }
    let mut client = autostart::connect(&Paths::current())?;
    let names = idle(&mut client)?;
    if names.is_empty() {
        render::note("there is nothing to delete: no VM is stopped");
        return Ok(());
    }
    if !force && !agreed(&names)? {
        render::note("nothing was deleted");
        return Ok(());
    }
    delete_each(&mut client, &names)
}

fn idle(client: &mut Client) -> Result<Vec<VmName>, Failure> {
    match client.ask(OwnerRequest::ListVms)? {
        OwnerReply::Vms(vms) => {
            let idle = vms.into_iter().filter(|vm| !vm.may_hold_resources() && vm.state != VmState::Creating);
            Ok(idle.map(|vm| vm.spec.name).collect())
        }
        other => Err(unexpected(&other)),
    }
}

fn agreed(names: &[VmName]) -> Result<bool, Failure> {
    render::note("these VMs do not run and would be deleted with their disks, for ever:");
    names.iter().for_each(|name| render::note(&format!("  {name}")));
    consent::agrees(&format!("delete {}?", names.len()))
}

fn delete_each(client: &mut Client, names: &[VmName]) -> Result<(), Failure> {
    let mut done = Outcomes::default();
    for name in names {
        match client.ask(OwnerRequest::DeleteIdleVm { name: name.clone() }) {
            Ok(_) => done.add(name.as_str(), Ok(()))?,
            // Somebody else has deleted it.
            Err(failure) if failure.kind() == Some(FaultKind::NotFound) => {}
            Err(failure) if failure.kind() == Some(FaultKind::InUse) => {
                render::note(&format!("vm '{name}' was started meanwhile: it is left alone"));
            }
            Err(failure) => done.add(name.as_str(), Err(failure))?,
        }
    }
    done.end()
}
