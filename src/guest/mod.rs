//! The guest side.

use std::ffi::OsString;
use std::process::ExitCode;

pub fn run_init() -> ExitCode {
    ExitCode::from(70)
}
pub fn run_agent(_arguments: Vec<OsString>) -> ExitCode {
    ExitCode::from(70)
}
pub fn run_fake_vmm(_arguments: Vec<OsString>) -> ExitCode {
    ExitCode::from(70)
}
