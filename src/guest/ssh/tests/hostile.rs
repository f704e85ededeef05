//! Clients that are none.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{LIMITS, Limits, Pair, Server, serve_one};
use crate::guest::ssh::connection::Connection;
use crate::guest::ssh::data::Writer;
use crate::guest::ssh::error::SessionError;
use crate::guest::ssh::keys::Keys;
use crate::guest::ssh::numbers::*;
use crate::guest::ssh::packets::OUR_LINE;
use crate::guest::ssh::transport::Transport;

/// A host key in OpenSSH's form.
pub fn host_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::read_to_string(super::keygen(folder.path(), "host", &["-t", "ed25519"])).expect("a key")
    })
}

/// How a session of these bytes ends, whose client then goes.
fn end_of(bytes: &[u8]) -> Result<(), SessionError> {
    let (near, far) = UnixStream::pair().expect("a pair");
    let bytes = bytes.to_vec();
    let client = std::thread::spawn(move || {
        let mut near = near;
        // It may be thrown out before it has said everything.
        let _ = near.write_all(&bytes);
        let _ = near.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = near.read_to_end(&mut answer);
    });
    let served = serve_one(far.into(), host_key(), "", LIMITS);
    client.join().expect("joined");
    served
}

fn plain(message: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (message.len() + 9) % 8) % 8;
    let length = (message.len() + 1 + padding) as u32;
    [&length.to_be_bytes()[..], &[padding as u8], message, &vec![0; padding]].concat()
}

fn offer(strict: bool) -> Vec<u8> {
    offer_of(strict, "aes128-gcm@openssh.com")
}

fn offer_of(strict: bool, cipher: &str) -> Vec<u8> {
    let exchanges = if strict { "curve25519-sha256,kex-strict-c-v00@openssh.com" } else { "curve25519-sha256" };
    let mut message = Writer::message(KEXINIT).bytes(&[0; 16]).string(exchanges).string("ssh-ed25519");
    for list in [cipher, cipher, "", "", "none", "none", "", ""] {
        message = message.string(list);
    }
    plain(&message.byte(false).number(0).done())
}

const LINE: &[u8] = b"SSH-2.0-hostile\r\n";

#[test]
fn garbage_ends_the_session_and_nothing_else() {
    let garbage: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    assert!(end_of(&[0; 10_000]).is_err());
    assert!(end_of(&garbage).is_err());
    assert!(end_of(&[LINE, &garbage].concat()).is_err());
    assert!(end_of(&[LINE, &[0; 10_000]].concat()).is_err());
    assert!(end_of(&[LINE, &[0xff; 10_000]].concat()).is_err());
    assert!(end_of(b"GET / HTTP/1.0\r\n\r\n").is_err());
}

#[test]
fn a_handshake_cut_anywhere_ends_quietly() {
    let whole = [LINE, &offer(false), &plain(&Writer::message(30).string([9; 32]).done())].concat();
    for cut in (0..whole.len()).step_by(7) {
        end_of(&whole[..cut]).unwrap_or_else(|e| panic!("{cut}: {e}"));
    }
}

#[test]
fn a_handshake_out_of_order_is_refused() {
    let public = plain(&Writer::message(30).string([9; 32]).done());
    for bad in [
        [LINE, &public].concat(),
        [LINE, &plain(&[21])].concat(),
        [LINE, &plain(&[50, 0, 0])].concat(),
        [LINE, &offer(false), &offer(false)].concat(),
        [LINE, &offer(false), &plain(&[21])].concat(),
        [LINE, &offer(false), &public, &public].concat(),
        [LINE, &offer(false), &plain(&[90, 0, 0])].concat(),
        // A point that makes the secret zero.
        [LINE, &offer(false), &plain(&Writer::message(30).string([0; 32]).done())].concat(),
        [LINE, &offer(false), &plain(&Writer::message(30).string([9; 31]).done())].concat(),
        // A strict exchange has nothing before it and nothing within.
        [LINE, &plain(&[2, 0, 0, 0, 0]), &offer(true)].concat(),
        [LINE, &offer(true), &plain(&[2, 0, 0, 0, 0])].concat(),
    ] {
        assert!(end_of(&bad).is_err());
    }
}

/// The next message of a server that has no keys yet.
fn next_of(near: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    near.read_exact(&mut length).expect("a length");
    let mut packet = vec![0; u32::from_be_bytes(length) as usize];
    near.read_exact(&mut packet).expect("a packet");
    packet[1..packet.len() - usize::from(packet[0])].to_vec()
}

/// What a client that waits for the server's offer is answered with its own of `cipher`.
fn answer_after_the_servers_offer(cipher: &str) -> u8 {
    let (mut near, far) = UnixStream::pair().expect("a pair");
    near.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let serving = std::thread::spawn(move || serve_one(far.into(), host_key(), "", LIMITS));
    near.write_all(LINE).expect("written");
    near.read_exact(&mut vec![0; OUR_LINE.len() + 2]).expect("a line");
    let ours = next_of(&mut near);
    assert_eq!(ours[0], KEXINIT);
    // Who it is was not known.
    assert!(!String::from_utf8_lossy(&ours).contains("chacha20"));
    let public = plain(&Writer::message(KEX_ECDH_INIT).string([9; 32]).done());
    near.write_all(&[offer_of(true, cipher), public].concat()).expect("written");
    let answer = next_of(&mut near)[0];
    drop(near);
    // How it ends is all the same.
    let _ = serving.join().expect("joined");
    answer
}

