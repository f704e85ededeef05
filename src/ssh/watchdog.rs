//! A deadline for calls that cannot be given one.
//!
//! libssh2's own timeout starts anew with every wait, and a peer that never stops talking is never
//! waited for: only taking the socket away ends such a call for sure.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

/// Shuts a socket down unless it is called off in time.
pub(super) struct Watchdog {
    call_off: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    /// Watches until `limit` has passed.
    pub(super) fn set(socket: &Arc<OwnedFd>, limit: Duration) -> std::io::Result<Self> {
        let (call_off, called_off) = channel::<()>();
        let socket = Arc::clone(socket);
        let watch = move || {
            let late = called_off.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if late {
                // A peer that is gone already needs no shutdown.
                let _ = shutdown(&*socket, Shutdown::Both);
            }
            late
        };
        let thread = std::thread::Builder::new().name("ssh-deadline".into()).spawn(watch)?;
        Ok(Self { call_off, thread })
    }

    /// Whether the deadline had passed.
    pub(super) fn call_off(self) -> bool {
        drop(self.call_off);
        self.thread.join().unwrap_or(true)
    }
}
