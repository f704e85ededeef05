//! Bytes both ways.

use std::fs::File;
use std::io::Read;

use super::{Guest, output, script};
use crate::os::memfd;
use crate::shell::{Command, Outcome, Pty, capture};
use crate::ssh::tests::streams::{digest, noise, null, run};

pub fn bytes_stay_bytes_and_the_outputs_stay_apart(guest: &dyn Guest) {
    let mut shell = guest.shell();
    let all: Vec<u8> = (0..=255).cycle().take(4096).collect();
    assert_eq!(output(&mut *shell, &Command::new(["cat"]), &all).stdout, all);
    assert_eq!(output(&mut *shell, &Command::new(["cat"]), b"a\0b").stdout, b"a\0b");
    let apart = output(&mut *shell, &script("echo one; echo two >&2; cat >&2; exit 3"), b"in");
    assert_eq!((&apart.stdout[..], &apart.stderr[..]), (&b"one\n"[..], &b"two\nin"[..]));
    assert_eq!(apart.outcome, Outcome::Exited(3));
}

pub fn a_slow_reader_gets_everything(guest: &dyn Guest) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let reading = std::thread::spawn(move || {
        let (mut block, mut total) = (vec![0; 100_000], 0);
        loop {
            std::thread::yield_now();
            match reader.read(&mut block).expect("read") {
                0 => return total,
                count => total += count,
            }
        }
    });
    let command = script("head -c 9000000 /dev/zero");
    assert_eq!(run(&mut *guest.shell(), &command, &null(), &writer), Outcome::Exited(0));
    drop(writer);
    assert_eq!(reading.join().expect("read"), 9_000_000);
}

/// What comes after the end of the output must be read although the output still waits here.
pub fn waiting_for_a_reader_after_the_end_costs_nothing(guest: &dyn Guest) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let reading = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(3));
        std::io::copy(&mut reader, &mut std::io::sink()).expect("read")
    });
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (mut shell, before) = (guest.shell(), used());
    let command = script("head -c 90000 /dev/zero; exec >&- 2>&-; sleep 1; exit 3");
    // Its input has no end, and is not sent to a command that is over.
    let zeros = File::open("/dev/zero").expect("zeros");
    assert_eq!(run(&mut *shell, &command, &zeros, &writer), Outcome::Exited(3));
    let spent = used() - before;
    drop(writer);
    assert_eq!(reading.join().expect("read"), 90_000);
    assert_eq!(output(&mut *shell, &script("echo on"), b"").stdout, b"on\n", "the session goes on");
    assert!(spent.tv_sec == 0 && spent.tv_nsec < 500_000_000, "{spent:?} of this thread's time");
}

pub fn a_command_that_does_not_read_ends_all_the_same(guest: &dyn Guest) {
    let mut shell = guest.shell();
    let zeros = File::open("/dev/zero").expect("zeros");
    assert_eq!(run(&mut *shell, &script("exit 5"), &zeros, &null()), Outcome::Exited(5));
    let early = script("head -c 10 >&2; exec <&-; echo done; exit 4");
    assert_eq!(run(&mut *shell, &early, &zeros, &null()), Outcome::Exited(4));
    assert_eq!(output(&mut *shell, &Command::new(["cat"]), b"").stdout, b"");
    assert_eq!(run(&mut *shell, &Command::new(["cat"]), &null(), &null()), Outcome::Exited(0));
}

pub fn a_closed_output_ends_the_command_as_a_broken_pipe(guest: &dyn Guest) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ended = run(&mut *guest.shell(), &Command::new(["yes"]), &null(), &writer);
    assert_eq!(ended.exit_code(), 141);
}

pub fn an_output_beyond_the_limit_is_an_error(guest: &dyn Guest) {
    assert!(capture(&mut *guest.shell(), &Command::new(["yes"]), b"", 4096).is_err());
}

pub fn a_terminal_is_one(guest: &dyn Guest) {
    let pty = Pty { term: "vt100".into(), cols: 91, rows: 17 };
    let command = script("test -t 0 && test -t 1 && echo $TERM && stty size").on_pty(pty);
    let said = output(&mut *guest.shell(), &command, b"");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "vt100\r\n17 91\r\n");
}

pub fn a_large_file_there_and_back_is_the_same_file(guest: &dyn Guest) {
    let (mut there, mut back) = (noise(8 << 20), memfd::create("back").expect("a file"));
    assert_eq!(run(&mut *guest.shell(), &Command::new(["cat"]), &there, &back), Outcome::Exited(0));
    assert_eq!(digest(&mut there), digest(&mut back));
}
