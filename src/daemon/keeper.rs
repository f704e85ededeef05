//! VMs that end with the process that asked for them (`--rm`): a killed command line leaves nothing.

use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use smol::Timer;

use super::operation::Op;
use super::{Daemon, lifecycle};
use crate::model::plan::Wanted;
use crate::model::{ProcessRef, VmId, VmRecord};
use crate::protocol::Fault;

/// Between two attempts to delete a VM whose keeper has ended: what stood in the way, a helper that
/// is being restarted for instance, gives no sign when it is gone.
pub(super) const AGAIN: Duration = Duration::from_secs(5);

/// Deletes the VM when `keeper` ends; at once when it has ended already.
pub(super) fn watch(daemon: &Arc<Daemon>, id: VmId, keeper: ProcessRef) {
    let daemon = daemon.clone();
    daemon.clone().spawn(async move {
        while let Err(e) = lifecycle::wait_for_end(keeper).await {
            warn!("VM {id}: its {keeper} cannot be watched: {e}");
            Timer::after(AGAIN).await;
        }
        info!("VM {id}: its {keeper} has ended");
        delete_while(&daemon, &id, move |vm| vm.keeper == Some(keeper)).await;
    });
}

/// Deletes the VM, unless it is gone or `condition` does not hold any more: somebody may have changed
/// his mind.
pub(super) async fn delete_while(daemon: &Arc<Daemon>, id: &VmId, condition: impl Fn(&VmRecord) -> bool) {
    while let Err(fault) = delete(daemon, id, &condition).await {
        warn!("VM {id} cannot be deleted and will be later: {fault}");
        Timer::after(AGAIN).await;
    }
}

async fn delete(daemon: &Arc<Daemon>, id: &VmId, condition: &impl Fn(&VmRecord) -> bool) -> Result<(), Fault> {
    let wanted = id.clone();
    let Some(vm) = daemon.stored(move |s| s.vm_by_id(&wanted)).await? else {
        // Whoever came for it came too late; nothing shall be known of it.
        daemon.drop_machine(id);
        return Ok(());
    };
    if !condition(&vm) {
        return Ok(());
    }
    info!("VM {id} is deleted");
    lifecycle::reach(daemon, &Op::background(), id, Wanted::Gone).await.map(|_| ())
}
