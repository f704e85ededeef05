//! What happens beside the streams.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::script;
use super::server::{Server, timeouts};
use super::streams::null;
use crate::shell::{Command, Control, ControlEvent, GuestShell, Io, Outcome};
use crate::ssh::{Access, SshError, SshShell, generate};

/// One byte is one event: a signal's number, or what stands for another event.
pub struct Wire(UnixStream);

pub const RESIZE: u8 = 200;
pub const ABANDON: u8 = 201;

impl Control for Wire {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
    fn next(&mut self) -> Option<ControlEvent> {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(1) if byte[0] == RESIZE => Some(ControlEvent::Resize { cols: 44, rows: 33 }),
            Ok(1) if byte[0] == ABANDON => Some(ControlEvent::Abandon(15)),
            Ok(1) => Some(ControlEvent::Signal(i32::from(byte[0]))),
            _ => None,
        }
    }
    fn end_asked_for(&mut self) -> Option<i32> {
        let mut byte = [0];
        let (count, _) = rustix::net::recv(&self.0, &mut byte, rustix::net::RecvFlags::PEEK).ok()?;
        (count == 1 && byte[0] < RESIZE).then_some(i32::from(byte[0]))
    }
}

/// Runs `command`; each line it says is answered with the next of `events`. Returns its lines too.
pub fn converse(shell: &mut dyn GuestShell, command: &Command, events: &'static [u8]) -> (Outcome, Vec<String>) {
    let (mut wire, control) = UnixStream::pair().expect("a pair");
    control.set_nonblocking(true).expect("set");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let (stdin, _open) = std::io::pipe().expect("a pipe");
    let listener = std::thread::spawn(move || {
        let mut events = events.iter();
        let answered = |line: std::io::Result<String>| {
            if let Some(event) = events.next() {
                wire.write_all(&[*event]).expect("sent");
            }
            line.expect("a line")
        };
        BufReader::new(reader).lines().map(answered).collect::<Vec<_>>()
    });
    let mut control = Wire(control);
    let io = Io { stdin: stdin.as_fd(), stdout: writer.as_fd(), stderr: writer.as_fd(), control: Some(&mut control) };
    let outcome = shell.run(command, io).expect("runs");
    drop(writer);
    (outcome, listener.join().expect("listened"))
}

/// A control on which `event` waits already.
fn wire_with(event: u8) -> (Wire, UnixStream) {
    let (mut wire, control) = UnixStream::pair().expect("a pair");
    control.set_nonblocking(true).expect("set");
    wire.write_all(&[event]).expect("sent");
    (Wire(control), wire)
}

#[test]
fn a_signal_ends_the_wait_for_a_session() {
    let (near, _silent) = UnixStream::pair().expect("a pair");
    let keys = generate().expect("a key");
    let access = Access { name: "box".into(), user: "root".into(), private_key: keys.private, host_key: keys.public };
    let (mut control, _wire) = wire_with(15);
    let started = Instant::now();
    let error = SshShell::connect(near.into(), &access, timeouts(), Some(&mut control)).err().expect("ended");
    assert!(matches!(error, SshError::Interrupted { signal: 15, .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Runs a long command; `event` has come before it started.
fn run_after(shell: &mut SshShell, event: u8) -> (Outcome, Duration) {
    let (mut control, _wire) = wire_with(event);
    let (null, started) = (null(), Instant::now());
    let io = Io { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd(), control: Some(&mut control) };
    let outcome = shell.run(&script("sleep 60"), io).expect("runs");
    (outcome, started.elapsed())
}

#[test]
fn a_signal_before_the_start_reaches_the_command_or_ends_the_wait_for_it() {
    let Some(server) = Server::start() else { return };
    let mut shell = server.shell();
    let (heard, _) = run_after(&mut shell, 15);
    assert_eq!(heard.exit_code(), 143);
    assert_eq!(super::output(&mut shell, &script("echo alive"), b"").stdout, b"alive\n");
    server.freeze();
    let (cut, time) = run_after(&mut shell, 2);
    assert_eq!(cut.exit_code(), 130);
    assert!(time < Duration::from_secs(10), "{time:?}");
    assert!(crate::shell::capture(&mut shell, &script("true"), b"", 9).is_err());
}
