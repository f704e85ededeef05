//! Requests to registries: over TLS unless allowed otherwise, with bounded patience, bounded redirects and
//! credentials that stay with the server they are for.

use std::sync::Arc;
use std::time::Duration;

use log::debug;
use ureq::http::HeaderMap;

use super::Settings;
use super::cancel::Cancel;
use super::error::OciError;
use super::hidden::Hidden;
use crate::host::web::{Agents, Url, may_be_plain};

/// Attempts at one request.
const ATTEMPTS: u32 = 5;
/// Longest pause between two attempts, whatever the server asks for.
const MOST_PAUSE: Duration = Duration::from_secs(60);
/// Pauses that are as long or longer are told.
const TOLD_PAUSE: Duration = Duration::from_secs(4);
/// Redirects that are followed.
const REDIRECTS: u32 = 5;
/// Most bytes that are read of what a server says about an error.
const MOST_REASON: u64 = 16 << 10;

/// The network, as one pull uses it.
pub(super) struct Http {
    agents: Agents,
    insecure: Vec<String>,
    pace: Arc<dyn Fn(Duration) -> Duration + Send + Sync>,
    on_pause: Arc<dyn Fn(&str) + Send + Sync>,
    pub(super) cancel: Arc<Cancel>,
}

/// What is asked for; a GET unless there is a form.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    pub(super) accept: Option<&'a str>,
    /// The header of that name; not shown to another server.
    pub(super) authorization: Option<Hidden>,
    /// The first byte that is wanted.
    pub(super) from: u64,
    pub(super) form: Option<Hidden>,
    /// What is wanted is a document, called so and with at most so many bytes: all of it belongs to the attempt, so
    /// that one which is cut is asked for again.
    pub(super) document: Option<(&'a str, u64)>,
}

/// What came back, from wherever the redirects led.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: ureq::Body,
    pub(super) url: Url,
    /// The body, where it was read already.
    read: Option<Vec<u8>>,
}

impl Http {
    pub(super) fn new(settings: &Settings, cancel: Arc<Cancel>) -> Self {
        Self {
            agents: Agents::of_this_process(),
            insecure: settings.insecure.clone(),
            pace: Arc::clone(&settings.pace),
            on_pause: Arc::clone(&settings.on_pause),
            cancel,
        }
    }

    /// Whether `authority` may be spoken to without TLS.
    pub(super) fn may_be_plain(&self, authority: &str) -> bool {
        may_be_plain(authority, &self.insecure)
    }

    /// Waits, as long as a server or prudence asks for, for another attempt at `what`.
    pub(super) fn pause(&self, what: &str, length: Duration) -> Result<(), OciError> {
        let length = length.min(MOST_PAUSE);
        if length >= TOLD_PAUSE {
            (self.on_pause)(&format!("{what}: the next attempt is in {} s", length.as_secs()));
        }
        self.cancel.pause((self.pace)(length))
    }

    /// Asks until there is an answer that is neither "later" nor silence, a few times.
    pub(super) fn ask(&self, url: &Url, request: &Request) -> Result<Answer, OciError> {
        for attempt in 1.. {
            self.cancel.check()?;
            let pause = match self.follow(url, request).and_then(|answer| whole(answer, request)) {
                Ok(answer) if !matches!(answer.status, 429 | 500 | 502..=504) => return Ok(answer),
                Ok(answer) if attempt >= ATTEMPTS => return Err(busy(&answer)),
                Ok(answer) => wanted_pause(&answer)?.unwrap_or_else(|| backoff(attempt)),
                Err(e) if attempt >= ATTEMPTS || !is_passing(&e) => return Err(e),
                Err(_) => backoff(attempt),
            };
            debug!("{}: attempt {attempt} failed, the next in {} s", url.authority(), pause.as_secs());
            self.pause(&format!("{} has no time or does not answer", url.authority()), pause)?;
        }
        Err(OciError::Cancelled)
    }

    /// One attempt, wherever it leads.
    fn follow(&self, url: &Url, request: &Request) -> Result<Answer, OciError> {
        let mut here = url.clone();
        for _ in 0..=REDIRECTS {
            let authorization = request.authorization.as_ref().filter(|_| here.same_origin(url));
            let answer = self.once(&here, request, authorization)?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            here = redirected(&here, &answer)?;
            if url.secure && !here.secure {
                return Err(refuse(url, format!("to {} without TLS", here.authority())));
            }
            if request.form.is_some() {
                return Err(refuse(url, "with credentials in the request".to_owned()));
            }
        }
        Err(refuse(url, format!("again and again, more than {REDIRECTS} times")))
    }

    /// One request and its answer.
    pub(super) fn once(
        &self,
        url: &Url,
        request: &Request,
        authorization: Option<&Hidden>,
    ) -> Result<Answer, OciError> {
        if !url.secure && !self.may_be_plain(url.authority()) {
            return Err(OciError::Plain { host: url.authority().to_owned() });
        }
        let agent = self.agents.for_address(url)?;
        let address = url.to_string();
        let mut headers: Vec<(&str, String)> = Vec::new();
        headers.extend(request.accept.map(|accept| ("Accept", accept.to_owned())));
        headers.extend(authorization.map(|a| ("Authorization", a.expose().to_owned())));
        if request.from > 0 {
            headers.push(("Range", format!("bytes={}-", request.from)));
        }
        let result = match &request.form {
            None => headers.iter().fold(agent.get(&address), |r, (name, value)| r.header(*name, value)).call(),
            Some(form) => headers
                .iter()
                .fold(agent.post(&address), |r, (name, value)| r.header(*name, value))
                .header("Content-Type", "application/x-www-form-urlencoded")
                .send(form.expose()),
        };
        let response = result.map_err(|source| OciError::Network {
            doing: format!("reach {}", url.authority()),
            source: Box::new(source),
        })?;
        let (head, body) = response.into_parts();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, url: url.clone(), read: None })
    }
}

