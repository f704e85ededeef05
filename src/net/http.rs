//! Requests of HTTP/1.1 (RFC 9112) on their way from a guest to a host of its secrets: the head is read,
//! placeholders in it are replaced, and where the body ends is followed, so that the next head is found.
//! Pure: sockets and TLS are the daemon's.

use base64ct::{Base64, Encoding};

use crate::model::secret::{HTTPS, Placeholder, SecretHost, SecretValue};

/// Largest head that is taken from a guest: servers take less.
pub const HEAD_LIMIT: usize = 64 << 10;

/// Largest head that goes out: a short placeholder may stand for a long secret.
const OUT_LIMIT: usize = 256 << 10;

/// Most fields of a head.
const FIELDS: usize = 128;

/// Longest line that says how long a chunk is, and longest trailers after the last.
const CHUNK_LINE: usize = 1024;
const TRAILERS: usize = 16 << 10;

/// A request that does not go out, and how the guest is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not HTTP/1.
    #[error("this is not a request of HTTP/1.1: {0}")]
    Malformed(String),
    /// A head that is too large.
    #[error("the request's head is larger than {HEAD_LIMIT} bytes, or would be with its secrets")]
    TooLarge,
    /// The certificate was asked for under another name.
    #[error("the request is for {asked:?}, the connection was made for {host}")]
    OtherHost {
        /// Its `Host`.
        asked: String,
        /// Whom TLS was spoken for.
        host: String,
    },
    /// A method that would be answered with the request itself, or that makes tunnels.
    #[error("{0} does not pass: its answer would show the secret, or hide what follows")]
    Method(String),
    /// Two statements about the body's length, or one that is none.
    #[error("where the request's body ends is not clear")]
    Framing,
    /// The host could not be reached.
    #[error("{host} cannot be reached: {why}")]
    Unreachable {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
}

impl Refusal {
    /// Status code and its name (RFC 9110 section 15, RFC 6585).
    fn status(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Framing => "400 Bad Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::OtherHost { .. } => "421 Misdirected Request",
            Self::Method(_) => "405 Method Not Allowed",
            Self::Unreachable { .. } => "502 Bad Gateway",
        }
    }

    /// The answer, after which the connection ends.
    pub fn answer(&self) -> Vec<u8> {
        let text = format!("banger: {self}\n");
        let length = text.len();
        let status = self.status();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{text}"
        )
        .into_bytes()
    }
}

/// What stands for a secret, and the secret.
#[derive(Debug, Clone)]
pub struct Swap {
    /// What the guest writes.
    pub placeholder: Placeholder,
    /// What goes out.
    pub value: SecretValue,
}

/// How a body ends (RFC 9112 section 6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked(Chunks),
    /// Not at all: what follows is no HTTP any more, if the host agrees.
    Upgraded,
}

/// A head as it goes out.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its bytes; with secrets in them, if there are any. Never shown.
    pub bytes: Vec<u8>,
    /// What follows it.
    pub body: Body,
    /// How many placeholders were replaced.
    pub swapped: usize,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("body", &self.body).field("swapped", &self.swapped).finish_non_exhaustive()
    }
}

/// How long the head is that `bytes` begin with; `None` while it has not ended.
pub fn head_length(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    match httparse::Request::new(&mut fields).parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_LIMIT => Ok(Some(length)),
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_LIMIT => Ok(None),
        Ok(_) => Err(Refusal::TooLarge),
        Err(e) => Err(Refusal::Malformed(e.to_string())),
    }
}

