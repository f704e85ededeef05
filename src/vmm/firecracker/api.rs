//! Firecracker's API: HTTP/1.1 with JSON over its unix socket, one request at a time on one
//! connection. It never speaks by itself. The monitor is not trusted: answers are bounded.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use smol::Async;
use smol::future::Boxed;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::vmm::deadline::within;
use crate::vmm::{Call, Control, EndReason, VmmError};

/// Most bytes of an answer's head, and of its body: what is asked for here has a few hundred.
const MAX_HEAD: usize = 8 << 10;
const MAX_BODY: usize = 64 << 10;

/// Most headers of an answer.
const MAX_HEADERS: usize = 32;

/// Starting a guest reads the kernel from the disk; everything else is answered at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A conversation over the API.
pub(super) struct Api {
    connection: Arc<Connection>,
    /// What is said before the guest starts; empty for a monitor that was found again.
    setup: Mutex<Vec<Call>>,
}

struct Connection {
    stream: Async<UnixStream>,
    turn: smol::lock::Mutex<()>,
}

impl Api {
    /// Takes the connected socket.
    pub(super) fn new(socket: OwnedFd, setup: Vec<Call>) -> io::Result<Self> {
        let connection = Connection { stream: Async::new(UnixStream::from(socket))?, turn: smol::lock::Mutex::new(()) };
        Ok(Self { connection: Arc::new(connection), setup: Mutex::new(setup) })
    }
}

impl Control for Api {
    fn begin(&self) -> Boxed<Result<bool, VmmError>> {
        let connection = self.connection.clone();
        let setup = std::mem::take(&mut *self.setup.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async move { connection.begin(setup).await })
    }

