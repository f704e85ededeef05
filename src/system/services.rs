//! systemd, asked with its own systemctl(1), which knows its every version.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{SystemError, failed};
use crate::host::facts::find_program;
use crate::os::clock;

/// There when systemd runs this host (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Lines of the journal that are shown when a service does not come up.
const JOURNAL_LINES: &str = "8";

/// A unit as systemd sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UnitState {
    /// Its name.
    pub unit: String,
    /// `active`, `inactive`, `failed`, `activating`, …
    pub state: String,
    /// Whether the next boot starts it: `enabled`, `disabled`, …; empty where it is not there.
    pub at_boot: String,
    /// Its process, where it has one.
    pub pid: Option<u32>,
    /// Whether its file has changed since systemd read it.
    pub needs_reload: bool,
}

/// Whether systemd runs this host.
pub fn is_running() -> bool {
    Path::new(BOOTED).is_dir() && find_program("systemctl").is_some()
}

/// Has systemd read all units anew.
pub fn reload() -> Result<(), SystemError> {
    systemctl(&["daemon-reload"])
}

/// Has the next boot start `units`, and starts them now; done when all have said that they answer.
pub fn start(units: &[&str]) -> Result<(), SystemError> {
    systemctl(&[&["--quiet", "enable"], units].concat())?;
    systemctl(&[&["start"], units].concat()).map_err(|error| with_journal(error, units))
}

/// Restarts `units`, one after the other in their own order.
pub fn restart(units: &[&str]) -> Result<(), SystemError> {
    systemctl(&[&["restart"], units].concat()).map_err(|error| with_journal(error, units))
}

/// Stops `units`, until they are started again.
pub fn halt(units: &[&str]) -> Result<(), SystemError> {
    systemctl(&[&["stop"], units].concat())
}

/// Stops `units` and has no boot start them any more; those that are not there are left so.
pub fn stop(units: &[&str]) -> Result<(), SystemError> {
    let there: Vec<&str> = units.iter().copied().filter(|unit| state(unit).is_ok_and(|s| is_known(&s))).collect();
    if there.is_empty() {
        return Ok(());
    }
    systemctl(&[&["stop"], there.as_slice()].concat())?;
    systemctl(&[&["--quiet", "disable"], there.as_slice()].concat())?;
    forget_failures(&there);
    Ok(())
}

/// Has systemd forget how often `units` have failed.
pub fn forget_failures(units: &[&str]) {
    for unit in units {
        // Fails where there is nothing to forget.
        let _ = systemctl(&["reset-failed", unit]);
    }
}

fn is_known(state: &UnitState) -> bool {
    !(state.state == "inactive" && state.at_boot.is_empty())
}

/// How a unit is.
pub fn state(unit: &str) -> Result<UnitState, SystemError> {
    const WANTED: &str = "--property=ActiveState,UnitFileState,MainPID,NeedDaemonReload";
    let said = output("systemctl", &["show", WANTED, unit])?;
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Ok(UnitState {
        unit: unit.to_owned(),
        state: value("ActiveState").unwrap_or("unknown").to_owned(),
        at_boot: value("UnitFileState").unwrap_or_default().to_owned(),
        pid: value("MainPID").and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0),
        needs_reload: value("NeedDaemonReload") == Some("yes"),
    })
}

/// Whether a unit that runs was started before its file was written as it is now.
pub fn is_older_than_its_file(unit: &str, file: &Path) -> Result<bool, SystemError> {
    const WANTED: &str = "--property=ActiveState,ActiveEnterTimestampMonotonic";
    let said = output("systemctl", &["show", WANTED, unit])?;
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let since = value("ActiveEnterTimestampMonotonic").and_then(|text| text.parse().ok()).map(Duration::from_micros);
    let (Some("active"), Some(since)) = (value("ActiveState"), since) else { return Ok(false) };
    let written = file.metadata().and_then(|about| about.modified());
    let written = written.map_err(failed(format!("look at {}", file.display())))?;
    // How long ago is the same by either clock.
    let up = clock::monotonic().saturating_sub(since);
    Ok(written.elapsed().is_ok_and(|ago| ago < up))
}

/// How exposed a service is, 0.0 to 10.0 (systemd-analyze(1), "security"); `None` where that cannot be told.
pub fn exposure(service: &str) -> Option<String> {
    let said = output("systemd-analyze", &["security", "--no-pager", service]).ok()?;
    let line = said.lines().find(|line| line.contains("Overall exposure level"))?;
    let number = line.rsplit_once(": ")?.1.split(' ').next()?;
    Some(number.to_owned())
}

fn with_journal(error: SystemError, units: &[&str]) -> SystemError {
    let SystemError::Program { program, said, mut details } = error else { return error };
    let failed = units.iter().filter(|unit| state(unit).is_ok_and(|s| s.state != "active"));
    for unit in failed {
        let words = ["--no-pager", "--quiet", "--output=cat", "--lines", JOURNAL_LINES, "--unit", unit];
        // Without a journal there is nothing to show.
        let lines = output("journalctl", &words).unwrap_or_default();
        details.extend(lines.lines().map(|line| format!("{unit}: {line}")));
    }
    SystemError::Program { program, said, details }
}

fn systemctl(words: &[&str]) -> Result<(), SystemError> {
    output("systemctl", words).map(drop)
}

/// What a program of this host says; it must succeed.
fn output(name: &str, words: &[&str]) -> Result<String, SystemError> {
    let program: PathBuf = find_program(name).ok_or_else(|| SystemError::NoProgram(name.to_owned()))?;
    let running = |e| SystemError::Io { doing: format!("run {name}"), source: e };
    let output = Command::new(program)
        .args(words)
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .stdin(Stdio::null())
        // Ctrl-C is for whoever waits for it: half a restart is none.
        .process_group(0)
        .output()
        .map_err(running)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut said = said.lines().filter(|line| !line.trim().is_empty());
    let program = format!("{name} {}", words.join(" "));
    let first = said.next().map_or_else(|| output.status.to_string(), str::to_owned);
    Err(SystemError::Program { program, said: first, details: said.map(str::to_owned).collect() })
}
