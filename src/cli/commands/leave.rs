//! What an installation that goes leaves: VMs that run are ended first, data is removed only after asking.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::args::Usage;
use super::super::client::{Channel, Client, unexpected};
use super::super::consent;
use super::super::render;
use super::super::report::Failure;
use crate::host::paths::Paths;
use crate::model::{OpId, VmName};
use crate::os::random;
use crate::protocol::owner::{OwnerReply, OwnerRequest};
use crate::protocol::root::{RootAnswer, RootCall, RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind};

/// How long the helper may take to end one VM.
const RELEASE_LIMIT: Duration = Duration::from_secs(60);

/// Stops all VMs that run where `force` permits it; else they stand in the way.
pub fn vms(paths: &Paths, force: bool) -> Result<(), Failure> {
    match by_daemon(paths, force) {
        Ok(()) => Ok(()),
        Err(failure) if failure.kind() == Some(FaultKind::InUse) => Err(failure),
        Err(failure) if force => {
            render::note(&format!("the daemon cannot stop its VMs: {}", failure.line()));
            by_helper(&paths.root_socket())
        }
        Err(failure) => Err(failure.hint("sudo banger system uninstall -f      (ends VMs without the daemon)")),
    }
}

fn by_daemon(paths: &Paths, force: bool) -> Result<(), Failure> {
    let silent =
        || Failure::new(FaultKind::Unavailable, "the daemon does not answer, so it is not known whether VMs run");
    let mut client = Client::connect(&paths.socket())?.ok_or_else(silent)?;
    let running = running(&mut client)?;
    if running.is_empty() {
        return Ok(());
    }
    if !force {
        let names: Vec<String> = running.iter().map(VmName::to_string).collect();
        let fault = Fault::new(FaultKind::InUse, format!("VMs run: {}", names.join(", ")));
        return Err(fault.hint("banger vm stop $(banger ps -q)").hint("sudo banger system uninstall -f").into());
    }
    for name in running {
        render::note(&format!("stopping VM '{name}'"));
        client.ask(OwnerRequest::StopVm { name, kill: false })?;
    }
    Ok(())
}

fn running(client: &mut Client) -> Result<Vec<VmName>, Failure> {
    match client.ask(OwnerRequest::ListRunning)? {
        OwnerReply::Vms(vms) => Ok(vms.into_iter().map(|vm| vm.spec.name).collect()),
        other => Err(unexpected(&other)),
    }
}

/// Whatever the helper holds is released: processes, links, rules, disks.
fn by_helper(socket: &Path) -> Result<(), Failure> {
    let silent = || Failure::new(FaultKind::Unavailable, "the root helper does not answer either");
    let mut channel = Channel::connect(socket, "helper")?.ok_or_else(silent)?;
    channel.greet()?;
    let mut ask = |request| -> Result<RootReply, Failure> {
        let op = OpId::from_random(random::number());
        channel.send(&RootCall { op, request }, &[])?;
        Ok(channel.receive::<RootAnswer>(Some(RELEASE_LIMIT))??)
    };
    let held = match ask(RootRequest::Inventory)? {
        RootReply::Inventory(entries) => entries,
        other => {
            let text: String = format!("{other:?}").chars().take(80).collect();
            return Err(Failure::new(FaultKind::UnknownMethod, format!("the helper answered something else: {text}")));
        }
    };
    for entry in held {
        ask(RootRequest::ReleaseVm { id: entry.id })?;
    }
    ask(RootRequest::RemoveNetwork).map(drop)
}

/// Whether `folders` may be removed for ever.
pub fn may_purge(folders: &[PathBuf], force: bool) -> Result<bool, Failure> {
    if force {
        return Ok(true);
    }
    if !consent::can_be_asked() {
        let usage =
            Usage::new("nobody can be asked without a terminal: -f purges without asking", &["system", "uninstall"]);
        return Err(usage.hint("sudo banger system uninstall --purge -f").into());
    }
    render::note("VMs, images and kernels would be removed for ever:");
    folders.iter().for_each(|folder| render::note(&format!("  {}", folder.display())));
    consent::agrees("remove them?")
}
