//! What an installation that goes leaves: VMs that run are ended first, data is removed only after asking.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::args::Usage;
use super::super::client::{Channel, Client, unexpected};
use super::super::consent;
use super::super::render;
use super::super::report::Failure;
use crate::host::paths::Paths;
use crate::model::{OpId, VmId, VmName};
use crate::os::random;
use crate::protocol::owner::{OwnerReply, OwnerRequest};
use crate::protocol::root::{RootAnswer, RootCall, RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind};
use crate::system::services;
use crate::system::units::{SERVICES, SOCKETS};

/// How long the helper may take to end one VM.
const RELEASE_LIMIT: Duration = Duration::from_secs(60);

/// Stops all VMs that run where `force` permits it; else they stand in the way.
pub fn vms(paths: &Paths, force: bool) -> Result<(), Failure> {
    match by_daemon(paths, force) {
        // One that is just being made, or stopped, the daemon does not count.
        Ok(()) => nothing_held(paths, force),
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

/// The daemon ends first, so that it begins nothing any more; then the helper must hold nothing.
fn nothing_held(paths: &Paths, force: bool) -> Result<(), Failure> {
    let own = [SOCKETS[1], SERVICES[1]];
    services::halt(&own).map_err(|e| Fault::of(FaultKind::OperationFailed, &e))?;
    let mut helper = Helper::connect(&paths.root_socket())?;
    let held = helper.held()?;
    if held.is_empty() {
        return Ok(());
    }
    if force {
        return helper.release(held);
    }
    services::start(&own).map_err(|e| Fault::of(FaultKind::OperationFailed, &e))?;
    let fault = Fault::new(FaultKind::InUse, format!("VMs are just being made or ended: {}", held.len()));
    Err(fault.hint("banger ps -a").hint("sudo banger system uninstall -f").into())
}

/// Whatever the helper holds is released: processes, links, rules, disks.
fn by_helper(socket: &Path) -> Result<(), Failure> {
    let mut helper = Helper::connect(socket)?;
    let held = helper.held()?;
    helper.release(held)
}

/// The root helper, asked without the daemon.
struct Helper(Channel);

impl Helper {
    fn connect(socket: &Path) -> Result<Self, Failure> {
        let silent = || Failure::new(FaultKind::Unavailable, "the root helper does not answer");
        let mut channel = Channel::connect(socket, "helper")?.ok_or_else(silent)?;
        channel.greet()?;
        Ok(Self(channel))
    }

    fn ask(&mut self, request: RootRequest) -> Result<RootReply, Failure> {
        let op = OpId::from_random(random::number());
        self.0.send(&RootCall { op, request }, &[])?;
        Ok(self.0.receive::<RootAnswer>(Some(RELEASE_LIMIT))??)
    }

    fn held(&mut self) -> Result<Vec<VmId>, Failure> {
        match self.ask(RootRequest::Inventory)? {
            RootReply::Inventory(entries) => Ok(entries.into_iter().map(|entry| entry.id).collect()),
            other => {
                let text: String = format!("{other:?}").chars().take(80).collect();
                Err(Failure::new(FaultKind::UnknownMethod, format!("the helper answered something else: {text}")))
            }
        }
    }

    fn release(&mut self, held: Vec<VmId>) -> Result<(), Failure> {
        for id in held {
            self.ask(RootRequest::ReleaseVm { id })?;
        }
        self.ask(RootRequest::RemoveNetwork).map(drop)
    }
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
