//! What can go wrong between a reference and its layers.

use std::sync::Arc;

use super::digest::Digest;
use crate::host::web::WebError;

/// Why there is no image. Messages name the thing and never hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// Whoever asked does not want it any more.
    #[error("cancelled")]
    Cancelled,
    /// Not a reference.
    #[error("{text:?} is no image reference: {reason}")]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a platform.
    #[error("{0:?} is no platform: linux/ARCHITECTURE or linux/ARCHITECTURE/VARIANT is expected, as in linux/amd64")]
    Platform(String),
    /// The image is not made for the platform that was asked for.
    #[error("there is no {wanted} in it: it has {there}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is, with commas.
        there: String,
    },
    /// Not a digest that is known here.
    #[error("{0:?} is no digest: sha256: and 64 hexadecimal digits are expected")]
    DigestForm(String),
    /// A document that does not say what it should.
    #[error("the {what} is of no use: {reason}")]
    Document {
        /// Which one.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest of a kind that was given up in 2017.
    #[error("the image has a schema 1 manifest, which carries no digests to check: push it again with a current tool")]
    SchemaOne,
    /// More than is taken.
    #[error("the {what} has more than {limit} bytes: refused")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The most that is taken, in bytes.
        limit: u64,
    },
    /// Content that is not what its digest says.
    #[error("the {what} is {found}, not {expected}: not used")]
    Digest {
        /// What was checked.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Content that has another length than stated.
    #[error("the {what} has {found} bytes instead of {expected}: not used")]
    Size {
        /// What was checked.
        what: String,
        /// Stated bytes.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Content that goes on after the length that was stated.
    #[error("the {what} goes on after the {expected} bytes that were stated: not used")]
    Endless {
        /// What was read.
        what: String,
        /// Stated bytes.
        expected: u64,
    },
    /// A layer that does not decompress.
    #[error("cannot decompress the {what}")]
    Decompress {
        /// Which layer.
        what: String,
        /// What the decompressor says.
        #[source]
        source: std::io::Error,
    },
    /// What was in the cache was damaged, and is removed.
    #[error("the {0} in the cache was damaged and is removed: pull again")]
    Damaged(String),
    /// No answer.
    #[error("cannot {doing}")]
    Network {
        /// What was being done.
        doing: String,
        /// What the network says.
        #[source]
        source: Box<ureq::Error>,
    },
    /// A download that does not get on.
    #[error("cannot download the {what}: the connection was cut {attempts} times and nothing more arrives")]
    Cut {
        /// What was being downloaded.
        what: String,
        /// How often.
        attempts: u32,
        /// The last time's reason.
        #[source]
        source: Option<std::io::Error>,
    },
    /// Not there.
    #[error("{0} is not there, or not for everybody: check the name, or log in with `docker login` or `podman login`")]
    NotFound(String),
    /// The registry does not give it to this person.
    #[error("{host} refuses {what}{detail}: log in with `docker login {host}` or `podman login {host}`")]
    Denied {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What it says itself, and what was wrong with the credentials here; begins with ": " or is empty.
        detail: String,
    },
    /// A registry that has no time.
    #[error("{host} answered {status} to each of {attempts} attempts: try again later{hint}")]
    Busy {
        /// The server.
        host: String,
        /// The status, 429 or 5xx.
        status: u16,
        /// How often it was asked.
        attempts: u32,
        /// What may help; begins with a comma or is empty.
        hint: &'static str,
    },
    /// A server that wants to be asked again only after longer than a pull waits.
    #[error(
        "{host} has answered too much (429) and wants to be asked again in {minutes} minutes: wait, or log in: \
         registries let known people pull more"
    )]
    Later {
        /// The server.
        host: String,
        /// After how long, rounded up.
        minutes: u64,
    },
    /// An answer that nobody expects.
    #[error("{host} answered {status} when asked for {what}{detail}")]
    Answer {
        /// The server.
        host: String,
        /// The status.
        status: u16,
        /// What was asked for.
        what: String,
        /// What it says itself; begins with ": " or is empty.
        detail: String,
    },
    /// A redirect that is not followed.
    #[error("{host} sends elsewhere: {reason}")]
    Redirect {
        /// The server.
        host: String,
        /// Why that is not followed.
        reason: String,
    },
    /// Plain HTTP where it is not allowed.
    #[error("{host} would be spoken to without TLS: only this machine's own and those listed as insecure are")]
    Plain {
        /// The server.
        host: String,
    },
    /// The server cannot be asked from here.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The way that the registry wants to be logged in to is not known.
    #[error("{host} wants credentials in a way that is not known here: {challenge:?}")]
    Challenge {
        /// The registry.
        host: String,
        /// Its words.
        challenge: String,
    },
    /// An archive that holds no image.
    #[error("cannot use the archive {name}: {reason}")]
    Archive {
        /// The archive.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file of ours, or a stream; the message names it.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// What stopped a download that several wait for.
    #[error(transparent)]
    Shared(Arc<OciError>),
}

impl OciError {
    pub(super) fn document(what: &str, reason: impl ToString) -> Self {
        Self::Document { what: what.to_owned(), reason: reason.to_string() }
    }
}

impl From<OciError> for std::io::Error {
    fn from(error: OciError) -> Self {
        Self::other(error)
    }
}
