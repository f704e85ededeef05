//! What is understood of the other side's bytes, in the guest language; both sides use it.
//!
//! A conversation begins with each [`PREAMBLE`], wherever it stands: the port may hold the rest of
//! an earlier conversation, and a side that is gone and back between two reads leaves no other
//! trace. A frame that is cut by it is dropped. So no frame towards the guest may contain the
//! preamble's 16 bytes (one from the guest that does only restarts its own conversation); as a
//! frame's header they would announce 1.8 GB, so none begins with them.
//!
//! The daemon speaks first and the agent answers each preamble with one greeting, so a daemon
//! that follows a hasty predecessor may hear *two*: it keeps its requests in flight, because their
//! replies come after the last greeting.

use std::marker::PhantomData;

use super::frame::{FrameBuffer, FrameError, decode};
use super::guest::{GuestHello, PREAMBLE};

/// One thing that was understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<M> {
    /// A new conversation begins; what was to be said in the old one is void.
    Preamble,
    /// The other side said who it is, and both sides have a protocol in common.
    Hello(GuestHello),
    /// Something was said.
    Message(M),
    /// What came makes no sense: the rest of this conversation is not listened to.
    Garbled(FrameError),
    /// No common protocol: likewise.
    Foreign(GuestHello),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waiting for a preamble.
    Deaf,
    /// Waiting for the hello.
    Greeted,
    /// In a conversation.
    Talking,
}

/// Listens to one stream.
#[derive(Debug)]
pub struct Ear<M> {
    state: State,
    frames: FrameBuffer,
    /// The last bytes that may be the beginning of a preamble.
    tail: Vec<u8>,
    message: PhantomData<M>,
}

impl<M> Default for Ear<M> {
    fn default() -> Self {
        Self { state: State::Deaf, frames: FrameBuffer::default(), tail: Vec::new(), message: PhantomData }
    }
}

impl<M: bincode::Decode<()>> Ear<M> {
    /// What `bytes`, the next of the stream, bring.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<Heard<M>> {
        let mut heard = Vec::new();
        if let Some(rest) = self.after_last_preamble(bytes) {
            self.frames = FrameBuffer::default();
            self.state = State::Greeted;
            heard.push(Heard::Preamble);
            self.frames.push(&rest);
        } else if self.state != State::Deaf {
            self.frames.push(bytes);
        }
        self.take_frames(&mut heard);
        heard
    }

    /// What follows the last preamble that ends in `bytes`.
    fn after_last_preamble(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.tail.extend_from_slice(bytes);
        let found = self.tail.windows(PREAMBLE.len()).rposition(|w| w == PREAMBLE).map(|at| at + PREAMBLE.len());
        let rest = found.map(|end| self.tail.split_off(end));
        if let Some(rest) = &rest {
            self.tail.clone_from(rest);
        }
        let surplus = self.tail.len().saturating_sub(PREAMBLE.len() - 1);
        self.tail.drain(..surplus);
        rest
    }

    fn take_frames(&mut self, heard: &mut Vec<Heard<M>>) {
        while self.state != State::Deaf {
            match self.frames.next_body().and_then(|body| body.map(|b| self.understand(&b)).transpose()) {
                Ok(None) => return,
                Ok(Some(something)) => {
                    self.state = if matches!(something, Heard::Foreign(_)) { State::Deaf } else { State::Talking };
                    heard.push(something);
                }
                Err(error) => {
                    self.state = State::Deaf;
                    heard.push(Heard::Garbled(error));
                }
            }
        }
    }

    fn understand(&self, body: &[u8]) -> Result<Heard<M>, FrameError> {
        if self.state == State::Talking {
            return decode(body).map(Heard::Message);
        }
        let hello: GuestHello = decode(body)?;
        Ok(if hello.common().is_some() { Heard::Hello(hello) } else { Heard::Foreign(hello) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OpId;
    use crate::protocol::frame::encode;
    use crate::protocol::guest::{GuestRequest, ToGuest};

    fn request(number: u64) -> ToGuest {
        ToGuest::Request { number, op: OpId::from_random(1), request: GuestRequest::Ping }
    }

    fn opening() -> Vec<u8> {
        [PREAMBLE.to_vec(), encode(&GuestHello::ours()).expect("encodes")].concat()
    }

    fn conversation() -> Vec<u8> {
        [opening(), encode(&request(1)).expect("encodes"), encode(&request(2)).expect("encodes")].concat()
    }

    fn wanted() -> Vec<Heard<ToGuest>> {
        vec![Heard::Preamble, Heard::Hello(GuestHello::ours()), Heard::Message(request(1)), Heard::Message(request(2))]
    }

    #[test]
    fn a_conversation_survives_any_cut() {
        let bytes = conversation();
        for cut in 0..=bytes.len() {
            let mut ear = Ear::<ToGuest>::default();
            let mut heard = ear.hear(&bytes[..cut]);
            heard.extend(ear.hear(&bytes[cut..]));
            assert_eq!(heard, wanted(), "{cut}");
        }
        let mut ear = Ear::<ToGuest>::default();
        let heard: Vec<Heard<ToGuest>> = bytes.iter().flat_map(|b| ear.hear(&[*b])).collect();
        assert_eq!(heard, wanted());
    }

    #[test]
    fn a_new_conversation_begins_inside_any_frame_of_the_old() {
        let bytes = conversation();
        for cut in 0..bytes.len() {
            for second in [1, 7, PREAMBLE.len(), bytes.len()] {
                let mut ear = Ear::<ToGuest>::default();
                ear.hear(&bytes[..cut]);
                let mut heard = ear.hear(&bytes[..second]);
                heard.extend(ear.hear(&bytes[second..]));
                assert!(heard.ends_with(&wanted()), "{cut} {second}: {heard:?}");
            }
        }
    }

    #[test]
    fn garbage_is_reported_once_and_a_preamble_heals() {
        let mut ear = Ear::<ToGuest>::default();
        assert_eq!(ear.hear(&[7; 5000]), vec![]);
        ear.hear(&opening());
        let garbled = ear.hear(&[0xff; 100]);
        assert!(matches!(garbled[..], [Heard::Garbled(FrameError::TooLong { .. })]), "{garbled:?}");
        assert_eq!(ear.hear(&[0xff; 100_000]), vec![]);
        assert!(ear.tail.len() < PREAMBLE.len());
        assert_eq!(ear.hear(&conversation()), wanted());
    }

    #[test]
    fn each_flipped_byte_is_refused_or_understood_but_never_fatal() {
        let bytes = conversation();
        for at in 0..bytes.len() {
            for flip in 1..=255u8 {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                let mut ear = Ear::<ToGuest>::default();
                ear.hear(&bad);
                assert_eq!(ear.hear(&conversation()).last(), wanted().last(), "{at} {flip}");
            }
        }
    }

    #[test]
    fn a_host_of_another_age_is_foreign() {
        let hello = GuestHello { protocol_min: 900, protocol_max: 901, build: "x".into() };
        let bytes = [PREAMBLE.to_vec(), encode(&hello).expect("encodes"), encode(&request(1)).expect("encodes")];
        assert_eq!(Ear::<ToGuest>::default().hear(&bytes.concat()), vec![Heard::Preamble, Heard::Foreign(hello)]);
    }
}
