//! The blocking connection to the daemon (`protocol::owner`).
//!
//! What arrives is not trusted: frames are bounded before anything is allocated, and anything that
//! is not the language ends the connection with a fault.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::interrupt::{Interrupts, Waited, wait_readable};
use super::remote;
use super::render;
use super::report::Failure;
use super::slow::SILENCE;
use crate::host::install::restart_command;
use crate::model::OpId;
use crate::os::{random, socket};
use crate::protocol::owner::{Answer, Call, OwnerReply, OwnerRequest};
use crate::protocol::{Event, Fault, FaultKind, FrameBuffer, Hello, frame};
use crate::relay::Lost;

/// How long the other side may take to say hello: it does so at once, unless it hangs, or is being restarted while
/// systemd listens in its place.
const HELLO_LIMIT: Duration = Duration::from_secs(30);

/// Connections that may be closed before a hello.
const CONNECT_ATTEMPTS: u32 = 3;

/// How long the hello may take of another machine, where the daemon may have to be started first.
const FAR_HELLO_LIMIT: Duration = Duration::from_secs(60);

/// A stream of frames with descriptors beside them.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    buffer: FrameBuffer,
    files: Vec<OwnedFd>,
    interrupts: Option<Rc<Interrupts>>,
    /// Whether the other side has closed.
    is_over: bool,
    peer: &'static str,
    /// Why it has ended, where it leads to another machine.
    lost: Option<Arc<Lost>>,
}

impl Channel {
    /// Connects to the socket at `path`; `None` when nobody listens there. `peer` says who it is.
    pub fn connect(path: &Path, peer: &'static str) -> Result<Option<Self>, Failure> {
        match UnixStream::connect(path) {
            Ok(socket) => Ok(Some(Self::over(socket, peer))),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(Failure::new(FaultKind::Unauthorized, format!("{} belongs to somebody else", path.display())))
            }
            Err(e) => Err(Fault::failed(format!("cannot connect to {}", path.display()), &e).into()),
        }
    }

    fn over(socket: UnixStream, peer: &'static str) -> Self {
        let (buffer, files) = (FrameBuffer::default(), Vec::new());
        Self { socket, buffer, files, interrupts: None, is_over: false, peer, lost: None }
    }

    /// To another machine's daemon.
    pub fn relayed(socket: UnixStream, lost: Arc<Lost>) -> Self {
        Self { lost: Some(lost), ..Self::over(socket, "daemon") }
    }

    /// The process on the other side.
    pub fn peer_process(&self) -> io::Result<socket::Peer> {
        socket::peer(&self.socket)
    }

    /// Says hello and hears it, whatever is spoken there.
    pub fn meet(&mut self) -> Result<Hello, Failure> {
        self.send(&Hello::ours(), &[])?;
        let limit = if self.lost.is_some() { FAR_HELLO_LIMIT } else { HELLO_LIMIT };
        match wait_readable(self.socket.as_fd(), self.interrupts.as_deref(), Some(SILENCE)) {
            Ok(Waited::TimedOut) => {
                render::note(&format!("still waiting for the {}: it may be being restarted", self.peer));
            }
            Ok(Waited::Signal(signal)) => return Err(Failure::Signalled(signal)),
            // What is wrong with the socket is said by whoever reads it.
            Ok(Waited::Readable) | Err(_) => {}
        }
        self.receive(Some(limit.saturating_sub(SILENCE)))
    }

    /// Says hello and hears it; refuses another protocol.
    pub fn greet(&mut self) -> Result<(), Failure> {
        let hello = self.meet()?;
        Ok(hello.check(&format!("the {}", self.peer), restart_command())?)
    }

    /// Sends one frame, with `files` beside it.
    pub fn send<T: bincode::Encode>(&mut self, value: &T, files: &[OwnedFd]) -> Result<(), Failure> {
        let bytes = frame::encode(value).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        match socket::send_all(&self.socket, &bytes, &borrowed) {
            Ok(()) => Ok(()),
            // It has closed: what it said last explains why, so that is read instead.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(e) => Err(Fault::failed(format!("cannot speak to the {}", self.peer), &e).into()),
        }
    }

    /// Waits for one frame.
    pub fn receive<T: bincode::Decode<()>>(&mut self, limit: Option<Duration>) -> Result<T, Failure> {
        loop {
            if let Some(body) = self.buffer.next_body().map_err(|e| self.garbled(&e))? {
                return frame::decode(&body).map_err(|e| self.garbled(&e));
            }
            if self.fill(limit)? == 0 {
                self.is_over = true;
                return Err(self.ended());
            }
        }
    }

    fn fill(&mut self, limit: Option<Duration>) -> Result<usize, Failure> {
        let failed = |peer: &str, e: io::Error| Fault::failed(format!("cannot hear the {peer}"), &e);
        match wait_readable(self.socket.as_fd(), self.interrupts.as_deref(), limit) {
            Ok(Waited::Readable) => {}
            Ok(Waited::Signal(signal)) => return Err(Failure::Signalled(signal)),
            Ok(Waited::TimedOut) => {
                return Err(Failure::new(FaultKind::Unavailable, format!("the {} does not answer", self.peer)));
            }
            Err(e) => return Err(failed(self.peer, e).into()),
        }
        let mut piece = [0; 16 << 10];
        let count = match socket::receive_with_files(&self.socket, &mut piece, &mut self.files) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other.map_err(|e| failed(self.peer, e))?,
        };
        self.buffer.push(&piece[..count]);
        Ok(count)
    }

    fn garbled(&self, error: &frame::FrameError) -> Failure {
        let fault = Fault::new(FaultKind::BadVersion, format!("the {} could not be understood", self.peer));
        fault.cause(error.to_string()).hint(restart_command()).into()
    }

    /// Whether it is known why the way to another machine has ended.
    fn is_explained(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.fault().is_some())
    }

    fn ended(&self) -> Failure {
        if let Some(fault) = self.lost.as_ref().and_then(|lost| lost.fault()) {
            return fault.into();
        }
        let fault = Fault::new(FaultKind::Unavailable, format!("the {} ended the connection", self.peer));
        match self.buffer.at_end() {
            Ok(()) => fault.hint("banger daemon status").into(),
            Err(e) => fault.cause(e.to_string()).hint("banger daemon status").into(),
        }
    }
}

