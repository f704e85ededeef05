//! What happens beside the streams.

use std::time::{Duration, Instant};

use super::{Guest, script};
use crate::shell::{Outcome, Pty};
use crate::ssh::tests::signals::{ABANDON, RESIZE, converse};

pub fn a_signal_reaches_the_command_and_all_its_group(guest: &dyn Guest) {
    let mut shell = guest.shell();
    let (ended, _) = converse(&mut *shell, &script("echo ready; sleep 60; echo no"), &[15]);
    assert_eq!(ended, Outcome::Signaled { name: "TERM".into(), number: 15 });
    let (ended, _) =
        converse(&mut *shell, &script("trap 'exit 3' INT; echo ready; sleep 60 >/dev/null 2>&1 & wait"), &[2]);
    assert_eq!(ended, Outcome::Exited(3));
    // Ready once there is somebody to be waited for: a trap runs after that.
    let heard = script("trap 'echo heard' INT; sh -c 'echo ready; exec sleep 60'; exit 4");
    let (ended, said) = converse(&mut *shell, &heard, &[2]);
    assert_eq!((ended, said), (Outcome::Exited(4), vec!["ready".to_owned(), "heard".into()]));
}

pub fn the_third_signal_and_abandoning_end_the_wait(guest: &dyn Guest) {
    let deaf = script("trap 'echo no' INT TERM; for _ in 1 2 3 4 5; do sh -c 'echo ready; exec sleep 60'; done");
    let (ended, _) = converse(&mut *guest.shell(), &deaf, &[2, 2, 2]);
    assert_eq!(ended.exit_code(), 130);
    let started = Instant::now();
    let (ended, _) = converse(&mut *guest.shell(), &deaf, &[ABANDON]);
    assert_eq!(ended.exit_code(), 143);
    assert!(started.elapsed() < Duration::from_secs(10));
}

pub fn a_terminal_is_resized_and_hung_up(guest: &dyn Guest) {
    let pty = || Pty { term: "dumb".into(), cols: 80, rows: 24 };
    let sizes = script("trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 1; done").on_pty(pty());
    let (ended, said) = converse(&mut *guest.shell(), &sizes, &[RESIZE]);
    assert_eq!((ended, said), (Outcome::Exited(0), vec!["ready".to_owned(), "33 44".into()]));
    let (ended, _) = converse(&mut *guest.shell(), &script("echo ready; sleep 60").on_pty(pty()), &[1]);
    assert_eq!(ended.exit_code(), 129);
}
