//! Where a guest may go: set while it runs, and what came of it.

use std::sync::Arc;

use super::helper::unexpected;
use super::operation::Op;
use super::outward::{Counted, Outward, Sent};
use super::{Daemon, dns, secrets, steps};
use crate::model::address::SECRETS_PORT;
use crate::model::secret::SecretHost;
use crate::model::traffic::{Flow, Traffic};
use crate::model::{Secret, VmName, VmRecord};
use crate::protocol::owner::{CountedName, EgressReport, NamedFlow, SecretUse};
use crate::protocol::root::{RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind};

/// Lets the guest of `vm`, if it runs, go where its row says.
pub(super) async fn apply(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord) -> Result<(), Fault> {
    let machine = daemon.machine(&vm.id);
    if machine.live().is_none() {
        return Ok(());
    }
    let _changing = machine.passage.lock().await;
    let request = RootRequest::SetPassage { id: vm.id.clone(), passage: vm.spec.passage() };
    let set = daemon.helper.call_again(op.id, request).await;
    machine.outward().close();
    match set {
        Ok((RootReply::Done(_), _)) => Ok(()),
        Ok((other, _)) => Err(unexpected(&other)),
        // It has ended meanwhile: its next start heeds the row.
        Err(fault) if fault.kind == FaultKind::NotFound => Ok(()),
        Err(fault) => Err(fault.hint(format!("banger vm restart {}", vm.spec.name))),
    }
}

/// Where the guest of `name` went, and where it was refused to go.
pub(super) async fn report(daemon: &Arc<Daemon>, op: &Op, name: &VmName) -> Result<EgressReport, Fault> {
    super::reconcile::ensure(daemon).await?;
    let vm = daemon.vm(name).await?;
    let is_live = daemon.machine(&vm.id).live().is_some();
    let mut traffic = if is_live { traffic(daemon, op, &vm).await? } else { Traffic::default() };
    let subnet = daemon.dns.subnet().await;
    // They are told by the hosts that they were for.
    let door = subnet.map(|subnet| subnet.gateway());
    let at_door = |flow: &Flow| Some(flow.to) == door && flow.port == Some(SECRETS_PORT);
    let through: u64 = traffic.reached.iter().filter(|flow| at_door(flow)).map(|flow| flow.count).sum();
    traffic.reached.retain(|flow| !at_door(flow));
    traffic.reached_in_all = traffic.reached_in_all.saturating_sub(through);
    let machine = daemon.machine(&vm.id);
    let outward = machine.outward();
    let names_beyond = outward.refused().beyond();
    let beyond = |flows: &[Flow], all: u64| all.saturating_sub(flows.iter().map(|flow| flow.count).sum());
    Ok(EgressReport {
        name: vm.spec.name.clone(),
        egress: vm.spec.egress.clone(),
        is_running: is_live,
        network: subnet.map(|subnet| (subnet.network(), subnet.gateway())),
        reached_beyond: beyond(&traffic.reached, traffic.reached_in_all),
        refused_beyond: beyond(&traffic.refused, traffic.refused_in_all),
        reached: named(&outward, traffic.reached),
        refused: named(&outward, traffic.refused),
        refused_names: counted(outward.refused()),
        names_beyond,
        filtered_names: counted(outward.filtered()),
        secret_hosts: Secret::hosts_of(&vm.spec.secrets).into_iter().map(|host| used(&outward, host)).collect(),
        secrets: vm.spec.secrets.clone(),
    })
}

async fn traffic(daemon: &Arc<Daemon>, op: &Op, vm: &VmRecord) -> Result<Traffic, Fault> {
    match daemon.helper.call_again(op.id, RootRequest::Traffic { id: vm.id.clone() }).await {
        Ok((RootReply::Traffic(traffic), _)) => Ok(traffic),
        Ok((other, _)) => Err(unexpected(&other)),
        // It has ended meanwhile.
        Err(fault) if fault.kind == FaultKind::NotFound => Ok(Traffic::default()),
        Err(fault) => Err(fault),
    }
}

/// Those that happened most first.
fn named(outward: &Outward, mut flows: Vec<Flow>) -> Vec<NamedFlow> {
    flows.sort_by_key(|flow| (std::cmp::Reverse(flow.count), flow.to, flow.port));
    flows.into_iter().map(|flow| NamedFlow { name: outward.name_of(flow.to).cloned(), flow }).collect()
}

fn used(outward: &Outward, host: SecretHost) -> SecretUse {
    let Sent { requests, with_secret, failed, last_failure } = outward.sent_to(&host);
    SecretUse { host, requests, with_secret, failed, last_failure }
}

fn counted(names: &Counted) -> Vec<CountedName> {
    let mut names: Vec<CountedName> =
        names.names().map(|(name, count)| CountedName { name: name.clone(), count }).collect();
    names.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    names
}

/// After the daemon's start: guests that run are answered again, and go where their rows say, should that
/// have been changed while nobody could tell the helper.
pub(super) async fn resume(daemon: &Arc<Daemon>, op: &Op, running: &[VmRecord]) -> Result<(), Fault> {
    if running.is_empty() {
        return Ok(());
    }
    let subnet = steps::ensure_network(daemon, op).await?;
    dns::ensure(daemon, op, subnet).await?;
    for vm in running {
        apply(daemon, op, vm).await?;
    }
    for vm in running {
        secrets::ensure(daemon, op, subnet, vm).await?;
    }
    Ok(())
}
