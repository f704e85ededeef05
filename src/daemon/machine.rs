//! What the daemon holds in memory of a VM: its lock, and, while its monitor lives, the ends of its
//! sockets. Everything that must survive is in the store.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event as Wake;
use smol::{Async, Task};

use super::agent::AgentLink;
use super::operation::Cancel;
use super::outward::Outward;
use super::secrets::Keep;
use crate::model::identity::Seal;
use crate::model::launch::FakeFailure;
use crate::model::plan::Wanted;
use crate::model::{ProcessRef, SecretValue, VmRecord};
use crate::os::process::wait_for_end;
use crate::vmm::deadline::within;
use crate::vmm::{Control, EndReason};

/// The sockets of a dead process are closed by the kernel: what is in them can be read at once.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

/// One VM. Different VMs never wait for each other.
pub struct Machine {
    /// Held by the one operation that changes it.
    pub turn: Arc<smol::lock::Mutex<()>>,
    /// Held while it is changed where its guest may go: what is opened for a name is opened before such a change,
    /// and closed by it, or after it, and heeds it.
    pub passage: smol::lock::Mutex<()>,
    /// Told after its row was changed or removed.
    pub changed: Wake,
    live: Mutex<Option<Arc<Live>>>,
    fail: Mutex<Option<FakeFailure>>,
    /// Waits for the end of its lifetime; dropped with what is known of the VM.
    alarm: Mutex<Option<Task<()>>>,
    /// Looks whether it is idle, while it runs and is to be stopped then.
    idle_watch: Mutex<Option<Task<()>>>,
    /// How often somebody was let into it since this daemon's start.
    entries: AtomicU64,
    /// What will be the reason when it has stopped.
    stop_reason: Mutex<Option<String>>,
    outward: Mutex<Outward>,
    /// Values of its secrets, from when it was asked for until its files are made.
    values: Mutex<Vec<SecretValue>>,
    /// The VM whose disk its own is a copy of: it only ever boots to become an image.
    copy_of: Mutex<Option<Arc<Original>>>,
    /// Its secrets, once a request has needed them.
    keep: Mutex<Option<Arc<Keep>>>,
    /// The operations that have come for this VM, waiting for their turn or at work.
    come: Mutex<Vec<(Wanted, Arc<Cancel>)>>,
}

/// What a copy of a VM's disk has to know of that VM.
#[derive(Debug, Clone)]
pub struct Original {
    /// The VM.
    pub vm: VmRecord,
    /// What of it has to be removed.
    pub seal: Seal,
}

/// The ends of a living monitor.
pub struct Live {
    /// Its process.
    pub process: ProcessRef,
    /// Its control socket.
    pub control: Arc<dyn Control>,
    /// The guest's agent.
    pub agent: Arc<AgentLink>,
    pidfd: Async<OwnedFd>,
}

impl Machine {
    /// A VM whose monitor does not live, as far as is known.
    pub fn new() -> Self {
        Self {
            turn: Arc::default(),
            passage: smol::lock::Mutex::new(()),
            changed: Wake::new(),
            live: Mutex::new(None),
            fail: Mutex::new(None),
            alarm: Mutex::new(None),
            idle_watch: Mutex::new(None),
            entries: AtomicU64::new(0),
            stop_reason: Mutex::new(None),
            outward: Mutex::new(Outward::new()),
            values: Mutex::default(),
            copy_of: Mutex::default(),
            keep: Mutex::default(),
            come: Mutex::default(),
        }
    }

