//! Channels of somebody known, message by message and before there are keys.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::LIMITS;
use super::hostile::host_key;
use crate::guest::shell::wire::poll_until;
use crate::guest::ssh::connection::Connection;
use crate::guest::ssh::data::{Reader, Writer};
use crate::guest::ssh::keys::Keys;
use crate::guest::ssh::numbers::*;
use crate::guest::ssh::transport::Transport;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Both ends of a connection, and what the client was told.
struct Talk {
    near: UnixStream,
    transport: Transport,
    connection: Connection,
    bytes: Vec<u8>,
    told: Vec<Vec<u8>>,
}

impl Talk {
    fn begin() -> Self {
        let (near, far) = UnixStream::pair().expect("a pair");
        near.set_nonblocking(true).expect("set");
        far.set_nonblocking(true).expect("set");
        let host = Keys::new(host_key(), "").expect("keys").host;
        let transport = Transport::new(File::from(OwnedFd::from(far)), host, LIMITS.rekey);
        Self { near, transport, connection: Connection::default(), bytes: Vec::new(), told: Vec::new() }
    }

    fn say(&mut self, message: Writer) {
        self.connection.hear(&message.done(), &mut self.transport).expect("heard");
        self.turn();
    }

    fn turn(&mut self) {
        self.connection.turn(&mut self.transport).expect("a turn");
        self.transport.flush();
        let mut chunk = [0; 4096];
        loop {
            match self.near.read(&mut chunk) {
                Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        if self.bytes.starts_with(b"SSH-") {
            let end = self.bytes.iter().position(|byte| *byte == b'\n').expect("a line");
            self.bytes.drain(..=end);
        }
        while let Some(length) = self.bytes.first_chunk().map(|length| u32::from_be_bytes(*length) as usize) {
            let Some(packet) = self.bytes.get(4..4 + length) else { break };
            self.told.push(packet[1..length - usize::from(packet[0])].to_vec());
            self.bytes.drain(..4 + length);
        }
    }

    /// Goes on as a session does until `is_so`.
    fn wait_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + LIMIT;
        while !is_so(self) {
            assert!(Instant::now() < limit, "{:?}", self.told);
            let mut fds = vec![PollFd::new(&self.near, PollFlags::IN)];
            self.connection.watch(&mut fds, self.transport.has_room());
            poll_until(&mut fds, Some(self.connection.deadline().unwrap_or(limit))).expect("waited");
            self.turn();
        }
    }

    fn count(&self, number: u8) -> usize {
        self.told.iter().filter(|message| message[0] == number).count()
    }

    /// What a command has said.
    fn output(&self) -> String {
        let data = self.told.iter().filter(|message| message[0] == CHANNEL_DATA);
        let pieces = data.map(|message| {
            let mut reader = Reader::new(&message[5..]);
            String::from_utf8_lossy(reader.string().expect("bytes")).into_owned()
        });
        pieces.collect()
    }
}

fn session(window: u32, max: u32) -> Writer {
    Writer::message(CHANNEL_OPEN).string("session").number(7).number(window).number(max)
}

fn request(kind: &str) -> Writer {
    Writer::message(CHANNEL_REQUEST).number(0).string(kind).byte(true)
}

#[test]
fn after_its_close_nothing_is_said_of_a_channel() {
    let mut talk = Talk::begin();
    talk.say(session(1 << 20, 1 << 15));
    talk.say(request("winadj@putty.projects.tartarus.org"));
    assert_eq!(talk.count(CHANNEL_FAILURE), 1);
    talk.say(request("exec").string("true"));
    talk.wait_until(|talk| talk.count(CHANNEL_CLOSE) == 1);
    // Crossed the close on its way.
    talk.say(request("winadj@putty.projects.tartarus.org"));
    talk.say(request("window-change").number(80).number(24).number(0).number(0));
    assert_eq!(talk.told.last().map(|message| message[0]), Some(CHANNEL_CLOSE), "{:?}", talk.told);
}

#[test]
fn a_terminals_output_that_had_to_wait_arrives_whole() {
    let mut talk = Talk::begin();
    talk.say(session(0, 100));
    talk.say(request("pty-req").string("xterm").number(80).number(24).number(0).number(0).string(""));
    talk.say(request("exec").string("seq 1 500"));
    // It ends, and the time for its last words passes.
    talk.wait_until(|talk| talk.connection.deadline().is_some());
    talk.wait_until(|talk| talk.connection.deadline().is_none());
    assert_eq!((talk.output().as_str(), talk.count(CHANNEL_CLOSE)), ("", 0));
    talk.say(Writer::message(CHANNEL_WINDOW_ADJUST).number(0).number(1 << 20));
    talk.wait_until(|talk| talk.count(CHANNEL_CLOSE) == 1);
    assert_eq!(talk.output(), (1..=500).map(|number| format!("{number}\r\n")).collect::<String>());
}
