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

use super::claims::{MAX_TROUBLES, clip, cut_to_size};
use crate::model::OpId;
use crate::protocol::ear::{Ear, Heard};
use crate::protocol::guest::{Announcement, FromGuest, GuestHello, GuestReply, GuestRequest, PREAMBLE, ToGuest};
use crate::protocol::{Fault, FaultKind, frame};
use crate::vmm::deadline::within;

/// An agent that does not answer within this hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// An agent that takes nothing for this long hangs.
const READ_LIMIT: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };

/// Most messages that nobody asked for between two that somebody did. An agent has a handful to
/// announce in a whole life.
const MAX_UNASKED: u32 = 4096;

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
    /// The newest protocol that both sides speak, once it has said hello.
    protocol: Option<u32>,
    troubles: Vec<String>,
    ended: Option<String>,
    waiting: HashMap<u64, Sender<Result<GuestReply, String>>>,
    unasked: u32,
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
        let settled = |state: &State| {
            let ended = || state.ended.clone().map(Err);
            state.ready.clone().map(Ok).or_else(ended)
        };
        self.wait_until(settled).await
    }

    /// Ends with what `look` sees, now or after a change.
    async fn wait_until<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let listener = self.changed.listen();
            let seen = look(&self.state());
            match seen {
                Some(seen) => return seen,
                None => listener.await,
            }
        }
    }

    /// The newest protocol that both sides speak. Waits for a hello that must be on its way: a link
    /// that was just made has not heard it yet.
    pub async fn protocol(&self) -> Option<u32> {
        let heard = |state: &State| (state.protocol.is_some() || state.ended.is_some()).then_some(state.protocol);
        within(ANSWER_LIMIT, self.wait_until(heard)).await.flatten()
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
        let outcome = within(ANSWER_LIMIT, receiver.recv()).await;
        self.state().waiting.remove(&number);
        if outcome.is_none() {
            // It may be another agent, started in the place of one that died, which waits to be
            // greeted: the next question finds it. What a greeting cannot reach it ends.
            let _ = greet(self).await;
        }
        match outcome {
            Some(Ok(Ok(reply))) => Ok(reply),
            Some(Ok(Err(why))) => {
                Err(Fault::new(FaultKind::OperationFailed, "the guest's agent cannot do it").cause(clip(&why)))
            }
            Some(Err(_)) => Err(unreachable("the connection ended")),
            None => Err(unreachable(&format!("no answer within {} s", ANSWER_LIMIT.as_secs()))),
        }
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
        self.write(&frame).await?;
        Ok(*last)
    }

    /// A guest that does not read must not hold up whoever holds its VM's turn. Half a frame may be
    /// out then, so nothing sensible can follow on this link.
    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        within(READ_LIMIT, (&self.stream).write_all(bytes)).await.unwrap_or_else(|| {
            let why = format!("the guest does not read: nothing was taken for {} s", READ_LIMIT.as_secs());
            self.end(why.clone());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain data, right after every statement: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message; false when there were too many.
    fn take(&self, message: FromGuest) -> bool {
        let mut state = self.state();
        state.unasked += 1;
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
                    state.unasked = 0;
                    // Its asker may have given up.
                    let _ = sender.try_send(reply.map(cut_to_size));
                }
            }
        }
        let few = state.unasked <= MAX_UNASKED;
        drop(state);
        self.changed.notify(usize::MAX);
        few
    }

    fn end(&self, why: String) {
        let mut state = self.state();
        // The first reason is the cause.
        state.ended.get_or_insert(why);
        state.waiting.clear();
        drop(state);
        // Ends the reader too; fails only when the connection is gone already.
        let _ = self.stream.get_ref().shutdown(std::net::Shutdown::Both);
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
        // A socket that always has something never waits: without this, one guest that talks without
        // a pause would have a thread of the executor for itself.
        smol::future::yield_now().await;
    }
}

async fn greet(link: &AgentLink) -> io::Result<()> {
    let _turn = link.sending.lock().await;
    link.write(PREAMBLE).await?;
    link.write(&encode(&GuestHello::ours())?).await
}

fn encode<T: bincode::Encode>(value: &T) -> io::Result<Vec<u8>> {
    frame::encode(value).map_err(io::Error::other)
}

/// Takes one thing that was heard. What makes no sense ends the link.
fn take_heard(link: &AgentLink, heard: Heard<FromGuest>) -> io::Result<()> {
    match heard {
        // A second greeting is the answer to a hasty predecessor: see `protocol::ear`.
        Heard::Preamble => Ok(()),
        Heard::Hello(hello) => {
            link.state().protocol = hello.common();
            link.changed.notify(usize::MAX);
            Ok(())
        }
        Heard::Message(message) => {
            let few = link.take(message);
            few.then_some(()).ok_or_else(|| io::Error::other("the guest's agent talks without being asked"))
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
    fn an_agent_that_babbles_loses_its_link() {
        let word = encode(&FromGuest::Announce(Announcement::GoingDown)).expect("encodes");
        let (_, why) = after([opening(), word.repeat(MAX_UNASKED as usize + 1)].concat());
        assert!(why.is_some_and(|w| w.contains("without being asked")));
    }

    #[test]
    fn a_guest_that_does_not_read_loses_its_link_and_holds_up_nobody() {
        use std::io::Write;
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("set");
        while ours.write(&[0; 4096]).is_ok() {}
        let executor = smol::Executor::new();
        let link = AgentLink::connect(ours.into(), &|future: Boxed<()>| executor.spawn(future).detach());
        let link = link.expect("connected");
        let asked = executor.run(link.ask(OpId::BACKGROUND, GuestRequest::Ping));
        let fault = smol::block_on(within(20 * READ_LIMIT, asked)).expect("in time").expect_err("unanswered");
        assert!(fault.to_string().contains("does not read"), "{fault}");
        drop(theirs);
    }
}
