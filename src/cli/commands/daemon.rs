//! `daemon start|stop|status|socket`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

use super::super::autostart::{self, Start};
use super::super::client::{Channel, Client, unexpected};
use super::super::render;
use super::super::report::Failure;
use super::super::views::StatusView;
use crate::host::paths::{Environment, Paths};
use crate::model::OpId;
use crate::os::{accounts, process, random};
use crate::protocol::owner::{Overview, OwnerReply, OwnerRequest};
use crate::protocol::root::{RootAnswer, RootCall, RootRequest};
use crate::protocol::{Fault, FaultKind};

/// How long a daemon may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// `daemon start`.
pub fn start(owner: Option<&str>) -> Result<u8, Failure> {
    not_of_the_system("start", "sudo banger system restart")?;
    if let Some(owner) = owner {
        let account = accounts::find(owner)
            .ok_or_else(|| Failure::new(FaultKind::NotFound, format!("there is no account {owner:?}")))?;
        if account.uid != rustix::process::geteuid().as_raw() {
            return autostart::start_for(&account);
        }
    }
    match autostart::start(&Environment::current(), &Paths::current())? {
        Start::Started => render::note("daemon started"),
        Start::Unchanged => render::note("daemon runs already"),
    }
    Ok(0)
}

/// `daemon stop`: daemon and helper; done when both have ended.
pub fn stop() -> Result<(), Failure> {
    not_of_the_system("stop", "sudo systemctl stop bangerd.socket bangerd bangerd-root.socket bangerd-root")?;
    let paths = Paths::current();
    // Looked up before anything ends: afterwards nobody is there to be asked.
    let (daemon, helper) = (listener(&paths.socket(), "daemon")?, listener(&paths.root_socket(), "helper")?);
    let Some(daemon) = daemon else {
        if helper.is_some() {
            stop_helper(&paths)?;
            wait_for_end(helper, "helper")?;
        }
        render::note("the daemon does not run");
        return Ok(());
    };
    let running = ask_to_stop(&paths, &daemon)?;
    wait_for_end(Some(daemon), "daemon")?;
    wait_for_end(helper, "helper")?;
    render::note(match running {
        Some(0) | None => "daemon and helper stopped",
        Some(_) => "daemon and helper stopped; VMs go on running",
    });
    Ok(())
}

/// Services are systemd's to start and to stop: it would not know of either.
fn not_of_the_system(verb: &str, cure: &str) -> Result<(), Failure> {
    if !Environment::current().is_system() {
        return Ok(());
    }
    let message = format!("banger is installed on this system: its services are not for `daemon {verb}`");
    Err(Fault::new(FaultKind::Refused, message).hint(cure).into())
}

/// The process that listens at `path`, as a pidfd: its end can be waited for.
fn listener(path: &Path, peer: &'static str) -> Result<Option<OwnedFd>, Failure> {
    let failed = |e: io::Error| Fault::failed(format!("cannot find the {peer}'s process"), &e);
    let Some(channel) = Channel::connect(path, peer)? else { return Ok(None) };
    let pid = channel.peer_process().map_err(failed)?.pid;
    match process::reference(pid) {
        Ok(reference) => Ok(process::open(reference).map_err(failed)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(e).into()),
    }
}

