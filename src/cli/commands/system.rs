//! `system install|status|restart|refresh|uninstall`.

use std::path::{Path, PathBuf};

use super::super::client::{Client, unexpected};
use super::super::interrupt::Interrupts;
use super::super::render;
use super::super::report::Failure;
use super::leave;
use crate::host::install::{INSTALL_FILE, InstallRecord};
use crate::host::paths::{Environment, Paths};
use crate::os::accounts::{self, Account};
use crate::protocol::hello::BUILD;
use crate::protocol::owner::{OwnerReply, OwnerRequest};
use crate::protocol::{Fault, FaultKind};
use crate::system::install::{self, First, Installed, Wish, system_paths};
use crate::system::units::{SERVICES, SOCKETS};
use crate::system::{SystemError, services};
use crate::update::Host as _;

/// Deleted programs are shown so by the kernel (proc(5), "/proc/pid/exe").
const DELETED: &str = " (deleted)";

/// `system install`.
pub fn install(owner: Option<&str>) -> Result<(), Failure> {
    needs_root("system install")?;
    needs_systemd()?;
    let turn = super::update::settle()?;
    let owner = owner_of(owner, recorded()?.as_ref())?;
    nothing_else_runs(&owner)?;
    let wish = wish(owner)?;
    render::note(&format!("installing banger {BUILD} for {}", wish.owner.name));
    // From here on it goes to its end, or all the way back.
    let _noted = Interrupts::take_over().map_err(|e| Fault::failed("cannot watch for signals", &e))?;
    let restore = |binary: &Path| super::update_host::SystemHost::new().restore_store(binary).map_err(|e| e.0);
    let outcome = install::install(&wish, &restore).map_err(|(error, more)| with_more(fault(&error), &more))?;
    turn.replaced()?;
    let paths = system_paths();
    if let Some(failure) = answers(&paths).err() {
        return Err(failure.hint("journalctl --unit bangerd --unit bangerd-root --lines 20"));
    }
    let binary = wish.binary.display();
    render::note(&match outcome {
        Installed::Anew => format!("{binary} is installed; daemon and helper answer"),
        Installed::Changed => format!("{binary} is up to date; daemon and helper were restarted and answer"),
        Installed::Unchanged => format!("{binary} is up to date; daemon and helper answer"),
    });
    if outcome == Installed::Anew {
        let name = &wish.owner.name;
        render::note(&format!("next, as {name}: banger vm run --rm -- uname -a      (banger doctor: what is missing)"));
    }
    Ok(())
}

/// Both, in this very version.
fn answers(paths: &Paths) -> Result<(), Failure> {
    let silent = || Failure::new(FaultKind::Unavailable, "the daemon does not answer");
    let mut client = Client::connect(&paths.socket())?.ok_or_else(silent)?;
    match client.ask(OwnerRequest::Overview)? {
        OwnerReply::Overview(overview) => match overview.helper {
            Ok(build) if build == BUILD && overview.build == BUILD => Ok(()),
            Ok(build) => {
                let message = format!("the daemon is banger {}, the helper {build}, this {BUILD}", overview.build);
                Err(Failure::new(FaultKind::BadVersion, message).hint("sudo banger system restart"))
            }
            Err(why) => Err(Failure::new(FaultKind::Unavailable, "the helper does not answer").causes(vec![why])),
        },
        other => Err(unexpected(&other)),
    }
}

/// `system restart`.
pub fn restart() -> Result<(), Failure> {
    needs_root("system restart")?;
    needs_systemd()?;
    installed()?;
    let paths = system_paths();
    let first = if answers(&paths).is_ok() { First::Daemon } else { First::Helper };
    install::restart(first).map_err(|e| fault(&e))?;
    answers(&paths)?;
    render::note("daemon and helper were restarted; VMs go on running");
    Ok(())
}

/// `system refresh`.
pub fn refresh() -> Result<(), Failure> {
    needs_root("system refresh")?;
    needs_systemd()?;
    let record = installed()?;
    let owner = accounts::find(&record.uid.to_string()).filter(|account| account.name == record.owner);
    let owner = owner.or_else(|| asked_of_host(&record.owner)).ok_or_else(|| unknown(&record.owner))?;
    let wish = Wish { binary: record.binary.clone(), ..wish(owner)? };
    install::refresh(&record, &wish).map_err(|e| fault(&e))?;
    render::note(&format!("units and record are those of banger {BUILD}"));
    Ok(())
}

