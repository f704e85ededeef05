//! One peer's conversation. Nothing here waits: what has arrived is kept until it is a whole frame,
//! what cannot be sent yet is kept until the peer reads. A peer that is slow or hostile costs its
//! own connection and a bounded amount of memory.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::permit::{self, Caller, Phase};
use crate::os::socket::{receive_with_files, send_with_files};
use crate::protocol::root::{RootAnswer, RootCall};
use crate::protocol::{Fault, FaultKind, FrameBuffer, Hello, frame};

/// Read at once.
const CHUNK: usize = 64 << 10;

/// What this end has to say to a peer of another build.
const CURE: &str = "banger daemon restart";

/// A frame that waits to be sent.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    files: Vec<OwnedFd>,
}

/// One peer.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    caller: Caller,
    phase: Phase,
    arrived: FrameBuffer,
    files: Vec<OwnedFd>,
    outgoing: VecDeque<Outgoing>,
    /// Nothing more is read: it ends when all is sent.
    ending: bool,
}

/// What a peer asks, permitted and counted.
pub type Asked = (RootCall, Vec<OwnedFd>);

impl Connection {
    /// A conversation with `caller`, which begins with the helper's hello.
    pub fn new(stream: UnixStream, caller: Caller) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (arrived, files, outgoing) = (FrameBuffer::default(), Vec::new(), VecDeque::new());
        let mut new = Self { stream, caller, phase: Phase::Fresh, arrived, files, outgoing, ending: false };
        new.queue(frame::encode(&Hello::ours()), Vec::new());
        Ok(new)
    }

    /// What to wait on.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether something waits to be sent. Until it went, nothing more is read.
    pub fn is_sending(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.ending && self.outgoing.is_empty()
    }

    /// Takes what has arrived.
    pub fn receive(&mut self) {
        let mut buffer = [0; CHUNK];
        match receive_with_files(&self.stream, &mut buffer, &mut self.files) {
            Ok(0) => self.end(),
            Ok(count) => self.arrived.push(&buffer[..count]),
            Err(e) if is_later(&e) => {}
            Err(_) => self.end(),
        }
    }

    /// The next whole request that is permitted; what is not is answered here.
    pub fn next_request(&mut self) -> Option<Asked> {
        while !self.ending && !self.is_sending() {
            let body = match self.arrived.next_body() {
                Ok(Some(body)) => body,
                Ok(None) => return None,
                Err(e) => {
                    self.refuse(Fault::of(FaultKind::BadRequest, &e));
                    return None;
                }
            };
            if let Some(asked) = self.read(&body) {
                return Some(asked);
            }
        }
        None
    }

    /// Answers, with `files` beside it.
    pub fn answer(&mut self, answer: &RootAnswer, files: Vec<OwnedFd>) {
        self.queue(frame::encode(answer), files);
    }

    /// Sends what can be sent.
    pub fn send(&mut self) {
        while let Some(first) = self.outgoing.front_mut() {
            let beside: Vec<BorrowedFd<'_>> =
                if first.sent == 0 { first.files.iter().map(AsFd::as_fd).collect() } else { Vec::new() };
            match send_with_files(&self.stream, &first.bytes[first.sent..], &beside) {
                Ok(count) => first.sent += count,
                Err(e) if is_later(&e) => return,
                Err(_) => return self.abandon(),
            }
            if first.sent == first.bytes.len() {
                self.outgoing.pop_front();
            }
        }
    }

    fn read(&mut self, body: &[u8]) -> Option<Asked> {
        // Whatever came along belongs to this frame; what is not asked for is closed here.
        let files = std::mem::take(&mut self.files);
        if self.phase == Phase::Fresh {
            self.greet(body);
            return None;
        }
        let call = match frame::decode::<RootCall>(body) {
            Ok(call) => call,
            // A request that a newer daemon knows and this build does not.
            Err(e) => {
                self.refuse(self.foreign().unwrap_or_else(|| Fault::of(FaultKind::BadRequest, &e)));
                return None;
            }
        };
        let verdict = permit::check(self.caller, &self.phase, &call.request)
            .and_then(|()| permit::check_files(&call.request, files.len()));
        match verdict {
            Ok(()) => Some((call, files)),
            Err(fault) => {
                self.answer(&Err(fault), Vec::new());
                None
            }
        }
    }

    fn greet(&mut self, body: &[u8]) {
        match frame::decode::<Hello>(body) {
            Ok(hello) => {
                self.phase = match hello.check("the daemon", CURE) {
                    Ok(()) => Phase::Agreed,
                    Err(fault) => Phase::Foreign(fault),
                }
            }
            Err(_) => self.refuse(Fault::new(FaultKind::BadRequest, "a conversation begins with a hello")),
        }
    }

    fn foreign(&self) -> Option<Fault> {
        match &self.phase {
            Phase::Foreign(fault) => Some(fault.clone()),
            Phase::Fresh | Phase::Agreed => None,
        }
    }

    /// Says why, and ends: what follows a frame that cannot be read cannot be read either.
    fn refuse(&mut self, fault: Fault) {
        self.answer(&Err(fault), Vec::new());
        self.end();
    }

    fn queue(&mut self, bytes: Result<Vec<u8>, frame::FrameError>, files: Vec<OwnedFd>) {
        match bytes {
            Ok(bytes) => self.outgoing.push_back(Outgoing { bytes, sent: 0, files }),
            Err(e) => {
                log::error!("an answer could not be written: {e}");
                self.end();
            }
        }
        self.send();
    }

    fn end(&mut self) {
        self.ending = true;
        self.files.clear();
    }

    fn abandon(&mut self) {
        self.outgoing.clear();
        self.end();
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OpId;
    use crate::os::socket::send_all;
    use crate::protocol::root::{RootReply, RootRequest};
    use std::io::{Read, Write};

    fn pair() -> (Connection, UnixStream) {
        let (left, right) = UnixStream::pair().expect("a pair");
        (Connection::new(left, Caller::Owner).expect("begins"), right)
    }

    fn body(stream: &mut UnixStream) -> Vec<u8> {
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("a header");
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut body).expect("a body");
        body
    }

    fn greeted() -> (Connection, UnixStream) {
        let (mut connection, mut peer) = pair();
        assert_eq!(frame::decode(&body(&mut peer)), Ok(Hello::ours()));
        peer.write_all(&frame::encode(&Hello::ours()).expect("encodes")).expect("sent");
        connection.receive();
        assert!(connection.next_request().is_none() && !connection.is_over());
        (connection, peer)
    }

    fn call(request: RootRequest) -> Vec<u8> {
        frame::encode(&RootCall { op: OpId::BACKGROUND, request }).expect("encodes")
    }

    fn fault(peer: &mut UnixStream) -> FaultKind {
        frame::decode::<RootAnswer>(&body(peer)).expect("an answer").expect_err("a fault").kind
    }

    #[test]
    fn a_request_that_comes_byte_by_byte_is_understood_at_its_last() {
        let (mut connection, mut peer) = greeted();
        let bytes = call(RootRequest::Inventory);
        for (at, byte) in bytes.iter().enumerate() {
            peer.write_all(&[*byte]).expect("sent");
            connection.receive();
            assert_eq!(connection.next_request().is_some(), at + 1 == bytes.len());
        }
    }

    #[test]
    fn descriptors_that_nobody_asked_for_are_a_bad_request() {
        let (mut connection, mut peer) = greeted();
        let file = tempfile::tempfile().expect("a file");
        send_all(&peer, &call(RootRequest::Inventory), &[file.as_fd()]).expect("sent");
        connection.receive();
        assert!(connection.next_request().is_none() && connection.files.is_empty());
        assert_eq!(fault(&mut peer), FaultKind::BadRequest);
    }

    #[test]
    fn rubbish_and_huge_frames_end_the_conversation() {
        for bytes in [&u32::MAX.to_le_bytes()[..], &[3, 0, 0, 0, 0, 250, 9], &[0, 0, 0, 0]] {
            let (mut connection, mut peer) = greeted();
            peer.write_all(bytes).expect("sent");
            connection.receive();
            assert!(connection.next_request().is_none());
            assert_eq!(fault(&mut peer), FaultKind::BadRequest);
            assert!(connection.is_over());
        }
    }

    #[test]
    fn a_request_before_the_hello_is_refused() {
        let (mut connection, mut peer) = pair();
        body(&mut peer);
        peer.write_all(&call(RootRequest::Shutdown)).expect("sent");
        connection.receive();
        assert!(connection.next_request().is_none());
        assert_eq!(fault(&mut peer), FaultKind::BadRequest);
    }

    #[test]
    fn another_protocol_is_answered_the_status_and_a_fault_for_the_rest() {
        let (mut connection, mut peer) = pair();
        body(&mut peer);
        let other = Hello { protocol: 99, build: "9.9".into() };
        peer.write_all(&frame::encode(&other).expect("encodes")).expect("sent");
        peer.write_all(&call(RootRequest::Status)).expect("sent");
        connection.receive();
        let (asked, _) = connection.next_request().expect("permitted");
        assert_eq!(asked.request, RootRequest::Status);
        connection.answer(&Ok(super::super::service::status()), Vec::new());
        assert!(matches!(frame::decode::<RootAnswer>(&body(&mut peer)), Ok(Ok(RootReply::Status { .. }))));
        peer.write_all(&call(RootRequest::Shutdown)).expect("sent");
        connection.receive();
        assert!(connection.next_request().is_none());
        assert_eq!(fault(&mut peer), FaultKind::BadVersion);
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read_either() {
        let (mut connection, mut peer) = greeted();
        while !connection.is_sending() {
            connection.answer(&Err(Fault::new(FaultKind::Refused, "x".repeat(60_000))), Vec::new());
        }
        peer.write_all(&call(RootRequest::Inventory)).expect("sent");
        connection.receive();
        assert!(connection.next_request().is_none());
        while connection.is_sending() {
            body(&mut peer);
            connection.send();
        }
        assert!(connection.next_request().is_some());
    }
}
