//! Reading one stream until it ends.

use std::io::{self, Read};

use super::mouth::{Conversation, Mouth};
use super::requests::Worker;
use crate::guest::console::say;
use crate::protocol::ear::{Ear, Heard};
use crate::protocol::guest::ToGuest;

/// A stream that may come back after its end.
pub trait Line {
    /// Bytes of the host; 0 when it is not there.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Waits for the host to come back; false when it never will.
    fn wait_for_host(&mut self) -> io::Result<bool>;
}

/// A connection: its end is the end.
impl Line for std::os::unix::net::UnixStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(self, buffer)
    }
    fn wait_for_host(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Hears and answers until the line ends for good.
pub fn serve(line: &mut impl Line, mouth: &Mouth, worker: &Worker) -> io::Result<()> {
    let mut ear = Ear::default();
    let mut conversation = 0;
    let mut buffer = vec![0; 16 << 10];
    loop {
        match line.read(&mut buffer) {
            // No sign that the conversation is over: the port tells of coming and going on another
            // queue than the bytes travel, so the next host's preamble may have been heard before
            // the last host's farewell. Only a preamble begins and ends a conversation.
            Ok(0) => {
                if !line.wait_for_host()? {
                    return Ok(());
                }
            }
            Ok(count) => {
                for heard in ear.hear(&buffer[..count]) {
                    act(heard, &mut conversation, mouth, worker);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn act(heard: Heard<ToGuest>, conversation: &mut Conversation, mouth: &Mouth, worker: &Worker) {
    match heard {
        Heard::Preamble => *conversation = mouth.greet(),
        Heard::Hello(_) => {}
        Heard::Message(ToGuest::Request { number, op, request }) => worker.take(*conversation, number, op, request),
        Heard::Garbled(error) => say(&format!("the host is not understood: {error}")),
        Heard::Foreign(hello) => say(&format!(
            "the host (banger {}) speaks guest protocols {} to {}, none of ours",
            hello.build, hello.protocol_min, hello.protocol_max
        )),
    }
}
