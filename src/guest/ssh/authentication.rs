//! Who it is (RFC 4252): root, by a key that is let in. There is nothing else, so no password is ever asked
//! for, and whether a name exists cannot be learnt.

use super::data::{Reader, Writer};
use super::error::SessionError;
use super::keys::Authorized;
use super::numbers::*;
use super::signatures;
use super::transport::Transport;
use crate::os::accounts;

const SERVICE: &str = "ssh-userauth";
const METHOD: &str = "publickey";

/// What a login leads to.
const CONNECTION: &str = "ssh-connection";

/// Most keys that are tried: many people's agents have some, and only one's are looked at closer.
const MAX_ATTEMPTS: u32 = 20;

/// What was said so far.
#[derive(Debug, Default)]
pub struct Authentication {
    is_asked: bool,
    attempts: u32,
}

impl Authentication {
    /// Hears one message of somebody unknown; whether they are known now.
    pub fn hear(&mut self, message: &[u8], keys: &Authorized, transport: &mut Transport) -> Result<bool, SessionError> {
        let mut reader = Reader::new(message);
        match reader.byte()? {
            SERVICE_REQUEST if reader.text()? == SERVICE => {
                self.is_asked = true;
                transport.send(Writer::message(SERVICE_ACCEPT).string(SERVICE).done())?;
                Ok(false)
            }
            USERAUTH_REQUEST if self.is_asked => self.judge(reader, keys, transport),
            _ => Err(SessionError::Protocol("a message before the login")),
        }
    }

    fn judge(
        &mut self,
        request: Reader<'_>,
        keys: &Authorized,
        transport: &mut Transport,
    ) -> Result<bool, SessionError> {
        match answer(request, keys, transport.session())? {
            Answer::Welcome => {
                transport.send(Writer::message(USERAUTH_SUCCESS).done())?;
                return Ok(true);
            }
            Answer::Prove(question) => transport.send(question)?,
            Answer::No { counts } => {
                self.attempts += u32::from(counts);
                if self.attempts >= MAX_ATTEMPTS {
                    return Err(SessionError::TooManyAttempts(MAX_ATTEMPTS));
                }
                transport.send(Writer::message(USERAUTH_FAILURE).string(METHOD).byte(false).done())?;
            }
        }
        Ok(false)
    }
}

enum Answer {
    /// It is root.
    Welcome,
    /// The key is let in; whoever shows it is to prove that they have it.
    Prove(Vec<u8>),
    /// Not so. Asking what there is (`none`) does not count.
    No {
        /// Whether it was a try.
        counts: bool,
    },
}

fn answer(mut request: Reader<'_>, keys: &Authorized, session: &[u8]) -> Result<Answer, SessionError> {
    let (user, service, method) = (request.text()?, request.text()?, request.text()?);
    if method != METHOD {
        return Ok(Answer::No { counts: method != "none" });
    }
    let is_signed = request.boolean()?;
    let (algorithm, blob) = (request.text()?, request.string()?);
    let is_let_in = is_root(user) && service == CONNECTION && keys.admit(blob) && signatures::fits(algorithm, blob);
    if !is_let_in {
        return Ok(Answer::No { counts: true });
    }
    if !is_signed {
        return Ok(Answer::Prove(Writer::message(USERAUTH_PK_OK).string(algorithm).string(blob).done()));
    }
    let signed = Writer::default().string(session).byte(USERAUTH_REQUEST).string(user).string(service).string(METHOD);
    let signed = signed.byte(true).string(algorithm).string(blob).done();
    let is_genuine = signatures::is_genuine(algorithm, blob, &signed, request.string()?);
    Ok(if is_genuine { Answer::Welcome } else { Answer::No { counts: true } })
}

/// Whether `user` is who this process is: root, in a guest.
fn is_root(user: &str) -> bool {
    let own = accounts::of_uid(rustix::process::geteuid().as_raw());
    own.map_or(user == "root", |account| account.name == user)
}
