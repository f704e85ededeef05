//! What is said to the host: greeting, announcements, replies, in order, by one thread.
//!
//! A reply belongs to the conversation in which its request came and is void in the next.
//! Announcements are the present state: each greeting says them again.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::protocol::frame;
use crate::protocol::guest::{Announcement, FromGuest, GuestHello, GuestReply, PREAMBLE};

/// Most frames that wait for a host that asks and does not read; with more it has hung up.
const MAX_WAITING: usize = 256;

/// Which conversation.
pub type Conversation = u64;

#[derive(Debug, Default)]
struct Speech {
    conversation: Conversation,
    /// Whether somebody listens.
    open: bool,
    waiting: VecDeque<Vec<u8>>,
    /// Taken from `waiting`, not yet with the kernel.
    speaking: bool,
    state: Vec<Announcement>,
    closed: bool,
}

/// What is said; shared between threads.
#[derive(Debug, Default)]
pub struct Mouth {
    speech: Mutex<Speech>,
    changed: Condvar,
}

impl Mouth {
    /// A new conversation: greets and says the present state.
    pub fn greet(&self) -> Conversation {
        let mut speech = self.lock();
        speech.conversation += 1;
        speech.open = true;
        speech.waiting.clear();
        let mut opening = PREAMBLE.to_vec();
        opening.extend(encoded(&GuestHello::ours()));
        for announcement in &speech.state {
            opening.extend(encoded(&FromGuest::Announce(announcement.clone())));
        }
        speech.waiting.push_back(opening);
        self.changed.notify_all();
        speech.conversation
    }

    /// Says it now if somebody listens, and in each greeting to come.
    pub fn announce(&self, announcement: Announcement) {
        let mut speech = self.lock();
        speech.push(encoded(&FromGuest::Announce(announcement.clone())));
        speech.state.push(announcement);
        self.changed.notify_all();
    }

    /// Answers request `number` of `conversation`.
    pub fn reply(&self, conversation: Conversation, number: u64, reply: Result<GuestReply, String>) {
        let mut speech = self.lock();
        if speech.conversation == conversation {
            speech.push(encoded(&FromGuest::Reply { number, reply }));
            self.changed.notify_all();
        }
    }

    /// Ends [`Mouth::speak`], now or when it begins.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// What a greeting says, at once.
    pub fn first_words(&self) -> Vec<u8> {
        self.lock().waiting.iter().flatten().copied().collect()
    }

    /// Writes what is to be said to `stream` until it fails or the mouth is closed.
    pub fn speak(&self, stream: &mut impl Write) -> io::Result<()> {
        while let Some(bytes) = self.next() {
            stream.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Waits until all is said, at most `limit`.
    pub fn wait_until_said(&self, limit: Duration) {
        let speech = self.lock();
        let silent = |s: &mut Speech| s.open && (s.speaking || !s.waiting.is_empty());
        // Poisoned, late or done: the caller goes on in each case.
        let _ = self.changed.wait_timeout_while(speech, limit, silent);
    }

    fn next(&self) -> Option<Vec<u8>> {
        let mut speech = self.lock();
        speech.speaking = false;
        self.changed.notify_all();
        loop {
            if speech.closed {
                return None;
            }
            if let Some(bytes) = speech.waiting.pop_front() {
                speech.speaking = true;
                return Some(bytes);
            }
            speech = self.changed.wait(speech).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A thread that panicked has ended the process (`panic = "abort"`), so no lock is poisoned.
    fn lock(&self) -> MutexGuard<'_, Speech> {
        self.speech.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Speech {
    fn push(&mut self, bytes: Vec<u8>) {
        if !self.open {
            return;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.open = false;
            self.waiting.clear();
            return;
        }
        self.waiting.push_back(bytes);
    }
}

/// Fails only above the limit of a frame; then nothing is said, and the request times out.
fn encoded(value: &impl bincode::Encode) -> Vec<u8> {
    frame::encode(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Announcement {
        Announcement::Ready { boot_id: "b".into(), ssh: true, uptime_ms: 1 }
    }

    fn said(mouth: &Mouth) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !mouth.lock().waiting.is_empty() {
            bytes.extend(mouth.next().expect("something"));
        }
        bytes
    }

    #[test]
    fn nothing_is_said_before_the_greeting_and_the_state_with_it() {
        let mouth = Mouth::default();
        mouth.announce(ready());
        assert_eq!(said(&mouth), b"");
        mouth.greet();
        let announced = encoded(&FromGuest::Announce(ready()));
        let opening = [PREAMBLE.to_vec(), encoded(&GuestHello::ours()), announced].concat();
        assert_eq!(said(&mouth), opening);
        mouth.greet();
        assert_eq!(said(&mouth), opening);
    }

    #[test]
    fn a_reply_of_an_earlier_conversation_is_void() {
        let mouth = Mouth::default();
        let first = mouth.greet();
        mouth.reply(first, 1, Ok(GuestReply::Done));
        let second = mouth.greet();
        mouth.reply(first, 2, Ok(GuestReply::Done));
        said(&mouth);
        mouth.reply(second, 3, Ok(GuestReply::Done));
        assert_eq!(said(&mouth), encoded(&FromGuest::Reply { number: 3, reply: Ok(GuestReply::Done) }));
    }

    #[test]
    fn a_host_that_asks_and_does_not_read_is_bounded() {
        let mouth = Mouth::default();
        let conversation = mouth.greet();
        for number in 0..10_000 {
            mouth.reply(conversation, number, Ok(GuestReply::Done));
        }
        assert!(mouth.lock().waiting.len() <= MAX_WAITING);
        mouth.greet();
        assert!(said(&mouth).starts_with(PREAMBLE));
    }
}
