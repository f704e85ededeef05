//! `doctor`: looks, and shows what is wrong.

use super::super::client::{Client, unexpected};
use super::super::render;
use super::super::report::Failure;
use crate::host::config::Config;
use crate::host::facts::{Facts, find_program, find_resolvectl};
use crate::host::paths::Paths;
use crate::os::files::free_bytes;
use crate::protocol::hello::BUILD;
use crate::protocol::owner::{Checkup, Overview, OwnerReply, OwnerRequest};
use crate::protocol::root::DiskFill;
use crate::protocol::{Fault, FaultKind};
use crate::system::doctor::{DaemonSeen, DiskSeen, Resolver, Row, Seen, Verdict, examine};

/// Programs that banger runs, and the package of each.
const PROGRAMS: [(&str, &str); 4] =
    [("nft", "nftables"), ("ssh", "openssh-client"), ("git", "git"), ("mmdebstrap", "mmdebstrap")];

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Exits with 1 when something will not work.
pub fn doctor(verbose: bool, json: bool) -> Result<u8, Failure> {
    let rows = examine(&look()?);
    if json {
        render::json(&rows)?;
    } else {
        render::text(&report(&rows, verbose))?;
    }
    Ok(u8::from(rows.iter().any(|row| row.verdict == Verdict::Failed)))
}

fn look() -> Result<Seen, Failure> {
    let paths = Paths::current();
    let config = Config::load(&paths.config).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    // The state may not be there yet: then its next folder that is.
    let folder = paths.state.ancestors().find(|folder| folder.exists());
    let room = folder.and_then(|folder| Some((paths.state.clone(), free_bytes(folder).ok()?)));
    Ok(Seen {
        config,
        facts: Facts::see(),
        resolver: match (find_resolvectl(), find_program("dnsmasq")) {
            (Some(_), _) => Resolver::Resolved,
            (None, Some(_)) => Resolver::Dnsmasq,
            (None, None) => Resolver::Other,
        },
        has_tun: std::path::Path::new("/dev/net/tun").exists(),
        programs: PROGRAMS.into_iter().map(|(name, package)| (name, package, find_program(name))).collect(),
        build: BUILD.to_owned(),
        room,
        daemon: ask(&paths).map_err(|failure| failure.line()),
    })
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
    DaemonSeen { build: overview.build, helper: overview.helper, no_snapshots, obstacles, disks, unknown, folder }
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
