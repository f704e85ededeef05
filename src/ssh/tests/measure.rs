//! How fast the carrier is beside OpenSSH's client, on the machine that asks:
//! `cargo test --lib ssh::tests::measure -- --ignored --nocapture`.

use std::io::{Seek, Write};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use super::server::{SSHD, Server, login_name};
use super::streams::{digest, noise, null, run};
use crate::os::memfd;
use crate::shell::Command;

const SIZE: usize = 100 << 20;

fn say(what: &str, time: Duration) {
    let line =
        format!("{what}: {time:.2?}, {:.0} MiB/s each way\n", SIZE as f64 / (1 << 20) as f64 / time.as_secs_f64());
    std::io::stderr().write_all(line.as_bytes()).expect("said");
}

#[test]
#[ignore = "a measurement"]
fn a_hundred_mebibytes_there_and_back() {
    for cipher in ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes128-ctr"] {
        let Some(server) = Server::with_options(&format!("Ciphers {cipher}\nMACs hmac-sha2-256-etm@openssh.com"))
        else {
            return;
        };
        std::io::stderr().write_all(format!("\n{cipher}\n").as_bytes()).expect("said");
        let there = noise(SIZE);
        files(&server, there.try_clone().expect("a copy"));
        pipe(&server);
        openssh(&server, there);
    }
}

fn files(server: &Server, mut there: std::fs::File) {
    let mut back = memfd::create("back").expect("a file");
    let started = Instant::now();
    let mut shell = server.shell();
    say("connect", started.elapsed());
    let started = Instant::now();
    assert_eq!(run(&mut shell, &Command::new(["cat"]), &there, &back).exit_code(), 0);
    say("banger, there and back, files", started.elapsed());
    assert_eq!(digest(&mut there), digest(&mut back));
    there.rewind().expect("rewound");
    let started = Instant::now();
    run(&mut shell, &Command::new(["sh", "-c", "cat >/dev/null"]), &there, &null());
    say("banger, there only", started.elapsed());
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

fn openssh(server: &Server, mut there: std::fs::File) {
    there.rewind().expect("rewound");
    let started = Instant::now();
    let status = Process::new("ssh")
        .args(["-F", "none", "-T", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "LogLevel=ERROR", "-o"])
        .arg(format!("ProxyCommand={SSHD} -i -f {}", server.config().display()))
        .arg("-i")
        .arg(server.folder.path().join("user"))
        .args([&format!("{}@box", login_name()), "cat"])
        .stdin(Stdio::from(there))
        .stdout(Stdio::from(memfd::create("back").expect("a file")))
        .status()
        .expect("ssh runs");
    assert!(status.success());
    say("ssh, there and back, files, connecting included", started.elapsed());
}
