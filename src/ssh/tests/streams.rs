//! Bytes both ways.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;

use super::server::{Server, timeouts};
use crate::os::memfd;
use crate::shell::{Command, GuestShell, Io, Outcome};
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

pub fn run(shell: &mut dyn GuestShell, command: &Command, stdin: &File, stdout: &impl AsFd) -> Outcome {
    let null = null();
    let io = Io { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: null.as_fd(), control: None };
    shell.run(command, io).expect("runs")
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
