//! A time limit as one more source of what happens beside a command: SIGTERM when it is over, and
//! after some grace the end of the wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFlags, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use signal_hook::consts::{SIGKILL, SIGTERM};

use super::streams::is_ready;
use super::{Control, ControlEvent};

/// How long a command may take to end once it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// A control that ends its command after some time.
pub struct TimeLimit<C> {
    inner: C,
    timer: OwnedFd,
    /// Readable when the timer or the inner control is.
    either: OwnedFd,
    fired: u8,
    /// The command ended first: from there on time does not matter.
    ended: bool,
    /// For several commands, one after the other.
    is_for_all: bool,
}

impl<C: Control> TimeLimit<C> {
    /// `inner`, and the limit, which counts from now; `None` is no limit.
    pub fn new(inner: C, limit: Option<Duration>) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let either = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, fd) in [(0, timer.as_fd()), (1, inner.descriptor())] {
            epoll::add(&either, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        }
        let limited = Self { inner, timer, either, fired: 0, ended: false, is_for_all: false };
        limited.arm(limit.unwrap_or_default())?;
        Ok(limited)
    }

    /// The same limit for all commands that are still to come, taken together.
    pub fn for_all(self) -> Self {
        Self { is_for_all: true, ..self }
    }

    /// Whether the time was over before the command was.
    pub fn is_over(&self) -> bool {
        self.fired > 0 || (!self.ended && is_ready(self.timer.as_fd(), PollFlags::IN))
    }

    /// Zero disarms (timerfd_create(2)).
    fn arm(&self, time: Duration) -> io::Result<()> {
        let value = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// What the timer says, each time it has fired.
    fn fire(&mut self) -> Option<ControlEvent> {
        if !is_ready(self.timer.as_fd(), PollFlags::IN) {
            return None;
        }
        self.fired += 1;
        // Armed anew it is no longer readable. Both calls fail for no timer that exists.
        let _ = self.arm(if self.fired == 1 { GRACE } else { Duration::ZERO });
        Some(if self.fired == 1 { ControlEvent::Signal(SIGTERM) } else { ControlEvent::Abandon(SIGKILL) })
    }
}

impl<C: Control> Control for TimeLimit<C> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.either.as_fd()
    }

    fn next(&mut self) -> Option<ControlEvent> {
        self.fire().or_else(|| self.inner.next())
    }

    fn end_asked_for(&mut self) -> Option<i32> {
        match is_ready(self.timer.as_fd(), PollFlags::IN) {
            true => Some(SIGTERM),
            false => self.inner.end_asked_for(),
        }
    }

    fn command_ended(&mut self) {
        if self.is_for_all {
            return self.inner.command_ended();
        }
        self.ended = true;
        // Fails for no timer that exists.
        let _ = self.arm(Duration::ZERO);
        self.inner.command_ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    struct Silent(UnixStream);

    impl Control for Silent {
        fn descriptor(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
        fn next(&mut self) -> Option<ControlEvent> {
            None
        }
        fn end_asked_for(&mut self) -> Option<i32> {
            None
        }
    }

    fn silent() -> (Silent, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        (Silent(near), far)
    }

    #[test]
    fn asks_once_and_then_has_patience() {
        let (inner, _open) = silent();
        let mut limited = TimeLimit::new(inner, Some(Duration::from_millis(1))).expect("a timer");
        while !is_ready(limited.descriptor(), PollFlags::IN) {}
        assert!(limited.is_over());
        assert_eq!(limited.end_asked_for(), Some(SIGTERM));
        assert_eq!(limited.next(), Some(ControlEvent::Signal(SIGTERM)));
        assert!(limited.is_over() && !is_ready(limited.descriptor(), PollFlags::IN));
        assert_eq!((limited.next(), limited.end_asked_for()), (None, None));
        limited.arm(Duration::from_millis(1)).expect("armed");
        while !is_ready(limited.descriptor(), PollFlags::IN) {}
        assert_eq!(limited.next(), Some(ControlEvent::Abandon(SIGKILL)));
        assert_eq!(limited.next(), None);
    }

    #[test]
    fn a_command_that_has_ended_is_not_out_of_time_while_its_reader_is_slow() {
        let (inner, _open) = silent();
        let mut limited = TimeLimit::new(inner, Some(Duration::from_millis(1))).expect("a timer");
        while !is_ready(limited.timer.as_fd(), PollFlags::IN) {}
        limited.command_ended();
        assert!(!is_ready(limited.descriptor(), PollFlags::IN), "disarmed");
        assert!(limited.next().is_none() && !limited.is_over() && limited.end_asked_for().is_none());
    }

    #[test]
    fn a_limit_for_all_outlasts_a_command() {
        let (inner, _open) = silent();
        let mut limited = TimeLimit::new(inner, Some(Duration::from_millis(50))).expect("a timer").for_all();
        limited.command_ended();
        while !is_ready(limited.descriptor(), PollFlags::IN) {}
        assert!(limited.is_over());
        assert_eq!(limited.next(), Some(ControlEvent::Signal(SIGTERM)));
    }

    #[test]
    fn without_a_limit_only_the_inner_control_speaks() {
        let (inner, far) = silent();
        let mut limited = TimeLimit::new(inner, None).expect("a timer");
        assert!(!is_ready(limited.descriptor(), PollFlags::IN) && limited.next().is_none());
        drop(far);
        assert!(is_ready(limited.descriptor(), PollFlags::IN) && !limited.is_over());
    }
}
