//! How fast the carrier is beside OpenSSH's client, on the machine that asks:
//! `cargo test --lib ssh::tests::measure -- --ignored --nocapture`.

use std::io::{Seek, Write};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use super::server::{SSHD, Server, login_name};
use super::streams::{digest, noise, null, run};
use crate::os::memfd;
use crate::ssh::Command;

const SIZE: usize = 100 << 20;

fn say(what: &str, time: Duration) {
    let line =
        format!("{what}: {time:.2?}, {:.0} MiB/s each way\n", SIZE as f64 / (1 << 20) as f64 / time.as_secs_f64());
    std::io::stderr().write_all(line.as_bytes()).expect("said");
}

#[test]
#[ignore = "a measurement"]
fn a_hundred_mebibytes_there_and_back() {
    let Some(server) = Server::start() else { return };
    let mut there = noise(SIZE);
    let mut back = memfd::create("back").expect("a file");
    let started = Instant::now();
    let mut shell = server.shell();
    say("connect", started.elapsed());
    let started = Instant::now();
    assert_eq!(run(&mut shell, &Command::new(["cat"]), &there, &back).exit_code(), 0);
    say("banger, through files", started.elapsed());
    assert_eq!(digest(&mut there), digest(&mut back));
    there.rewind().expect("rewound");
    let started = Instant::now();
    run(&mut shell, &Command::new(["sh", "-c", "cat >/dev/null"]), &there, &null());
    say("banger, there only", started.elapsed());
    there.rewind().expect("rewound");
    openssh(&server, there);
    pipe(&server);
}

fn pipe(server: &Server) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()).expect("read"));
    let mut shell = server.shell();
    let started = Instant::now();
    run(&mut shell, &Command::new(["head", "-c", &SIZE.to_string(), "/dev/zero"]), &null(), &writer);
    drop(writer);
    assert_eq!(reading.join().expect("read"), SIZE as u64);
    say("banger, back only, into a pipe", started.elapsed());
}

fn openssh(server: &Server, there: std::fs::File) {
    for cipher in ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com"] {
        let mut stdin = there.try_clone().expect("a copy");
        stdin.rewind().expect("rewound");
        let started = Instant::now();
        let status = Process::new("ssh")
            .args(["-F", "none", "-T", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "LogLevel=ERROR", "-c", cipher, "-o"])
            .arg(format!("ProxyCommand={SSHD} -i -f {}", server.config().display()))
            .arg("-i")
            .arg(server.folder.path().join("user"))
            .args([&format!("{}@box", login_name()), "cat"])
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(memfd::create("back").expect("a file")))
            .status()
            .expect("ssh runs");
        assert!(status.success());
        say(&format!("ssh with {cipher}, connecting included"), started.elapsed());
    }
}
