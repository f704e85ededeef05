//! An ssh server of the agent's own, for images that have none: `SSHD.md` beside this file.
//!
//! One process per connection, one thread, which waits in one poll(2) alone; commands run as those of the
//! agent's channels do (`guest::shell`). Everything that a client says is hostile until it has proved to be
//! root, and still bounded afterwards.

/// Who it is.
mod authentication;
/// One channel.
mod channel;
/// Packets sealed and opened.
mod cipher;
/// What is run.
mod command;
/// What somebody known asks for.
mod connection;
/// Values as ssh writes them.
mod data;
/// Why a session ends early.
mod error;
/// One key exchange.
mod exchange;
/// Connections through this guest.
mod forward;
/// The keys of this server.
pub mod keys;
/// Which algorithms are used.
mod negotiation;
/// Message numbers.
mod numbers;
/// Packets in and out.
mod packets;
/// Files.
mod sftp;
/// Names of signals.
mod signals;
/// Signatures of clients.
mod signatures;
#[cfg(test)]
pub mod tests;
/// Messages both ways.
mod transport;
/// The words of a command line.
mod words;

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use self::authentication::Authentication;
use self::connection::Connection;
use self::error::SessionError;
use self::keys::{Authorized, Keys};
use self::transport::{REKEY, Transport};
use super::console::say;
use super::error::chain;
use super::shell::wire::poll_until;
use crate::os::accounts;

/// What the agent starts for each connection, which is its standard input.
pub const FLAG: &str = "--ssh-session";

/// What such a process is called: by this name a command's signals find the way to it (`crate::ssh`).
const NAME: &std::ffi::CStr = c"banger-sshd";

/// What a connection may use up.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// How long somebody may take to log in.
    login: Duration,
    /// Packets and bytes with the same keys.
    rekey: (u64, u64),
}

/// Those of a guest.
const LIMITS: Limits = Limits { login: Duration::from_secs(30), rekey: REKEY };

/// Serves the connection that standard input is.
pub fn run() -> ExitCode {
    // Without it signals do not arrive; everything else does.
    let _ = rustix::thread::set_name(NAME);
    let home = accounts::of_uid(0).map_or_else(|| "/root".into(), |account| account.home);
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(SessionError::io("take the connection over"));
    match socket.and_then(|socket| serve(socket, Keys::of_this_boot(&home)?, LIMITS)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("ssh: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Serves one connection to its end.
fn serve(socket: OwnedFd, keys: Keys, limits: Limits) -> Result<(), SessionError> {
    let addresses = addresses(&socket);
    rustix::io::ioctl_fionbio(&socket, true).map_err(|e| SessionError::io("prepare the connection")(e.into()))?;
    let mut session = Session::new(socket, keys, addresses, limits);
    let served = session.run();
    session.connection.hang_up();
    if let Err(error) = &served {
        session.transport.send_disconnect(error);
    }
    served
}

/// Both ends, as sshd tells commands; none for what is no TCP.
fn addresses(socket: &OwnedFd) -> Option<String> {
    let stream = TcpStream::from(socket.try_clone().ok()?);
    let (peer, own) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    let canonical = |address: std::net::SocketAddr| format!("{} {}", address.ip().to_canonical(), address.port());
    Some(format!("{} {}", canonical(peer), canonical(own)))
}

struct Session {
    transport: Transport,
    authorized: Authorized,
    /// `None` once the client is known.
    authentication: Option<Authentication>,
    connection: Connection,
    deadline: Instant,
    limits: Limits,
}

impl Session {
    fn new(socket: OwnedFd, keys: Keys, addresses: Option<String>, limits: Limits) -> Self {
        let Keys { host, authorized } = keys;
        let transport = Transport::new(File::from(socket), host, limits.rekey);
        let connection = Connection::new(addresses);
        let (authentication, deadline) = (Some(Authentication::default()), Instant::now() + limits.login);
        Self { transport, authorized, authentication, connection, deadline, limits }
    }

    fn run(&mut self) -> Result<(), SessionError> {
        loop {
            self.transport.fill();
            while let Some(message) = self.transport.next()? {
                self.hear(&message)?;
            }
            self.connection.turn(&mut self.transport)?;
            self.transport.flush();
            if self.transport.is_gone() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn hear(&mut self, message: &[u8]) -> Result<(), SessionError> {
        let Some(authentication) = &mut self.authentication else {
            return self.connection.hear(message, &mut self.transport);
        };
        if authentication.hear(message, &self.authorized, &mut self.transport)? {
            self.authentication = None;
            self.transport.trust();
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), SessionError> {
        let login = self.authentication.is_some().then_some(self.deadline);
        if login.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(SessionError::Late(self.limits.login.as_secs()));
        }
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.transport.has_waiting());
        let mut fds = vec![PollFd::from_borrowed_fd(self.transport.descriptor(), flags)];
        self.connection.watch(&mut fds, self.transport.has_room());
        let deadlines = [login, self.transport.deadline(), self.connection.deadline()];
        let deadline = deadlines.into_iter().flatten().min();
        poll_until(&mut fds, deadline).map_err(SessionError::io("wait for the client"))
    }
}
