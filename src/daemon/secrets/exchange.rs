//! One connection: requests go from the guest to the host, with secrets put in; answers come back as they are.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smol::Timer;
use smol::future::FutureExt;
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::model::secret::SecretHost;
use crate::net::http::{self, Body, Chunks, Outgoing, Refusal, Swap};

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;

/// How long a connection may say nothing, either way: models think for minutes before they answer.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// How long an answer may take to end after the guest has said all that it had to say.
const LINGER: Duration = Duration::from_secs(60);

/// Why requests end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// A request that does not go out.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The guest's end of the connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The host takes no more; it may have said why.
    #[error("the host takes no more: {0}")]
    HostGone(io::Error),
}

/// What a guest sends, one request after another.
pub(super) struct Requests<R> {
    from: R,
    /// What was read and does not belong to what was taken.
    ahead: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Requests<R> {
    /// From the beginning of a connection.
    pub fn new(from: R) -> Self {
        Self { from, ahead: Vec::new() }
    }

    /// The rest, from another end of the same connection.
    pub fn go_on<S: AsyncRead + Unpin>(self, other: impl FnOnce(R) -> S) -> Requests<S> {
        Requests { from: other(self.from), ahead: self.ahead }
    }

    /// The connection, for whoever has something to say on it instead of the host.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next head, as it goes out; `None` when the guest has ended the connection before one.
    pub async fn head(&mut self, host: &SecretHost, swaps: &[Swap]) -> Result<Option<Outgoing>, Trouble> {
        let mut looked_at = 0;
        loop {
            // A head ends with a line: whoever sends it letter by letter does not have all of it read each time.
            let may_end = self.ahead[looked_at..].contains(&b'\n') || self.ahead.len() >= http::HEAD_LIMIT;
            looked_at = self.ahead.len();
            if may_end && let Some(length) = http::head_length(&self.ahead)? {
                let out = http::outgoing(&self.ahead[..length], host, swaps)?;
                self.ahead.drain(..length);
                return Ok(Some(out));
            }
            let begun = !self.ahead.is_empty();
            match self.more().await? {
                0 if begun => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                0 => return Ok(None),
                _ => {}
            }
        }
    }

    /// Reads more; how much it was.
    async fn more(&mut self) -> io::Result<usize> {
        let before = self.ahead.len();
        self.ahead.resize(before + PIECE, 0);
        let read = self.from.read(&mut self.ahead[before..]).await;
        self.ahead.truncate(before + read.as_ref().map_or(0, |read| *read));
        read
    }

    /// Passes the body on that follows a head.
    async fn body(&mut self, body: Body, to: &mut (impl AsyncWrite + Unpin), pulse: &Pulse) -> Result<(), Trouble> {
        match body {
            Body::Length(length) => self.counted(length, to, pulse).await,
            Body::Chunked(chunks) => self.chunked(chunks, to, pulse).await,
            Body::Upgraded => self.all(to, pulse).await,
        }
    }

    async fn counted(
        &mut self,
        mut left: u64,
        to: &mut (impl AsyncWrite + Unpin),
        pulse: &Pulse,
    ) -> Result<(), Trouble> {
        while left > 0 {
            self.some().await?;
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(self.ahead.len());
            self.pass(taken, to, pulse).await?;
            left -= taken as u64;
        }
        Ok(())
    }

    async fn chunked(
        &mut self,
        mut chunks: Chunks,
        to: &mut (impl AsyncWrite + Unpin),
        pulse: &Pulse,
    ) -> Result<(), Trouble> {
        while !chunks.is_at_end() {
            self.some().await?;
            let taken = chunks.take(&self.ahead)?;
            self.pass(taken, to, pulse).await?;
        }
        Ok(())
    }

    /// Everything to the end of the connection.
    async fn all(&mut self, to: &mut (impl AsyncWrite + Unpin), pulse: &Pulse) -> Result<(), Trouble> {
        loop {
            self.pass(self.ahead.len(), to, pulse).await?;
            if self.more().await? == 0 {
                return Ok(());
            }
        }
    }

    /// Makes sure that something is there.
    async fn some(&mut self) -> io::Result<()> {
        match self.ahead.is_empty() && self.more().await? == 0 {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        }
    }

    async fn pass(&mut self, count: usize, to: &mut (impl AsyncWrite + Unpin), pulse: &Pulse) -> Result<(), Trouble> {
        say(to, &self.ahead[..count]).await?;
        self.ahead.drain(..count);
        pulse.beat();
        Ok(())
    }
}

/// Says `bytes` to the host.
async fn say(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Trouble> {
    to.write_all(bytes).await.map_err(Trouble::HostGone)?;
    to.flush().await.map_err(Trouble::HostGone)
}

/// Tells whether something still moves.
#[derive(Debug, Default)]
struct Pulse(AtomicU64);

impl Pulse {
    fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends when nothing has moved for a while.
    async fn stops(&self) {
        loop {
            let before = self.0.load(Ordering::Relaxed);
            Timer::after(IDLE).await;
            if self.0.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// A connection of a guest and one to the host that it asked for, with what is needed between them.
pub(super) struct Exchange<'a, R, W, U, V> {
    /// What the guest sends.
    pub requests: Requests<R>,
    /// To the guest.
    pub to_guest: W,
    /// From the host.
    pub from_host: U,
    /// To the host.
    pub to_host: V,
    /// Who it is.
    pub host: &'a SecretHost,
    /// What is put in.
    pub swaps: &'a [Swap],
}

impl<R, W, U, V> Exchange<'_, R, W, U, V>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    U: AsyncRead + Unpin,
    V: AsyncWrite + Unpin,
{
    /// Passes on until one side ends, beginning with `first`; `count` hears how many secrets each request
    /// that follows it got.
    pub async fn run(mut self, first: Outgoing, count: impl Fn(usize)) -> Result<(), Trouble> {
        let pulse = Pulse::default();
        let requests = async {
            let mut next = Some(first);
            while let Some(Outgoing { bytes, body, .. }) = next {
                say(&mut self.to_host, &bytes).await?;
                pulse.beat();
                self.requests.body(body, &mut self.to_host, &pulse).await?;
                next = self.requests.head(self.host, self.swaps).await?;
                if let Some(out) = &next {
                    count(out.swapped);
                }
            }
            Ok(())
        };
        let requests = async {
            let ended = requests.await;
            if matches!(ended, Ok(()) | Err(Trouble::HostGone(_))) {
                // The answer may still be on its way.
                Timer::after(LINGER).await;
            }
            ended
        };
        let answers = async { Ok(copy(&mut self.from_host, &mut self.to_guest, &pulse).await?) };
        let silence = async {
            pulse.stops().await;
            Ok(())
        };
        requests.or(answers).or(silence).await
    }
}

/// Passes on what comes until its proper end, and then says that it was one.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    pulse: &Pulse,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece).await? {
            0 => return to.close().await,
            length => {
                to.write_all(&piece[..length]).await?;
                to.flush().await?;
                pulse.beat();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::{Placeholder, SecretValue};
    use smol::io::Cursor;

    fn swaps() -> Vec<Swap> {
        let value = SecretValue::new(&"A".parse().expect("a name"), "s3cret".to_owned()).expect("a value");
        vec![Swap { placeholder: Placeholder::from_random(1), value }]
    }

    /// Gives one byte at a time.
    struct Drops<R>(R);

    impl<R: AsyncRead + Unpin> AsyncRead for Drops<R> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buffer: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            let end = buffer.len().min(1);
            std::pin::Pin::new(&mut self.0).poll_read(cx, &mut buffer[..end])
        }
    }

    /// What goes out of what a guest sends, and how it ends.
    fn sent(text: &str) -> (String, Result<(), Trouble>) {
        let host: SecretHost = "api.example".parse().expect("a host");
        let swaps = swaps();
        let mut out = Vec::new();
        let outcome = smol::block_on(async {
            let mut requests = Requests::new(Drops(Cursor::new(text.as_bytes())));
            let pulse = Pulse::default();
            while let Some(Outgoing { bytes, body, .. }) = requests.head(&host, &swaps).await? {
                out.extend_from_slice(&bytes);
                requests.body(body, &mut out, &pulse).await?;
            }
            Ok(())
        });
        (String::from_utf8(out).expect("text"), outcome)
    }

    #[test]
    fn requests_are_told_apart_and_bodies_left_alone() {
        let p = Placeholder::from_random(1);
        let length = p.as_str().len();
        let head = |rest: &str| format!("POST / HTTP/1.1\r\nHost: api.example\r\nX: {p}\r\n{rest}\r\n");
        let asked = [
            head(&format!("Content-Length: {length}\r\n")),
            p.to_string(),
            head("Transfer-Encoding: chunked\r\n"),
            format!("{length:x}\r\n{p}\r\n0\r\n\r\n"),
            head("Upgrade: websocket\r\n"),
            p.to_string(),
        ];
        let (out, outcome) = sent(&asked.concat());
        let wanted: Vec<String> = asked.iter().map(|part| part.replace(&format!("X: {p}"), "X: s3cret")).collect();
        assert_eq!(out, wanted.concat());
        assert!(outcome.is_ok(), "{outcome:?}");
    }

    #[test]
    fn what_is_cut_short_is_no_proper_end() {
        for cut in ["POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 5\r\n\r\nab", "GET / HT"] {
            let (_, outcome) = sent(cut);
            assert!(matches!(outcome, Err(Trouble::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof), "{cut}");
        }
        assert!(matches!(sent("GET / HTTP/1.1\r\nHost: b\r\n\r\n").1, Err(Trouble::Refused(_))));
    }

    #[test]
    fn answers_come_back_while_a_request_is_still_going_out() {
        let host: SecretHost = "api.example".parse().expect("a host");
        let swaps = swaps();
        let mut to_guest = Vec::new();
        let outcome = smol::block_on(async {
            let first = b"POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 10\r\n\r\n";
            let first = http::outgoing(first, &host, &swaps).expect("goes out");
            // The body never comes; the host has answered and ends the connection.
            let exchange = Exchange {
                requests: Requests::new(Never),
                to_guest: Cursor::new(&mut to_guest),
                from_host: Cursor::new(b"HTTP/1.1 413 Too Large\r\n\r\n".to_vec()),
                to_host: Vec::new(),
                host: &host,
                swaps: &swaps,
            };
            exchange.run(first, |_| ()).await
        });
        assert!(outcome.is_ok(), "{outcome:?}");
        assert!(to_guest.starts_with(b"HTTP/1.1 413"));
    }

    /// Says nothing, for ever.
    struct Never;

    impl AsyncRead for Never {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::task::Poll::Pending
        }
    }
}
