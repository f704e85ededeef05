//! Bytes both ways.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;

use super::server::{Server, timeouts};
use super::{output, script};
use crate::os::memfd;
use crate::shell::{Command, GuestShell, Io, Outcome, Pty, capture};
use crate::ssh::SshShell;

/// `size` bytes that do not repeat, in a file.
pub fn noise(size: usize) -> File {
    let mut file = memfd::create("noise").expect("a file");
    let mut block = vec![0; 1 << 16];
    for _ in 0..size / block.len() {
        crate::os::random::fill(&mut block);
        file.write_all(&block).expect("written");
    }
    file.rewind().expect("rewound");
    file
}

pub fn digest(file: &mut File) -> Vec<u8> {
    file.rewind().expect("rewound");
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block).expect("read") {
            0 => return context.finish().as_ref().to_vec(),
            count => context.update(&block[..count]),
        }
    }
}

pub fn null() -> File {
    File::options().read(true).write(true).open("/dev/null").expect("the null device")
}

pub fn run(shell: &mut SshShell, command: &Command, stdin: &File, stdout: &impl AsFd) -> Outcome {
    let null = null();
    let io = Io { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: null.as_fd(), control: None };
    shell.run(command, io).expect("runs")
}

#[test]
fn bytes_stay_bytes_and_the_outputs_stay_apart() {
    let Some(server) = Server::start() else { return };
    let mut shell = server.shell();
    let all: Vec<u8> = (0..=255).cycle().take(4096).collect();
    assert_eq!(output(&mut shell, &Command::new(["cat"]), &all).stdout, all);
    assert_eq!(output(&mut shell, &Command::new(["cat"]), b"a\0b").stdout, b"a\0b");
    let apart = output(&mut shell, &script("echo one; echo two >&2; cat >&2; exit 3"), b"in");
    assert_eq!((&apart.stdout[..], &apart.stderr[..]), (&b"one\n"[..], &b"two\nin"[..]));
    assert_eq!(apart.outcome, Outcome::Exited(3));
}

/// Keys are exchanged anew every megabyte meanwhile, in both directions.
#[test]
fn a_large_file_there_and_back_is_the_same_file() {
    let Some(server) = Server::with_options("RekeyLimit 1M") else { return };
    let mut there = noise(8 << 20);
    for socket in [server.socket(), server.tcp_socket()] {
        let mut shell = SshShell::connect(socket, &server.access(), timeouts(), None).expect("a session");
        let mut back = memfd::create("back").expect("a file");
        assert_eq!(run(&mut shell, &Command::new(["cat"]), &there, &back), Outcome::Exited(0));
        assert_eq!(digest(&mut there), digest(&mut back));
        there.rewind().expect("rewound");
    }
}

#[test]
fn a_slow_reader_gets_everything() {
    let Some(server) = Server::start() else { return };
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
    assert_eq!(run(&mut server.shell(), &command, &null(), &writer), Outcome::Exited(0));
    drop(writer);
    assert_eq!(reading.join().expect("read"), 9_000_000);
}

/// What comes after the end of the output must be read although the output still waits here.
#[test]
fn waiting_for_a_reader_after_the_end_costs_nothing() {
    let Some(server) = Server::start() else { return };
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let reading = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(3));
        std::io::copy(&mut reader, &mut std::io::sink()).expect("read")
    });
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (mut shell, before) = (server.shell(), used());
    let command = script("head -c 90000 /dev/zero; exec >&- 2>&-; sleep 1; exit 3");
    // Its input has no end, and is not sent to a command that is over.
    let zeros = File::open("/dev/zero").expect("zeros");
    assert_eq!(run(&mut shell, &command, &zeros, &writer), Outcome::Exited(3));
    let spent = used() - before;
    drop(writer);
    assert_eq!(reading.join().expect("read"), 90_000);
    assert_eq!(output(&mut shell, &script("echo on"), b"").stdout, b"on\n", "the session goes on");
    assert!(spent.tv_sec == 0 && spent.tv_nsec < 500_000_000, "{spent:?} of this thread's time");
}

#[test]
fn a_command_that_does_not_read_ends_all_the_same() {
    let Some(server) = Server::start() else { return };
    let mut shell = server.shell();
    let zeros = File::open("/dev/zero").expect("zeros");
    assert_eq!(run(&mut shell, &script("exit 5"), &zeros, &null()), Outcome::Exited(5));
    let early = script("head -c 10 >&2; exec <&-; echo done; exit 4");
    assert_eq!(run(&mut shell, &early, &zeros, &null()), Outcome::Exited(4));
    assert_eq!(output(&mut shell, &Command::new(["cat"]), b"").stdout, b"");
    assert_eq!(run(&mut shell, &Command::new(["cat"]), &null(), &null()), Outcome::Exited(0));
}

#[test]
fn a_closed_output_ends_the_command_as_a_broken_pipe() {
    let Some(server) = Server::start() else { return };
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ended = run(&mut server.shell(), &Command::new(["yes"]), &null(), &writer);
    assert_eq!(ended.exit_code(), 141);
}

#[test]
fn an_output_beyond_the_limit_is_an_error() {
    let Some(server) = Server::start() else { return };
    assert!(capture(&mut server.shell(), &Command::new(["yes"]), b"", 4096).is_err());
}

#[test]
fn a_terminal_is_one() {
    let Some(server) = Server::start() else { return };
    let pty = Pty { term: "vt100".into(), cols: 91, rows: 17 };
    let command = script("test -t 0 && test -t 1 && echo $TERM && stty size").on_pty(pty);
    let said = output(&mut server.shell(), &command, b"");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "vt100\r\n17 91\r\n");
}
