//! The daemon's end of the conversation with a guest's agent.
//!
//! Everything here comes from a guest and is hostile: frames are bounded, waiting answers are
//! bounded, and a guest that breaks the language loses its agent link, nothing else.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event as Wake;
use smol::Async;
use smol::channel::{Sender, bounded};
use smol::future::Boxed;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::model::OpId;
use crate::protocol::ear::{Ear, Heard};
use crate::protocol::guest::{Announcement, FromGuest, GuestHello, GuestReply, GuestRequest, PREAMBLE, ToGuest};
use crate::protocol::{Fault, FaultKind, frame};
use crate::vmm::deadline::within;

/// An agent that does not answer within this hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Most troubles kept, and most characters of each.
const MAX_TROUBLES: usize = 32;
const MAX_TEXT: usize = 500;

/// What an agent said when it was ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The kernel's boot id.
    pub boot_id: String,
    /// Whether ssh answers.
    pub ssh: bool,
    /// Milliseconds from the kernel's start.
    pub uptime_ms: u64,
}

/// A conversation with an agent.
pub struct AgentLink {
    stream: Async<UnixStream>,
    sending: smol::lock::Mutex<u64>,
    state: Mutex<State>,
    changed: Wake,
}

#[derive(Default)]
struct State {
    ready: Option<Ready>,
    troubles: Vec<String>,
    ended: Option<String>,
    waiting: HashMap<u64, Sender<Result<GuestReply, String>>>,
}

impl AgentLink {
    /// Takes the connected socket and runs its reader.
    pub fn connect(socket: OwnedFd, spawn: &dyn Fn(Boxed<()>)) -> io::Result<Arc<Self>> {
        let link = Arc::new(Self {
            stream: Async::new(UnixStream::from(socket))?,
            sending: smol::lock::Mutex::new(0),
            state: Mutex::default(),
            changed: Wake::new(),
        });
        spawn(Box::pin(converse(link.clone())));
        Ok(link)
    }

    /// Ends when the agent has said that it is ready, or with why it never will.
    pub async fn wait_ready(&self) -> Result<Ready, String> {
        loop {
            let listener = self.changed.listen();
            {
                let state = self.state();
                if let Some(ready) = &state.ready {
                    return Ok(ready.clone());
                }
                if let Some(why) = &state.ended {
                    return Err(why.clone());
                }
            }
            listener.await;
        }
    }

    /// Whether ssh answers, as far as the agent has said.
    pub fn ssh_answers(&self) -> Option<bool> {
        self.state().ready.as_ref().map(|r| r.ssh)
    }

    /// What went wrong in the guest's start.
    pub fn troubles(&self) -> Vec<String> {
        self.state().troubles.clone()
    }

    /// Asks and waits for the answer.
    pub async fn ask(&self, op: OpId, request: GuestRequest) -> Result<GuestReply, Fault> {
        let unreachable =
            |why: &str| Fault::new(FaultKind::OperationFailed, "the guest's agent does not answer").cause(why);
        let (sender, receiver) = bounded(1);
        let number = self.send(op, request, sender).await.map_err(|e| unreachable(&e.to_string()))?;
        let answer = async { receiver.recv().await.unwrap_or_else(|_| Err("the connection ended".into())) };
        let outcome = within(ANSWER_LIMIT, answer).await;
        self.state().waiting.remove(&number);
        let late = || Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs()));
        outcome.unwrap_or_else(late).map_err(|why| unreachable(&clip(&why)))
    }

    async fn send(
        &self,
        op: OpId,
        request: GuestRequest,
        waiting: Sender<Result<GuestReply, String>>,
    ) -> io::Result<u64> {
        let mut last = self.sending.lock().await;
        *last += 1;
        {
            let mut state = self.state();
            if let Some(why) = &state.ended {
                return Err(io::Error::new(io::ErrorKind::NotConnected, why.clone()));
            }
            state.waiting.insert(*last, waiting);
        }
        let frame = encode(&ToGuest::Request { number: *last, op, request })?;
        (&self.stream).write_all(&frame).await?;
        Ok(*last)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain data, right after every statement: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, message: FromGuest) {
        let mut state = self.state();
        match message {
            FromGuest::Announce(Announcement::Ready { boot_id, ssh, uptime_ms }) => {
                state.ready = Some(Ready { boot_id: clip(&boot_id), ssh, uptime_ms });
            }
            FromGuest::Announce(Announcement::Trouble { text }) => {
                if state.troubles.len() < MAX_TROUBLES {
                    state.troubles.push(clip(&text));
                }
            }
            FromGuest::Announce(Announcement::GoingDown) => {}
            FromGuest::Reply { number, reply } => {
                if let Some(sender) = state.waiting.remove(&number) {
                    // Its asker may have given up.
                    let _ = sender.try_send(reply);
                }
            }
        }
        drop(state);
        self.changed.notify(usize::MAX);
    }

    fn end(&self, why: String) {
        let mut state = self.state();
        state.ended = Some(why);
        state.waiting.clear();
        drop(state);
        self.changed.notify(usize::MAX);
    }
}

