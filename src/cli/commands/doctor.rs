//! `doctor`: looks, and shows what is wrong.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::args::Doctor;
use super::super::client::{Client, unexpected};
use super::super::render;
use super::super::report::Failure;
use super::ssh_config::standing;
use super::{catalogue, fix};
use crate::host::choose::{DEFAULT_IMAGE, DEFAULT_KERNEL};
use crate::host::config::Config;
use crate::host::facts::{Facts, find_program, find_resolvectl};
use crate::host::install::InstallRecord;
use crate::host::paths::{Environment, Paths};
use crate::image::catalogue::Catalogue;
use crate::model::{ImageName, KernelName};
use crate::os::accounts;
use crate::os::files::free_bytes;
use crate::os::netlink::Netlink;
use crate::protocol::hello::BUILD;
use crate::protocol::owner::{Checkup, Overview, OwnerReply, OwnerRequest};
use crate::protocol::root::DiskFill;
use crate::protocol::{Fault, FaultKind};
use crate::system::doctor::installation::{InstallSeen, SocketSeen};
use crate::system::doctor::stock::{StockSeen, StoreSeen};
use crate::system::doctor::{DaemonSeen, DiskSeen, ProgramSeen, Resolver, Row, Seen, Verdict, examine, ssh_config};
use crate::system::services;
use crate::system::units::{self, SERVICES, SOCKETS};

/// Programs that banger runs, the package of each, and what it is for where most does without it.
const PROGRAMS: [(&str, &str, Option<&str>); 4] = [
    ("nft", "nftables", None),
    ("ssh", "openssh-client", Some("by shells on a terminal")),
    ("git", "git", Some("by workspaces")),
    ("mmdebstrap", "mmdebstrap", Some("to make images of packages")),
];

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Exits with 1 when something will not work.
pub fn doctor(asked: &Doctor) -> Result<u8, Failure> {
    let (verbose, json) = (asked.verbose, asked.json);
    let mut rows = all_rows(verbose)?;
    if asked.fix && fix::cure(&rows, asked.yes)? {
        rows = all_rows(verbose)?;
    }
    if json {
        render::json(&rows)?;
    } else {
        render::text(&report(&rows, verbose))?;
    }
    Ok(u8::from(rows.iter().any(|row| row.verdict == Verdict::Failed)))
}

fn all_rows(verbose: bool) -> Result<Vec<Row>, Failure> {
    let mut rows = examine(&look(verbose)?);
    rows.push(ssh_config(&standing(&Paths::current()).map_err(|failure| failure.line())));
    Ok(rows)
}

fn look(verbose: bool) -> Result<Seen, Failure> {
    let paths = Paths::current();
    let config = Config::load(&paths.config).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    // The state may not be there yet: then its next folder that is.
    let folder = paths.state.ancestors().find(|folder| folder.exists());
    let room = folder.and_then(|folder| Some((paths.state.clone(), free_bytes(folder).ok()?)));
    let daemon = ask(&paths);
    let uid = rustix::process::geteuid().as_raw();
    let install = Environment::current().is_system().then(|| installation(verbose));
    let owner = install.as_ref().and_then(|seen| seen.record.as_ref().ok()).map_or(uid, |record| record.uid);
    Ok(Seen {
        stock: stock(&paths, &config, daemon.is_ok()),
        store: store(&paths),
        routes: Netlink::open().and_then(|mut netlink| netlink.routes()).unwrap_or_default(),
        sockets: ([paths.socket(), paths.root_socket()].iter().filter_map(|path| socket(path)).collect(), owner),
        account: accounts::of_uid(uid).map_or_else(|| uid.to_string(), |account| account.name),
        this: (env!("BANGER_COMMIT"), env!("CARGO_PKG_VERSION")),
        install,
        config,
        facts: Facts::see(),
        resolver: match (find_resolvectl(), find_program("dnsmasq")) {
            (Some(_), _) => Resolver::Resolved,
            (None, Some(_)) => Resolver::Dnsmasq,
            (None, None) => Resolver::Other,
        },
        has_tun: std::path::Path::new("/dev/net/tun").exists(),
        programs: PROGRAMS
            .into_iter()
            .map(|(name, package, only_for)| ProgramSeen { name, package, only_for, path: find_program(name) })
            .collect(),
        build: BUILD.to_owned(),
        room,
        daemon: daemon.map_err(|failure| failure.line()),
    })
}

fn installation(verbose: bool) -> InstallSeen {
    let record = match InstallRecord::of_this_host() {
        Ok(Some(record)) => Ok(record),
        Ok(None) => Err("its record is gone".to_owned()),
        Err(e) => Err(e.to_string()),
    };
    let units = [SERVICES, SOCKETS].concat();
    let states = units.iter().map(|unit| services::state(unit)).collect::<Result<Vec<_>, _>>();
    let exposed = |service: &'static str| Some((service, services::exposure(service)?));
    InstallSeen {
        stale: record.as_ref().map(stale).unwrap_or_default(),
        units: states.map_err(|e| e.to_string()),
        interrupted: Path::new(crate::update::JOURNAL).exists(),
        exposures: if verbose { SERVICES.into_iter().filter_map(exposed).collect() } else { Vec::new() },
        record,
    }
}

/// Units that this binary would write otherwise, where it is the installed one.
fn stale(record: &InstallRecord) -> Vec<PathBuf> {
    if (record.version.as_str(), record.commit.as_str()) != (env!("CARGO_PKG_VERSION"), env!("BANGER_COMMIT")) {
        return Vec::new();
    }
    let Some(owner) = accounts::find(&record.uid.to_string()) else { return Vec::new() };
    let owner = accounts::Account { name: record.owner.clone(), ..owner };
    let is_stale = |unit: &units::Unit| std::fs::read(&unit.path).ok().as_deref() != Some(unit.text.as_bytes());
    let rendered = units::rendered(&record.binary, &owner);
    rendered.into_iter().filter(is_stale).map(|unit| unit.path).collect()
}

