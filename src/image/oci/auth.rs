//! Logging in: a registry's challenge and this person's credentials → the header that it wants.
//!
//! Token authentication is the distribution project's ("Token Authentication Specification", "OAuth2").

use base64ct::{Base64, Encoding};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::credentials::{Credential, Credentials, Found};
use super::error::OciError;
use super::hidden::Hidden;
use super::http::{Answer, Http, Request};
use super::reference::Reference;
use crate::host::web::{Url, encoded};

/// Most bytes of an answer with a token.
const MOST_ANSWER: u64 = 1 << 20;
/// Most bytes of a token: servers take headers of some ten kilobytes.
const MOST_TOKEN: usize = 64 << 10;

/// What is needed to log in to one registry.
pub(super) struct Login<'a> {
    pub(super) http: &'a Http,
    pub(super) registry: &'a Url,
    pub(super) reference: &'a Reference,
    pub(super) credentials: &'a Credentials,
}

/// A header, and what was wrong with the credentials on the way to it.
pub(super) struct LoggedIn {
    pub(super) header: Hidden,
    pub(super) troubles: Vec<String>,
    /// Whether it was made of this person's credentials.
    pub(super) known: bool,
}

#[derive(Deserialize)]
struct Tokens {
    token: Option<String>,
    access_token: Option<String>,
}

impl Login<'_> {
    /// The header that answers the challenge in `answer`, a 401.
    pub(super) fn log_in(&self, answer: &Answer) -> Result<LoggedIn, OciError> {
        let header = challenge::of(&answer.headers);
        let Found { credential, troubles } = self.credentials.find(self.reference);
        let known = credential.is_some();
        let header = match (challenge::parse(&header), credential) {
            (Some(Challenge::Bearer { realm, service, scope }), credential) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository()));
                self.token(&realm, service.as_deref(), &scope, credential.as_ref(), &troubles)?
            }
            (Some(Challenge::Basic), Some(Credential::Password(user, password))) => basic(&user, &password),
            (Some(Challenge::Basic), _) => return Err(self.denied(String::new(), &troubles)),
            (None, _) => {
                let challenge = header.chars().take(200).collect();
                return Err(OciError::Challenge { host: self.reference.registry().to_owned(), challenge });
            }
        };
        Ok(LoggedIn { header, troubles, known })
    }

    /// The refusal, with what the registry says and what was wrong with the credentials.
    pub(super) fn denied(&self, mut detail: String, troubles: &[String]) -> OciError {
        for trouble in troubles {
            detail.push_str(if detail.is_empty() { ": " } else { "; " });
            detail.push_str(trouble);
        }
        let (host, what) = (self.reference.registry().to_owned(), self.reference.repository().to_owned());
        OciError::Denied { host, what, detail }
    }

    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credential: Option<&Credential>,
        troubles: &[String],
    ) -> Result<Hidden, OciError> {
        let realm = self.realm(realm)?;
        let (url, request) = match credential {
            Some(Credential::Refresh(token)) => (realm, refresh(service, scope, token)),
            other => {
                let authorization = match other {
                    Some(Credential::Password(user, password)) => Some(basic(user, password)),
                    _ => None,
                };
                let query: Vec<_> = service.map(|s| ("service", s)).into_iter().chain([("scope", scope)]).collect();
                (realm.with_query(&query), Request { authorization, ..Request::default() })
            }
        };
        let what = format!("token from {}", url.authority());
        let answer = self.http.ask(&url, &Request { document: Some((&what, MOST_ANSWER)), ..request })?;
        match answer.status {
            200 => bearer(answer, &what),
            400 | 401 | 403 => Err(self.denied(answer.reason(), troubles)),
            status => {
                let (host, what) = (url.authority().to_owned(), "a token".to_owned());
                Err(OciError::Answer { host, status, what, detail: answer.reason() })
            }
        }
    }

    /// Where tokens come from: credentials go there, so with TLS, unless even the registry does without.
    fn realm(&self, text: &str) -> Result<Url, OciError> {
        let host = || self.reference.registry().to_owned();
        let realm =
            Url::parse(text).map_err(|reason| OciError::Redirect { host: host(), reason: reason.to_owned() })?;
        if !realm.secure && (self.registry.secure || !self.http.may_be_plain(realm.authority())) {
            return Err(OciError::Plain { host: realm.authority().to_owned() });
        }
        Ok(realm)
    }
}

fn basic(user: &str, password: &Hidden) -> Hidden {
    Hidden::new(format!("Basic {}", Base64::encode_string(format!("{user}:{}", password.expose()).as_bytes())))
}

fn refresh(service: Option<&str>, scope: &str, token: &Hidden) -> Request<'static> {
    let form = format!(
        "grant_type=refresh_token&client_id=banger&service={}&scope={}&refresh_token={}",
        encoded(service.unwrap_or_default()),
        encoded(scope),
        encoded(token.expose())
    );
    Request { form: Some(Hidden::new(form)), ..Request::default() }
}

fn bearer(answer: Answer, what: &str) -> Result<Hidden, OciError> {
    let bytes = answer.document(what, MOST_ANSWER)?;
    // The parser's own words may quote the token.
    let tokens: Tokens = serde_json::from_slice(&bytes).map_err(|_| OciError::document(what, "it is no token"))?;
    let token = tokens.token.filter(|t| !t.is_empty()).or(tokens.access_token).unwrap_or_default();
    let fine = (1..=MOST_TOKEN).contains(&token.len()) && token.bytes().all(|b| matches!(b, b'!'..=b'~'));
    if fine { Ok(Hidden::new(format!("Bearer {token}"))) } else { Err(OciError::document(what, "it is no token")) }
}