#[test]
fn who_waits_for_the_servers_offer_gets_it_and_is_held_to_it() {
    assert_eq!(answer_after_the_servers_offer("aes256-gcm@openssh.com"), KEX_ECDH_REPLY);
    assert_eq!(answer_after_the_servers_offer("chacha20-poly1305@openssh.com"), DISCONNECT);
}

#[test]
fn every_flipped_byte_of_a_handshake_is_survived() {
    let whole = [LINE, &offer(true), &plain(&Writer::message(30).string([9; 32]).done())].concat();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x41;
        // How it ends is all the same.
        let _ = end_of(&changed);
    }
}

#[test]
fn who_does_not_log_in_is_thrown_out() {
    let limits = Limits { login: Duration::from_millis(200), ..LIMITS };
    let (near, far) = UnixStream::pair().expect("a pair");
    let begun = Instant::now();
    let served = serve_one(far.into(), host_key(), "", limits);
    assert!(matches!(served, Err(SessionError::Late(_))) && begun.elapsed() < Duration::from_secs(10));
    drop(near);
}

#[test]
fn connections_left_half_way_hold_up_nobody() {
    let Some(pair) = Pair::start() else { return };
    let idle: Vec<OwnedFd> = (0..50).map(|_| pair.server.socket()).collect();
    for (number, socket) in idle.iter().enumerate() {
        let mut stream = File::from(socket.try_clone().expect("a copy"));
        stream.write_all(&LINE[..number % LINE.len()]).expect("written");
    }
    assert_eq!(pair.run(&[], "exit 5").status.code(), Some(5));
    drop(Server::socket(&pair.server));
}

/// What somebody known says, and what they are answered; the first error ends it.
fn known(messages: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<u8>, SessionError> {
    let (mut near, far) = UnixStream::pair().expect("a pair");
    far.set_nonblocking(true).expect("set");
    let host = Keys::new(host_key(), "").expect("keys").host;
    let mut transport = Transport::new(File::from(OwnedFd::from(far)), host, LIMITS.rekey);
    let mut connection = Connection::default();
    let reading = std::thread::spawn(move || {
        let mut answers = Vec::new();
        near.read_to_end(&mut answers).map(|_| answers)
    });
    let mut heard = Ok(());
    for message in messages {
        heard = connection.hear(&message, &mut transport).and_then(|()| connection.turn(&mut transport));
        transport.flush();
        if heard.is_err() {
            break;
        }
    }
    connection.hang_up();
    while transport.has_waiting() {
        transport.flush();
    }
    drop(transport);
    let answers = reading.join().expect("joined").expect("read");
    heard.map(|()| answers)
}

fn open() -> Vec<u8> {
    Writer::message(CHANNEL_OPEN).string("session").number(7).number(1 << 20).number(1 << 15).done()
}

fn request(channel: u32, kind: &str) -> Writer {
    Writer::message(CHANNEL_REQUEST).number(channel).string(kind).byte(true)
}

#[test]
fn a_flood_of_channels_and_requests_is_bounded() {
    let answers = known((0..1000).map(|_| open())).expect("answered");
    let count = |number: u8| answers.windows(6).filter(|w| w[1..] == [number, 0, 0, 0, 7] && w[0] > 3).count();
    assert_eq!((count(CHANNEL_OPEN_CONFIRMATION), count(CHANNEL_OPEN_FAILURE)), (128, 872));
    let requests = (0..5000).map(|_| request(0, "x11-req").done());
    assert!(known([open()].into_iter().chain(requests)).is_ok());
}

#[test]
fn what_no_client_may_say_ends_the_session() {
    let data = |count: usize| Writer::message(CHANNEL_DATA).number(0).string(vec![0; count]).done();
    for bad in [
        vec![data(1)],
        vec![open(), data((256 << 10) + 1)],
        vec![open(), Writer::message(CHANNEL_WINDOW_ADJUST).number(0).number(u32::MAX).done()],
        vec![open(), Writer::message(CHANNEL_CLOSE).number(1).done()],
        vec![open(), Writer::message(CHANNEL_CLOSE).number(0).done(), data(1)],
        vec![open(), request(0, "pty-req").string("xterm").number(1).done()],
        vec![open(), request(0, "exec").number(u32::MAX).done()],
        vec![Writer::message(CHANNEL_OPEN).string("session").done()],
        vec![vec![CHANNEL_OPEN]],
    ] {
        assert!(known(bad.clone()).is_err(), "{bad:?}");
    }
    // Twice is none of a command's business, and a signal before it has nowhere to go.
    let twice = [open(), request(0, "exec").string("sleep 9").done(), request(0, "exec").string("true").done()];
    assert!(known(twice).is_ok());
    assert!(known([open(), request(0, "signal").string("TERM").done(), vec![250, 1, 2]]).is_ok());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_message_harms(number in 80_u8..110, bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
        // How it ends is all the same. No command is begun: its line would be anything.
        let message = [vec![number, 0, 0, 0, 0], bytes].concat();
        let _ = known([open(), message]);
    }
}
