//! What others answered, and what of it a guest gets. A guest that may go everywhere gets all of it, as it
//! came; one that may go to some names gets addresses alone, and of these only what may be opened to it: a
//! text, a key or a record nobody knows would be a tunnel.

use std::net::Ipv4Addr;

use domain::rdata::Cname;

use super::{
    A, Answer, Data, Explanation, HEADER, Kind, Message, MessageBuilder, OwnName, Query, Rcode, Record, Rtype,
};
use super::{ToName, header, named, question, question_end};

/// Longest chain of aliases that is followed.
const ALIASES: usize = 16;

/// A question for the host's servers.
#[derive(Debug, Clone)]
pub struct Inquiry {
    bytes: Vec<u8>,
    /// Where its question ends.
    end: usize,
}

/// Why an answer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It answers something else: perhaps somebody's guess, so the right one may follow.
    Stray,
    /// It is cut off: to be asked for over TCP.
    CutOff,
}

impl Inquiry {
    /// What a guest asked, word for word, under another number: so no answer can be guessed.
    pub fn verbatim(asked: &[u8], id: u16) -> Option<Self> {
        let end = question_end(asked)?;
        let mut bytes = asked.to_vec();
        bytes.get_mut(..2)?.copy_from_slice(&id.to_be_bytes());
        Some(Self { bytes, end })
    }

    /// The addresses of the name that `query` asks about, and nothing else of what it says.
    pub fn addresses(query: &Query, id: u16) -> Option<Self> {
        Self::of(question(&query.asked)?.qname(), id)
    }

    /// The addresses of the host called `name`; `None` for what is no name.
    pub fn of_name(name: &str, id: u16) -> Option<Self> {
        Self::of(named(name)?, id)
    }

    fn of(name: impl ToName, id: u16) -> Option<Self> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(id);
        builder.header_mut().set_rd(true);
        let mut questions = builder.question();
        questions.push((name, Rtype::A)).ok()?;
        let bytes = questions.finish();
        let end = bytes.len();
        Some(Self { bytes, end })
    }

    /// As it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether `answer` is the answer to this.
    pub fn check(&self, answer: &[u8]) -> Result<(), Unusable> {
        let Some((id, flags)) = header(answer) else { return Err(Unusable::Stray) };
        let same_question = match (answer.get(HEADER..self.end), self.bytes.get(HEADER..self.end)) {
            (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
            _ => false,
        };
        if self.bytes[..2] != id.to_be_bytes() || flags & 0x8000 == 0 || !same_question {
            return Err(Unusable::Stray);
        }
        if flags & 0x0200 != 0 { Err(Unusable::CutOff) } else { Ok(()) }
    }
}

/// An address that an answer gives, and for how many seconds.
pub type Given = (Ipv4Addr, u32);

/// The addresses that `answer` gives for the name that was asked about, at the end of its aliases; `None`
/// when it cannot be read.
pub fn addresses(answer: &[u8], name: &str) -> Option<(Rcode, Vec<Given>)> {
    let message = Message::from_octets(answer).ok()?;
    let (mut at, mut seconds) = (named(name)?, u32::MAX);
    for _ in 0..ALIASES {
        let Some((target, ttl)) = alias(&message, &at)? else {
            return Some((message.header().rcode(), given(&message, &at, seconds)?));
        };
        // The name leads there for no longer than each alias on the way lasts.
        (at, seconds) = (target, seconds.min(ttl));
    }
    None
}

/// What `name` is another name for, and for how long.
fn alias(message: &Message<&[u8]>, name: &OwnName) -> Option<Option<(OwnName, u32)>> {
    for record in message.answer().ok()?.limit_to_in::<Cname<_>>() {
        let record = record.ok()?;
        if record.owner().name_eq(name) {
            return Some(Some((record.data().cname().to_name(), record.ttl().as_secs())));
        }
    }
    Some(None)
}

/// The addresses of `name`, for no longer than `seconds`.
fn given(message: &Message<&[u8]>, name: &OwnName, seconds: u32) -> Option<Vec<Given>> {
    let mut found = Vec::new();
    for record in message.answer().ok()?.limit_to_in::<A>() {
        let record = record.ok()?;
        if record.owner().name_eq(name) {
            found.push((record.data().addr(), record.ttl().as_secs().min(seconds)));
        }
    }
    Some(found)
}

/// The answer to `query` that gives `addresses`, of which `withheld` were taken out.
pub fn answer(query: &Query, code: Rcode, addresses: &[Given], withheld: usize) -> Answer {
    let give = |(address, seconds): &Given| Record { data: Data::Address(*address), seconds: *seconds };
    let wanted = matches!(query.kind, Kind::Address | Kind::Any);
    let records = if wanted { addresses.iter().map(give).collect() } else { Vec::new() };
    let code = match code {
        Rcode::NOERROR | Rcode::NXDOMAIN | Rcode::SERVFAIL => code,
        _ => Rcode::SERVFAIL,
    };
    let explanation = (withheld > 0).then_some(Explanation::Filtered);
    Answer { records, explanation, ..Answer::of(code) }
}

/// `answer` under the number of `query`, or that it is too long for the asker.
pub fn passed_on(query: &Query, answer: &[u8]) -> Vec<u8> {
    let mut bytes = answer.to_vec();
    if bytes.len() > query.limit {
        let end = question_end(answer).unwrap_or(HEADER);
        bytes.truncate(end);
        // Cut off, one question, nothing else.
        bytes[2] |= 0x02;
        bytes[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        if end == HEADER {
            bytes[5] = 0;
        }
    }
    bytes[..2].copy_from_slice(&query.asked[..2]);
    bytes
}
