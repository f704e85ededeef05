//! The daemon, started if need be: where nothing is installed and the caller is root, or the helper
//! is there already, a command starts what it misses. Any number of commands at once start it once.
//!
//! Root never makes folders below a user's: for another account the daemon is started by that
//! account itself, so no link can be put in the way.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::client::{Channel, Client};
use super::report::Failure;
use super::spawn;
use crate::host::paths::{Environment, Paths};
use crate::os::accounts::{self, Account};
use crate::os::files::{Lock, ensure_dir};
use crate::protocol::{Fault, FaultKind};

/// What was found or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It ran already.
    Unchanged,
    /// It was started.
    Started,
}

/// A connection to the daemon of this installation, which is started if that is possible.
pub fn connect(paths: &Paths) -> Result<Client, Failure> {
    if let Some(client) = Client::connect(&paths.socket())? {
        return Ok(client);
    }
    start(&Environment::current(), paths)?;
    Client::connect(&paths.socket())?
        .ok_or_else(|| Failure::new(FaultKind::Unavailable, "the daemon ended right after its start"))
}

/// Starts helper and daemon of `environment`, which is the caller's own.
pub fn start(environment: &Environment, paths: &Paths) -> Result<Start, Failure> {
    if answers(&paths.socket(), "daemon")? {
        return Ok(Start::Unchanged);
    }
    if environment.installed {
        let fault = Fault::new(FaultKind::Unavailable, "the daemon of this installation does not run");
        return Err(fault.hint("sudo systemctl restart bangerd-root bangerd").into());
    }
    if rustix::process::geteuid().is_root() {
        ensure_helper(paths, environment.uid)?;
    } else if !answers(&paths.root_socket(), "helper")? {
        return Err(needs_root(environment.uid));
    }
    ensure_daemon(paths)
}

/// Starts helper and daemon for `account`, as root.
pub fn start_for(account: &Account) -> Result<u8, Failure> {
    if !rustix::process::geteuid().is_root() {
        let fault = Fault::new(FaultKind::Unauthorized, "only root can start the daemon of another account");
        return Err(fault.hint(format!("sudo banger daemon start --owner {}", account.name)).into());
    }
    ensure_helper(&Paths::new(&Environment::of_account(account)), account.uid)?;
    spawn::run_as(account, &["daemon", "start"])
}

fn needs_root(uid: u32) -> Failure {
    let name = accounts::of_uid(uid).map_or_else(|| uid.to_string(), |a| a.name);
    let fault = Fault::new(FaultKind::Unavailable, "the daemon does not run, and only root can start its helper");
    fault.hint(format!("sudo banger daemon start --owner {name}")).into()
}

/// Whether somebody listens at `path`. A socket file whose process has ended refuses connections.
fn answers(path: &Path, peer: &'static str) -> Result<bool, Failure> {
    Ok(Channel::connect(path, peer)?.is_some())
}

fn ensure_helper(paths: &Paths, owner: u32) -> Result<Start, Failure> {
    let folder = &paths.root_run;
    let failed = |e: std::io::Error| Fault::failed("cannot prepare the helper's folder", &e);
    ensure_dir(folder, 0o755).map_err(failed)?;
    let seen = std::fs::symlink_metadata(folder).map_err(failed)?;
    if !seen.is_dir() || seen.uid() != 0 {
        return Err(Failure::new(FaultKind::Refused, format!("{} is not a folder of root", folder.display())));
    }
    let _lock = lock(&folder.join("start.lock"))?;
    if answers(&paths.root_socket(), "helper")? {
        return Ok(Start::Unchanged);
    }
    let arguments = ["--owner".to_owned(), owner.to_string()];
    spawn::start_daemon("bangerd-root", &arguments, &paths.root_log())?;
    Ok(Start::Started)
}

fn ensure_daemon(paths: &Paths) -> Result<Start, Failure> {
    ensure_dir(&paths.run, 0o700).map_err(|e| Fault::failed("cannot prepare the daemon's folder", &e))?;
    let _lock = lock(&paths.start_lock())?;
    if answers(&paths.socket(), "daemon")? {
        return Ok(Start::Unchanged);
    }
    spawn::start_daemon("bangerd", &[], &paths.log())?;
    Ok(Start::Started)
}

fn lock(path: &Path) -> Result<Lock, Failure> {
    Lock::wait(path).map_err(|e| Fault::failed("cannot lock the start of the daemon", &e).into())
}
