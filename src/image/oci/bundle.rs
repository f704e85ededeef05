//! A file at an address, known by its digest: fetched into the cache as layers are, resumed and verified.

use std::fmt;
use std::fs::File;
use std::io::Seek;
use std::sync::Arc;

use super::blobs::Blobs;
use super::cancel::Cancel;
use super::digest::{Digest, Hasher};
use super::download::{self, Origin};
use super::error::OciError;
use super::flow::{Flow, Section};
use super::http::{Answer, Http, Request};
use super::{Settings, cache};
use crate::host::web::Url;

/// Most bytes of one.
const MOST_BYTES: u64 = 64 << 30;

/// Where a file is, and what it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    url: Url,
    digest: Digest,
    bytes: u64,
}

impl Bundle {
    /// The file at `url`, `https://` or `http://`, with exactly this content and length. Whether plain HTTP is allowed is
    /// decided when it is fetched.
    pub fn new(url: &str, digest: Digest, bytes: u64) -> Result<Self, &'static str> {
        let url = Url::parse(url)?;
        if !(1..=MOST_BYTES).contains(&bytes) {
            return Err("a bundle has between 1 byte and 64 GiB");
        }
        Ok(Self { url, digest, bytes })
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last part of its address, or the server's name.
    pub fn name(&self) -> &str {
        match self.url.file_name() {
            "" => self.url.host(),
            name => name,
        }
    }

    /// The file, at its beginning: from the cache, or from the server, which is asked without credentials. It stays in the
    /// cache for as long as it is open. `on_bytes` is told how much of it is there.
    pub fn fetch(&self, settings: &Settings, on_bytes: &mut dyn FnMut(u64)) -> Result<File, OciError> {
        let blobs = cache(&settings.cache)?;
        let server = Server { http: Http::new(settings, Arc::new(Cancel::default())), url: &self.url };
        let (mut file, from_cache) = self.follow(&server, &blobs, on_bytes)?;
        // What lay there may have been damaged since it was verified.
        if from_cache && digest_of(&file, self.bytes)? != self.digest {
            log::debug!("{}: damaged in the cache", self.digest);
            blobs.remove(&self.digest)?;
            (file, _) = self.follow(&server, &blobs, on_bytes)?;
        }
        let mut own = file.try_clone()?;
        own.rewind()?;
        Ok(own)
    }

    /// Fetches it in a thread; whether it was in the cache.
    fn follow(
        &self,
        server: &Server,
        blobs: &Blobs,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(Arc<File>, bool), OciError> {
        let flow = Flow::new(self.digest.clone(), self.bytes, format!("bundle {}", self.name()));
        std::thread::scope(|scope| {
            scope.spawn(|| download::fetch(&flow, server, blobs));
            let mut at = 0;
            while let Some((_, there)) = flow.wait_beyond(at)? {
                at = there;
                on_bytes(there);
            }
            let (from_cache, _, file) = flow.wait_for_end()?;
            let file = file.ok_or_else(|| OciError::Damaged(flow.what.clone()))?;
            Ok((file, from_cache))
        })
    }
}

/// The address without its query: that may be what lets one in.
impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.without_query().fmt(f)
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} {} {}", self.digest, self.bytes)
    }
}

fn digest_of(file: &Arc<File>, end: u64) -> Result<Digest, OciError> {
    let mut all = Section { file: Arc::clone(file), at: 0, end };
    let mut hasher = Hasher::new();
    hasher.take_all(&mut all)?;
    Ok(hasher.digest())
}

/// One file of a server.
struct Server<'a> {
    http: Http,
    url: &'a Url,
}

impl Origin for Server<'_> {
    fn http(&self) -> &Http {
        &self.http
    }

    fn blob(&self, _: &Digest, from: u64) -> Result<Answer, OciError> {
        let answer = self.http.ask(self.url, &Request { from, ..Request::default() })?;
        if answer.is_content(from) {
            return Ok(answer);
        }
        let (host, what) = (answer.url.authority().to_owned(), self.url.without_query().to_string());
        Err(OciError::Answer { host, status: answer.status, what, detail: answer.reason() })
    }
}
