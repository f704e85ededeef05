//! VMs with a lifetime: deleted when it is over, running or not. The end stands in the store as a time
//! of the host's clock, so restarts and reboots do not prolong it.

use std::sync::Arc;

use log::{info, warn};
use smol::{Async, Timer};

use super::{Daemon, keeper};
use crate::model::VmId;
use crate::os::clock::alarm;

/// From now on the VM is deleted at `end` (Unix seconds), and not at what was said before.
pub(super) fn watch(daemon: &Arc<Daemon>, id: &VmId, end: Option<u64>) {
    let alarm = end.map(|end| {
        let (daemon, id) = (daemon.clone(), id.clone());
        daemon.clone().executor.spawn(async move {
            while let Err(e) = wait_until(end).await {
                warn!("VM {id}: the end of its lifetime cannot be waited for: {e}");
                Timer::after(keeper::AGAIN).await;
            }
            info!("VM {id}: its lifetime is over");
            // Beside this task, which ends with what is known of the VM in memory.
            daemon.clone().spawn(async move {
                keeper::delete_while(&daemon, &id, move |vm| vm.expires_at == Some(end)).await;
            });
        })
    });
    daemon.machine(id).set_alarm(alarm);
}

async fn wait_until(end: u64) -> std::io::Result<()> {
    Async::new(alarm(end)?)?.readable().await
}