/// `system uninstall`.
pub fn uninstall(purge: bool, force: bool) -> Result<(), Failure> {
    needs_root("system uninstall")?;
    let record = recorded()?;
    if purge && record.is_none() && listens(&system_paths().root_socket()) {
        let fault = Fault::new(FaultKind::InUse, "a helper that root has started by hand runs, with its VMs' disks");
        return Err(fault.hint("banger daemon stop      (as root)").into());
    }
    // Before anything goes: whoever says no keeps all of it.
    let purged = if purge { install::purged() } else { Vec::new() };
    if !purged.is_empty() && !leave::may_purge(&purged, force)? {
        render::note("nothing was removed");
        return Ok(());
    }
    if let Some(record) = &record {
        needs_systemd()?;
        let turn = super::update::settle()?;
        leave::vms(&system_paths(), force)?;
        let _noted = Interrupts::take_over().map_err(|e| Fault::failed("cannot watch for signals", &e))?;
        turn.replaced()?;
        let failures = install::uninstall(record);
        if let Some((first, rest)) = failures.split_first() {
            return Err(with_more(fault(first), rest).hint("sudo banger system uninstall      (tries again)"));
        }
        render::note("services, units, links and binary are removed");
    } else if install::has_left_units() {
        let fault =
            Fault::new(FaultKind::NotFound, format!("units are installed, but their record {INSTALL_FILE} is lost"));
        return Err(fault.hint("sudo banger system install --owner USER      (writes it anew; then uninstall)").into());
    } else {
        render::note("banger is not installed on this system");
    }
    if purge {
        let failures = install::purge();
        if let Some((first, rest)) = failures.split_first() {
            return Err(with_more(fault(first), rest).hint("sudo banger system uninstall --purge"));
        }
        render::note("all data is removed");
        return Ok(());
    }
    let kept: Vec<PathBuf> = install::data().into_iter().filter(|path| path.exists()).collect();
    if !kept.is_empty() {
        let kept: Vec<String> = kept.iter().map(|path| path.display().to_string()).collect();
        render::note(&format!("data is kept: {}", kept.join(", ")));
    }
    Ok(())
}

#[derive(serde::Serialize)]
struct StatusView {
    owner: String,
    uid: u32,
    binary: String,
    version: String,
    commit: String,
    this_build: &'static str,
    units: Vec<services::UnitState>,
    sockets: Vec<String>,
    /// What the daemon says of itself and of its helper, where the caller may ask.
    daemon: Option<String>,
    helper: Option<String>,
}

/// `system status`.
pub fn status(json: bool) -> Result<u8, Failure> {
    let record = installed()?;
    let paths = system_paths();
    let asked = ask(&paths);
    let units = [SERVICES, SOCKETS].concat().iter().map(|unit| services::state(unit)).collect::<Result<Vec<_>, _>>();
    let view = StatusView {
        owner: record.owner,
        uid: record.uid,
        binary: record.binary.display().to_string(),
        version: record.version,
        commit: record.commit,
        this_build: BUILD,
        units: units.map_err(|e| fault(&e))?,
        sockets: [paths.socket(), paths.root_socket()].map(|path| path.display().to_string()).to_vec(),
        daemon: asked.as_ref().ok().map(|(daemon, _)| daemon.clone()),
        helper: asked.as_ref().ok().and_then(|(_, helper)| helper.clone().ok()),
    };
    if json {
        render::json(&view)?
    } else {
        render::text(&facts(&view, asked))?
    }
    let run = view.units.iter().all(|unit| unit.state == "active");
    Ok(if run { 0 } else { FaultKind::Unavailable.exit_code() })
}

type Said = Result<(String, Result<String, String>), String>;

/// The builds of the daemon and of its helper. Starts nothing: whoever does not listen is not asked.
fn ask(paths: &Paths) -> Said {
    let running = services::state(SERVICES[1]).is_ok_and(|state| state.state == "active");
    let connected = if running { Client::connect(&paths.socket()) } else { Ok(None) };
    let mut client = connected.map_err(|failure| failure.line())?.ok_or("it does not run")?;
    match client.ask(OwnerRequest::Overview).map_err(|failure| failure.line())? {
        OwnerReply::Overview(overview) => Ok((overview.build, overview.helper)),
        other => Err(unexpected(&other).line()),
    }
}

fn facts(view: &StatusView, asked: Said) -> String {
    let (daemon, helper) = match asked {
        Ok((daemon, helper)) => (daemon, helper.unwrap_or_else(|why| format!("does not answer: {why}"))),
        Err(why) => (why, "not asked".to_owned()),
    };
    let mut lines = vec![
        ("owner", format!("{} (uid {})", view.owner, view.uid)),
        ("installed", format!("{} ({}), {}", view.version, view.commit, view.binary)),
        ("daemon", daemon),
        ("helper", helper),
    ];
    lines.extend(view.sockets.iter().map(|socket| ("socket", socket.clone())));
    lines.extend(view.units.iter().map(|unit| ("unit", unit_line(unit))));
    render::facts(&lines)
}

fn unit_line(unit: &services::UnitState) -> String {
    let pid = unit.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
    let at_boot = if unit.at_boot.is_empty() { "not there" } else { &unit.at_boot };
    let reload = if unit.needs_reload { "; changed on disk: sudo banger system restart" } else { "" };
    format!("{}: {}{pid} ({at_boot}{reload})", unit.unit, unit.state)
}

pub(super) fn needs_root(command: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let fault = Fault::new(FaultKind::Unauthorized, format!("`banger {command}` changes this system, and needs root"));
    Err(fault.hint(format!("sudo banger {command}")).into())
}

