//! Commands, terminals, connections, keys.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{LIMITS, Limits, Pair, text};

#[test]
fn exit_codes_and_quoting_survive() {
    let Some(pair) = Pair::start() else { return };
    let run = |line| pair.run(&[], line);
    assert_eq!(run("sh -c 'exit 42'").status.code(), Some(42));
    assert_eq!(run("true").status.code(), Some(0));
    let said = run(r#"printf '%s|' "a b" 'c"d' e\ f; echo err >&2"#);
    assert_eq!((text(&said.stdout), text(&said.stderr)), (r#"a b|c"d|e f|"#, "err\n"));
    assert_eq!(run("no-such-program").status.code(), Some(127));
    // A signal is no exit code: OpenSSH's client says 255.
    assert_eq!(run("kill -TERM $$").status.code(), Some(255));
}

#[test]
fn the_environment_is_that_of_a_login() {
    let Some(pair) = Pair::start() else { return };
    let said = pair.run(&["-o", "SetEnv=LANG=C.UTF-8 FOO=bar"], "echo $LANG:$FOO:$USER:$SSH_CONNECTION");
    let said = text(&said.stdout).trim_end().to_owned();
    assert!(said.starts_with(&format!("C.UTF-8::{}:127.0.0.1 ", super::own_name())), "{said}");
    assert!(said.ends_with(&format!(" 127.0.0.1 {}", pair.server.port)), "{said}");
}

#[test]
fn ten_mebibytes_each_way_are_the_same_bytes_with_every_cipher() {
    let Some(pair) = Pair::start() else { return };
    let bytes: Vec<u8> = (0..10_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for cipher in ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        assert_eq!(there_and_back(&pair, &["-c", cipher], &bytes), bytes, "{cipher}");
    }
}

fn there_and_back(pair: &Pair, more: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut command = pair.command("ssh");
    command.args(more).args([&pair.address(), "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("ssh runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let given = bytes.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&given));
    let mut back = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut back).expect("read");
    writing.join().expect("joined").expect("written");
    assert!(child.wait().expect("ended").success());
    back
}

fn with_rekey(rekey: (u64, u64)) -> Option<Pair> {
    Pair::with(&["-t", "ed25519"], Limits { rekey, ..LIMITS })
}

#[test]
fn keys_are_changed_under_way_by_either_side() {
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let Some(pair) = with_rekey((u64::MAX, 200 << 10)) else { return };
    assert_eq!(there_and_back(&pair, &[], &bytes), bytes, "by the server, after 200 KiB");
    let Some(pair) = with_rekey((50, u64::MAX)) else { return };
    assert_eq!(there_and_back(&pair, &[], &bytes), bytes, "by the server, after 50 packets");
    let Some(pair) = Pair::start() else { return };
    assert_eq!(there_and_back(&pair, &["-o", "RekeyLimit=256K"], &bytes), bytes, "by the client");
}

#[test]
fn the_end_of_the_input_arrives() {
    let Some(pair) = Pair::start() else { return };
    assert_eq!(text(&pair.run(&[], "cat; echo over").stdout), "over\n");
}

#[test]
fn a_terminal_is_one_and_has_its_size() {
    let Some(pair) = Pair::start() else { return };
    // A terminal around the client, so that there is a size to tell.
    let ssh = format!("{:?}", pair.command("ssh").args(["-tt", &pair.address(), "stty size; tty; printenv TERM"]));
    let line = format!("stty rows 33 cols 101; TERM=vt220 {ssh}");
    let script = std::process::Command::new("script").args(["-qec", &line, "/dev/null"]).output();
    let said = String::from_utf8_lossy(&script.expect("script runs").stdout).into_owned();
    assert!(said.contains("33 101") && said.contains("/dev/pts/") && said.contains("vt220"), "{said}");
}

#[test]
fn only_the_authorized_key_of_root_is_let_in() {
    let (Some(pair), Some(other)) = (Pair::start(), Pair::start()) else { return };
    let stranger = other.user.display().to_string();
    let mut command = pair.command("ssh");
    let tried = command.args(["-i", &stranger, "-o", "IdentityFile=none", &pair.address(), "true"]).output();
    assert!(tried.expect("ssh runs").status.success(), "its own key is there as well");
    std::fs::copy(&other.user, &pair.user).expect("copied");
    let refused = pair.run(&[], "true");
    assert_eq!(refused.status.code(), Some(255));
    assert!(text(&refused.stderr).contains("Permission denied (publickey)"), "{}", text(&refused.stderr));
    let refused = pair.command("ssh").args(["nobody@127.0.0.1", "true"]).output().expect("ssh runs");
    assert!(text(&refused.stderr).contains("Permission denied (publickey)"), "{}", text(&refused.stderr));
}

#[test]
fn the_other_kinds_of_keys_let_in_too() {
    for kind in [&["-t", "ecdsa", "-b", "256"][..], &["-t", "ecdsa", "-b", "384"], &["-t", "rsa", "-b", "3072"]] {
        let Some(pair) = Pair::with(kind, LIMITS) else { return };
        let said = pair.run(&[], "echo in");
        assert_eq!(text(&said.stdout), "in\n", "{kind:?}: {}", text(&said.stderr));
    }
}

#[test]
fn many_sessions_share_one_connection() {
    let Some(pair) = Pair::start() else { return };
    let path = pair.path("control").display().to_string();
    let control = ["-o", &format!("ControlPath={path}")];
    let mut master = pair.command("ssh");
    let mut master = master.args(control).args(["-M", "-N", &pair.address()]).spawn().expect("ssh runs");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !pair.path("control").exists() {
        assert!(Instant::now() < deadline, "no control socket");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sessions: Vec<_> = (0..8)
        .map(|number| {
            let mut command = pair.command("ssh");
            command.args(control).args([&pair.address(), &format!("head -c 500000 /dev/zero; exit {number}")]);
            command.stdout(Stdio::piped()).spawn().expect("ssh runs")
        })
        .collect();
    for (number, session) in sessions.into_iter().enumerate() {
        let output = session.wait_with_output().expect("ended");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(number as i32), 500_000));
    }
    master.kill().expect("killed");
    master.wait().expect("ended");
}

#[test]
fn connections_lead_through_the_guest() {
    let Some(pair) = Pair::start() else { return };
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let number = target.local_addr().expect("its number").port();
    std::thread::spawn(move || {
        for stream in target.incoming() {
            let mut stream = stream.expect("accepted");
            let mut said = Vec::new();
            stream.read_to_end(&mut said).expect("read");
            said.reverse();
            stream.write_all(&said).expect("written");
        }
    });
    let forward = |port: u16| {
        let mut command = pair.command("ssh");
        command.args(["-v", "-W", &format!("localhost:{port}"), &pair.address()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ssh runs")
    };
    let mut through = forward(number);
    through.stdin.take().expect("a pipe").write_all(b"abc").expect("written");
    let output = through.wait_with_output().expect("ended");
    assert_eq!(text(&output.stdout), "cba", "{}", text(&output.stderr));
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
    let refused = forward(closed).wait_with_output().expect("ended");
    assert!(text(&refused.stderr).contains("refused"), "{}", text(&refused.stderr));
}

#[test]
fn a_client_that_vanishes_hangs_its_command_up() {
    let Some(pair) = Pair::start() else { return };
    let mark = pair.path("mark");
    let line = format!(
        "trap 'echo hup > {0}; exit' HUP; exec 2>/dev/null; echo up; while :; do sleep 0.05; done",
        mark.display()
    );
    let mut command = pair.command("ssh");
    let mut child = command.args([&pair.address(), &line]).stdout(Stdio::piped()).spawn().expect("ssh runs");
    let mut said = [0; 3];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut said).expect("it runs");
    child.kill().expect("killed");
    assert_eq!(child.wait().expect("ended").signal(), Some(9));
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::fs::read_to_string(&mark).unwrap_or_default() != "hup\n" {
        assert!(Instant::now() < deadline, "it was not hung up");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_this_server_does_not_do_is_refused_clearly() {
    let Some(pair) = Pair::start() else { return };
    let refused = pair.run(&["-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1"], "true");
    assert_eq!(refused.status.code(), Some(255));
    assert!(text(&refused.stderr).contains("remote port forwarding failed"), "{}", text(&refused.stderr));
    let refused = pair.command("ssh").args(["-s", &pair.address(), "no-such"]).output().expect("ssh runs");
    assert!(text(&refused.stderr).contains("subsystem request failed"), "{}", text(&refused.stderr));
    drop(TcpStream::from(pair.server.socket()));
}
