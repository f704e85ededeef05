//! Whether a monitor that was just started will live: it has read its files, built its machine and
//! answers. A greeting alone proves nothing: QEMU sends it from a thread of its own, before it has
//! looked at the kernel; an *answer* comes from its main loop, which begins when all is well.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// More than a monitor says before its first answer; one that says more is not waited for.
const MOST: usize = 64 << 10;

/// The one command that every QMP server takes first (docs/interop/qmp-spec).
const COMMAND: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";

/// What its answer holds.
const ANSWER: &[u8] = b"\"return\"";

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// It answers.
    Answers,
    /// It ended, or closed the connection.
    Ended,
    /// Neither, in all the time it had.
    Silent,
}

/// Waits at most `limit` until the monitor of `pidfd` answers on `control`, a connection of its own
/// that ends with this.
pub fn wait_for_answer(mut control: UnixStream, pidfd: BorrowedFd<'_>, limit: Duration) -> io::Result<Spoken> {
    control.set_nonblocking(true)?;
    if control.write_all(COMMAND).is_err() {
        return Ok(Spoken::Ended);
    }
    let (deadline, mut said) = (Instant::now() + limit, Vec::new());
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let rest = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
        let mut waited = [PollFd::new(&control, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        match poll(&mut waited, Some(&rest)) {
            Ok(0) => return Ok(Spoken::Silent),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        if !waited[1].revents().is_empty() {
            return Ok(Spoken::Ended);
        }
        match listen(&mut control, &mut said) {
            Some(spoken) => return Ok(spoken),
            None => continue,
        }
    }
}

/// Hears what there is; `None` when more must be waited for.
fn listen(control: &mut UnixStream, said: &mut Vec<u8>) -> Option<Spoken> {
    let mut buffer = [0; 4096];
    match control.read(&mut buffer) {
        Ok(0) => return Some(Spoken::Ended),
        Ok(count) => said.extend_from_slice(&buffer[..count]),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return None,
        Err(_) => return Some(Spoken::Ended),
    }
    if said.windows(ANSWER.len()).any(|w| w == ANSWER) {
        return Some(Spoken::Answers);
    }
    (said.len() > MOST).then_some(Spoken::Silent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process;
    use std::os::fd::AsFd;

    const GREETING: &[u8] = b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    /// What is found when the other side does `deed` and then keeps its end for a while.
    fn found(deed: impl FnOnce(&mut UnixStream), keep: bool) -> Spoken {
        let (own, mut other) = UnixStream::pair().expect("a pair");
        deed(&mut other);
        let kept = keep.then_some(other);
        let this = process::open(process::reference(std::process::id() as i32).expect("lives"));
        let pidfd = this.expect("opens").expect("lives");
        let spoken = wait_for_answer(own, pidfd.as_fd(), Duration::from_millis(50)).expect("works");
        drop(kept);
        spoken
    }

    #[test]
    fn a_greeting_without_an_answer_is_silence() {
        assert_eq!(found(|other| other.write_all(GREETING).expect("sent"), true), Spoken::Silent);
        let answer = [GREETING, b"{\"return\": {}}\r\n"].concat();
        assert_eq!(found(|other| other.write_all(&answer).expect("sent"), true), Spoken::Answers);
    }

    #[test]
    fn a_closed_connection_is_an_end() {
        assert_eq!(found(|other| other.write_all(GREETING).expect("sent"), false), Spoken::Ended);
        assert_eq!(found(|_| (), false), Spoken::Ended);
    }

    #[test]
    fn endless_talk_is_not_waited_for() {
        let talk = |other: &mut UnixStream| other.write_all(&vec![b'x'; MOST + 4096]).expect("sent");
        assert_eq!(found(talk, true), Spoken::Silent);
    }
}
