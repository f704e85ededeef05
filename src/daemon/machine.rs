//! What the daemon holds in memory of a VM: its lock, and, while its monitor lives, the ends of its
//! sockets. Everything that must survive is in the store.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smol::Async;

use super::agent::AgentLink;
use super::operation::Cancel;
use crate::model::ProcessRef;
use crate::model::launch::FakeFailure;
use crate::os::process::wait_for_end;
use crate::vmm::deadline::within;
use crate::vmm::{Control, EndReason};

/// The sockets of a dead process are closed by the kernel: what is in them can be read at once.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

/// One VM. Different VMs never wait for each other.
pub struct Machine {
    /// Held by the one operation that changes it.
    pub turn: smol::lock::Mutex<()>,
    live: Mutex<Option<Arc<Live>>>,
    fail: Mutex<Option<FakeFailure>>,
    /// Of the operation that is making something of this VM now.
    making: Mutex<Option<Arc<Cancel>>>,
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
            turn: smol::lock::Mutex::new(()),
            live: Mutex::new(None),
            fail: Mutex::new(None),
            making: Mutex::new(None),
        }
    }

    /// Notes that an operation with this `cancel` is making something of the VM, until dropped.
    pub fn begin_making(&self, cancel: Arc<Cancel>) -> Making<'_> {
        *self.making.lock().unwrap_or_else(PoisonError::into_inner) = Some(cancel);
        Making(self)
    }

    /// Has the operation that is making something of the VM end at its next safe point: whoever
    /// stops or deletes it need not wait for a boot to finish.
    pub fn interrupt(&self) {
        if let Some(cancel) = &*self.making.lock().unwrap_or_else(PoisonError::into_inner) {
            cancel.set();
        }
    }

    /// How the fake monitor shall fail at its next start.
    pub fn fail(&self) -> Option<FakeFailure> {
        *self.fail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how the fake monitor shall fail.
    pub fn set_fail(&self, fail: Option<FakeFailure>) {
        *self.fail.lock().unwrap_or_else(PoisonError::into_inner) = fail;
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

/// While it lives, an operation is making something of a VM.
pub struct Making<'a>(&'a Machine);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        *self.0.making.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
