//! Files of releases from where they lie: over TLS, also after redirects, with bounded patience and bounded sizes. What
//! arrives is trusted only after its signature or digest was checked, elsewhere.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::host::web::{Agents, Url, WebError};

/// Attempts at one file.
const ATTEMPTS: u32 = 3;
/// Redirects that are followed.
const REDIRECTS: u32 = 5;
/// How long a document may take.
const DOCUMENT_TIME: Duration = Duration::from_secs(120);
/// How long a tarball may take: at 64 KiB a second twice what the largest needs.
const TARBALL_TIME: Duration = Duration::from_secs(30 * 60);

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Not an address that is used.
    #[error("{address:?} is no address for updates: {reason}")]
    Address {
        /// As written.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server cannot be asked from here.
    #[error(transparent)]
    Web(#[from] WebError),
    /// No answer.
    #[error("cannot {doing}")]
    Network {
        /// What was being done.
        doing: String,
        /// What the network says.
        #[source]
        source: Box<ureq::Error>,
    },
    /// An answer that is not the file.
    #[error("{host} answered {status} when asked for the {what}")]
    Answer {
        /// The server.
        host: String,
        /// The status.
        status: u16,
        /// What was asked for.
        what: String,
    },
    /// A redirect that is not followed.
    #[error("{host} sends elsewhere: {reason}")]
    Redirect {
        /// The server.
        host: String,
        /// Why that is not followed.
        reason: String,
    },
    /// More than is taken.
    #[error("the {what} has more than {limit} bytes: not used")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The most that is taken.
        limit: u64,
    },
    /// Less than it should be.
    #[error("the {what} was cut off after {got} of {expected} bytes")]
    Cut {
        /// What was downloaded.
        what: String,
        /// Bytes that came.
        got: u64,
        /// Bytes that should.
        expected: u64,
    },
    /// Too slow.
    #[error("the {what} did not arrive within {} s", .limit.as_secs())]
    Slow {
        /// What was downloaded.
        what: String,
        /// The time it had.
        limit: Duration,
    },
    /// A file of this machine; the message names it.
    #[error(transparent)]
    File(#[from] io::Error),
}

/// Where a file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At a server.
    Web(Url),
    /// On this machine: for tests and for machines without a network.
    File(PathBuf),
}

impl Place {
    /// What `address` says. `local`: also a file of this machine, and a server of it without TLS.
    pub fn parse(address: &str, local: bool) -> Result<Self, DownloadError> {
        let refused = |reason| DownloadError::Address { address: address.chars().take(200).collect(), reason };
        if let Some(path) = address.strip_prefix("file://") {
            let path = PathBuf::from(path);
            return match (local, path.is_absolute()) {
                (true, true) => Ok(Self::File(path)),
                (true, false) => Err(refused("its path is not absolute")),
                (false, _) => Err(refused("files of this machine are taken with --manifest-url only")),
            };
        }
        let url = Url::parse(address).map_err(refused)?;
        if url.secure || (local && url.is_loopback()) {
            return Ok(Self::Web(url));
        }
        Err(refused("it is not https"))
    }

    /// Where `address`, absolute or from here on, leads.
    pub fn join(&self, address: &str, local: bool) -> Result<Self, DownloadError> {
        let refused = |reason| DownloadError::Address { address: address.chars().take(200).collect(), reason };
        match self {
            _ if address.contains("://") => Self::parse(address, local),
            Self::Web(url) => Self::parse(&url.join(address).map_err(refused)?.to_string(), local),
            Self::File(here) => {
                let below = Path::new(address);
                let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
                let folder = here.parent().filter(|_| plain).ok_or_else(|| refused("it leads out of the folder"))?;
                Ok(Self::File(folder.join(below)))
            }
        }
    }

    /// The host, or that it is here.
    fn host(&self) -> &str {
        match self {
            Self::Web(url) => url.authority(),
            Self::File(_) => "this machine",
        }
    }
}

/// Asks for files.
pub struct Fetcher {
    agents: Agents,
    local: bool,
    pause: fn(u32) -> Duration,
}

impl Fetcher {
    /// With this host's proxies and certificates; `local` as in [`Place::parse`].
    pub fn new(local: bool) -> Self {
        Self { agents: Agents::of_this_process(), local, pause: |attempt| Duration::from_secs(u64::from(attempt)) }
    }

    /// Whether files and servers of this machine are taken.
    pub fn is_local(&self) -> bool {
        self.local
    }

    #[cfg(test)]
    pub(super) fn impatient() -> Self {
        Self { pause: |_| Duration::ZERO, ..Self::new(true) }
    }