/// A greeted connection to the daemon.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects to the daemon at `path`, or to that of the machine that is meant; `None` when there is none. One that is
    /// just being restarted may still take a connection, and close it: its successor is then asked.
    pub fn connect(path: &Path) -> Result<Option<Self>, Failure> {
        let mut attempts = CONNECT_ATTEMPTS;
        loop {
            attempts -= 1;
            let channel = match remote::current() {
                Some(near) => Some(near.dial()?),
                None => Channel::connect(path, "daemon")?,
            };
            let Some(mut channel) = channel else { return Ok(None) };
            match channel.greet() {
                Ok(()) => return Ok(Some(Self { channel })),
                Err(_) if channel.is_over && !channel.is_explained() && attempts > 0 => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// From now on a signal ends a call; the daemon sees the connection close and cancels.
    pub fn heed(&mut self, interrupts: Rc<Interrupts>) {
        self.channel.interrupts = Some(interrupts);
    }

    /// Another handle of its connection: shut down by another thread, it ends a call.
    pub fn handle(&self) -> io::Result<UnixStream> {
        self.channel.socket.try_clone()
    }

    /// Asks without showing events.
    pub fn ask(&mut self, request: OwnerRequest) -> Result<OwnerReply, Failure> {
        self.call(request, Vec::new(), &mut |_| {}).map(|(reply, _)| reply)
    }

    /// Asks, with descriptors; shows events to `on_event` until the reply, which may bring
    /// descriptors. A failure names the operation.
    pub fn call(
        &mut self,
        request: OwnerRequest,
        files: Vec<OwnedFd>,
        on_event: &mut dyn FnMut(&Event),
    ) -> Result<(OwnerReply, Vec<OwnedFd>), Failure> {
        let op = OpId::from_random(random::number());
        self.converse(Call { op, request }, files, on_event).map_err(|failure| match failure {
            Failure::Fault { fault, .. } => Failure::Fault { fault, op: Some(op) },
            other @ (Failure::Usage(_) | Failure::Signalled(_) | Failure::ReaderGone | Failure::Said(_)) => other,
        })
    }

    fn converse(
        &mut self,
        call: Call,
        files: Vec<OwnedFd>,
        on_event: &mut dyn FnMut(&Event),
    ) -> Result<(OwnerReply, Vec<OwnedFd>), Failure> {
        self.channel.send(&call, &files)?;
        // The daemon holds its own copies: ours would keep a pipe open that it has closed.
        drop(files);
        loop {
            match self.channel.receive::<Answer>(None)? {
                Answer::Event(event) => on_event(&event),
                Answer::Reply(reply) => return Ok((reply?, std::mem::take(&mut self.channel.files))),
            }
        }
    }
}

/// The reply was of another request: a defect of the daemon.
pub fn unexpected(reply: &OwnerReply) -> Failure {
    let text: String = format!("{reply:?}").chars().take(80).collect();
    Failure::new(FaultKind::UnknownMethod, format!("the daemon answered something else: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// A daemon that reads `reads` frames' worth of anything and writes `answer` as it is.
    fn served(answer: Vec<u8>) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("s")).expect("bound");
        let server = std::thread::spawn(move || {
            // One that gets no hello comes again.
            let hello = frame::encode(&Hello::ours()).expect("encodes");
            let is_part = answer.len() < hello.len() && hello.starts_with(&answer);
            let times = if is_part { CONNECT_ATTEMPTS } else { 1 };
            for _ in 0..times {
                let (mut stream, _) = listener.accept().expect("a client");
                // The client may be gone before all is written.
                let _ = stream.write_all(&answer);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        (folder, server)
    }

    fn asked(answer: Vec<u8>) -> (Result<OwnerReply, Failure>, Vec<Event>) {
        let (folder, server) = served(answer);
        let mut events = Vec::new();
        let result = Client::connect(&folder.path().join("s"))
            .map(|c| c.expect("listening"))
            .and_then(|mut c| c.call(OwnerRequest::ListVms, vec![], &mut |e| events.push(e.clone())))
            .map(|(reply, _)| reply);
        server.join().expect("served");
        (result, events)
    }

    fn frames(answers: &[Answer]) -> Vec<u8> {
        let mut bytes = frame::encode(&Hello::ours()).expect("encodes");
        answers.iter().for_each(|a| bytes.extend(frame::encode(a).expect("encodes")));
        bytes
    }

    #[test]
    fn events_come_before_the_reply() {
        let event = Event::Stage { name: "disk".into() };
        let (reply, events) = asked(frames(&[Answer::Event(event.clone()), Answer::Reply(Ok(OwnerReply::Done))]));
        assert_eq!((reply, events), (Ok(OwnerReply::Done), vec![event]));
    }

    #[test]
    fn a_fault_of_the_daemon_names_the_operation() {
        let fault = Fault::new(FaultKind::NotFound, "vm 'box' not found");
        match asked(frames(&[Answer::Reply(Err(fault.clone()))])).0 {
            Err(Failure::Fault { fault: got, op }) => assert!(*got == fault && op.is_some()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_protocol_is_refused_with_the_cure() {
        let hello = frame::encode(&Hello { protocol: 99, build: "9.9".into() }).expect("encodes");
        match asked(hello).0 {
            Err(Failure::Fault { fault, .. }) => {
                assert_eq!(fault.kind, FaultKind::BadVersion);
                assert_eq!(fault.hints, [restart_command()]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whatever_a_broken_daemon_sends_is_a_fault() {
        let whole = frames(&[Answer::Reply(Ok(OwnerReply::Done))]);
        for cut in 0..whole.len() {
            let kind = asked(whole[..cut].to_vec()).0.expect_err("cut").kind();
            assert_eq!(kind, Some(FaultKind::Unavailable), "cut at {cut}");
        }
        let huge = [frames(&[]), u32::MAX.to_le_bytes().to_vec()].concat();
        let garbage = [frames(&[]), vec![3, 0, 0, 0, 0xff, 0xff, 0xff]].concat();
        for bytes in [huge, garbage, b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()] {
            assert_eq!(asked(bytes).0.expect_err("refused").kind(), Some(FaultKind::BadVersion));
        }
    }

    #[test]
    fn a_daemon_that_closes_without_a_hello_is_asked_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("s")).expect("bound");
        let server = std::thread::spawn(move || {
            drop(listener.accept().expect("a client"));
            let (mut stream, _) = listener.accept().expect("it comes again");
            stream.write_all(&frames(&[])).expect("greeted");
            stream.read_to_end(&mut Vec::new()).map(drop)
        });
        assert!(Client::connect(&folder.path().join("s")).expect("connects").is_some());
        // Whether it has read all of it is no matter.
        let _ = server.join().expect("served");
    }

    #[test]
    fn nobody_at_the_socket_is_not_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        assert!(Client::connect(&path).expect("no error").is_none());
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(Client::connect(&path).expect("no error").is_none());
    }

    #[test]
    fn descriptors_travel_with_a_call_and_are_not_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("s")).expect("bound");
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let (mut buffer, mut files) = ([0; 4096], Vec::new());
            socket::send_all(&stream, &frames(&[]), &[]).expect("sent");
            while files.is_empty() {
                socket::receive_with_files(&stream, &mut buffer, &mut files).expect("received");
            }
            let mut text = String::new();
            std::fs::File::from(files.remove(0)).read_to_string(&mut text).expect("read to its end");
            let reply = frame::encode(&Answer::Reply(Ok(OwnerReply::Done))).expect("encodes");
            socket::send_all(&stream, &reply, &[]).expect("sent");
            text
        });
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(b"tar").expect("written");
        drop(writer);
        let mut client = Client::connect(&folder.path().join("s")).expect("connects").expect("listening");
        client.call(OwnerRequest::ListVms, vec![reader.into()], &mut |_| {}).expect("answered");
        assert_eq!(server.join().expect("served"), "tar");
    }
}
