//! `doctor --fix`: what is safe to do about a row, after asking.

use std::process::{Command, Stdio};

use super::super::args::Usage;
use super::super::consent;
use super::super::manner;
use super::super::render;
use super::super::report::Failure;
use crate::host::facts::find_program;
use crate::protocol::{Fault, FaultKind};
use crate::system::doctor::{Cure, Row, Verdict};

/// Does what the rows offer and the caller agrees to; whether anything was done.
pub fn cure(rows: &[Row], yes: bool) -> Result<bool, Failure> {
    let cures = offered(rows);
    if cures.is_empty() {
        render::note("there is nothing that could be mended from here");
        return Ok(false);
    }
    if !yes && !consent::can_be_asked() {
        let usage = Usage::new("nobody can be asked without a terminal: --yes does all without asking", &["doctor"]);
        return Err(usage.hint("banger doctor --fix --yes").into());
    }
    let (mut done, mut failed) = (false, None);
    for cure in cures {
        if yes || consent::agrees(&format!("{}? ({})", cure.what, cure.argv.join(" ")))? {
            // One that fails does not keep the others.
            match run(cure) {
                Ok(()) => done = true,
                Err(failure) => {
                    failed = Some(
                        failed.map_or_else(|| failure.clone(), |first: Failure| first.causes(vec![failure.line()])),
                    )
                }
            }
        }
    }
    failed.map_or(Ok(done), Err)
}

/// Each once, however many rows offer it.
fn offered(rows: &[Row]) -> Vec<&Cure> {
    let mut cures: Vec<&Cure> = Vec::new();
    for cure in rows.iter().filter(|row| row.verdict != Verdict::Ok).filter_map(|row| row.cure.as_ref()) {
        if !cures.contains(&cure) {
            cures.push(cure);
        }
    }
    cures
}

/// As root, by sudo(8) where the caller is not.
fn run(cure: &Cure) -> Result<(), Failure> {
    let shown = cure.argv.join(" ");
    render::note(&format!("{} ({shown})", cure.what));
    let mut argv = cure.argv.clone();
    if argv.first().is_some_and(|program| program == "banger") {
        let own = std::env::current_exe().map_err(|e| Fault::failed("cannot tell where this binary lies", &e))?;
        argv[0] = own.display().to_string();
    }
    if !rustix::process::geteuid().is_root() {
        let Some(sudo) = find_program("sudo") else {
            let fault = Fault::new(FaultKind::Unauthorized, format!("`{shown}` needs root, and there is no sudo"));
            return Err(fault.hint("banger doctor --fix      (as root)").into());
        };
        argv.insert(0, sudo.display().to_string());
        if manner::current().no_input {
            argv.insert(1, "--non-interactive".to_owned());
        }
    }
    let (program, arguments) =
        argv.split_first().ok_or_else(|| Failure::new(FaultKind::OperationFailed, "nothing to run"))?;
    let status = Command::new(program).args(arguments).stdin(Stdio::inherit()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(FaultKind::OperationFailed, format!("`{shown}` failed: {status}"))),
        Err(e) => Err(Fault::failed(format!("cannot run `{shown}`"), &e).into()),
    }
}
