//! From a connected socket to an authenticated session with the machine whose key is pinned.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use ssh_key::{Fingerprint, HashAlg, PublicKey};
use ssh2::{BlockDirections, ErrorCode, Session};

use super::watchdog::{Cut, Watchdog};
use super::{Control, SshError, agreement};

/// libssh2's "would block", `LIBSSH2_ERROR_EAGAIN` in libssh2.h.
const WOULD_BLOCK: ErrorCode = ErrorCode::Session(-37);
/// `LIBSSH2_ERROR_TIMEOUT`.
const TIMED_OUT: ErrorCode = ErrorCode::Session(-9);
/// `LIBSSH2_ERROR_AUTHENTICATION_FAILED` and `LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED`.
const LOGIN_REFUSED: [ErrorCode; 2] = [ErrorCode::Session(-18), ErrorCode::Session(-19)];

/// Who logs in where, and whom to expect there.
#[derive(Clone)]
pub struct Access {
    /// The VM, as messages name it.
    pub name: String,
    /// Who logs in.
    pub user: String,
    /// The private key, OpenSSH PEM.
    pub private_key: String,
    /// The pinned host key, one line of OpenSSH public key.
    pub host_key: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("name", &self.name).field("user", &self.user).finish_non_exhaustive()
    }
}

/// How long to wait for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a session, and for each command to start.
    pub connect: Duration,
    /// Silence after which the peer is asked whether it is there; two seconds at least.
    pub keepalive: Duration,
    /// Time without an answer after which the connection counts as lost.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), keepalive: Duration::from_secs(15), silence: Duration::from_secs(60) }
    }
}

/// An authenticated ssh session; runs one command after the other.
pub struct SshShell {
    pub(super) session: Session,
    /// The session's own socket, to wait on.
    pub(super) socket: Arc<OwnedFd>,
    pub(super) name: String,
    pub(super) timeouts: Timeouts,
    /// Why it cannot be used any more.
    pub(super) lost: Option<String>,
}

impl SshShell {
    /// Opens a session over a connected TCP or Unix socket and logs in. A peer with another host
    /// key than the pinned one is refused before anything about the login is sent. A signal that
    /// `control` hears ends the attempt.
    pub fn connect(
        socket: OwnedFd,
        access: &Access,
        timeouts: Timeouts,
        control: Option<&mut dyn Control>,
    ) -> Result<Self, SshError> {
        let pinned = PublicKey::from_openssh(access.host_key.trim())
            .map_err(|source| SshError::PublicKey { what: format!("the host key of vm '{}'", access.name), source })?;
        // Keystrokes and requests are small; a Unix socket has no such option and no such delay.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
        let socket = Arc::new(socket);
        let failed = |source| SshError::Socket { name: access.name.clone(), source };
        let watchdog = Watchdog { limit: timeouts.connect, control, patience: Duration::ZERO };
        let open = || open(Arc::clone(&socket), access, &pinned);
        let session = match watchdog.guard(&socket, open).map_err(failed)? {
            (opened, None) => opened?,
            (_, Some(Cut::Signal(signal))) => return Err(SshError::Interrupted { name: access.name.clone(), signal }),
            (Err(error), Some(Cut::Late)) => return Err(timed_out(error, timeouts.connect)),
            (Ok(_), Some(Cut::Late)) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        session.set_blocking(false);
        Ok(Self { session, socket, name: access.name.clone(), timeouts, lost: None })
    }
}

impl SshShell {
    /// Repeats a call of libssh2 until it is finished or `deadline` has passed.
    pub(super) fn persist<T>(
        &self,
        deadline: Instant,
        mut call: impl FnMut() -> Result<T, ssh2::Error>,
    ) -> Result<T, ssh2::Error> {
        loop {
            if let Some(value) = done(call())? {
                return Ok(value);
            }
            let outbound = matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
            let events = if outbound { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            if !self.wait_for(events, deadline) {
                return Err(ssh2::Error::new(TIMED_OUT, "no answer in time"));
            }
        }
    }

    /// Whether the socket became ready before `deadline`.
    pub(super) fn wait_for(&self, events: PollFlags, deadline: Instant) -> bool {
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: rest.as_secs().cast_signed(), tv_nsec: i64::from(rest.subsec_nanos()) };
            match poll(&mut [PollFd::new(&*self.socket, events)], Some(&timeout)) {
                Err(Errno::INTR) => {}
                ready => return !rest.is_zero() && matches!(ready, Ok(count) if count > 0),
            }
        }
    }
}

/// Blocking: the caller's watchdog ends it.
fn open(socket: Arc<OwnedFd>, access: &Access, pinned: &PublicKey) -> Result<Session, SshError> {
    let failed = |awaited| move |source| SshError::Handshake { name: access.name.clone(), awaited, source };
    let mut session = Session::new().map_err(failed("get a session of libssh2"))?;
    agreement::offer(&session, &pinned.algorithm()).map_err(failed("get an offer of algorithms"))?;
    session.set_tcp_stream(socket);
    session.handshake().map_err(failed("finish the ssh handshake"))?;
    verify(&session, access, pinned)?;
    let login = session.userauth_pubkey_memory(&access.user, None, &access.private_key, None);
    login.map_err(|source| {
        if LOGIN_REFUSED.contains(&source.code()) {
            SshError::Login { name: access.name.clone(), user: access.user.clone(), source }
        } else {
            failed("answer the login")(source)
        }
    })?;
    Ok(session)
}

/// libssh2 has checked that the peer owns the key it shows; whose key that is, is ours to check.
fn verify(session: &Session, access: &Access, pinned: &PublicKey) -> Result<(), SshError> {
    let shown = session.host_key().map(|(bytes, _)| bytes).unwrap_or_default();
    if pinned.to_bytes().is_ok_and(|pinned| pinned == shown) {
        return Ok(());
    }
    let found = PublicKey::from_bytes(shown).map(|key| key.fingerprint(HashAlg::Sha256));
    Err(SshError::HostKey {
        name: access.name.clone(),
        pinned: pinned.fingerprint(HashAlg::Sha256).to_string(),
        found: found.as_ref().map_or_else(|_| "of an unknown kind".to_owned(), Fingerprint::to_string),
    })
}

fn timed_out(error: SshError, limit: Duration) -> SshError {
    match error {
        SshError::Handshake { name, awaited, .. } => SshError::TimedOut { name, awaited, seconds: limit.as_secs() },
        SshError::Login { name, .. } => {
            SshError::TimedOut { name, awaited: "answer the login", seconds: limit.as_secs() }
        }
        other => other,
    }
}

/// `None` when the call has to be repeated after waiting.
pub(super) fn done<T>(result: Result<T, ssh2::Error>) -> Result<Option<T>, ssh2::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.code() == WOULD_BLOCK => Ok(None),
        Err(e) => Err(e),
    }
}
