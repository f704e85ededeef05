//! Rows about the system's installation: its services, its units, its sockets, its versions.

use std::path::PathBuf;

use super::{Cure, Row};
use crate::host::install::{InstallRecord, restart_command};
use crate::system::services::UnitState;

/// What is seen of a system install.
#[derive(Debug)]
pub struct InstallSeen {
    /// What it has written down, or why that cannot be used.
    pub record: Result<InstallRecord, String>,
    /// Units that are not as this binary would write them; nothing where the binary is another.
    pub stale: Vec<PathBuf>,
    /// Its units, or why systemd cannot be asked.
    pub units: Result<Vec<UnitState>, String>,
    /// Whether an update was interrupted and nobody has come back to it.
    pub interrupted: bool,
    /// How exposed its services are, where that was asked for.
    pub exposures: Vec<(&'static str, String)>,
}

/// A socket of daemon or helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSeen {
    /// Where.
    pub path: PathBuf,
    /// Its mode, below 0o10000.
    pub mode: u32,
    /// Whose it is.
    pub uid: u32,
}

/// All rows; none where nothing is installed.
pub fn rows(seen: Option<&InstallSeen>, commit: &str, version: &str) -> Vec<Row> {
    let Some(seen) = seen else { return Vec::new() };
    let record = match &seen.record {
        Ok(record) => record,
        Err(why) => return vec![Row::failed("installed", why.clone(), "sudo banger system install").cured(install())],
    };
    let mut rows = vec![Row::ok(
        "installed",
        format!("{} ({}) for {}, {}", record.version, record.commit, record.owner, record.binary.display()),
    )];
    rows.extend(drift(record, commit, version));
    if seen.interrupted {
        rows.push(Row::warning("update", "one was interrupted, and is not at its end", "sudo banger update"));
    }
    rows.extend(stale(seen));
    rows.extend(units(seen));
    let exposed = |(service, exposure): &(&str, String)| {
        Row::ok("exposure", format!("{service}: {exposure} of 10 (systemd-analyze security)"))
    };
    rows.extend(seen.exposures.iter().map(exposed));
    rows
}

fn install() -> Cure {
    Cure::new("bring the installation up to date; VMs go on running", &["banger", "system", "install"])
}

/// A build that was never released is whatever its maker has compiled last.
fn drift(record: &InstallRecord, commit: &str, version: &str) -> Option<Row> {
    let is_development = commit.starts_with("dev") || commit == "unknown";
    if is_development || (record.version == version && record.commit == commit) {
        return None;
    }
    let seen = format!("this is {version} ({commit}), installed is {} ({})", record.version, record.commit);
    Some(Row::warning("version", seen, "sudo banger system install      (installs this one)"))
}

fn stale(seen: &InstallSeen) -> Option<Row> {
    if seen.stale.is_empty() {
        return None;
    }
    let names: Vec<String> = seen.stale.iter().map(|path| path.display().to_string()).collect();
    let text = format!("not as this version writes them: {}", names.join(", "));
    Some(Row::warning("units", text, "sudo banger system install").cured(install()))
}

fn units(seen: &InstallSeen) -> Vec<Row> {
    let units = match &seen.units {
        Ok(units) => units,
        Err(why) => return vec![Row::failed("services", why.clone(), "systemctl status bangerd bangerd-root")],
    };
    let restart = || Cure::new("restart both services; VMs go on running", &["banger", "system", "restart"]);
    let bad = |unit: &&UnitState| unit.state != "active" || unit.at_boot != "enabled" || unit.needs_reload;
    let rows: Vec<Row> = units.iter().filter(bad).map(|unit| row_of(unit, restart())).collect();
    if rows.is_empty() { vec![Row::ok("services", "both run, and start with the host")] } else { rows }
}

fn row_of(unit: &UnitState, restart: Cure) -> Row {
    let name = &unit.unit;
    if unit.state != "active" {
        return Row::failed("services", format!("{name} is {}", unit.state), restart_command()).cured(restart);
    }
    if unit.needs_reload {
        return Row::warning("services", format!("{name} has changed on disk"), restart_command()).cured(restart);
    }
    let seen = format!("{name} does not start with the host");
    Row::warning("services", seen, format!("sudo systemctl enable {name}")).cured(install())
}

