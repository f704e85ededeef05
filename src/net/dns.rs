//! DNS messages (RFC 1034, RFC 1035, EDNS of RFC 6891): what is asked, what is answered from the zone of
//! VMs, what may be passed on of a stranger's answer. Pure: sockets are the daemon's.

/// What others answered.
pub mod foreign;
/// The zone of VMs.
pub mod zone;

use std::net::Ipv4Addr;
use std::str::FromStr;

use domain::base::iana::{Class, OptRcode, Rcode, Rtype};
use domain::base::message::RecordSection;
use domain::base::message_builder::{AdditionalBuilder, PushError, StaticCompressor};
use domain::base::{Message, MessageBuilder, Name, ParsedName, Question, ToName, Ttl};
use domain::dep::octseq::OctetsBuilder;
use domain::rdata::{A, Ns, Ptr, Soa};

/// Largest answer over UDP to whoever speaks no EDNS (RFC 1035 section 4.2.1).
const PLAIN_LIMIT: usize = 512;

/// Largest answer over UDP at all: what passes every path unfragmented (DNS flag day 2020).
pub const UDP_LIMIT: usize = 1232;

/// Largest message over TCP.
pub const TCP_LIMIT: usize = 65_535;

/// Largest question that is read: a name of 255 bytes and some options fit many times over.
pub const QUESTION_LIMIT: usize = 4096;

/// Bytes of a message's header.
const HEADER: usize = 12;

/// The option that explains an answer (RFC 8914).
const EXPLANATION: u16 = 15;

/// How a message arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
}

/// What is asked about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its IPv4 addresses.
    Address,
    /// The name of an address.
    Pointer,
    /// Who is responsible.
    Authority,
    /// Whatever there is.
    Any,
    /// Something else.
    Other,
}

/// A question that can be answered.
#[derive(Debug, Clone)]
pub struct Query {
    /// As it was asked: number, upper and lower case come back as they came.
    asked: Vec<u8>,
    has_edns: bool,
    /// Most bytes of the answer.
    limit: usize,
    /// The name, lower case, without its last dot; what is no host name in it is escaped.
    pub name: String,
    /// What is asked about it.
    pub kind: Kind,
    /// The same as a number.
    rtype: Rtype,
}

/// What is not a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// Nothing to answer to: an answer, or less than a header.
    Silence,
    /// To be answered with this.
    Refusal(Vec<u8>),
}

/// Why there is no better answer (RFC 8914 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explanation {
    /// A policy of this server forbids it.
    Blocked,
    /// The answer held what must not be passed on.
    Filtered,
    /// Nobody who knows could be asked.
    Unreachable,
}

impl Explanation {
    /// Its code and what people read.
    fn content(self) -> Vec<u8> {
        let (code, text): (u16, &str) = match self {
            Self::Blocked => (15, "not granted to this VM: banger vm set NAME --allow HOST"),
            Self::Filtered => (17, "a private address: banger vm set NAME --allow ADDRESS"),
            Self::Unreachable => (23, "the host's DNS servers do not answer"),
        };
        [&code.to_be_bytes()[..], text.as_bytes()].concat()
    }
}

/// One record, for how many seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    data: Data,
    seconds: u32,
}

/// What records say here.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Data {
    Address(Ipv4Addr),
    Pointer(OwnName),
    Server(OwnName),
    Authority(OwnName),
}

type OwnName = Name<Vec<u8>>;

/// What comes back.
#[derive(Debug, Clone)]
pub struct Answer {
    code: Rcode,
    /// Whether it is the zone's own.
    is_authoritative: bool,
    /// Under the name that was asked about.
    records: Vec<Record>,
    /// The domain whose owner says that there is no more.
    authority: Option<OwnName>,
    explanation: Option<Explanation>,
}

impl Answer {
    fn of(code: Rcode) -> Self {
        Self { code, is_authoritative: false, records: Vec::new(), authority: None, explanation: None }
    }

    /// "I do not answer that."
    pub fn refused() -> Self {
        Self::of(Rcode::REFUSED)
    }

    /// "I could not find out."
    pub fn failed() -> Self {
        Self { explanation: Some(Explanation::Unreachable), ..Self::of(Rcode::SERVFAIL) }
    }

    /// "There is no such name", of one that is not granted: any other code has some resolvers ask again
    /// until their time is over.
    pub fn blocked() -> Self {
        Self { explanation: Some(Explanation::Blocked), ..Self::of(Rcode::NXDOMAIN) }
    }

