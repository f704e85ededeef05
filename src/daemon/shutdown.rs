//! Asking a guest to end: first its agent, then with the machine's power button. What it does not heed
//! in time the next step of the plan takes care of, so neither fails.

use std::sync::Arc;

use log::{info, warn};

use super::Daemon;
use super::operation::Op;
use super::steps::{load, monitor_of};
use crate::model::VmId;
use crate::protocol::guest::GuestRequest;
use crate::protocol::{Event, Fault};
use crate::vmm::Patience;

/// Asks the agent, and waits.
pub(super) async fn ask(daemon: &Arc<Daemon>, op: &Op, id: &VmId) -> Result<(), Fault> {
    let Some(live) = daemon.machine(id).live() else {
        return Ok(());
    };
    match op.unless_cancelled(live.agent.ask(op.id, GuestRequest::Shutdown)).await {
        Some(Ok(_)) => {}
        Some(Err(fault)) => {
            info!("[{}] the agent cannot shut VM {id} down: {fault}", op.id);
            return Ok(());
        }
        None => return Ok(()),
    }
    let limit = patience(daemon, id).await?.shutdown;
    if op.unless_cancelled(live.ends_within(limit)).await == Some(false) {
        warn!("[{}] VM {id} did not shut down within {} s", op.id, limit.as_secs());
    }
    Ok(())
}

async fn patience(daemon: &Daemon, id: &VmId) -> Result<Patience, Fault> {
    let vm = load(daemon, id).await?;
    Ok(monitor_of(&vm).patience(vm.accel))
}

/// Presses the power button, and waits.
pub(super) async fn press_power(daemon: &Arc<Daemon>, op: &Op, id: &VmId) -> Result<(), Fault> {
    let Some(live) = daemon.machine(id).live() else {
        return Ok(());
    };
    if live.has_ended() || op.cancel.is_set() {
        return Ok(());
    }
    op.stage("pressing the power button");
    let Some(pressed) = op.unless_cancelled(live.control.press_power()).await else { return Ok(()) };
    if let Err(e) = pressed {
        info!("[{}] the power button of VM {id} cannot be pressed: {e}", op.id);
        return Ok(());
    }
    let limit = patience(daemon, id).await?.power;
    if op.unless_cancelled(live.ends_within(limit)).await == Some(false) {
        let text = format!("it ignored its power button for {} s: killed", limit.as_secs());
        op.tell(Event::Warning { text });
    }
    Ok(())
}