/// Nobody but the owner, and root, may ask for anything.
pub fn sockets(sockets: &[SocketSeen], owner: u32) -> Vec<Row> {
    let is_open = |socket: &&SocketSeen| socket.mode & 0o077 != 0 || (socket.uid != owner && socket.uid != 0);
    let open: Vec<Row> = sockets
        .iter()
        .filter(is_open)
        .map(|socket| {
            let path = socket.path.display();
            let seen = format!("{path} has mode {:04o} and belongs to uid {}", socket.mode, socket.uid);
            // Nothing of root's to be typed with this path: the folder is the owner's, who decides what lies there.
            Row::failed("sockets", seen, restart_command())
        })
        .collect();
    match (open.is_empty(), sockets.is_empty()) {
        (false, _) => open,
        (true, true) => Vec::new(),
        (true, false) => vec![Row::ok("sockets", "open to their owner alone")],
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn unit(name: &str) -> UnitState {
        UnitState {
            unit: name.into(),
            state: "active".into(),
            at_boot: "enabled".into(),
            pid: Some(1),
            needs_reload: false,
        }
    }

    fn seen() -> InstallSeen {
        let record = InstallRecord {
            version: "1.2.3".into(),
            commit: "12345678".into(),
            owner: "alice".into(),
            uid: 1000,
            binary: "/usr/local/bin/banger".into(),
            made: vec![],
        };
        let units = vec![unit("bangerd-root.service"), unit("bangerd.service")];
        InstallSeen { record: Ok(record), stale: vec![], units: Ok(units), interrupted: false, exposures: vec![] }
    }

    fn bad(seen: &InstallSeen, commit: &str) -> Vec<Row> {
        let rows = rows(Some(seen), commit, "1.2.3");
        rows.into_iter().filter(|row| row.verdict != Verdict::Ok).collect()
    }

    #[test]
    fn a_healthy_installation_has_nothing_to_say() {
        assert!(bad(&seen(), "12345678").is_empty());
        assert!(rows(None, "", "").is_empty());
    }

    #[test]
    fn another_version_is_told_unless_it_is_somebodys_last_build() {
        assert_eq!(bad(&seen(), "87654321").len(), 1);
        assert!(bad(&seen(), "dev00000").is_empty() && bad(&seen(), "unknown").is_empty());
    }

    #[test]
    fn a_service_that_does_not_run_can_be_cured() {
        for (spoil, verdict) in [
            ((|u: &mut UnitState| u.state = "failed".into()) as fn(&mut UnitState), Verdict::Failed),
            (|u| u.at_boot = "disabled".into(), Verdict::Warning),
            (|u| u.needs_reload = true, Verdict::Warning),
        ] {
            let mut seen = seen();
            seen.units.iter_mut().flatten().take(1).for_each(spoil);
            let rows = bad(&seen, "12345678");
            assert_eq!(rows.iter().map(|row| row.verdict).collect::<Vec<_>>(), [verdict]);
            assert!(rows[0].cure.is_some() && rows[0].hint.is_some());
        }
        let mut stale = seen();
        stale.stale.push("/etc/systemd/system/bangerd.service".into());
        assert!(bad(&stale, "12345678")[0].cure.is_some());
    }

    #[test]
    fn a_socket_that_others_can_reach_is_told() {
        let socket = |mode, uid| SocketSeen { path: "/run/s".into(), mode, uid };
        let worst = |seen: &[SocketSeen]| sockets(seen, 1000).iter().map(|row| row.verdict).max();
        assert_eq!(worst(&[socket(0o600, 1000), socket(0o600, 0)]), Some(Verdict::Ok));
        assert_eq!(worst(&[socket(0o660, 1000)]), Some(Verdict::Failed));
        assert_eq!(worst(&[socket(0o600, 1001)]), Some(Verdict::Failed));
        assert_eq!(worst(&[]), None);
    }
}