async fn converse(link: Arc<AgentLink>) {
    let why = match read_all(&link).await {
        Ok(()) => "the guest closed the connection".to_owned(),
        Err(error) => error.to_string(),
    };
    link.end(why);
}

async fn read_all(link: &AgentLink) -> io::Result<()> {
    greet(link).await?;
    let mut ear = Ear::<FromGuest>::default();
    let mut chunk = [0; 4096];
    loop {
        let count = (&link.stream).read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        for heard in ear.hear(&chunk[..count]) {
            take_heard(link, heard)?;
        }
    }
}

async fn greet(link: &AgentLink) -> io::Result<()> {
    let _turn = link.sending.lock().await;
    (&link.stream).write_all(PREAMBLE).await?;
    (&link.stream).write_all(&encode(&GuestHello::ours())?).await
}

fn encode<T: bincode::Encode>(value: &T) -> io::Result<Vec<u8>> {
    frame::encode(value).map_err(io::Error::other)
}

/// Takes one thing that was heard. What makes no sense ends the link.
fn take_heard(link: &AgentLink, heard: Heard<FromGuest>) -> io::Result<()> {
    match heard {
        // A second greeting is the answer to a hasty predecessor: see `protocol::ear`.
        Heard::Preamble | Heard::Hello(_) => Ok(()),
        Heard::Message(message) => {
            link.take(message);
            Ok(())
        }
        Heard::Garbled(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        Heard::Foreign(hello) => Err(io::Error::other(format!(
            "the guest's agent {} speaks protocols {} to {}",
            clip(&hello.build),
            hello.protocol_min,
            hello.protocol_max
        ))),
    }
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link whose guest says `bytes` and hangs up; what is known of it then.
    fn after(bytes: Vec<u8>) -> (Option<Ready>, Option<String>) {
        use std::io::{Read, Write};
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let executor = smol::Executor::new();
        let link = AgentLink::connect(ours.into(), &|future: Boxed<()>| executor.spawn(future).detach());
        let link = link.expect("connected");
        let guest = std::thread::spawn(move || {
            let mut greeting = vec![0; opening().len()];
            theirs.read_exact(&mut greeting).expect("greeted");
            assert_eq!(greeting, opening());
            // A daemon that has had enough hangs up first.
            let _ = theirs.write_all(&bytes);
        });
        smol::block_on(executor.run(async {
            while link.state().ended.is_none() {
                let listener = link.changed.listen();
                if link.state().ended.is_none() {
                    listener.await;
                }
            }
        }));
        guest.join().expect("ended");
        let state = link.state();
        (state.ready.clone(), state.ended.clone())
    }

    fn opening() -> Vec<u8> {
        [PREAMBLE.as_slice(), &encode(&GuestHello::ours()).expect("encodes")].concat()
    }

    #[test]
    fn a_guest_that_is_ready_is_known_to_be() {
        let ready = FromGuest::Announce(Announcement::Ready { boot_id: "b".into(), ssh: true, uptime_ms: 5 });
        let bytes = [b"old rubbish".as_slice(), &opening(), &encode(&ready).expect("encodes")].concat();
        let (known, _) = after(bytes);
        assert_eq!(known, Some(Ready { boot_id: "b".into(), ssh: true, uptime_ms: 5 }));
    }

    #[test]
    fn garbled_frames_and_foreign_protocols_end_the_link() {
        let (_, why) = after([&opening()[..], &u32::MAX.to_le_bytes()].concat());
        assert!(why.is_some_and(|w| w.contains("4294967295 bytes")));
        let foreign = GuestHello { protocol_min: 7, protocol_max: 9, build: "x".into() };
        let (_, why) = after([PREAMBLE.as_slice(), &encode(&foreign).expect("encodes")].concat());
        assert!(why.is_some_and(|w| w.contains("protocols 7 to 9")));
    }

    #[test]
    fn what_a_guest_says_is_clipped_and_stripped() {
        assert_eq!(clip("a\x1b[31mb"), "a[31mb");
        assert_eq!(clip(&"x".repeat(1000)).len(), MAX_TEXT);
    }
}
