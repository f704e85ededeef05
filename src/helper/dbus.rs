//! As much of D-Bus as a few calls to systemd need: messages written and read, over a connected
//! socket, with a deadline.
//!
//! Own code, because what is needed is two dozen lines each way, and the crates bring a hundred
//! kilobytes and an introspection of types. Only bytes here: what is said is `systemd.rs`'s. Whatever
//! comes from the other side has a limit before anything is allocated. The format is that of
//! <https://dbus.freedesktop.org/doc/dbus-specification.html>, "Type System" and "Message Protocol".

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Largest message that is read; what systemd says of a unit has some kilobytes.
const MESSAGE_LIMIT: u32 = 256 << 10;

/// Messages that are read while an answer is waited for.
const MESSAGES: usize = 4096;

/// The longest line of the authentication.
const LINE_LIMIT: usize = 512;

/// Kinds of messages.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// What is called.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Whose object.
    pub destination: &'a str,
    /// Which object.
    pub path: &'a str,
    /// Of which kind.
    pub interface: &'a str,
}

/// Values, written one behind the other.
#[derive(Debug, Default)]
pub struct Body {
    bytes: Vec<u8>,
}

impl Body {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// `u`.
    pub fn number(&mut self, value: u32) -> &mut Self {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// `t`.
    pub fn long(&mut self, value: u64) -> &mut Self {
        self.align(8);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// `s` and `o`.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.number(value.len() as u32);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self
    }

    /// `g`, and what a variant begins with.
    pub fn signature(&mut self, value: &str) -> &mut Self {
        self.bytes.push(value.len() as u8);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self
    }

    /// What a struct begins with.
    pub fn structure(&mut self) -> &mut Self {
        self.align(8);
        self
    }

    /// An array whose elements are aligned to `alignment`.
    pub fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) -> &mut Self {
        self.number(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let begin = self.bytes.len();
        elements(self);
        let length = (self.bytes.len() - begin) as u32;
        self.bytes[length_at..begin.min(length_at + 4)].copy_from_slice(&length.to_le_bytes());
        self
    }
}

/// A whole call.
fn call(serial: u32, target: Target<'_>, member: &str, signature: &str, body: &Body) -> Vec<u8> {
    let mut message = Body { bytes: vec![b'l', CALL, 0, 1] };
    message.number(body.bytes.len() as u32).number(serial);
    message.array(8, |fields| {
        let texts = [(1, "o", target.path), (2, "s", target.interface), (3, "s", member), (6, "s", target.destination)];
        for (code, kind, value) in texts {
            fields.structure().bytes.push(code);
            fields.signature(kind).text(value);
        }
        fields.structure().bytes.push(8);
        fields.signature("g").signature(signature);
    });
    message.align(8);
    [message.bytes, body.bytes.clone()].concat()
}

/// Values, read one behind the other.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Values<'a> {
    /// Of `bytes`, which begin where an alignment does.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    /// `u`.
    pub fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// `s` and `o`.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.number()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Option<&'a str> {
        let text = self.take(length)?;
        (self.byte()? == 0).then_some(())?;
        std::str::from_utf8(text).ok()
    }
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    kind: u8,
    member: String,
    error: String,
    answers: u32,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// Of a header behind its first 16 bytes, and a body.
    fn read(kind: u8, fields: &[u8], body: Vec<u8>) -> Option<Self> {
        let mut message = Self { kind, body, ..Self::default() };
        let mut values = Values::of(fields);
        while values.at < fields.len() {
            values.align(8);
            let (code, signature) = (values.byte()?, values.signature()?);
            let (mut text, mut number) = ("", 0);
            match signature {
                "s" | "o" => text = values.text()?,
                "g" => text = values.signature()?,
                "u" => number = values.number()?,
                _ => return None,
            }
            match code {
                3 => message.member = text.to_owned(),
                4 => message.error = text.to_owned(),
                5 => message.answers = number,
                8 => message.signature = text.to_owned(),
                _ => {}
            }
        }
        Some(message)
    }

    /// Whether it is the signal `member`.
    pub fn is_signal(&self, member: &str) -> bool {
        self.kind == SIGNAL && self.member == member
    }

    /// Its values, if they are what `signature` says.
    pub fn values(&self, signature: &str) -> Option<Values<'_>> {
        (self.signature == signature).then(|| Values::of(&self.body))
    }
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Return(Message),
    /// It was refused.
    Refusal {
        /// What it is called.
        name: String,
        /// For people.
        message: String,
    },
}

