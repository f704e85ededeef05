//! Giving up: told once, seen by all who work or pause.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::error::OciError;

/// Shared by a pull and its threads.
#[derive(Debug, Default)]
pub(super) struct Cancel {
    told: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    pub(super) fn tell(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(super) fn check(&self) -> Result<(), OciError> {
        self.pause(Duration::ZERO)
    }

    /// Waits for `length`, or less when it is told.
    pub(super) fn pause(&self, length: Duration) -> Result<(), OciError> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, _) =
            self.changed.wait_timeout_while(told, length, |told| !*told).unwrap_or_else(PoisonError::into_inner);
        if *told { Err(OciError::Cancelled) } else { Ok(()) }
    }
}
