//! The daemon, started if need be: where nothing is installed and the caller is root, or the helper
//! is there already, a command starts what it misses. Any number of commands at once start it once.
//!
//! Root makes nothing below a user's folder but the helper's own, which it reaches by descriptor: for
//! another account the daemon is started by that account itself. So no link can be put in the way.

use std::path::Path;

use super::client::{Channel, Client};
use super::report::Failure;
use super::spawn;
use crate::host::paths::{Environment, Paths};
use crate::os::accounts::{self, Account};
use crate::os::files::{Lock, ensure_dir};
use crate::os::own_folder::OwnFolder;
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
    let (daemon, helper) = (answers(&paths.socket(), "daemon")?, answers(&paths.root_socket(), "helper"));
    // Whether a helper answers may be root's alone to know; a daemon without its helper is half of one.
    if daemon && helper.unwrap_or(true) {
        return Ok(Start::Unchanged);
    }
    if environment.is_system() {
        let fault = Fault::new(FaultKind::Unavailable, "the services of this installation do not run");
        return Err(fault.hint("sudo banger system restart").into());
    }
    if rustix::process::geteuid().is_root() {
        let helper = ensure_helper(paths, environment.uid)?;
        let daemon = ensure_daemon(paths)?;
        return Ok(if helper == Start::Started { helper } else { daemon });
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
    let fault = Fault::new(FaultKind::Unavailable, "daemon or helper does not run, and only root can start the helper");
    fault.hint(format!("sudo banger daemon start --owner {name}")).into()
}

/// Whether somebody listens at `path`. A socket file whose process has ended refuses connections.
fn answers(path: &Path, peer: &'static str) -> Result<bool, Failure> {
    Ok(Channel::connect(path, peer)?.is_some())
}

fn ensure_helper(paths: &Paths, owner: u32) -> Result<Start, Failure> {
    if owner == 0 {
        make_parent(&paths.root_run)?;
    }
    let folder = OwnFolder::open(&paths.root_run, 0o755)
        .map_err(|e| Failure::from(Fault::failed("cannot prepare the helper's folder", &e)))?;
    let _lock = lock(&folder.at("start.lock"))?;
    if answers(&paths.root_socket(), "helper")? {
        return Ok(Start::Unchanged);
    }
    let arguments = ["--owner".to_owned(), owner.to_string()];
    let log = spawn::Log { open: folder.at("bangerd-root.log"), shown: paths.root_log() };
    spawn::start_daemon("bangerd-root", &arguments, &log)?;
    Ok(Start::Started)
}

/// The folder above, which is somebody else's to make where the installation is somebody else's.
fn make_parent(folder: &Path) -> Result<(), Failure> {
    let Some(parent) = folder.parent().filter(|p| !p.exists()) else { return Ok(()) };
    ensure_dir(parent, 0o755).map_err(|e| Fault::failed("cannot prepare the helper's folder", &e).into())
}

fn ensure_daemon(paths: &Paths) -> Result<Start, Failure> {
    ensure_dir(&paths.run, 0o700).map_err(|e| Fault::failed("cannot prepare the daemon's folder", &e))?;
    let _lock = lock(&paths.start_lock())?;
    if answers(&paths.socket(), "daemon")? {
        return Ok(Start::Unchanged);
    }
    let log = spawn::Log { open: paths.log(), shown: paths.log() };
    spawn::start_daemon("bangerd", &[], &log)?;
    Ok(Start::Started)
}

fn lock(path: &Path) -> Result<Lock, Failure> {
    Lock::wait(path).map_err(|e| Fault::failed("cannot lock the start of the daemon", &e).into())
}