/// A conversation that ends by `deadline`.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    deadline: Instant,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Message>,
    read: usize,
}

impl Bus {
    /// Says who it is ("Authentication Protocol"): the other side looks at the peer's credentials.
    pub fn greet(stream: UnixStream, deadline: Instant) -> io::Result<Self> {
        let mut bus = Self { stream, deadline, serial: 0, signals: VecDeque::new(), read: 0 };
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hexadecimal: String = uid.bytes().map(|b| format!("{b:02x}")).collect();
        bus.send(format!("\0AUTH EXTERNAL {hexadecimal}\r\n").as_bytes())?;
        let line = bus.line()?;
        if !line.starts_with(b"OK ") {
            return Err(malformed("it does not accept this user"));
        }
        bus.send(b"BEGIN\r\n")?;
        Ok(bus)
    }

    /// Calls, and waits for the answer.
    pub fn call(&mut self, target: Target<'_>, member: &str, signature: &str, body: &Body) -> io::Result<Answer> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&call(serial, target, member, signature, body))?;
        loop {
            let message = self.message()?;
            match message.kind {
                RETURN if message.answers == serial => return Ok(Answer::Return(message)),
                ERROR if message.answers == serial => {
                    // Its first value is for people, if it is a text.
                    let text = Some(Values::of(&message.body)).filter(|_| message.signature.starts_with('s'));
                    let text = text.and_then(|mut values| values.text()).unwrap_or_default().to_owned();
                    return Ok(Answer::Refusal { name: message.error, message: text });
                }
                SIGNAL => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal that `wanted` makes something of; those that came before count.
    pub fn wait_for_signal<T>(&mut self, wanted: impl Fn(&Message) -> Option<T>) -> io::Result<T> {
        while let Some(signal) = self.signals.pop_front() {
            if let Some(found) = wanted(&signal) {
                return Ok(found);
            }
        }
        loop {
            if let Some(found) = wanted(&self.message()?) {
                return Ok(found);
            }
        }
    }

    fn message(&mut self) -> io::Result<Message> {
        self.read += 1;
        if self.read > MESSAGES {
            return Err(malformed("it says too much"));
        }
        let mut head = [0; 16];
        self.fill(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (body, fields) = (number(4), number(12));
        if head[0] != b'l' || head[3] != 1 {
            return Err(malformed("what it says is not D-Bus of this machine's byte order"));
        }
        if body > MESSAGE_LIMIT || fields > MESSAGE_LIMIT {
            return Err(malformed("a message is too large"));
        }
        let (body, fields) = (body as usize, fields as usize);
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.fill(&mut rest)?;
        let body = rest.split_off(fields.next_multiple_of(8));
        Message::read(head[1], &rest[..fields], body).ok_or_else(|| malformed("a message cannot be read"))
    }

    /// A line without its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        // Byte by byte: what is behind it is not for this reader.
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LINE_LIMIT {
                return Err(malformed("a line is too long"));
            }
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.rest()?))?;
        self.stream.write_all(bytes)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.stream.set_read_timeout(Some(self.rest()?))?;
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn rest(&self) -> io::Result<std::time::Duration> {
        let rest = self.deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(rest) }
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TARGET: Target<'static> = Target { destination: "a.b", path: "/a", interface: "a.c" };

    /// What the other side would send.
    fn message(kind: u8, fields: &[(u8, &str, &str)], answers: u32, signature: &str, body: &Body) -> Vec<u8> {
        let mut message = Body { bytes: vec![b'l', kind, 0, 1] };
        message.number(body.bytes.len() as u32).number(7);
        message.array(8, |list| {
            for (code, kind, value) in fields {
                list.structure().bytes.push(*code);
                list.signature(kind).text(value);
            }
            list.structure().bytes.push(5);
            list.signature("u").number(answers);
            list.structure().bytes.push(8);
            list.signature("g").signature(signature);
        });
        message.align(8);
        [message.bytes, body.bytes.clone()].concat()
    }

    fn texts(values: &[&str]) -> Body {
        let mut body = Body::default();
        for value in values {
            body.text(value);
        }
        body
    }

    fn conversation(limit: Duration) -> (Bus, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(b"OK 0123\r\n").expect("sent");
        let bus = Bus::greet(ours, Instant::now() + limit).expect("greeted");
        (bus, theirs)
    }

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let bytes = call(1, TARGET, "M", "s", texts(&["x"]).text("").number(0).structure());
        assert_eq!(&bytes[..16], b"l\x01\0\x01\x18\0\0\0\x01\0\0\0\x47\0\0\0");
        assert_eq!(&bytes[16..32], b"\x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0");
        assert_eq!(bytes.len() % 8, 0);
        let mut array = Body::default();
        array.number(1).array(8, |_| {});
        assert_eq!(array.bytes, [1, 0, 0, 0, 0, 0, 0, 0]);
        let mut array = Body::default();
        array.array(8, |list| _ = list.long(3));
        assert_eq!(array.bytes, [8, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn answers_and_signals_are_told_apart() {
        let (mut bus, mut theirs) = conversation(Duration::from_secs(5));
        let signal = message(SIGNAL, &[(3, "s", "JobRemoved")], 0, "ss", &texts(&["one", "done"]));
        let foreign = message(RETURN, &[], 9, "", &Body::default());
        let ours = message(RETURN, &[], 1, "o", &texts(&["/job"]));
        let refusal = message(ERROR, &[(4, "s", "a.No")], 2, "s", &texts(&["because"]));
        theirs.write_all(&[foreign, signal, ours, refusal].concat()).expect("sent");
        let Answer::Return(answer) = bus.call(TARGET, "M", "", &Body::default()).expect("answered") else { panic!() };
        assert_eq!(answer.values("o").and_then(|mut v| v.text().map(str::to_owned)), Some("/job".into()));
        assert!(answer.values("s").is_none());
        let refused = bus.call(TARGET, "M", "", &Body::default()).expect("answered");
        assert_eq!(refused, Answer::Refusal { name: "a.No".into(), message: "because".into() });
        let heard = bus.wait_for_signal(|m| {
            let mut values = m.values("ss").filter(|_| m.is_signal("JobRemoved"))?;
            Some((values.text()?.to_owned(), values.text()?.to_owned()))
        });
        assert_eq!(heard.expect("it came before"), ("one".into(), "done".into()));
    }

    #[test]
    fn what_is_cut_flipped_or_huge_is_an_error_and_no_panic() {
        let whole = message(ERROR, &[(4, "s", "a.No"), (3, "s", "M")], 1, "s", &texts(&["because"]));
        for at in 0..whole.len() {
            for change in [0x01, 0x80, 0xff] {
                let (mut bus, mut theirs) = conversation(Duration::from_secs(5));
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                theirs.write_all(&bytes).and_then(|()| theirs.shutdown(std::net::Shutdown::Write)).expect("sent");
                let _ = bus.call(TARGET, "M", "", &Body::default());
            }
            let (mut bus, mut theirs) = conversation(Duration::from_secs(5));
            theirs.write_all(&whole[..at]).and_then(|()| theirs.shutdown(std::net::Shutdown::Write)).expect("sent");
            assert!(bus.call(TARGET, "M", "", &Body::default()).is_err(), "cut at {at}");
        }
        let (mut bus, mut theirs) = conversation(Duration::from_secs(5));
        theirs.write_all(b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0").expect("sent");
        assert!(bus.call(TARGET, "M", "", &Body::default()).expect_err("too large").to_string().contains("too large"));
    }

    #[test]
    fn nobody_is_waited_for_beyond_the_deadline() {
        let (mut bus, _theirs) = conversation(Duration::from_millis(50));
        let error = bus.call(TARGET, "M", "", &Body::default()).expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(&[b'x'; 600]).expect("sent");
        assert!(Bus::greet(ours, Instant::now() + Duration::from_secs(5)).is_err());
    }
}
