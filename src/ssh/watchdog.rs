//! A deadline, and an ear for signals, around calls that have neither.
//!
//! libssh2's own timeout starts anew with every wait, and a peer that never stops talking is never
//! waited for: only taking the socket away ends such a call for sure. So the call runs in a thread of
//! its own, and the caller's waits for its end, for the deadline, and for the user's signals.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use crate::shell::Control;

/// What may cut a call short.
pub(super) struct Watchdog<'c> {
    /// How long it may take.
    pub limit: Duration,
    /// Who says that the user wants an end.
    pub control: Option<&'c mut dyn Control>,
    /// How long it may take from then on.
    pub patience: Duration,
}

/// Why the socket was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The time was up.
    Late,
    /// This signal asked for the end.
    Signal(i32),
}

impl Watchdog<'_> {
    /// Runs `call`, which uses `socket`; with a [`Cut`] its result is worth nothing. The signal stays
    /// with the control: a call that ended in time leaves it to what comes next.
    pub(super) fn guard<T: Send>(
        self,
        socket: &OwnedFd,
        call: impl FnOnce() -> T + Send,
    ) -> io::Result<(T, Option<Cut>)> {
        let (end, running) = io::pipe()?;
        std::thread::scope(|scope| {
            let run = move || {
                let _running = running;
                call()
            };
            let thread = std::thread::Builder::new().name("ssh-call".into()).spawn_scoped(scope, run)?;
            let cut = self.wait_for(&end);
            if cut.is_some() {
                // A peer that is gone already needs no shutdown.
                let _ = shutdown(socket, Shutdown::Both);
            }
            let value = thread.join().map_err(|_| io::Error::other("the thread of the call panicked"))?;
            Ok((value, cut))
        })
    }

    /// Waits for the end of the pipe, which is that of the call; else says why no longer.
    fn wait_for(mut self, end: &PipeReader) -> Option<Cut> {
        let (mut deadline, mut cut) = (Instant::now() + self.limit, Cut::Late);
        loop {
            if let Some(signal) = self.control.as_mut().and_then(|control| control.end_asked_for()) {
                (deadline, cut) = (deadline.min(Instant::now() + self.patience), Cut::Signal(signal));
                self.control = None;
            }
            let mut fds = vec![PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)];
            fds.extend(self.control.iter().map(|c| PollFd::from_borrowed_fd(c.descriptor(), PollFlags::IN)));
            match poll(&mut fds, Some(&until(deadline))) {
                Ok(0) => return Some(cut),
                Ok(_) if !fds[0].revents().is_empty() => return None,
                // A control may stay readable with other news.
                Ok(_) if Instant::now() >= deadline => return Some(cut),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Some(cut),
            }
        }
    }
}

fn until(deadline: Instant) -> Timespec {
    let rest = deadline.saturating_duration_since(Instant::now());
    Timespec { tv_sec: rest.as_secs().cast_signed(), tv_nsec: i64::from(rest.subsec_nanos()) }
}
