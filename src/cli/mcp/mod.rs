//! `banger mcp`: tools for language models over the owner's daemon (`MCP.md`). The protocol is the room `mcp`; here is
//! what the tools do, what they may, and how all of it ends.
//!
//! A model is not trusted more than a guest: it reaches VMs that this process has made, and no file of the host.

mod bounds;
mod carry;
mod command;
mod create;
mod files;
mod fleet;
mod output;
mod patch;
mod tools;
mod trouble;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, dup2_stdout};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::Mcp;
use super::report::Failure;
use super::{autostart, remote};
use crate::mcp::{Outbox, Server};
use crate::protocol::Fault;
use bounds::Bounds;
use tools::Bench;

/// How long calls under way may take to end, once nobody waits for them.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves whoever is at standard input until that ends or a signal comes; then the VMs go.
pub fn serve(asked: &Mcp) -> Result<u8, Failure> {
    let bounds = Bounds::of(asked)?;
    let (input, output) = private_streams().map_err(|e| Fault::failed("cannot take the standard streams over", &e))?;
    let bench = Arc::new(Bench::new(bounds));
    if remote::current().is_some() {
        // The ssh to another machine ends with the thread that starts it: here with this one, and not with a call's.
        drop(autostart::connect(&bench.paths)?);
    }
    let server = Arc::new(Server::new(bench.clone(), Outbox::new(output)));
    leave_on_signal(server.clone(), bench.clone()).map_err(|e| Fault::failed("cannot listen for signals", &e))?;
    let served = server.serve(input);
    leave(&server, &bench);
    served.map_err(|e| Fault::failed("cannot hear the client", &e))?;
    Ok(0)
}

/// The client's streams for this server alone. What else writes to standard output, a child perhaps, writes to standard
/// error from now on, and what reads standard input finds its end: the protocol is nobody else's.
fn private_streams() -> io::Result<(File, File)> {
    let private = |fd: &dyn AsFd| -> io::Result<OwnedFd> { Ok(fcntl_dupfd_cloexec(fd.as_fd(), 3)?) };
    let (input, output) = (private(&io::stdin())?, private(&io::stdout())?);
    dup2_stdout(io::stderr())?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok((input.into(), output.into()))
}

fn leave_on_signal(server: Arc<Server<Bench>>, bench: Arc<Bench>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let waiting = move || {
        for signal in &mut signals {
            let code = 128 + signal;
            if bench.fleet.close() {
                let (server, bench) = (server.clone(), bench.clone());
                let leaving = move || {
                    leave(&server, &bench);
                    std::process::exit(code);
                };
                if std::thread::Builder::new().name("leaving".to_owned()).spawn(leaving).is_err() {
                    std::process::exit(code);
                }
            } else if signal == SIGINT {
                // A client whose patience ends sends SIGTERM; this is a person.
                std::process::exit(code);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(waiting)?;
    Ok(())
}

/// Ends what goes on, and deletes what was made. Ctrl-C, or SIGKILL, may cut it short: the daemon does the same once
/// this process is gone.
fn leave(server: &Server<Bench>, bench: &Bench) {
    bench.fleet.close();
    server.stop(FAREWELL);
    bench.clear();
}