    /// Notes that an operation which wants `wanted` has come, until dropped, and has those that it
    /// overrides end at their next safe point: whoever deletes a VM need not wait for its boot.
    pub fn come(&self, wanted: Wanted, cancel: Arc<Cancel>) -> Come<'_> {
        let mut come = self.come.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, earlier) in come.iter().filter(|(other, _)| wanted.overrides(*other)) {
            earlier.set();
        }
        come.push((wanted, cancel.clone()));
        Come { machine: self, cancel }
    }

    /// How the fake monitor shall fail at its next start.
    pub fn fail(&self) -> Option<FakeFailure> {
        *self.fail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how the fake monitor shall fail.
    pub fn set_fail(&self, fail: Option<FakeFailure>) {
        *self.fail.lock().unwrap_or_else(PoisonError::into_inner) = fail;
    }

    /// Sets who waits for the end of its lifetime; who did before waits no longer.
    pub fn set_alarm(&self, alarm: Option<Task<()>>) {
        *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = alarm;
    }

    /// Sets who looks whether it is idle; who did before looks no longer.
    pub fn set_idle_watch(&self, watch: Option<Task<()>>) {
        *self.idle_watch.lock().unwrap_or_else(PoisonError::into_inner) = watch;
    }

    /// Somebody is let into it.
    pub fn enter(&self) {
        self.entries.fetch_add(1, Ordering::AcqRel);
    }

    /// How often somebody was.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }

    /// Sets what will be the reason when it has stopped.
    pub fn set_stop_reason(&self, reason: Option<String>) {
        *self.stop_reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Why it has stopped, where banger itself wanted that; once.
    pub fn take_stop_reason(&self) -> Option<String> {
        self.stop_reason.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is remembered of its guest's way out. Never held while anything is waited for.
    pub fn outward(&self) -> MutexGuard<'_, Outward> {
        self.outward.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of its secrets, which are in no file yet; once.
    pub fn take_values(&self) -> Vec<SecretValue> {
        std::mem::take(&mut *self.values.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the values of its secrets until its files are made.
    pub fn set_values(&self, values: Vec<SecretValue>) {
        *self.values.lock().unwrap_or_else(PoisonError::into_inner) = values;
    }

    /// The VM whose disk its own is a copy of.
    pub fn copy_of(&self) -> Option<Arc<Original>> {
        self.copy_of.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes whose disk its own is a copy of.
    pub fn set_copy_of(&self, original: Original) {
        *self.copy_of.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(original));
    }

    /// Its secrets, if they have been read.
    pub fn keep(&self) -> Option<Arc<Keep>> {
        self.keep.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes its secrets, which never change.
    pub fn set_keep(&self, keep: Arc<Keep>) {
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(keep);
    }

    /// The living monitor.
    pub fn live(&self) -> Option<Arc<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that the monitor lives, or no longer does.
    pub fn set_live(&self, live: Option<Arc<Live>>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }
}

/// While it lives, an operation waits for its turn with a VM or is at work on it.
pub struct Come<'a> {
    machine: &'a Machine,
    cancel: Arc<Cancel>,
}

impl Drop for Come<'_> {
    fn drop(&mut self) {
        let mut come = self.machine.come.lock().unwrap_or_else(PoisonError::into_inner);
        come.retain(|(_, cancel)| !Arc::ptr_eq(cancel, &self.cancel));
    }
}

impl Live {
    /// Takes what the helper handed over.
    pub fn new(
        process: ProcessRef,
        pidfd: OwnedFd,
        control: Arc<dyn Control>,
        agent: Arc<AgentLink>,
    ) -> io::Result<Self> {
        Ok(Self { process, control, agent, pidfd: Async::new(pidfd)? })
    }

    /// Ends when the monitor's process has ended (pidfd_open(2): readable then).
    pub async fn ended(&self) {
        // An error would mean that the reactor is gone, and the daemon with it.
        let _ = self.pidfd.readable().await;
    }

    /// Whether it has ended already.
    pub fn has_ended(&self) -> bool {
        wait_for_end(self.pidfd.get_ref(), Duration::ZERO).unwrap_or(true)
    }

    /// Ends like [`Live::ended`] and says true, or says false after `limit`.
    pub async fn ends_within(&self, limit: Duration) -> bool {
        within(limit, self.ended()).await.is_some()
    }

    /// Why it ended, once it has: its last words may still be on their way.
    pub async fn last_words(&self) -> Option<EndReason> {
        // What was said until the limit counts, whether or not more would have come.
        let _ = within(LAST_WORDS_LIMIT, self.control.drained()).await;
        self.control.end_reason()
    }
}