/// Returns how many VMs run on, where that is known.
fn ask_to_stop(paths: &Paths, daemon: &OwnedFd) -> Result<Option<usize>, Failure> {
    match Client::connect(&paths.socket()) {
        Ok(Some(mut client)) => {
            let running = running_vms(&mut client)?;
            client.ask(OwnerRequest::Shutdown { helper: true })?;
            Ok(Some(running))
        }
        Ok(None) => Ok(None),
        // Another version, which cannot be asked in its own language: every version ends on SIGTERM.
        Err(failure) if failure.kind() == Some(FaultKind::BadVersion) => {
            pidfd_send_signal(daemon, Signal::TERM)
                .map_err(|e| Fault::failed("cannot stop the daemon", &io::Error::from(e)))?;
            if let Ok(Some(helper)) = listener(&paths.root_socket(), "helper") {
                // Only root may; a helper of another version is replaced by whoever starts the next.
                let _ = pidfd_send_signal(&helper, Signal::TERM);
            }
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

fn running_vms(client: &mut Client) -> Result<usize, Failure> {
    match client.ask(OwnerRequest::ListRunning)? {
        OwnerReply::Vms(vms) => Ok(vms.len()),
        other => Err(unexpected(&other)),
    }
}

fn stop_helper(paths: &Paths) -> Result<(), Failure> {
    let Some(mut channel) = Channel::connect(&paths.root_socket(), "helper")? else { return Ok(()) };
    channel.greet()?;
    let op = OpId::from_random(random::number());
    channel.send(&RootCall { op, request: RootRequest::Shutdown }, &[])?;
    channel.receive::<RootAnswer>(Some(STOP_LIMIT))??;
    Ok(())
}

fn wait_for_end(process: Option<OwnedFd>, who: &str) -> Result<(), Failure> {
    let Some(pidfd) = process else { return Ok(()) };
    match process::wait_for_end(&pidfd, STOP_LIMIT) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = format!("the {who} was asked to stop and still runs after {} s", STOP_LIMIT.as_secs());
            Err(Failure::new(FaultKind::OperationFailed, message))
        }
        Err(e) => Err(Fault::failed(format!("cannot wait for the end of the {who}"), &e).into()),
    }
}

/// `daemon status`: starts nothing.
pub fn status(json: bool) -> Result<u8, Failure> {
    let paths = Paths::current();
    let Some(mut client) = Client::connect(&paths.socket())? else { return not_running(&paths, json) };
    let overview = match client.ask(OwnerRequest::Overview)? {
        OwnerReply::Overview(overview) => overview,
        other => return Err(unexpected(&other)),
    };
    if json {
        render::json(&StatusView::from(&*overview))?
    } else {
        render::text(&facts(&overview))?
    }
    Ok(0)
}

fn not_running(paths: &Paths, json: bool) -> Result<u8, Failure> {
    if json {
        render::json(&serde_json::json!({ "running": false, "socket": paths.socket().display().to_string() }))?;
        return Ok(FaultKind::Unavailable.exit_code());
    }
    let fault = Fault::new(FaultKind::Unavailable, "the daemon does not run");
    Err(fault.hint(start_command()).into())
}

fn start_command() -> String {
    let uid = rustix::process::geteuid();
    match accounts::of_uid(uid.as_raw()) {
        _ if Environment::current().is_system() => "sudo banger system restart".to_owned(),
        Some(account) if !uid.is_root() => format!("sudo banger daemon start --owner {}", account.name),
        Some(_) | None => "banger daemon start".to_owned(),
    }
}

fn facts(o: &Overview) -> String {
    let helper = match &o.helper {
        Ok(build) => build.clone(),
        Err(why) => format!("does not answer: {why}"),
    };
    let or_none = |text: Option<String>, none: &str| text.unwrap_or_else(|| none.to_owned());
    render::facts(&[
        ("daemon", format!("{}, pid {}", o.build, o.pid)),
        ("helper", helper),
        ("socket", o.socket.clone()),
        ("helper socket", o.helper_socket.clone()),
        ("state", o.state_dir.clone()),
        ("subnet", or_none(o.subnet.clone(), "chosen when the first VM starts")),
        ("dns", or_none(o.dns.map(|d| d.to_string()), "none")),
        ("monitor", format!("{} ({})", o.vmm, o.vmm.reason)),
        ("vms", o.vms.to_string()),
    ])
}

/// `daemon socket`.
pub fn socket() -> Result<(), Failure> {
    let socket = Paths::current().socket().display().to_string();
    render::either(&serde_json::json!({ "socket": socket }), || socket.clone())
}