impl Answer {
    /// Whether it is what was asked for from byte `from` on: all of it, the rest, or that there is no rest.
    pub(super) fn is_content(&self, from: u64) -> bool {
        matches!(self.status, 200 | 206) || (self.status == 416 && from > 0)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, which is a document with at most `limit` bytes.
    pub(super) fn document(self, what: &str, limit: u64) -> Result<Vec<u8>, OciError> {
        use std::io::Read;
        if let Some(bytes) = self.read {
            return Ok(bytes);
        }
        let doing = format!("read the {what} from {}", self.url.authority());
        let stated = self.header("Content-Length").and_then(|length| length.parse::<u64>().ok());
        let mut bytes = Vec::new();
        let reader = self.body.into_with_config().limit(u64::MAX).reader();
        reader.take(limit + 1).read_to_end(&mut bytes).map_err(|e| network(&doing, e))?;
        if bytes.len() as u64 > limit {
            return Err(OciError::TooLarge { what: what.to_owned(), limit });
        }
        if stated.is_some_and(|stated| stated > bytes.len() as u64) {
            return Err(network(&doing, std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(bytes)
    }

    /// What a registry says about an error (distribution spec, "Error codes"), on one line and printable;
    /// begins with ": " or is empty.
    pub(super) fn reason(self) -> String {
        #[derive(serde::Deserialize)]
        struct Said {
            code: Option<String>,
            message: Option<String>,
        }
        #[derive(serde::Deserialize)]
        struct Body {
            errors: Option<Vec<Said>>,
            message: Option<String>,
            details: Option<String>,
        }
        let Ok(bytes) = self.document("answer", MOST_REASON) else { return String::new() };
        let Ok(body) = serde_json::from_slice::<Body>(&bytes) else { return String::new() };
        let first = body.errors.and_then(|errors| errors.into_iter().next());
        let text = first
            .and_then(|said| said.message.filter(|m| !m.is_empty()).or(said.code))
            .or(body.details)
            .or(body.message);
        match text {
            Some(text) if !text.is_empty() => {
                let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
                format!(": {text}")
            }
            _ => String::new(),
        }
    }
}

/// An error while a body was read.
pub(super) fn network(doing: &str, error: std::io::Error) -> OciError {
    OciError::Network { doing: doing.to_owned(), source: Box::new(ureq::Error::Io(error)) }
}

/// Whether trying again may help: not when there is no such server, or one that nobody vouches for.
pub(super) fn is_passing(error: &OciError) -> bool {
    let OciError::Network { source, .. } = error else { return false };
    match source.as_ref() {
        ureq::Error::Io(e) => {
            !matches!(e.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::ConnectionRefused)
        }
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled => true,
        _ => false,
    }
}

/// The answer with all of the document that `request` is about.
fn whole(mut answer: Answer, request: &Request) -> Result<Answer, OciError> {
    let Some((what, limit)) = request.document.filter(|_| answer.status == 200) else { return Ok(answer) };
    let body = std::mem::replace(&mut answer.body, ureq::Body::builder().data(Vec::new()));
    let url = answer.url.clone();
    let unread = Answer { status: 200, headers: answer.headers.clone(), body, url, read: None };
    Ok(Answer { read: Some(unread.document(what, limit)?), ..answer })
}

/// How long the server wants to be left alone; an error where nobody would wait for that.
fn wanted_pause(answer: &Answer) -> Result<Option<Duration>, OciError> {
    let pause = retry_after(&answer.headers);
    match pause {
        Some(long) if answer.status == 429 && long > MOST_PAUSE => {
            Err(OciError::Later { host: answer.url.authority().to_owned(), minutes: long.as_secs().div_ceil(60) })
        }
        pause => Ok(pause),
    }
}

/// 1, 2, 4, … seconds.
pub(super) fn backoff(attempt: u32) -> Duration {
    Duration::from_secs(1 << attempt.saturating_sub(1).min(5))
}

/// Seconds (RFC 9110 section 10.2.3); a date is as good as nothing, since clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("Retry-After")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn busy(answer: &Answer) -> OciError {
    let hint = match answer.status {
        429 => ", or log in: registries let known people pull more",
        _ => "",
    };
    OciError::Busy { host: answer.url.authority().to_owned(), status: answer.status, attempts: ATTEMPTS, hint }
}

fn redirected(here: &Url, answer: &Answer) -> Result<Url, OciError> {
    let location = answer.header("Location").ok_or_else(|| refuse(here, "without saying where".to_owned()))?;
    here.join(location).map_err(|reason| refuse(here, reason.to_owned()))
}

fn refuse(url: &Url, reason: String) -> OciError {
    OciError::Redirect { host: url.authority().to_owned(), reason }
}
