//! The one place where an exchange waits, and what silence there means.

use super::*;
use crate::shell::Beat;

impl Exchange<'_, '_> {
    pub(super) fn wait(&mut self) -> Result<(), ShellError> {
        let listens = self.listens();
        let timeout = self.timeout(listens);
        let mut fds = Vec::with_capacity(5);
        let mut socket = PollFlags::empty();
        socket.set(PollFlags::IN, listens);
        socket.set(PollFlags::OUT, self.wants_room && self.broken.is_none());
        if !socket.is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.socket(), socket));
        }
        self.watch_streams(&mut fds);
        let count = match poll(&mut fds, Some(&timeout)) {
            Ok(count) => count,
            Err(Errno::INTR) => return Ok(()),
            Err(e) => return Err(self.shell.connection_lost(format!("cannot wait for it: {e}"))),
        };
        let heard = !socket.is_empty() && fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        self.feel_pulse(!listens || heard, count == 0);
        Ok(())
    }

    fn watch_streams<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.takes_input() && !self.stdin.has_ended() && self.stdin.pending().is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.stdin.fd(), PollFlags::IN));
        }
        for Output { outlet, .. } in self.outputs.iter().filter(|output| !output.outlet.is_empty()) {
            fds.push(PollFd::from_borrowed_fd(outlet.fd(), PollFlags::OUT));
        }
        fds.extend(self.attention.descriptor().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    }

    /// Whether there is a use for what the guest may say: room for its output, input that waits
    /// for its window, or a signal on its way. Otherwise the guest is held back.
    fn listens(&self) -> bool {
        let has_place = self.outputs.iter().any(|output| output.outlet.is_empty());
        self.is_open() && (has_place || !self.stdin.pending().is_empty() || self.courier.is_busy())
    }

    fn timeout(&self, listens: bool) -> Timespec {
        if self.has_more {
            return Timespec::default();
        }
        let beat = if listens { self.pulse.deadline() } else { Instant::now() + self.shell.timeouts.silence };
        let deadline = self.abandoned.as_ref().map_or(beat, |abandoned| abandoned.deadline.min(beat));
        let rest = deadline.saturating_duration_since(Instant::now());
        Timespec { tv_sec: rest.as_secs().cast_signed(), tv_nsec: i64::from(rest.subsec_nanos()) }
    }

    fn feel_pulse(&mut self, heard: bool, silent: bool) {
        if heard {
            self.pulse.heard();
        } else if silent && !self.has_more {
            match self.pulse.beat() {
                Beat::Wait => {}
                Beat::Ask => self.ask(),
                Beat::Gone => {
                    let seconds = self.shell.timeouts.silence.as_secs();
                    self.broken = Some(format!("it gave no sign of life for {seconds} s"));
                }
            }
        }
    }

    /// A keepalive with an answer. A socket without room asks by itself: TCP repeats.
    fn ask(&mut self) {
        if is_ready(self.socket(), PollFlags::OUT) {
            let session = &self.shell.session;
            session.set_keepalive(true, 2);
            let sent = done(session.keepalive_send().map(|_| ()));
            // Off again: libssh2's own blocking calls would send them from their stack.
            session.set_keepalive(false, 0);
            self.noted(sent);
        }
    }
}