fn socket(path: &Path) -> Option<SocketSeen> {
    let about = path.symlink_metadata().ok()?;
    Some(SocketSeen { path: path.to_owned(), mode: about.mode() & 0o7777, uid: about.uid() })
}

/// Default image and kernel, and whether a VM could be made of them.
fn stock(paths: &Paths, config: &Config, may_ask: bool) -> Vec<StockSeen> {
    let image = config.default_image.as_ref().map_or(DEFAULT_IMAGE, ImageName::as_str);
    let kernel = config.default_kernel.as_ref().map_or(DEFAULT_KERNEL, KernelName::as_str);
    let catalogue = catalogue::load(paths).ok();
    let can_pull = |has: &dyn Fn(&Catalogue) -> bool| catalogue.as_ref().is_some_and(has);
    let images = |c: &Catalogue| c.images().iter().any(|e| e.name.as_str() == image && !e.sources().is_empty());
    let kernels = |c: &Catalogue| c.kernels().iter().any(|e| e.name.as_str() == kernel && !e.sources().is_empty());
    let here = |request| may_ask.then(|| names(paths, request)).flatten();
    let is_here = |names: Option<Vec<String>>, name: &str| names.map(|names| names.iter().any(|n| n == name));
    vec![
        StockSeen {
            what: "image",
            name: image.to_owned(),
            is_here: is_here(here(OwnerRequest::ListImages), image),
            can_be_pulled: can_pull(&images),
        },
        StockSeen {
            what: "kernel",
            name: kernel.to_owned(),
            is_here: is_here(here(OwnerRequest::ListKernels), kernel),
            can_be_pulled: can_pull(&kernels),
        },
    ]
}

fn names(paths: &Paths, request: OwnerRequest) -> Option<Vec<String>> {
    match Client::connect(&paths.socket()).ok()??.ask(request).ok()? {
        OwnerReply::Images(images) => Some(images.into_iter().map(|image| image.name.to_string()).collect()),
        OwnerReply::Kernels(kernels) => Some(kernels.into_iter().map(|kernel| kernel.name.to_string()).collect()),
        _ => None,
    }
}

/// As the daemon of this very binary would find it.
fn store(paths: &Paths) -> Option<StoreSeen> {
    paths.store().exists().then_some(())?;
    let mut command = Command::new("/proc/self/exe");
    let status = command.arg0("bangerd").arg("--check-migrations").stderr(Stdio::null()).status().ok()?;
    match status.code() {
        Some(0) => Some(StoreSeen::Compatible),
        Some(1) => Some(StoreSeen::Older),
        Some(2) => Some(StoreSeen::Incompatible),
        _ => None,
    }
}

/// Starts nothing.
fn ask(paths: &Paths) -> Result<DaemonSeen, Failure> {
    let Some(mut client) = Client::connect(&paths.socket())? else {
        return Err(Failure::new(FaultKind::Unavailable, "it does not run"));
    };
    let overview: Overview = match client.ask(OwnerRequest::Overview)? {
        OwnerReply::Overview(overview) => *overview,
        other => return Err(unexpected(&other)),
    };
    let checkup = match client.ask(OwnerRequest::Checkup)? {
        OwnerReply::Checkup(checkup) => checkup,
        other => return Err(unexpected(&other)),
    };
    Ok(seen(overview, checkup))
}

fn seen(overview: Overview, Checkup { no_snapshots, obstacles, disks, unknown, folder }: Checkup) -> DaemonSeen {
    let seen = |(vm, fill)| match fill {
        DiskFill::Sectors { used, total } => {
            Some(DiskSeen { vm, fill: Some((used.saturating_mul(SECTOR), total.saturating_mul(SECTOR))) })
        }
        DiskFill::Invalid | DiskFill::Overflow => Some(DiskSeen { vm, fill: None }),
        DiskFill::Unknown => None,
    };
    let disks = disks.into_iter().filter_map(seen).collect();
    let folder = std::path::PathBuf::from(folder);
    let folder = free_bytes(&folder).ok().map(|free| (folder, free));
    DaemonSeen {
        build: overview.build,
        helper: overview.helper,
        subnet: overview.subnet,
        no_snapshots,
        obstacles,
        disks,
        unknown,
        folder,
    }
}

fn report(rows: &[Row], verbose: bool) -> String {
    let bad: Vec<&Row> = rows.iter().filter(|row| row.verdict != Verdict::Ok).collect();
    let monitor = rows.iter().find(|row| row.check == "monitor").map(|row| row.seen.as_str()).unwrap_or_default();
    let mut text = String::new();
    for row in rows.iter().filter(|row| verbose || row.verdict != Verdict::Ok) {
        let mark = match row.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warning => "warn",
            Verdict::Failed => "FAIL",
        };
        text.push_str(&format!("{mark}  {:12} {}\n", row.check, render::plain(&row.seen)));
        if let Some(hint) = &row.hint {
            text.push_str(&format!("{:20}{}\n", "", render::plain(hint)));
        }
    }
    let failed = bad.iter().filter(|row| row.verdict == Verdict::Failed).count();
    text.push_str(&match (bad.len(), failed) {
        (0, _) => format!("healthy: {}\n", render::plain(monitor)),
        (warned, 0) => format!("{warned} to look at; VMs can be run\n"),
        (all, failed) => format!("{failed} failed, {} to look at\n", all - failed),
    });
    text
}
