//! The root helper.

use std::ffi::OsString;
use std::process::ExitCode;

pub fn run(_arguments: Vec<OsString>) -> ExitCode {
    ExitCode::from(70)
}
pub fn run_stage(_arguments: Vec<OsString>) -> ExitCode {
    ExitCode::from(70)
}
pub fn run_console(_arguments: Vec<OsString>) -> ExitCode {
    ExitCode::from(70)
}