    /// Firecracker has no power button, but a keyboard that knows one combination (x86 alone).
    fn press_power(&self) -> Boxed<Result<(), VmmError>> {
        let connection = self.connection.clone();
        let call = Call { path: "/actions".into(), body: r#"{"action_type":"SendCtrlAltDel"}"#.into() };
        Box::pin(async move { connection.send("PUT", &call).await })
    }

    fn pause(&self) -> Boxed<Result<(), VmmError>> {
        let connection = self.connection.clone();
        let call = Call { path: "/vm".into(), body: r#"{"state":"Paused"}"#.into() };
        Box::pin(async move { connection.send("PATCH", &call).await })
    }

    fn resume(&self) -> Boxed<Result<(), VmmError>> {
        let connection = self.connection.clone();
        Box::pin(async move { connection.send("PATCH", &resume()).await })
    }

    fn drained(&self) -> Boxed<()> {
        Box::pin(std::future::ready(()))
    }

    /// Its exit status says it, which its parent knows: see `RootRequest::Farewell`.
    fn end_reason(&self) -> Option<EndReason> {
        None
    }
}

impl Connection {
    async fn begin(&self, setup: Vec<Call>) -> Result<bool, VmmError> {
        let state = self.state().await?;
        match (state.as_str(), setup.as_slice()) {
            ("Running", _) => Ok(false),
            // By a daemon that ended over it.
            ("Paused", _) => self.send("PATCH", &resume()).await.map(|()| true),
            (_, []) => Err(VmmError::Control("the guest was never started".into())),
            (_, calls) => {
                for call in calls {
                    self.send("PUT", call).await?;
                }
                Ok(false)
            }
        }
    }

    /// `Not started`, `Running` or `Paused`.
    async fn state(&self) -> Result<String, VmmError> {
        let answer = self.ask("GET", "/", "").await?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match value["state"].as_str() {
            Some(state) => Ok(state.to_owned()),
            None => Err(refused("/", &answer)),
        }
    }

    async fn send(&self, method: &str, call: &Call) -> Result<(), VmmError> {
        let answer = self.ask(method, &call.path, &call.body).await?;
        if answer.is_success() { Ok(()) } else { Err(refused(&call.path, &answer)) }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer, VmmError> {
        let _turn = self.turn.lock().await;
        let broken = |e: io::Error| VmmError::Control(format!("{method} {path}: {e}"));
        let late = || Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {ANSWER_LIMIT:?}")));
        let answer = within(ANSWER_LIMIT, self.exchange(&request(method, path, body))).await;
        answer.unwrap_or_else(late).map_err(|e| {
            // Half an answer may follow: nothing sensible can be said on this connection any more.
            let _ = self.stream.get_ref().shutdown(std::net::Shutdown::Both);
            broken(e)
        })
    }

    async fn exchange(&self, request: &[u8]) -> io::Result<Answer> {
        (&self.stream).write_all(request).await?;
        let mut heard = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Some(answer) = parse(&heard)? {
                return Ok(answer);
            }
            match (&self.stream).read(&mut chunk).await? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the monitor closed it")),
                count => heard.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

fn resume() -> Call {
    Call { path: "/vm".into(), body: r#"{"state":"Resumed"}"#.into() }
}

/// The whole of one request. The API knows no other content than JSON.
fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    };
    format!("{head}{length}\r\n{body}").into_bytes()
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The monitor's own words for a refusal.
fn refused(path: &str, answer: &Answer) -> VmmError {
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let said: String = match value["fault_message"].as_str() {
        Some(said) => said.chars().filter(|c| !c.is_control()).take(500).collect(),
        None => format!("it answered with status {} and no reason", answer.status),
    };
    VmmError::Refused { path: path.to_owned(), said }
}

/// The answer, once all of it is there.
fn parse(heard: &[u8]) -> io::Result<Option<Answer>> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(heard).map_err(|e| bad(format!("an answer that is not HTTP: {e}")))?;
    let httparse::Status::Complete(at) = parsed else {
        let waiting = heard.len() <= MAX_HEAD;
        return if waiting { Ok(None) } else { Err(bad("an answer whose head does not end".into())) };
    };
    let status = head.code.unwrap_or_default();
    let length = match head.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length")) {
        Some(header) => {
            let text = std::str::from_utf8(header.value).unwrap_or_default();
            text.trim().parse::<usize>().map_err(|_| bad("an answer of unknown length".into()))?
        }
        None => 0,
    };
    if length > MAX_BODY {
        return Err(bad(format!("an answer of {length} bytes; at most {MAX_BODY} are taken")));
    }
    Ok(heard.get(at..at + length).map(|body| Answer { status, body: body.to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// An API that answers each request with the next of `script`; what it was asked.
    fn against(script: Vec<&'static str>, setup: Vec<Call>, test: impl AsyncFnOnce(Api)) -> Vec<String> {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in script {
                let mut buffer = [0; 4096];
                let count = theirs.read(&mut buffer).expect("asked");
                asked.push(String::from_utf8_lossy(&buffer[..count]).lines().next().unwrap_or_default().to_owned());
                theirs.write_all(answer.as_bytes()).expect("answered");
            }
            asked
        });
        smol::block_on(test(Api::new(ours.into(), setup).expect("connected")));
        server.join().expect("ended")
    }

    const FINE: &str = "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";
    const NOT_STARTED: &str = "HTTP/1.1 200 \r\nContent-Length: 23\r\n\r\n{\"state\":\"Not started\"}";
    const RUNNING: &str = "HTTP/1.1 200 \r\nContent-Length: 19\r\n\r\n{\"state\":\"Running\"}";

    fn calls() -> Vec<Call> {
        vec![Call { path: "/a".into(), body: "{}".into() }, Call { path: "/b".into(), body: "{}".into() }]
    }

    #[test]
    fn a_new_monitor_is_told_everything_in_order() {
        let asked =
            against(vec![NOT_STARTED, FINE, FINE], calls(), async |api| assert!(!api.begin().await.expect("begun")));
        assert_eq!(asked, ["GET / HTTP/1.1", "PUT /a HTTP/1.1", "PUT /b HTTP/1.1"]);
    }

    #[test]
    fn a_running_one_is_told_nothing_and_one_that_never_started_is_said_to_be() {
        against(vec![RUNNING], calls(), async |api| assert!(!api.begin().await.expect("begun")));
        against(vec![NOT_STARTED], Vec::new(), async |api| {
            assert!(api.begin().await.expect_err("refused").to_string().contains("never started"));
        });
    }

    #[test]
    fn a_halted_guest_goes_on_once_it_is_found_again() {
        let paused = "HTTP/1.1 200 \r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}";
        let asked = against(vec![paused, FINE], Vec::new(), async |api| assert!(api.begin().await.expect("begun")));
        assert_eq!(asked, ["GET / HTTP/1.1", "PATCH /vm HTTP/1.1"]);
        let asked = against(vec![FINE, FINE], Vec::new(), async |api| {
            api.pause().await.expect("paused");
            api.resume().await.expect("resumed");
        });
        assert_eq!(asked, ["PATCH /vm HTTP/1.1", "PATCH /vm HTTP/1.1"]);
    }

    #[test]
    fn a_refusal_comes_with_the_monitors_own_words() {
        let no = "HTTP/1.1 400 \r\nContent-Length: 38\r\n\r\n{\"fault_message\":\"The vCPU number...\"}";
        against(vec![NOT_STARTED, no], calls(), async |api| {
            let error = api.begin().await.expect_err("refused").to_string();
            assert!(error.contains("/a") && error.contains("The vCPU number..."), "{error}");
        });
    }

    #[test]
    fn an_answer_is_taken_when_it_is_whole_and_never_before() {
        let whole = RUNNING.as_bytes();
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]).expect("so far so good"), None, "{cut}");
        }
        assert!(parse(whole).expect("parsed").is_some_and(|a| a.is_success()));
    }

    #[test]
    fn hostile_answers_are_errors() {
        for bad in [
            "rubbish\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 \r\nContent-Length: {}\r\n\r\n", u64::MAX),
            format!("HTTP/1.1 200 \r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1),
            "HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 \r\nX: {}", "x".repeat(MAX_HEAD)),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:.60}");
        }
    }
}
