//! Peers that are not what they should be.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::server::Server;
use crate::shell::Timeouts;
use crate::ssh::{Access, SshError, SshShell, generate};

#[test]
fn another_host_key_is_refused_before_the_login() {
    let Some(server) = Server::start() else { return };
    let access = Access { host_key: generate().expect("a key").public, ..server.access() };
    let error = server.connect(&access).err().expect("refused");
    assert!(matches!(&error, SshError::HostKey { pinned, found, .. } if pinned != found), "{error}");
}

#[test]
fn another_key_is_not_let_in() {
    let Some(server) = Server::start() else { return };
    let access = Access { private_key: generate().expect("a key").private, ..server.access() };
    let error = server.connect(&access).err().expect("refused");
    assert!(matches!(error, SshError::Login { .. }), "{error}");
}

/// What connecting says to a peer that does `behave`, and that it says so in time.
fn verdict(behave: impl FnOnce(UnixStream) + Send + 'static) -> SshError {
    let (near, far) = UnixStream::pair().expect("a pair");
    let peer = std::thread::spawn(move || behave(far));
    let keys = generate().expect("a key");
    let access = Access { name: "box".into(), user: "root".into(), private_key: keys.private, host_key: keys.public };
    let started = Instant::now();
    let timeouts = Timeouts { connect: Duration::from_millis(500), ..Timeouts::default() };
    let error = SshShell::connect(near.into(), &access, timeouts, None).err().expect("an error");
    assert!(started.elapsed() < Duration::from_secs(5), "{error}");
    peer.join().expect("the peer ends");
    error
}

/// Sends `piece` again and again until nobody listens.
fn flood(piece: &'static [u8]) -> impl FnOnce(UnixStream) + Send {
    move |mut socket| while socket.write_all(piece).is_ok() {}
}

#[test]
fn a_peer_that_never_speaks_times_out() {
    let (hold, until) = std::sync::mpsc::channel::<()>();
    let error = verdict(move |socket| {
        // Holds the connection open, whatever comes, until the test is over.
        let _ = until.recv_timeout(Duration::from_secs(1));
        drop(socket);
    });
    drop(hold);
    assert!(matches!(error, SshError::TimedOut { .. }), "{error}");
}

#[test]
fn an_endless_banner_ends() {
    assert!(matches!(verdict(flood(b"welcome to this machine\r\n")), SshError::TimedOut { .. }));
    assert!(matches!(verdict(flood(b"SSH")), SshError::TimedOut { .. } | SshError::Handshake { .. }));
}

#[test]
fn rubbish_and_silence_after_the_banner_are_errors() {
    let pieces: [&[u8]; 4] =
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"SSH-2.0-x\r\n", b"SSH-2.0-x\r\n\xff\xff\xff\xff"];
    for piece in pieces {
        let error = verdict(move |mut socket| {
            let _ = socket.write_all(piece);
        });
        assert!(matches!(error, SshError::Handshake { .. } | SshError::TimedOut { .. }), "{error}");
    }
}

#[test]
fn endless_harmless_packets_end() {
    // SSH_MSG_IGNORE (RFC 4253 section 11.2): length 12, padding 5, type 2, a string of 1 byte.
    const IGNORE: &[u8] = &[0, 0, 0, 12, 5, 2, 0, 0, 0, 1, b'x', 0, 0, 0, 0, 0];
    let error = verdict(|mut socket| {
        let _ = socket.write_all(b"SSH-2.0-x\r\n");
        flood(IGNORE)(socket);
    });
    assert!(matches!(error, SshError::TimedOut { .. } | SshError::Handshake { .. }), "{error}");
}
