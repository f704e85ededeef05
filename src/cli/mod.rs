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
mod complete;
mod consent;
mod dial;
mod environment;
mod failure_view;
mod file_sync;
mod format;
mod interrupt;
mod listing;
mod manner;
mod mcp;
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

use crate::host::aliases::{Alias, AliasName};
use crate::host::config::{Config, ConfigError};
use crate::host::paths::Paths;
use args::Parsed;
use report::Failure;

/// Runs the command line of a program called `name`.
pub fn run(name: &str, arguments: Vec<OsString>) -> ExitCode {
    let aliases = || Config::load(&Paths::current().config).map(|config| config.aliases);
    let typed = args::Typed::read(name, arguments, aliases);
    manner::adopt(manner::Manner::of(&typed.words));
    let code = match typed.parse() {
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

/// Runs `banger-complete`, which shells ask what fits. Whatever happens, nothing is said of it.
pub fn run_complete(arguments: Vec<OsString>) -> ExitCode {
    // A shell that does not listen any more has its reason.
    let _ = render::text(&complete::answer(&arguments));
    ExitCode::SUCCESS
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
    if path.is_empty() {
        text.push_str(&listed(&Config::load(&Paths::current().config)));
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

/// What `banger --help` says of the aliases that are configured. A configuration that is wrong is no reason for no help.
fn listed(config: &Result<Config, ConfigError>) -> String {
    let config = match config {
        Ok(config) if config.aliases.is_empty() => return String::new(),
        Ok(config) => config,
        Err(reason) => return format!("\nAliases are not known: {}\n", render::plain(&reason.to_string())),
    };
    let line = |(name, alias): (&AliasName, &Alias)| {
        let unused =
            if args::is_built_in(&args::table(), name.as_str()) { "not used: a command of banger's own: " } else { "" };
        let line = format!("  {:<16}  {unused}{}", name.as_str(), render::plain(alias.text()));
        if line.chars().count() <= 80 { line + "\n" } else { line.chars().take(77).chain("...\n".chars()).collect() }
    };
    format!("\nAliases, of config.toml:\n{}", config.aliases.iter().map(line).collect::<String>())
}