pub(super) fn needs_systemd() -> Result<(), Failure> {
    if services::is_running() {
        return Ok(());
    }
    let fault = Fault::new(FaultKind::Refused, "this host is not run by systemd, and banger's services are systemd's");
    Err(fault.hint("banger daemon start      (without services)").into())
}

fn recorded() -> Result<Option<InstallRecord>, Failure> {
    InstallRecord::of_this_host().map_err(|e| {
        let fault = Fault::of(FaultKind::OperationFailed, &e);
        fault
            .hint(format!("sudo mv {INSTALL_FILE} {INSTALL_FILE}.damaged && sudo banger system install --owner USER"))
            .into()
    })
}

fn installed() -> Result<InstallRecord, Failure> {
    let missing = || {
        let fault = Fault::new(FaultKind::NotFound, "banger is not installed on this system");
        Failure::from(fault.hint("sudo banger system install"))
    };
    recorded()?.ok_or_else(missing)
}

fn wish(owner: Account) -> Result<Wish, Failure> {
    let running = std::env::current_exe().map_err(|e| Fault::failed("cannot tell where this binary lies", &e))?;
    let shown = running.to_string_lossy();
    let running = PathBuf::from(shown.strip_suffix(DELETED).unwrap_or(&shown));
    Ok(Wish {
        owner,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("BANGER_COMMIT").to_owned(),
        binary: install::place_of(&running),
    })
}

/// Named, or as installed before, or whoever called sudo(8).
fn owner_of(named: Option<&str>, record: Option<&InstallRecord>) -> Result<Account, Failure> {
    let by_sudo = std::env::var("SUDO_UID").ok().filter(|uid| uid != "0");
    let recorded = record.map(|record| record.owner.clone());
    let Some(wanted) = named.map(str::to_owned).or(recorded).or(by_sudo) else {
        let fault =
            Fault::new(FaultKind::BadRequest, "nobody called sudo, so it is not known whose VMs these shall be");
        return Err(fault.hint("banger system install --owner USER      (root may be one)").into());
    };
    accounts::find(&wanted).or_else(|| asked_of_host(&wanted)).ok_or_else(|| unknown(&wanted))
}

/// From whatever database this host has beside its files (getent(1)): a static binary cannot ask them itself.
fn asked_of_host(name: &str) -> Option<Account> {
    let program = crate::host::facts::find_program("getent")?;
    let output = std::process::Command::new(program).args(["passwd", "--", name]).output().ok()?;
    accounts::of_line(String::from_utf8_lossy(&output.stdout).lines().next()?)
}

fn unknown(name: &str) -> Failure {
    let fault = Fault::new(FaultKind::NotFound, format!("there is no account {name:?}"));
    fault.hint("banger system install --owner USER").into()
}

fn listens(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// A daemon that was started by hand keeps its VMs where no service will look for them.
fn nothing_else_runs(owner: &Account) -> Result<(), Failure> {
    let environment = Environment { banger_home: None, installed: false, ..Environment::of_account(owner) };
    let (paths, system) = (Paths::new(&environment), system_paths());
    if recorded()?.is_none()
        && !install::has_left_units()
        && (listens(&system.socket()) || listens(&system.root_socket()))
    {
        let fault = Fault::new(FaultKind::InUse, "a daemon that root has started by hand runs, with its VMs");
        return Err(fault.hint("banger daemon stop      (as root)").into());
    }
    if paths.socket() == system.socket() || !listens(&paths.socket()) {
        return Ok(());
    }
    let message =
        format!("a daemon that {} has started by hand runs, with its VMs in {}", owner.name, paths.state.display());
    let fault = Fault::new(FaultKind::InUse, message);
    Err(fault.hint(format!("sudo -u {} banger daemon stop", owner.name)).into())
}

fn fault(error: &SystemError) -> Failure {
    let kind = match error {
        SystemError::OtherOwner { .. } | SystemError::OthersData { .. } | SystemError::InTheWay { .. } => {
            FaultKind::InUse
        }
        SystemError::NoProgram(_) => FaultKind::NotFound,
        SystemError::Io { .. } | SystemError::Program { .. } => FaultKind::OperationFailed,
    };
    let failure = Failure::from(Fault::of(kind, error));
    match error {
        SystemError::OtherOwner { installed } => failure
            .hint(format!("banger system install --owner {installed}      (keeps it)"))
            .hint("sudo banger system uninstall --purge      (removes it with all VMs)"),
        SystemError::OthersData { path, .. } => failure.hint(format!("sudo mv {0} {0}.old", path.display())),
        SystemError::InTheWay { path } => failure.hint(format!("sudo mv {0} {0}.old", path.display())),
        SystemError::Program { details, .. } => failure.causes(details.clone()),
        SystemError::Io { .. } | SystemError::NoProgram(_) => failure,
    }
}

/// All that failed, in one.
fn with_more(failure: Failure, more: &[SystemError]) -> Failure {
    failure.causes(more.iter().map(|error| fault(error).line()).collect())
}