    /// All of a document of at most `limit` bytes, called `what`.
    pub fn document(&self, place: &Place, what: &str, limit: u64) -> Result<Vec<u8>, DownloadError> {
        self.patiently(|| {
            let mut bytes = Vec::new();
            let mut opened = self.open(place, what)?;
            opened.pour(what, limit, DOCUMENT_TIME, &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            Ok(bytes)
        })
    }

    /// Pours the file of exactly `size` bytes, called `what`, into `take`. `begin` is told of each attempt, the first
    /// included: what came before it is void.
    pub fn file(
        &self,
        place: &Place,
        what: &str,
        size: u64,
        begin: &mut dyn FnMut() -> io::Result<()>,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DownloadError> {
        self.patiently(|| {
            begin()?;
            let got = self.open(place, what)?.pour(what, size, TARBALL_TIME, take)?;
            if got < size {
                return Err(DownloadError::Cut { what: what.to_owned(), got, expected: size });
            }
            Ok(())
        })
    }

    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T, DownloadError>) -> Result<T, DownloadError> {
        for number in 1..ATTEMPTS {
            match attempt() {
                Err(e) if is_passing(&e) => log::debug!("attempt {number}: {e}"),
                other => return other,
            }
            // There is nothing to wait for but time.
            std::thread::sleep((self.pause)(number));
        }
        attempt()
    }

    fn open(&self, place: &Place, what: &str) -> Result<Opened, DownloadError> {
        match place {
            Place::Web(url) => self.follow(url, what),
            Place::File(path) => {
                let file = File::open(path).map_err(crate::os::files::named("open", path))?;
                Ok(Opened { host: place.host().to_owned(), stated: None, reader: Box::new(file) })
            }
        }
    }

    fn follow(&self, url: &Url, what: &str) -> Result<Opened, DownloadError> {
        let mut here = url.clone();
        for _ in 0..=REDIRECTS {
            let response = self.agents.for_address(&here)?.get(here.to_string()).call().map_err(|source| {
                DownloadError::Network { doing: format!("reach {}", here.authority()), source: Box::new(source) }
            })?;
            let (head, body) = response.into_parts();
            let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
            match head.status.as_u16() {
                200 => {
                    let stated = header("Content-Length").and_then(|length| length.parse().ok());
                    let reader = body.into_with_config().limit(u64::MAX).reader();
                    return Ok(Opened { host: here.authority().to_owned(), stated, reader: Box::new(reader) });
                }
                301 | 302 | 303 | 307 | 308 => here = self.redirected(&here, header("Location"))?,
                status => {
                    let (host, what) = (here.authority().to_owned(), what.to_owned());
                    return Err(DownloadError::Answer { host, status, what });
                }
            }
        }
        Err(refuse(url, &format!("again and again, more than {REDIRECTS} times")))
    }

    /// Never away from TLS; and without it only on this machine.
    fn redirected(&self, here: &Url, location: Option<&str>) -> Result<Url, DownloadError> {
        let there = here.join(location.ok_or_else(|| refuse(here, "without saying where"))?);
        let there = there.map_err(|reason| refuse(here, reason))?;
        if there.secure || (self.local && !here.secure && there.is_loopback()) {
            return Ok(there);
        }
        Err(refuse(here, &format!("to {} without TLS", there.authority())))
    }
}

fn refuse(url: &Url, reason: &str) -> DownloadError {
    DownloadError::Redirect { host: url.authority().to_owned(), reason: reason.to_owned() }
}

/// Whether trying again may help.
fn is_passing(error: &DownloadError) -> bool {
    match error {
        DownloadError::Network { source, .. } => match source.as_ref() {
            ureq::Error::Io(e) => !matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::ConnectionRefused),
            ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled => true,
            _ => false,
        },
        DownloadError::Answer { status, .. } => matches!(status, 429 | 500 | 502..=504),
        DownloadError::Cut { .. } => true,
        DownloadError::Address { .. }
        | DownloadError::Web(_)
        | DownloadError::Redirect { .. }
        | DownloadError::TooLarge { .. }
        | DownloadError::Slow { .. }
        | DownloadError::File(_) => false,
    }
}

/// A file that comes.
struct Opened {
    host: String,
    /// Bytes that the server says it has.
    stated: Option<u64>,
    reader: Box<dyn Read>,
}

impl Opened {
    /// Pours all of it, at most `limit` bytes within `time`, into `take`; how many bytes that were.
    fn pour(
        &mut self,
        what: &str,
        limit: u64,
        time: Duration,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<u64, DownloadError> {
        let too_large = || DownloadError::TooLarge { what: what.to_owned(), limit };
        if self.stated.is_some_and(|stated| stated > limit) {
            return Err(too_large());
        }
        let deadline = Instant::now() + time;
        let (mut got, mut piece) = (0, vec![0; 64 << 10]);
        loop {
            let count = match self.reader.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.cut(what, e)),
            };
            got += count as u64;
            if got > limit {
                return Err(too_large());
            }
            if Instant::now() > deadline {
                return Err(DownloadError::Slow { what: what.to_owned(), limit: time });
            }
            take(&piece[..count])?;
        }
        match self.stated {
            Some(expected) if expected > got => Err(DownloadError::Cut { what: what.to_owned(), got, expected }),
            _ => Ok(got),
        }
    }

    fn cut(&self, what: &str, error: io::Error) -> DownloadError {
        let doing = format!("read the {what} from {}", self.host);
        DownloadError::Network { doing, source: Box::new(ureq::Error::Io(error)) }
    }
}
