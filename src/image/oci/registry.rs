//! One repository of one registry: manifests and blobs, logged in to when it asks (distribution spec, "Pull").

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::auth::Login;
use super::challenge;
use super::credentials::Credentials;
use super::digest::Digest;
use super::download::Origin;
use super::error::OciError;
use super::hidden::Hidden;
use super::http::{Answer, Http, Request};
use super::manifest::{ACCEPTED, MOST_DOCUMENT};
use super::reference::Reference;
use crate::host::web::Url;

/// Times that one request may be answered with "who are you": without a token, with an old one.
const CHALLENGES: u32 = 2;

/// A repository that answers; shared by the threads of a pull, which share what they are logged in with.
pub(super) struct Registry {
    pub(super) http: Http,
    /// Whether it speaks TLS, once that is known.
    secure: OnceLock<bool>,
    reference: Reference,
    credentials: Credentials,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    /// Counts logins, so that a thread sees that another has logged in meanwhile.
    number: u64,
    header: Option<Hidden>,
    troubles: Vec<String>,
    known: bool,
}

/// A manifest as it was served.
pub(super) struct Served {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: Option<String>,
    pub(super) digest: Digest,
}

impl Registry {
    /// Asks nothing yet.
    pub(super) fn new(http: Http, reference: &Reference, credentials: &Credentials) -> Self {
        let (reference, credentials) = (reference.clone(), credentials.clone());
        Self { http, secure: OnceLock::new(), reference, credentials, session: Mutex::default() }
    }

    /// Where `path` in the repository is. Finds out whether the registry speaks TLS, where that is no must.
    fn url(&self, path: &str) -> Result<Url, OciError> {
        let authority = self.reference.authority();
        let secure = match self.secure.get() {
            Some(secure) => *secure,
            None => {
                let secure = !self.http.may_be_plain(authority) || speaks_tls(&self.http, authority)?;
                *self.secure.get_or_init(|| secure)
            }
        };
        Ok(Url::new(secure, authority, &format!("/v2/{}{path}", self.reference.repository())))
    }

    /// The manifest or index called `wanted`, a tag or a digest; checked against a digest and against what the
    /// registry itself says that it is.
    pub(super) fn manifest(&self, wanted: &str) -> Result<Served, OciError> {
        let what = format!("manifest {wanted} of {}", self.reference.repository());
        let document = Some(("manifest", MOST_DOCUMENT));
        let request = || Request { accept: Some(ACCEPTED), document, ..Request::default() };
        let answer = self.authorized(&format!("/manifests/{wanted}"), request, &what)?;
        let content_type = answer.header("Content-Type").map(str::to_owned);
        let stated = answer.header("Docker-Content-Digest").and_then(|d| d.parse::<Digest>().ok());
        let bytes = answer.document("manifest", MOST_DOCUMENT)?;
        let digest = Digest::of(&bytes);
        for expected in wanted.parse::<Digest>().ok().into_iter().chain(stated) {
            expected.check("manifest", digest.clone())?;
        }
        Ok(Served { bytes, content_type, digest })
    }

    /// A small blob, not verified.
    pub(super) fn document(&self, digest: &Digest, what: &str, limit: u64) -> Result<Vec<u8>, OciError> {
        let request = || Request { document: Some((what, limit)), ..Request::default() };
        self.authorized(&format!("/blobs/{digest}"), request, &format!("blob {digest}"))?.document(what, limit)
    }

    fn authorized<'r>(&self, path: &str, request: impl Fn() -> Request<'r>, what: &str) -> Result<Answer, OciError> {
        let url = self.url(path)?;
        let mut challenges = 0;
        loop {
            let (number, authorization) = {
                let session = self.session();
                (session.number, session.header.clone())
            };
            let was_logged_in = authorization.is_some();
            let answer = self.http.ask(&url, &Request { authorization, ..request() })?;
            match answer.status {
                _ if answer.is_content(request().from) => return Ok(answer),
                // Elsewhere nobody may ask for what is the registry's.
                401 if answer.url.same_origin(&url) => {
                    let is_final = was_logged_in && challenge::is_insufficient(&challenge::of(&answer.headers));
                    if challenges == CHALLENGES || is_final {
                        return Err(self.unconvinced(&url, answer));
                    }
                    challenges += 1;
                    self.log_in(&url, number, &answer)?;
                }
                _ => return Err(self.refusal(&url, answer, what)),
            }
        }
    }

    /// The refusal of a registry that was given what it asked for. Those that tell nobody what they have answer so
    /// for a name that does not exist.
    fn unconvinced(&self, url: &Url, answer: Answer) -> OciError {
        let (known, troubles) = {
            let session = self.session();
            (session.known, session.troubles.clone())
        };
        let why = match known {
            true => "it does not take these credentials for it",
            false => "it is not there, or not for everybody",
        };
        self.login(url).denied(format!(": {why}{}", answer.reason()), &troubles)
    }

    /// Logs in, unless another thread has since login `number`.
    fn log_in(&self, url: &Url, number: u64, answer: &Answer) -> Result<(), OciError> {
        let mut session = self.session();
        if session.number != number {
            return Ok(());
        }
        let logged_in = self.login(url).log_in(answer)?;
        *session = Session {
            number: number + 1,
            header: Some(logged_in.header),
            troubles: logged_in.troubles,
            known: logged_in.known,
        };
        Ok(())
    }

    fn login<'a>(&'a self, url: &'a Url) -> Login<'a> {
        Login { http: &self.http, registry: url, reference: &self.reference, credentials: &self.credentials }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, url: &Url, answer: Answer, what: &str) -> OciError {
        let (status, host) = (answer.status, answer.url.authority().to_owned());
        match status {
            404 => OciError::NotFound(format!("{what} in {host}")),
            // Elsewhere, it is an address that has become old, and no login helps.
            403 if answer.url.same_origin(url) => {
                let troubles = self.session().troubles.clone();
                self.login(url).denied(answer.reason(), &troubles)
            }
            _ => OciError::Answer { host, status, what: what.to_owned(), detail: answer.reason() },
        }
    }
}

impl Origin for Registry {
    fn http(&self) -> &Http {
        &self.http
    }

    fn blob(&self, digest: &Digest, from: u64) -> Result<Answer, OciError> {
        let request = || Request { from, ..Request::default() };
        self.authorized(&format!("/blobs/{digest}"), request, &format!("blob {digest}"))
    }
}

/// Whether the server speaks TLS. One whose certificate nobody here vouches for does, and is not asked
/// for the same without.
fn speaks_tls(http: &Http, authority: &str) -> Result<bool, OciError> {
    let ping = |secure| http.once(&Url::new(secure, authority, "/v2/"), &Request::default(), None);
    match ping(true) {
        Ok(_) => Ok(true),
        Err(e) if is_about_certificates(&e) => Err(e),
        Err(_) => ping(false).map(|_| false),
    }
}

fn is_about_certificates(error: &OciError) -> bool {
    let OciError::Network { source, .. } = error else { return false };
    let tls = match source.as_ref() {
        ureq::Error::Rustls(e) => Some(e),
        ureq::Error::Io(e) => e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    matches!(tls, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}