/// The head in `bytes`, which must be one, as it goes out to `host`: with `swaps` made in its fields.
pub fn outgoing(bytes: &[u8], host: &SecretHost, swaps: &[Swap]) -> Result<Outgoing, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes).map_err(|e| Refusal::Malformed(e.to_string()))?;
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if parsed.is_partial() {
        return Err(Refusal::Malformed("it is cut short".to_owned()));
    }
    if ["CONNECT", "TRACE", "TRACK"].iter().any(|other| method.eq_ignore_ascii_case(other)) {
        return Err(Refusal::Method(method.to_owned()));
    }
    // The other forms name a host of their own (RFC 9112 section 3.2).
    if !target.starts_with('/') && target != "*" {
        return Err(Refusal::OtherHost { asked: target.to_owned(), host: host.to_string() });
    }
    check_host(request.headers, host)?;
    let body = body(request.headers)?;
    let minor = request.version.unwrap_or(1);
    let mut out = format!("{method} {target} HTTP/1.{minor}\r\n").into_bytes();
    let mut swapped = 0;
    for field in request.headers.iter() {
        let (value, times) = swap(field.name, field.value, swaps);
        swapped += times;
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(&value);
        out.extend_from_slice(b"\r\n");
        if out.len() > OUT_LIMIT {
            return Err(Refusal::TooLarge);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(Outgoing { bytes: out, body, swapped })
}

/// The values of the fields called `name`.
fn values<'a>(fields: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// Exactly one `Host`, and it is `host` (RFC 9112 section 3.2).
fn check_host(fields: &[httparse::Header<'_>], host: &SecretHost) -> Result<(), Refusal> {
    let asked: Vec<String> = values(fields, "host").map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    let is_meant = |asked: &str| match asked.split_once(':') {
        Some((name, port)) => host.is(name) && port.parse() == Ok(host.port()),
        None => host.is(asked) && host.port() == HTTPS,
    };
    match asked.as_slice() {
        [one] if is_meant(one.trim()) => Ok(()),
        _ => Err(Refusal::OtherHost { asked: asked.join(", "), host: host.to_string() }),
    }
}

fn body(fields: &[httparse::Header<'_>]) -> Result<Body, Refusal> {
    let mut lengths = values(fields, "content-length");
    let mut codings = values(fields, "transfer-encoding");
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() || length.is_some() && coding.is_some() {
        return Err(Refusal::Framing);
    }
    let plain = |value: &[u8]| String::from_utf8_lossy(value).trim().to_ascii_lowercase();
    let body = match (length.map(plain), coding.map(plain)) {
        (Some(length), _) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            Body::Length(length.parse().map_err(|_| Refusal::Framing)?)
        }
        (Some(_), _) => return Err(Refusal::Framing),
        (None, Some(coding)) if coding == "chunked" => Body::Chunked(Chunks::default()),
        (None, Some(_)) => return Err(Refusal::Framing),
        (None, None) => Body::Length(0),
    };
    // What a client says before the host has agreed is a body like any other; there is none customarily.
    let is_upgrade = values(fields, "upgrade").next().is_some();
    Ok(if is_upgrade && body == Body::Length(0) { Body::Upgraded } else { body })
}

/// A field's value with its placeholders replaced, and how many there were.
fn swap(name: &str, value: &[u8], swaps: &[Swap]) -> (Vec<u8>, usize) {
    let (plain, times) = replaced(value, swaps);
    if times > 0 || !name.eq_ignore_ascii_case("authorization") {
        return (plain, times);
    }
    // `Basic` hides it in Base64 (RFC 7617): git and curl send passwords so.
    let (decoded, scheme) = match decoded_basic(value) {
        Some(decoded) => decoded,
        None => return (plain, 0),
    };
    match replaced(&decoded, swaps) {
        (_, 0) => (plain, 0),
        (whole, times) => ([scheme, b" ", Base64::encode_string(&whole).as_bytes()].concat(), times),
    }
}

fn decoded_basic(value: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (scheme, rest) = value.split_at_checked(5)?;
    let rest = std::str::from_utf8(rest).ok()?.strip_prefix(' ')?.trim();
    let decoded = scheme.eq_ignore_ascii_case(b"basic").then(|| Base64::decode_vec(rest).ok())??;
    Some((decoded, scheme))
}

/// In one pass, so that nothing is replaced within a secret.
fn replaced(value: &[u8], swaps: &[Swap]) -> (Vec<u8>, usize) {
    let (mut out, mut at, mut times) = (Vec::with_capacity(value.len()), 0, 0);
    while at < value.len() {
        let here = swaps.iter().find(|swap| value[at..].starts_with(swap.placeholder.as_str().as_bytes()));
        match here {
            Some(swap) => {
                out.extend_from_slice(swap.value.expose().as_bytes());
                at += swap.placeholder.as_str().len();
                times += 1;
            }
            None => {
                out.push(value[at]);
                at += 1;
            }
        }
    }
    (out, times)
}

/// Follows a chunked body to its end (RFC 9112 section 7.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunks {
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In the line that says how long the next chunk is.
    Size(Vec<u8>),
    /// In a chunk, of which so much is to come.
    Data(u64),
    /// In the line end after a chunk.
    After(Vec<u8>),
    /// Behind the last chunk: bytes of the line so far, and of all lines.
    Trailers { line: usize, all: usize },
    /// Behind it all.
    End,
}

impl Default for Place {
    fn default() -> Self {
        Self::Size(Vec::new())
    }
}

impl Chunks {
    /// How many of `bytes` belong to the body; fewer than there are only at its end.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < bytes.len() && self.place != Place::End {
            at += self.step(&bytes[at..])?;
        }
        Ok(at)
    }

    /// Whether the body has ended.
    pub fn is_at_end(&self) -> bool {
        self.place == Place::End
    }

    /// Takes at least one byte.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let first = bytes[0];
        let next = match &mut self.place {
            Place::Data(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.place = Place::After(Vec::new());
                }
                return Ok(taken);
            }
            Place::Size(line) => {
                line.push(first);
                if line.len() > CHUNK_LINE {
                    return Err(Refusal::Framing);
                }
                if first != b'\n' { None } else { Some(after_size(line)?) }
            }
            Place::After(line) => {
                line.push(first);
                match line.as_slice() {
                    b"\r" => None,
                    b"\r\n" => Some(Place::default()),
                    _ => return Err(Refusal::Framing),
                }
            }
            Place::Trailers { line, all } => {
                *all += 1;
                if *all > TRAILERS {
                    return Err(Refusal::TooLarge);
                }
                match first {
                    b'\n' if *line == 0 => Some(Place::End),
                    b'\n' => Some(Place::Trailers { line: 0, all: *all }),
                    b'\r' => None,
                    _ => {
                        *line += 1;
                        None
                    }
                }
            }
            Place::End => None,
        };
        if let Some(next) = next {
            self.place = next;
        }
        Ok(1)
    }
}

