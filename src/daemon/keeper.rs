//! VMs that end with the process that asked for them (`--rm`): a killed command line leaves nothing.

use std::sync::Arc;

use log::{info, warn};
use smol::Async;

use super::operation::Op;
use super::{Daemon, lifecycle};
use crate::model::plan::Wanted;
use crate::model::{ProcessRef, VmId};
use crate::os::process;

/// Deletes the VM when `keeper` ends; at once when it has ended already.
pub(super) fn watch(daemon: &Arc<Daemon>, id: VmId, keeper: ProcessRef) {
    let daemon = daemon.clone();
    daemon.clone().spawn(async move {
        if let Err(e) = wait_for_end(keeper).await {
            warn!("VM {id}: its {keeper} cannot be watched: {e}");
            return;
        }
        let there = daemon
            .stored({
                let id = id.clone();
                move |s| s.vm_by_id(&id)
            })
            .await;
        if matches!(there, Ok(None)) {
            return;
        }
        info!("VM {id}: its {keeper} has ended, so it is deleted");
        if let Err(fault) = lifecycle::reach(&daemon, &Op::background(), &id, Wanted::Gone).await {
            warn!("VM {id} cannot be deleted: {fault}");
        }
    });
}

async fn wait_for_end(keeper: ProcessRef) -> std::io::Result<()> {
    if let Some(pidfd) = process::open(keeper)? {
        Async::new(pidfd)?.readable().await?;
    }
    Ok(())
}
