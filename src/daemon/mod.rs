//! The owner's daemon, `bangerd`: all orchestration, the store, images.
//!
//! Runs as the owner, without privilege; what needs root is asked of the helper. One executor with
//! two threads; whatever blocks (files, the store, image building) runs beside it. VMs go on when
//! it ends and are found again when it starts.

/// The conversation with guests' agents.
mod agent;
/// Work that blocks.
mod blocking;
/// What each request does.
mod calls;
/// Images and kernels.
mod catalogue;
/// Changing a VM.
mod change;
/// What a guest claims, cut to size.
mod claims;
/// Making an image of a VM's disk.
mod commit;
/// Making a VM.
mod creation;
/// How many are connected, and who gives way.
mod crowd;
/// Disks of VMs.
mod disks;
/// DNS for VMs and for their host.
mod dns;
/// Where a guest may go.
mod egress;
/// Why a monitor ended.
mod ending;
/// VMs with a lifetime.
mod expiry;
/// The conversation with the root helper.
mod helper;
/// VMs that are stopped when nobody uses them.
mod idle;
/// VMs that end with the process that asked for them.
mod keeper;
/// Carrying out plans.
mod lifecycle;
/// VMs in memory.
mod machine;
/// An operation's id, listeners and cancellation.
mod operation;
/// What is remembered of a guest's way out.
mod outward;
/// Places for connections of guests.
mod places;
/// Waiting for a guest that boots.
mod readiness;
/// Finding everything again after a start.
mod reconcile;
/// Images that are somebody's files.
mod register;
/// Secrets that stay out of guests.
mod secrets;
/// Accepting and serving connections.
mod server;
/// The way into a guest.
mod shells;
/// Asking a guest to end.
mod shutdown;
/// Start, readiness, signals, end.
mod start;
/// What VMs use.
mod stats;
/// The steps that plans consist of.
mod steps;
/// The files of a VM.
mod vm_files;
/// The agent behind a vsock.
mod vsock;
/// Frames over asynchronous sockets.
mod wire;

use std::collections::HashMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use log::error;
use smol::Executor;
use smol::future::Boxed;

use crate::host::config::Config;
use crate::host::facts::host_memory;
use crate::host::paths::Paths;
use crate::model::{Limits, VmId, VmName, VmRecord};
use crate::os::fault_point::FaultPoint;
use crate::protocol::{Fault, FaultKind};
use crate::store::{Store, StoreError};

/// Becomes the daemon. `--check-migrations [--system]` and `--version` answer and end instead.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    start::run(arguments)
}

/// What all operations share.
struct Daemon {
    paths: Paths,
    config: Config,
    store: Arc<Store>,
    helper: helper::Helper,
    dns: dns::Dns,
    secrets: secrets::Secrets,
    executor: Arc<Executor<'static>>,
    machines: Mutex<HashMap<VmId, Arc<machine::Machine>>>,
    /// A lock for each image or kernel that is being made or removed.
    making: Mutex<HashMap<String, Weak<smol::lock::Mutex<()>>>>,
    /// Whether everything was found again after the start; false until the helper has answered once.
    reconciled: smol::lock::Mutex<bool>,
    /// What the tests of crashes have armed.
    faults: FaultPoint,
    /// What somebody waits for.
    workload: operation::Workload,
    /// Told when the daemon shall end.
    ending: smol::channel::Sender<Ending>,
}

/// Why the daemon shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Somebody wants it to.
    Asked,
    /// The store cannot be used again by this process: a new one will find everything.
    StoreLost,
}

impl Daemon {
    /// Runs `future` beside everything else.
    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.executor.spawn(future).detach();
    }

    /// The same for rooms that take a function.
    fn spawner(&self) -> impl Fn(Boxed<()>) + use<'_> {
        |future| self.spawn(future)
    }

    /// Runs one transaction of the store off the executor.
    async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Fault> {
        let store = self.store.clone();
        blocking::unblock(move || work(&store)).await.map_err(|e| {
            if e.is_lasting() {
                error!("the store fails and must be opened anew: {e}");
                self.end(Ending::StoreLost);
            }
            store_fault(&e)
        })
    }

    /// Has the daemon end; virtual machines go on.
    fn end(&self, why: Ending) {
        // Full: somebody else has told it already.
        let _ = self.ending.try_send(why);
    }

    /// The lock of an image or kernel, `what` being its kind and name.
    fn making(&self, what: String) -> Arc<smol::lock::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.retain(|_, lock| lock.strong_count() > 0);
        let known = making.get(&what).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let lock = Arc::default();
            making.insert(what, Arc::downgrade(&lock));
            lock
        })
    }

    /// The VM called `name`.
    async fn vm(&self, name: &VmName) -> Result<VmRecord, Fault> {
        let name = name.clone();
        self.stored(move |s| s.vm(&name)).await.map_err(|fault| match fault.kind {
            FaultKind::NotFound => fault.hint("banger ps -a"),
            _ => fault,
        })
    }

    /// The VM in memory.
    fn machine(&self, id: &VmId) -> Arc<machine::Machine> {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.entry(id.clone()).or_insert_with(|| Arc::new(machine::Machine::new())).clone()
    }

    /// What all VMs may use together.
    fn limits(&self) -> Limits {
        self.config.limits.on_host(host_memory())
    }

    /// Forgets the VM in memory.
    fn drop_machine(&self, id: &VmId) {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

fn store_fault(error: &StoreError) -> Fault {
    let kind = match error {
        StoreError::NameTaken { .. } => FaultKind::AlreadyExists,
        StoreError::NotFound { .. } => FaultKind::NotFound,
        StoreError::InUse { .. } => FaultKind::InUse,
        StoreError::NoSlot | StoreError::Limit(_) => FaultKind::Refused,
        StoreError::Newer(_) => FaultKind::BadVersion,
        StoreError::Database { .. } | StoreError::Io(_) | StoreError::Damaged { .. } | StoreError::Lost { .. } => {
            FaultKind::OperationFailed
        }
    };
    let fault = Fault::of(kind, error);
    if let StoreError::Limit(limit) = error { fault.hint(limit.hint()) } else { fault }
}
