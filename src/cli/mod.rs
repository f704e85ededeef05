//! The command line: what was typed (`args`) is resolved against the machine (`resolve`), becomes
//! requests (`commands` over `client`), and what comes back is shown (`render`, `progress`,
//! `report`).
//!
//! Low arguments, so help and version, know nothing of the machine: they work where the rest is
//! broken. Nothing but `render` writes to the standard streams.

mod args;
mod autostart;
mod client;
mod commands;
mod consent;
mod dial;
mod environment;
mod failure_view;
mod file_sync;
mod format;
mod interrupt;
mod listing;
mod manner;
mod names;
mod progress;
mod remote;
mod render;
mod report;
mod resolve;
mod schema;
mod secrets;
mod slow;
mod spawn;
mod table;
mod views;

use std::ffi::OsString;
use std::process::ExitCode;

pub use args::{Page, pages};

use args::Parsed;
use report::Failure;

/// Runs the command line of a program called `name`.
pub fn run(name: &str, arguments: Vec<OsString>) -> ExitCode {
    manner::adopt(manner::Manner::of(&arguments));
    let code = match args::parse(name, arguments) {
        Ok(Parsed::Help { text, path }) => show_help(text, &path).map_or_else(|f| f.report(false), |()| 0),
        Ok(Parsed::Do(invocation, words)) => {
            let for_guest = invocation.guest_command.is_some();
            remote::run(*invocation, &words).unwrap_or_else(|failure| failure.report(for_guest))
        }
        Err(usage) => {
            let for_guest = usage.guest_command;
            Failure::from(usage).report(for_guest)
        }
    };
    ExitCode::from(code)
}

/// Runs `banger-relay`, by which another machine's command line reaches this one's daemon.
pub fn run_relay() -> ExitCode {
    ExitCode::from(remote::relay().map_or_else(|failure| failure.report(false), |()| 0))
}

/// Runs `banger-leash`, which becomes another program.
pub fn run_leash(arguments: &[OsString]) -> ExitCode {
    ExitCode::from(remote::leash(arguments).report(false))
}

/// Runs `banger-dial`, as which the user's ssh reaches a VM.
pub fn run_dial(arguments: Vec<OsString>) -> ExitCode {
    let code = dial::dial(&arguments).map_or_else(|failure| failure.report(false), |()| 0);
    ExitCode::from(code)
}

fn show_help(mut text: String, path: &[&str]) -> Result<(), Failure> {
    if path == ["vm", "run"] || path == ["vm", "create"] {
        text.push_str(&resolve::defaults_of_this_host());
    }
    text.push_str(EVERYWHERE);
    render::text(&text)
}

/// What every page ends with.
const EVERYWHERE: &str = "
Everywhere:
  --json            JSON on standard output, and failures as JSON on standard
                    error: banger schema
  --no-input        ask nothing: fail, and name the flag that answers
";