    /// Its address, for so many seconds.
    pub fn address(address: Ipv4Addr, seconds: u32) -> Self {
        Self { records: vec![Record { data: Data::Address(address), seconds }], ..Self::of(Rcode::NOERROR) }
    }

    /// "There is nothing of that kind."
    pub fn nothing() -> Self {
        Self::of(Rcode::NOERROR)
    }
}

impl Query {
    /// Reads what arrived.
    pub fn read(bytes: &[u8], carrier: Carrier) -> Result<Self, Unread> {
        let Some((id, flags)) = header(bytes) else { return Err(Unread::Silence) };
        if flags & 0x8000 != 0 {
            return Err(Unread::Silence);
        }
        let refuse = |code| Unread::Refusal(bare(id, flags, code));
        if flags & 0x7800 != 0 {
            return Err(refuse(Rcode::NOTIMP));
        }
        let edns = if bytes.len() <= QUESTION_LIMIT { options(bytes) } else { None };
        let (question, edns) = question(bytes).zip(edns).ok_or_else(|| refuse(Rcode::FORMERR))?;
        let (rtype, class) = (question.qtype(), question.qclass());
        let query = Self {
            asked: bytes.to_vec(),
            has_edns: edns.is_some(),
            limit: match (carrier, edns) {
                (Carrier::Tcp, _) => TCP_LIMIT,
                (Carrier::Udp, Some(edns)) => usize::from(edns.takes).clamp(PLAIN_LIMIT, UDP_LIMIT),
                (Carrier::Udp, None) => PLAIN_LIMIT,
            },
            name: text_of(question.qname()),
            kind: kind(rtype),
            rtype,
        };
        if edns.is_some_and(|edns| edns.version != 0) {
            return Err(Unread::Refusal(query.bad_version()));
        }
        // Another class, or the transfer of a zone.
        if !matches!(class, Class::IN | Class::ANY) || matches!(rtype, Rtype::AXFR | Rtype::IXFR) {
            return Err(Unread::Refusal(query.reply(&Answer::refused())));
        }
        Ok(query)
    }

    /// The name, if it is one that a host may have.
    pub fn host_name(&self) -> Option<&str> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        (!self.name.is_empty() && self.name.bytes().all(plain)).then_some(&self.name)
    }

    /// `answer` as bytes, within what the asker takes: one that is too long says so and is empty, and the
    /// asker comes again over TCP.
    pub fn reply(&self, answer: &Answer) -> Vec<u8> {
        // Nothing here is too long for its field; should it be, the asker hears nothing and asks again.
        let whole = self.compose(answer, false).unwrap_or_default();
        if whole.len() <= self.limit {
            return whole;
        }
        let cut = Answer { records: Vec::new(), authority: None, ..answer.clone() };
        self.compose(&cut, true).unwrap_or_default()
    }

    fn compose(&self, answer: &Answer, is_cut: bool) -> Option<Vec<u8>> {
        let asked = Message::from_octets(&self.asked).ok()?;
        let question = question(&self.asked)?;
        let mut builder = MessageBuilder::from_target(StaticCompressor::new(Vec::with_capacity(512))).ok()?;
        let head = builder.header_mut();
        head.set_id(asked.header().id());
        head.set_qr(true);
        head.set_rd(asked.header().rd());
        head.set_ra(true);
        head.set_aa(answer.is_authoritative);
        head.set_tc(is_cut);
        head.set_rcode(answer.code);
        let mut questions = builder.question();
        questions.push(question).ok()?;
        let mut records = questions.answer();
        for record in &answer.records {
            push(&mut records, question.qname(), record).ok()?;
        }
        let mut authority = records.authority();
        if let Some(domain) = &answer.authority {
            let soa = Record { data: Data::Authority(domain.clone()), seconds: zone::SECONDS };
            push(&mut authority, domain, &soa).ok()?;
        }
        let mut additional = authority.additional();
        if self.has_edns {
            add_options(&mut additional, None, answer.explanation).ok()?;
        }
        Some(additional.finish().into_target())
    }

    /// "I speak version 0 of EDNS."
    fn bad_version(&self) -> Vec<u8> {
        let compose = || {
            let mut builder = MessageBuilder::from_target(StaticCompressor::new(Vec::new())).ok()?;
            builder.header_mut().set_id(Message::from_octets(&self.asked).ok()?.header().id());
            builder.header_mut().set_qr(true);
            let mut questions = builder.question();
            questions.push(question(&self.asked)?).ok()?;
            let mut additional = questions.additional();
            add_options(&mut additional, Some(OptRcode::BADVERS), None).ok()?;
            Some(additional.finish().into_target())
        };
        compose().unwrap_or_default()
    }
}

