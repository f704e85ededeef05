//! Frames straight to the daemon and the helper, good ones and forged ones, past the command line.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use banger::model::{OpId, VmRecord};
use banger::protocol::frame::{self, FrameBuffer};
use banger::protocol::owner::{Answer, Call, OwnerReply, OwnerRequest};
use banger::protocol::root::{RootAnswer, RootCall, RootReply, RootRequest};
use banger::protocol::{Fault, Hello};

/// A connection that speaks frames.
pub struct Wire {
    socket: UnixStream,
    buffer: FrameBuffer,
}

impl Wire {
    /// Connects to the socket at `path`; says nothing yet.
    #[track_caller]
    pub fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap_or_else(|e| panic!("cannot connect to {}: {e}", path.display()));
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket has timeouts");
        socket.set_write_timeout(Some(Duration::from_secs(20))).expect("a socket has timeouts");
        Self { socket, buffer: FrameBuffer::default() }
    }

    /// Sends raw bytes; a peer that has hung up is no error here.
    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap_or_default();
    }

    /// The socket itself.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// How many frames have come by now that nobody has received; takes them.
    #[track_caller]
    pub fn arrived(&mut self) -> usize {
        self.socket.set_nonblocking(true).expect("a socket can be told not to wait");
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.socket.read(&mut chunk) {
            self.buffer.push(&chunk[..count]);
        }
        self.socket.set_nonblocking(false).expect("a socket can be told to wait");
        std::iter::from_fn(|| self.buffer.next_body().expect("the peer sends whole frames")).count()
    }

    /// The next frame's body; `None` when the peer has hung up.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(body) = self.buffer.next_body().expect("the peer sends whole frames") {
                return Some(body);
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.buffer.push(&chunk[..count]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("the peer neither answers nor hangs up: {e}"),
            }
        }
    }

    /// Says hello and hears it.
    #[track_caller]
    pub fn greet(mut self) -> Self {
        self.send(&frame::encode(&Hello::ours()).expect("a hello"));
        let body = self.receive().expect("a hello comes back");
        let hello: Hello = frame::decode(&body).expect("a hello comes back");
        assert_eq!(hello.protocol, Hello::ours().protocol, "the peer is {}", hello.build);
        self
    }
}

/// A conversation with the daemon.
pub struct Owner(Wire);

impl Owner {
    /// Connects and greets.
    #[track_caller]
    pub fn connect(path: &Path) -> Self {
        Self(Wire::connect(path).greet())
    }

    /// Asks, skipping the events.
    #[track_caller]
    pub fn ask(&mut self, request: OwnerRequest) -> Result<OwnerReply, Fault> {
        self.ask_raw(&call(request)).expect("the daemon answers")
    }

    /// Asks with a whole frame; `None` when the daemon hangs up.
    #[track_caller]
    pub fn ask_raw(&mut self, frame: &[u8]) -> Option<Result<OwnerReply, Fault>> {
        self.0.send(frame);
        loop {
            match frame::decode::<Answer>(&self.0.receive()?).expect("an answer") {
                Answer::Event(_) => {}
                Answer::Reply(reply) => return Some(reply),
            }
        }
    }

    /// All VMs.
    #[track_caller]
    pub fn vms(&mut self) -> Vec<VmRecord> {
        match self.ask(OwnerRequest::ListVms) {
            Ok(OwnerReply::Vms(vms)) => vms,
            other => panic!("asked for all VMs, got {other:?}"),
        }
    }

    /// The VM called `name`.
    #[track_caller]
    pub fn vm(&mut self, name: &str) -> VmRecord {
        let found = self.vms().into_iter().find(|vm| vm.spec.name.as_str() == name);
        found.unwrap_or_else(|| panic!("no VM is called {name}"))
    }

    /// The daemon's pid.
    #[track_caller]
    pub fn pid(&mut self) -> i32 {
        match self.ask(OwnerRequest::Status) {
            Ok(OwnerReply::Status { pid, .. }) => pid,
            other => panic!("asked for the status, got {other:?}"),
        }
    }
}

/// `request` as a whole frame.
pub fn call(request: OwnerRequest) -> Vec<u8> {
    frame::encode(&Call { op: OpId::from_random(0x0005_310c), request }).expect("a request fits a frame")
}

/// The helper's answer to `request`, sent to the socket at `path` by this process.
#[track_caller]
pub fn ask_helper(path: &Path, request: RootRequest) -> Result<RootReply, Fault> {
    let mut wire = Wire::connect(path).greet();
    wire.send(&frame::encode(&RootCall { op: OpId::from_random(0x0005_310c), request }).expect("fits a frame"));
    let body = wire.receive().expect("the helper answers");
    frame::decode::<RootAnswer>(&body).expect("an answer")
}

/// The helper's pid.
#[track_caller]
pub fn helper_pid(path: &Path) -> i32 {
    match ask_helper(path, RootRequest::Status) {
        Ok(RootReply::Status { pid, .. }) => pid,
        other => panic!("asked for the status, got {other:?}"),
    }
}

/// `frame` with the length-prefixed string `from` replaced by `to`, which the types would not allow.
#[track_caller]
pub fn forge(frame: &[u8], from: &str, to: &[u8]) -> Vec<u8> {
    assert!(from.len() < 251 && to.len() < 251, "bincode writes lengths below 251 as one byte");
    let prefixed = |text: &[u8]| [&[text.len() as u8], text].concat();
    let (old, new) = (prefixed(from.as_bytes()), prefixed(to));
    let at = frame.windows(old.len()).position(|w| w == old).expect("the string is in the frame");
    let body = [&frame[frame::HEADER..at], &new, &frame[at + old.len()..]].concat();
    [&(body.len() as u32).to_le_bytes(), body.as_slice()].concat()
}
