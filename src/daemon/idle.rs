//! VMs that are stopped when nobody uses them (`--idle-stop`). One that is not to be stopped costs nothing; one that is
//! costs a look at its counters ten times in its time, at most once a minute for a long one. Its guest is asked only
//! when its counters stand still: who is connected to it, and whether a command of `exec -d` runs.
//!
//! A guest can pretend to be used, or not to be: either way it only harms its own owner, and `--ttl` bounds it. One
//! that does not say whether it is used is taken for used. After a restart of the daemon the time begins anew.

use std::io;
use std::sync::Arc;

use log::{debug, info, warn};
use smol::Timer;

use super::blocking::unblock;
use super::{Daemon, keeper, lifecycle};
use crate::model::idle::{Counters, Idleness};
use crate::model::{OpId, ProcessRef, Slot, TapName, TimeSpan, VmId, VmRecord, VmState};
use crate::os::cgroup::usage_of;
use crate::os::clock::monotonic;
use crate::os::link_counters::bytes_over;
use crate::protocol::guest::{GuestActivity, GuestReply, GuestRequest, PROTOCOL_ACTIVITY};

/// From now on the VM is stopped as its row says, and not as was said before.
pub(super) fn watch(daemon: &Arc<Daemon>, vm: &VmRecord) {
    let span = vm.spec.idle_stop.filter(|_| vm.state == VmState::Running);
    let watch = span.map(|span| {
        let (daemon, id) = (daemon.clone(), vm.id.clone());
        daemon.clone().executor.spawn(async move {
            let entries = wait_until_idle(&daemon, &id, span).await;
            // Beside this task, which ends with the VM's run.
            daemon.clone().spawn(async move { stop(&daemon, &id, span, entries).await });
        })
    });
    daemon.machine(&vm.id).set_idle_watch(watch);
}

/// Ends when the VM was idle for `span`: how often somebody had been let in until then.
async fn wait_until_idle(daemon: &Arc<Daemon>, id: &VmId, span: TimeSpan) -> u64 {
    let mut idleness: Option<Idleness> = None;
    loop {
        match (count(daemon, id).await, &mut idleness) {
            (Ok(seen), Some(idleness)) => {
                if idleness.look(monotonic(), seen) && is_in_use(daemon, id).await {
                    idleness.is_used();
                }
                if idleness.has_lasted(span) {
                    return seen.entries;
                }
            }
            (Ok(seen), None) => idleness = Some(Idleness::begin(monotonic(), seen)),
            (Err(e), _) => {
                debug!("VM {id} cannot be looked at, and so is not idle: {e}");
                idleness = None;
            }
        }
        Timer::after(Idleness::interval(span)).await;
    }
}

/// What the host has counted of the VM.
async fn count(daemon: &Arc<Daemon>, id: &VmId) -> io::Result<Counters> {
    let machine = daemon.machine(id);
    // Before the rest: who comes meanwhile is seen at the next look.
    let entries = machine.entries();
    let not_running = || io::Error::from(io::ErrorKind::NotConnected);
    let process = machine.live().ok_or_else(not_running)?.process;
    let wanted = id.clone();
    let row = daemon.stored(move |s| s.vm_by_id(&wanted)).await.map_err(io::Error::other)?;
    let slot = row.and_then(|vm| vm.slot).ok_or_else(not_running)?;
    let group = id.clone();
    let (cpu_us, bytes) = unblock(move || measure(process, &group, slot)).await?;
    Ok(Counters { cpu_us, bytes, entries })
}

fn measure(process: ProcessRef, group: &VmId, slot: Slot) -> io::Result<(u64, u64)> {
    let missing = |what: &str| io::Error::other(format!("the kernel says nothing of its {what}"));
    let usage = usage_of(process, group.as_str())?.ok_or_else(|| missing("process"))?;
    let bytes = bytes_over(&TapName::of(slot).to_string())?.ok_or_else(|| missing("tap"))?;
    Ok((usage.cpu_us.ok_or_else(|| missing("CPU time"))?, bytes))
}

/// Whether somebody is in it, as its guest says; yes where it does not say.
async fn is_in_use(daemon: &Arc<Daemon>, id: &VmId) -> bool {
    let Some(live) = daemon.machine(id).live() else { return true };
    if has_silent_agent(daemon, id).await {
        debug!("VM {id}: its agent does not say whether it is used");
        return true;
    }
    match live.agent.ask(OpId::BACKGROUND, GuestRequest::Activity).await {
        Ok(GuestReply::Activity(activity)) => activity != GuestActivity::default(),
        Ok(other) => {
            debug!("VM {id}: asked who uses it, its agent answered {other:?}");
            true
        }
        Err(fault) => {
            debug!("VM {id}: it is not known whether it is used: {fault}");
            true
        }
    }
}

/// Whether the VM runs and its agent, which is of an older banger, cannot say who uses it.
pub(super) async fn has_silent_agent(daemon: &Arc<Daemon>, id: &VmId) -> bool {
    let Some(live) = daemon.machine(id).live() else { return false };
    live.agent.protocol().await.is_none_or(|protocol| protocol < PROTOCOL_ACTIVITY)
}

/// Stops the VM, unless somebody came or changed his mind meanwhile.
async fn stop(daemon: &Arc<Daemon>, id: &VmId, span: TimeSpan, entries: u64) {
    let machine = daemon.machine(id);
    let still =
        |vm: &VmRecord| vm.state == VmState::Running && vm.spec.idle_stop == Some(span) && machine.entries() == entries;
    let reason = format!("it was idle for {span} (--idle-stop)");
    match lifecycle::stop_because(daemon, id, reason, still).await {
        Ok(true) => return info!("VM {id} was idle for {span}: stopped"),
        Ok(false) => {}
        Err(fault) => {
            warn!("VM {id} was idle for {span} and cannot be stopped: {fault}");
            Timer::after(keeper::AGAIN).await;
        }
    }
    let wanted = id.clone();
    match daemon.stored(move |s| s.vm_by_id(&wanted)).await {
        Ok(Some(vm)) => watch(daemon, &vm),
        // Nothing shall be known of one that is gone.
        Ok(None) => daemon.drop_machine(id),
        Err(fault) => warn!("VM {id} is not watched any more: {fault}"),
    }
}