type Target = StaticCompressor<Vec<u8>>;

fn push(
    section: &mut impl domain::base::message_builder::RecordSectionBuilder<Target>,
    owner: impl ToName,
    Record { data, seconds }: &Record,
) -> Result<(), PushError> {
    let ttl = Ttl::from_secs(*seconds);
    match data {
        Data::Address(address) => section.push((owner, Class::IN, ttl, A::new(*address))),
        Data::Pointer(name) => section.push((owner, Class::IN, ttl, Ptr::new(name))),
        Data::Server(name) => section.push((owner, Class::IN, ttl, Ns::new(name))),
        Data::Authority(_) => section.push((owner, Class::IN, ttl, zone::authority()?)),
    }
}

fn add_options(
    additional: &mut AdditionalBuilder<Target>,
    code: Option<OptRcode>,
    explanation: Option<Explanation>,
) -> Result<(), PushError> {
    additional.opt(|opt| {
        opt.set_udp_payload_size(UDP_LIMIT as u16);
        if let Some(code) = code {
            opt.set_rcode(code);
        }
        let Some(explanation) = explanation else { return Ok(()) };
        let content = explanation.content();
        opt.push_raw_option(EXPLANATION.into(), content.len() as u16, |target| target.append_slice(&content))
    })
}

/// Number and flags.
fn header(bytes: &[u8]) -> Option<(u16, u16)> {
    let head: &[u8; HEADER] = bytes.first_chunk()?;
    Some((u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]])))
}

/// The one question of a message.
fn question(bytes: &[u8]) -> Option<Question<ParsedName<&[u8]>>> {
    Message::from_octets(bytes).ok()?.sole_question().ok()
}

/// Where the first question ends. A pointer in its name has nothing to point to.
fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    while at < HEADER + 255 {
        match *bytes.get(at)? {
            0 => return Some(at + 5).filter(|end| *end <= bytes.len()),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    None
}

/// What the asker says of itself.
#[derive(Debug, Clone, Copy)]
struct Edns {
    version: u8,
    takes: u16,
}

/// The options record, if there is one; `None` for a message that cannot be read to its end, or has two
/// (RFC 6891 section 6.1.1).
fn options(bytes: &[u8]) -> Option<Option<Edns>> {
    question_end(bytes)?;
    let message = Message::from_octets(bytes).ok()?;
    let mut found = None;
    for section in [message.answer(), message.authority(), message.additional()] {
        let section: RecordSection<'_, _> = section.ok()?;
        for record in section {
            let record = record.ok()?;
            if record.rtype() == Rtype::OPT && found.replace(record).is_some() {
                return None;
            }
        }
    }
    let edns = |record: domain::base::record::ParsedRecord<'_, _>| Edns {
        // The second byte of what is the time to live elsewhere (RFC 6891 section 6.1.3).
        version: (record.ttl().as_secs() >> 16) as u8,
        takes: record.class().to_int(),
    };
    Some(found.map(edns))
}

/// A name as text, lower case, without its last dot.
fn text_of(name: &impl ToName) -> String {
    let text = name.to_vec().to_string().to_ascii_lowercase();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

fn named(text: &str) -> Option<OwnName> {
    Name::from_str(text).ok()
}

fn kind(rtype: Rtype) -> Kind {
    match rtype {
        Rtype::A => Kind::Address,
        Rtype::SOA => Kind::Authority,
        Rtype::PTR => Kind::Pointer,
        Rtype::ANY => Kind::Any,
        _ => Kind::Other,
    }
}

/// A header alone: what was asked could not be read.
fn bare(id: u16, flags: u16, code: Rcode) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    // An answer, with the asker's opcode and wish for recursion.
    let first = 0x80 | ((flags >> 8) as u8 & 0x79);
    [high, low, first, code.to_int(), 0, 0, 0, 0, 0, 0, 0, 0].to_vec()
}

#[cfg(test)]
mod tests;
