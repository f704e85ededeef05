//! SIGINT, SIGTERM and SIGHUP as one descriptor to poll, for commands that have to tidy up; with
//! them SIGWINCH, which a terminal session passes on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// The signals, from now on ours.
#[derive(Debug)]
pub struct Interrupts {
    delivery: RefCell<SignalDelivery<UnixStream, SignalOnly>>,
    waiting: RefCell<VecDeque<i32>>,
    readable: UnixStream,
}

impl Interrupts {
    /// Takes the signals over for the rest of the process.
    pub fn take_over() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        let readable = reader.try_clone()?;
        let signals = [SIGINT, SIGTERM, SIGHUP, SIGWINCH];
        let delivery = SignalDelivery::with_pipe(reader, writer, SignalOnly, signals)?;
        Ok(Self { delivery: RefCell::new(delivery), waiting: RefCell::default(), readable })
    }

    /// Readable once a signal has come.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }

    /// The next signal that has come; each is told once.
    pub fn next(&self) -> Option<i32> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.extend(self.delivery.borrow_mut().pending());
        waiting.pop_front()
    }

    /// The next signal that asks for the end.
    pub fn next_end(&self) -> Option<i32> {
        std::iter::from_fn(|| self.next()).find(|signal| *signal != SIGWINCH)
    }
}

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The descriptor can be read.
    Readable,
    /// A signal came.
    Signal(i32),
    /// The time is up.
    TimedOut,
}

/// Waits until `fd` can be read, a signal asks for the end, or `limit` is over.
pub fn wait_readable(
    fd: BorrowedFd<'_>,
    interrupts: Option<&Interrupts>,
    limit: Option<Duration>,
) -> io::Result<Waited> {
    let deadline = limit.map(|l| Instant::now() + l);
    loop {
        if let Some(signal) = interrupts.and_then(Interrupts::next_end) {
            return Ok(Waited::Signal(signal));
        }
        let mut fds = vec![PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        fds.extend(interrupts.map(|i| PollFd::from_borrowed_fd(i.descriptor(), PollFlags::IN)));
        match poll(&mut fds, deadline.map(until).as_ref()) {
            Ok(0) => return Ok(Waited::TimedOut),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Waited::Readable),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn until(deadline: Instant) -> Timespec {
    let rest = deadline.saturating_duration_since(Instant::now());
    Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_a_wait_and_is_told_once() {
        let interrupts = Interrupts::take_over().expect("taken over");
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let soon = Some(Duration::from_millis(10));
        assert_eq!(wait_readable(reader.as_fd(), Some(&interrupts), soon).expect("waits"), Waited::TimedOut);
        signal_hook::low_level::raise(SIGWINCH).expect("raised");
        signal_hook::low_level::raise(SIGHUP).expect("raised");
        let waited = wait_readable(reader.as_fd(), Some(&interrupts), None).expect("waits");
        assert_eq!(waited, Waited::Signal(SIGHUP));
        assert_eq!(interrupts.next_end(), None);
    }
}
