//! Waiting for a guest that boots: until it says that it answers, or until it is clear that it will not.

use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use smol::future::FutureExt;

use super::Daemon;
use super::agent::Ready;
use super::ending::why_it_ended;
use super::operation::Op;
use super::steps::{load, monitor_of};
use crate::model::{VmId, VmRecord};
use crate::protocol::{Event, Fault, FaultKind};
use crate::vmm::deadline::within;

enum Waited {
    Ready(Ready),
    AgentLost(String),
    Ended,
    Late,
    Cancelled,
}

/// Ends when the guest answers, or with why it does not.
pub(super) async fn await_ready(daemon: &Arc<Daemon>, op: &Op, id: &VmId) -> Result<(), Fault> {
    let vm = load(daemon, id).await?;
    let Some(live) = daemon.machine(id).live() else {
        return Err(Fault::new(FaultKind::OperationFailed, "the monitor is gone"));
    };
    let limit = monitor_of(&vm).patience(vm.accel).ready;
    let name = &vm.spec.name;
    op.waits_for(format!("its agent has not answered yet; its console: banger vm logs -f {name}"));
    let ready = async {
        match live.agent.wait_ready().await {
            Ok(ready) => Waited::Ready(ready),
            Err(why) => Waited::AgentLost(why),
        }
    };
    let ended = async {
        live.ended().await;
        Waited::Ended
    };
    let waited = match within(limit, op.unless_cancelled(ended.or(ready))).await {
        // The agent's socket breaks first when a monitor dies; the process is the truth.
        Some(Some(Waited::AgentLost(_))) if live.ends_within(Duration::from_secs(1)).await => Waited::Ended,
        Some(Some(waited)) => waited,
        Some(None) => Waited::Cancelled,
        None => Waited::Late,
    };
    judge(daemon, op, &vm, waited, limit).await
}

async fn judge(daemon: &Daemon, op: &Op, vm: &VmRecord, waited: Waited, limit: Duration) -> Result<(), Fault> {
    let name = &vm.spec.name;
    match waited {
        Waited::Ready(ready) => {
            info!("[{}] VM {name} is ready, {} ms after its kernel's start", op.id, ready.uptime_ms);
            for trouble in daemon.machine(&vm.id).live().map(|l| l.agent.troubles()).unwrap_or_default() {
                warn!("[{}] VM {name}: {trouble}", op.id);
                op.tell(Event::Warning { text: format!("in the guest: {trouble}") });
            }
            Ok(())
        }
        Waited::Cancelled => Err(Op::cancelled()),
        Waited::Ended => {
            let (_, reason) = why_it_ended(daemon, vm).await;
            let mut fault = Fault::new(FaultKind::OperationFailed, format!("VM '{name}' ended while it booted"));
            fault.causes.push(reason);
            Err(fault.hint(format!("banger vm logs {name}")))
        }
        Waited::AgentLost(why) => Err(never_ready(vm, &why)),
        Waited::Late => Err(never_ready(vm, &format!("nothing was heard for {} s", limit.as_secs()))),
    }
}

fn never_ready(vm: &VmRecord, why: &str) -> Fault {
    let name = &vm.spec.name;
    Fault::new(FaultKind::NeverReady, format!("ssh of VM '{name}' never answered; the VM is kept"))
        .cause(why)
        .hint(format!("banger vm logs {name}      (did sshd start?)"))
        .hint(format!("banger vm delete {name}"))
}
