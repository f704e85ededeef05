//! `banger-relay`: the other side of `--host`, run by ssh as whoever the user is on this machine. What is asked of it
//! goes to this machine's daemon, which takes it for its client: when ssh ends, so does this process, and with it what
//! the daemon keeps for it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::super::autostart;
use super::super::report::Failure;
use crate::host::paths::{Environment, Paths};
use crate::os::{process, tty};
use crate::protocol::{Fault, FaultKind};
use crate::relay::{Dialer, Ending, Lost, Relay, greet, hear_greeting};

/// Relays between standard input and output and the daemon, until the other side ends.
pub fn relay() -> Result<(), Failure> {
    if tty::is_terminal(rustix::stdio::stdin()) {
        return Err(Failure::new(FaultKind::BadRequest, "banger-relay is what `banger --host` runs on other machines"));
    }
    let failed = |error: &dyn std::error::Error| Failure::from(Fault::failed("cannot relay", error));
    let (mut input, mut output) = streams().map_err(|e| failed(&e))?;
    greet(&mut output).map_err(|e| failed(&e))?;
    let (hello, heard) = hear_greeting(&mut input, false).map_err(|e| failed(&e))?;
    hello.check("the other side", "banger --version")?;
    let own = i32::try_from(std::process::id()).map_err(|e| failed(&e))?;
    let process = process::reference(own).map_err(|e| failed(&e))?;
    let dialer: Dialer = Box::new(|channel, handle| {
        // Beside it: the daemon may have to be started.
        std::thread::spawn(move || handle.dialled(channel, connect()));
    });
    let relay = Relay::far(input.into(), output.into(), heard, process, dialer).map_err(|e| failed(&e))?;
    match relay.run(|_| Lost::unexplained()) {
        Ending::Finished | Ending::Cut => Ok(()),
        Ending::Broken(why) => Err(Failure::from(Fault::new(FaultKind::Unavailable, "cannot relay").cause(why))),
    }
}

fn streams() -> io::Result<(std::fs::File, std::fs::File)> {
    let copy = |fd| -> io::Result<std::fs::File> { Ok(OwnedFd::into(rustix::io::dup(fd)?)) };
    Ok((copy(rustix::stdio::stdin())?, copy(rustix::stdio::stdout())?))
}

/// A connection to the daemon, which is started if that is possible.
fn connect() -> Result<UnixStream, Fault> {
    let paths = Paths::current();
    let failed = |e: io::Error| Fault::failed(format!("cannot connect to {}", paths.socket().display()), &e);
    match UnixStream::connect(paths.socket()) {
        Ok(socket) => return Ok(socket),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("{} belongs to somebody else", paths.socket().display());
            return Err(Fault::new(FaultKind::Unauthorized, message));
        }
        Err(e) => return Err(failed(e)),
    }
    autostart::start(&Environment::current(), &paths).map_err(|failure| match failure {
        Failure::Fault { fault, .. } => *fault,
        other => Fault::new(FaultKind::Unavailable, other.line()),
    })?;
    UnixStream::connect(paths.socket()).map_err(failed)
}