fn after_size(line: &[u8]) -> Result<Place, Refusal> {
    // No digit at all would be taken for a length of none.
    if !line.first().is_some_and(u8::is_ascii_hexdigit) {
        return Err(Refusal::Framing);
    }
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((_, 0))) => Ok(Place::Trailers { line: 0, all: 0 }),
        Ok(httparse::Status::Complete((_, size))) => Ok(Place::Data(size)),
        Ok(httparse::Status::Partial) | Err(_) => Err(Refusal::Framing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> SecretHost {
        "api.example".parse().expect("a host")
    }

    fn swaps() -> Vec<Swap> {
        let value = |text: &str| SecretValue::new(&"A".parse().expect("a name"), text.to_owned()).expect("a value");
        vec![
            Swap { placeholder: Placeholder::from_random(1), value: value("s3cret") },
            Swap { placeholder: Placeholder::from_random(2), value: value(Placeholder::from_random(1).as_str()) },
        ]
    }

    fn sent(text: &str) -> Result<(String, usize, Body), Refusal> {
        let length = head_length(text.as_bytes())?.expect("a whole head");
        let out = outgoing(&text.as_bytes()[..length], &host(), &swaps())?;
        Ok((String::from_utf8(out.bytes).expect("text"), out.swapped, out.body))
    }

    #[test]
    fn placeholders_in_fields_are_replaced_and_nowhere_else() {
        let p = Placeholder::from_random(1);
        let text = format!("GET /{p} HTTP/1.1\r\nHost: API.example:443\r\nX-Key: a {p} {p}\r\nAccept: */*\r\n\r\n");
        let (out, swapped, body) = sent(&text).expect("goes out");
        let wanted =
            format!("GET /{p} HTTP/1.1\r\nHost: API.example:443\r\nX-Key: a s3cret s3cret\r\nAccept: */*\r\n\r\n");
        assert_eq!((out, swapped, body), (wanted, 2, Body::Length(0)));
    }

    #[test]
    fn what_stands_in_a_secret_is_not_replaced_again() {
        let (one, two) = (Placeholder::from_random(1), Placeholder::from_random(2));
        let (out, swapped, _) =
            sent(&format!("GET / HTTP/1.1\r\nHost: api.example\r\nX: {two}\r\n\r\n")).expect("goes out");
        assert!(out.contains(&format!("X: {one}\r\n")) && swapped == 1, "{out}");
    }

    #[test]
    fn basic_authorization_is_opened_and_closed_again() {
        let p = Placeholder::from_random(1);
        let basic = |text: &str| Base64::encode_string(text.as_bytes());
        let given = basic(&format!("git:{p}"));
        let (out, swapped, _) =
            sent(&format!("GET / HTTP/1.1\r\nHost: api.example\r\nAuthorization: Basic {given}\r\n\r\n"))
                .expect("goes out");
        assert!(out.contains(&format!("Authorization: Basic {}\r\n", basic("git:s3cret"))) && swapped == 1, "{out}");
        for other in [basic("git:other"), "!!".to_owned(), String::new()] {
            let text = format!("GET / HTTP/1.1\r\nHost: api.example\r\nAuthorization: basic {other}\r\n\r\n");
            let (out, swapped, _) = sent(&text).expect("goes out");
            assert_eq!(swapped, 0);
            assert!(out.contains(other.trim()), "{out}");
        }
    }

    #[test]
    fn whoever_asks_for_another_host_is_refused() {
        for bad in [
            "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: api.example:8443\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: api.example\r\nHost: evil.example\r\n\r\n",
            "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
            "GET https://evil.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: api.example.evil.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: api.example, evil.example\r\n\r\n",
        ] {
            assert!(matches!(sent(bad), Err(Refusal::OtherHost { .. })), "{bad}: {:?}", sent(bad));
        }
    }

    #[test]
    fn another_port_than_that_of_https_must_be_named() {
        let host: SecretHost = "api.example:8443".parse().expect("a host");
        let sent = |asked: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: {asked}\r\n\r\n");
            outgoing(head.as_bytes(), &host, &swaps()).map(|out| out.swapped)
        };
        assert_eq!(sent("api.example:8443"), Ok(0));
        assert!(sent("api.example").is_err() && sent("api.example:443").is_err());
    }

    #[test]
    fn what_would_show_the_request_or_hide_another_is_refused() {
        for (bad, why) in [
            ("TRACE / HTTP/1.1\r\nHost: api.example\r\n\r\n", "405"),
            ("CONNECT x:1 HTTP/1.1\r\nHost: api.example\r\n\r\n", "405"),
            ("POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: +1\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 99999999999999999999\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost : api.example\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost: api.example\r\nX: a\r\n b\r\n\r\n", "400"),
        ] {
            let answer = String::from_utf8(sent(bad).expect_err(bad).answer()).expect("text");
            assert!(answer.starts_with(&format!("HTTP/1.1 {why} ")) && answer.contains("banger: "), "{bad}: {answer}");
        }
    }

    #[test]
    fn heads_have_limits_both_ways() {
        assert_eq!(head_length(b"GET / HTTP/1.1\r\nHost: a"), Ok(None));
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_LIMIT));
        assert_eq!(head_length(long.as_bytes()), Err(Refusal::TooLarge));
        let mut many = String::from("GET / HTTP/1.1\r\n");
        (0..FIELDS + 1).for_each(|n| many.push_str(&format!("X{n}: y\r\n")));
        assert!(head_length((many + "\r\n").as_bytes()).is_err());
        let value = SecretValue::new(&"A".parse().expect("a name"), "x".repeat(4096)).expect("a value");
        let swaps = [Swap { placeholder: Placeholder::from_random(1), value }];
        let bomb = Placeholder::from_random(1).as_str().repeat(1000);
        let text = format!("GET / HTTP/1.1\r\nHost: api.example\r\nX: {bomb}\r\n\r\n");
        assert_eq!(outgoing(text.as_bytes(), &host(), &swaps), Err(Refusal::TooLarge));
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_however_it_arrives() {
        let body = b"4\r\nWiki\r\n5;a=b\r\npedia\r\n0\r\nX: y\r\n\r\nGET /";
        for step in 1..body.len() {
            let (mut chunks, mut at) = (Chunks::default(), 0);
            while !chunks.is_at_end() {
                let end = (at + step).min(body.len());
                at += chunks.take(&body[at..end]).expect("a body");
            }
            assert_eq!(&body[at..], b"GET /", "in steps of {step}");
        }
        for bad in ["x\r\n", "4\r\nWikiX", "fffffffffffffffff\r\n", "\r\n"] {
            assert!(Chunks::default().take(bad.as_bytes()).is_err(), "{bad}");
        }
        let endless = "0\r\n".to_owned() + &"a: b\r\n".repeat(TRAILERS);
        assert!(Chunks::default().take(endless.as_bytes()).is_err());
        assert!(Chunks::default().take("1".repeat(CHUNK_LINE + 1).as_bytes()).is_err());
    }

    #[test]
    fn an_upgrade_ends_what_is_looked_at() {
        let text = "GET / HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(sent(text).expect("goes out").2, Body::Upgraded);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            if let Ok(Some(length)) = head_length(&bytes) {
                let _ = outgoing(&bytes[..length], &host(), &swaps());
            }
            let _ = outgoing(&bytes, &host(), &swaps());
            let _ = Chunks::default().take(&bytes);
        }
    }
}
