//! Carries signals to the running command.
//!
//! ssh2 has no call for RFC 4254's `signal` request. A second channel of the same session does as
//! well: sshd makes each command the leader of a process group, all of them children of the one
//! process that serves this session, so a small script finds the others by its own parent.

use std::collections::VecDeque;
use std::io::Read;

use ssh2::{Channel, Session};

use super::quote::quote;
use super::session::done;
use crate::shell::signal_name;

/// For every process whose parent is ours, except ourselves: signal its group. Field 4 of
/// `/proc/PID/stat` (proc(5)) is the parent; field 2 is in parentheses and may contain anything.
///
/// An orphan's parent is pid 1, whose children are all the guest's services: when the connection
/// has just ended there must be nothing to signal, so the parent has to be an ssh server.
const SCRIPT: &str = r#"read -r c 2>/dev/null < "/proc/$PPID/comm" || exit 0
case $PPID:$c in 1:*) exit 0 ;; *:sshd*|*:dropbear*|*:banger-sshd) ;; *) exit 0 ;; esac
for s in /proc/[0-9]*/stat; do
{ read -r l < "$s"; } 2>/dev/null || continue
p=${s#/proc/}; p=${p%/stat}; set -- ${l##*) }
[ "$2" = "$PPID" ] && [ "$p" != "$$" ] && kill -s NAME -- "-$p"
done 2>/dev/null"#;

enum Step {
    Idle,
    Opening(String),
    Starting(Channel, String),
    Ending(Channel),
}

/// Signals on their way.
pub(super) struct Courier {
    waiting: VecDeque<&'static str>,
    step: Step,
}

impl Courier {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), step: Step::Idle }
    }

    /// Accepts a signal for delivery; one that Linux does not know is dropped.
    pub(super) fn accept(&mut self, number: i32) {
        self.waiting.extend(signal_name(number));
    }

    /// Whether something is still on its way.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !matches!(self.step, Step::Idle)
    }

    /// Goes on as far as possible without waiting. A guest that refuses the second channel gets no
    /// signal; the session itself failing is for the caller to find.
    pub(super) fn advance(&mut self, session: &Session) {
        while self.is_busy() {
            let step = std::mem::replace(&mut self.step, Step::Idle);
            match self.take(step, session) {
                (next, true) => self.step = next,
                (next, false) => {
                    self.step = next;
                    return;
                }
            }
        }
    }

    /// The step after `step`, and whether it was finished.
    fn take(&mut self, step: Step, session: &Session) -> (Step, bool) {
        match step {
            Step::Idle => match self.waiting.pop_front() {
                Some(name) => (Step::Opening(line_for(name)), true),
                None => (Step::Idle, false),
            },
            Step::Opening(line) => match done(session.channel_session()) {
                Ok(Some(channel)) => (Step::Starting(channel, line), true),
                Ok(None) => (Step::Opening(line), false),
                Err(e) => self.give_up(&e),
            },
            Step::Starting(mut channel, line) => match done(channel.exec(&line)) {
                Ok(Some(())) => (Step::Ending(channel), true),
                Ok(None) => (Step::Starting(channel, line), false),
                Err(e) => self.give_up(&e),
            },
            Step::Ending(channel) => end(channel),
        }
    }

    fn give_up(&mut self, why: &ssh2::Error) -> (Step, bool) {
        log::warn!("cannot pass a signal on to the guest: {why}");
        self.waiting.clear();
        (Step::Idle, false)
    }
}

fn line_for(name: &str) -> String {
    let script = SCRIPT.replace("NAME", name);
    format!("exec /bin/sh -c {}", quote(script.as_bytes()).unwrap_or_default())
}

/// Reads the script's channel to its end, so that the session can be used on.
fn end(mut channel: Channel) -> (Step, bool) {
    let mut nothing = [0; 256];
    while matches!(channel.read(&mut nothing), Ok(count) if count > 0) {}
    if !channel.eof() || !matches!(done(channel.wait_close()), Ok(Some(()))) {
        return (Step::Ending(channel), false);
    }
    match done(channel.close()) {
        Ok(None) => (Step::Ending(channel), false),
        // Closed, or the session has failed and there is nothing to close.
        Ok(Some(())) | Err(_) => (Step::Idle, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn a_parent_that_is_no_ssh_server_loses_no_child() {
        let mut bystander = Command::new("sleep").arg("60").process_group(0).spawn().expect("sleep starts");
        // This process is the script's parent, as pid 1 would be of an orphan.
        let ended = Command::new("sh").args(["-c", &line_for("KILL")]).status().expect("sh runs");
        assert!(ended.success());
        assert!(bystander.try_wait().expect("asked").is_none());
        bystander.kill().expect("killed");
        bystander.wait().expect("reaped");
    }
}
