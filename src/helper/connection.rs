//! One peer's conversation. Nothing here waits: what has arrived is kept until it is a whole frame,
//! what cannot be sent yet is kept until the peer reads. A peer that is slow or hostile costs its
//! own connection and a bounded amount of memory.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::permit::{self, Caller, Phase};
use crate::os::socket::{receive_with_files, send_with_files};
use crate::protocol::root::{RootAnswer, RootCall};
use crate::protocol::{Fault, FaultKind, FrameBuffer, Hello, frame};

/// Read at once.
const CHUNK: usize = 64 << 10;

/// How long a peer may take for its hello, for the rest of a frame that it has begun, and to read
/// the last answer: both ends are on one host.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Since when the peer owes a hello, the rest of a frame, or the reading of the last answer.
    owing: Option<Instant>,
    /// Nothing more is read: it ends when all is sent.
    ending: bool,
}

/// What a peer asks, permitted and counted.
pub type Asked = (RootCall, Vec<OwnedFd>);

impl Connection {
    /// A conversation with `caller`, which begins with the helper's hello.
    pub fn new(stream: UnixStream, caller: Caller) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (arrived, files, outgoing) = (FrameBuffer::for_requests(), Vec::new(), VecDeque::new());
        let owing = Some(Instant::now());
        let mut new = Self { stream, caller, phase: Phase::Fresh, arrived, files, outgoing, owing, ending: false };
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

    /// Whether the peer has said its hello.
    pub fn has_greeted(&self) -> bool {
        self.phase != Phase::Fresh
    }

    /// Whether a whole frame has arrived that can be answered now.
    pub fn has_work(&self) -> bool {
        !self.ending && !self.is_sending() && self.arrived.is_ready()
    }

    /// When the peer must have said what it owes.
    pub fn deadline(&self) -> Option<Instant> {
        self.owing.map(|since| since + PATIENCE)
    }

    /// Ends the conversation with a peer that owes something for too long at `now`.
    pub fn check_patience(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.abandon();
        }
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
        self.count_debt();
    }

    /// Reads the next whole frame: a request that is permitted, or `None`, and what is not is
    /// answered here. One frame, because what a peer has sent in advance waits for the others' turn.
    pub fn next_request(&mut self) -> Option<Asked> {
        if !self.has_work() {
            return None;
        }
        let asked = match self.arrived.next_body() {
            Ok(body) => self.read(&body?),
            Err(e) => {
                self.refuse(Fault::of(FaultKind::BadRequest, &e));
                None
            }
        };
        self.owing = None;
        self.count_debt();
        asked
    }

    /// A frame that is whole waits for this end, not for its peer.
    fn count_debt(&mut self) {
        let inside_a_frame = !self.arrived.is_empty() && !self.arrived.is_ready();
        let owes = self.ending || !self.has_greeted() || inside_a_frame;
        self.owing = owes.then(|| self.owing.unwrap_or_else(Instant::now));
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
        self.count_debt();
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
        assert!(connection.next_request().is_none() && !connection.is_over() && connection.has_greeted());
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
        assert!(connection.next_request().is_none(), "the hello is no request");
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
    fn requests_sent_in_advance_are_given_out_one_by_one() {
        let (mut connection, mut peer) = greeted();
        let three = [call(RootRequest::Inventory), call(RootRequest::Status), call(RootRequest::Inventory)];
        peer.write_all(&three.concat()).expect("sent");
        connection.receive();
        for wanted in [RootRequest::Inventory, RootRequest::Status, RootRequest::Inventory] {
            assert!(connection.has_work());
            assert_eq!(connection.next_request().map(|(asked, _)| asked.request), Some(wanted));
        }
        assert!(!connection.has_work() && connection.next_request().is_none());
    }

    #[test]
    fn who_owes_a_hello_or_the_rest_of_a_frame_is_not_waited_for_and_who_is_idle_is() {
        let later = Instant::now() + 2 * PATIENCE;
        let (mut fresh, _peer) = pair();
        fresh.check_patience(Instant::now());
        assert!(!fresh.is_over());
        fresh.check_patience(later);
        assert!(fresh.is_over());
        let (mut idle, mut peer) = greeted();
        assert_eq!(idle.deadline(), None);
        let bytes = call(RootRequest::Inventory);
        peer.write_all(&bytes[..1]).expect("sent");
        idle.receive();
        let since = idle.deadline().expect("the rest is owed");
        peer.write_all(&bytes[1..2]).expect("sent");
        idle.receive();
        assert_eq!(idle.deadline(), Some(since), "each byte gives it more time");
        peer.write_all(&bytes[2..]).expect("sent");
        idle.receive();
        assert_eq!(idle.deadline(), None);
        idle.check_patience(later);
        assert!(idle.next_request().is_some());
    }

    #[test]
    fn a_peer_that_is_refused_and_does_not_read_why_is_let_go() {
        let (mut connection, mut peer) = greeted();
        while !connection.is_sending() {
            connection.answer(&Err(Fault::new(FaultKind::Refused, "x".repeat(60_000))), Vec::new());
        }
        connection.end();
        assert!(!connection.is_over());
        connection.check_patience(Instant::now() + 2 * PATIENCE);
        assert!(connection.is_over());
        assert!(peer.read(&mut [0]).is_ok());
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
