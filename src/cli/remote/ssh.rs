//! The user's own `ssh`, with the user's own configuration: which program, which options.

use std::ffi::OsString;
use std::path::PathBuf;

use super::super::manner;
use super::super::report::Failure;
use super::machine::Machine;
use crate::protocol::FaultKind;

/// For both kinds of use (ssh_config(5)): what is configured for shells on that machine must not come in between, and a
/// machine that is gone is noticed within a minute.
const OPTIONS: [&str; 4] =
    ["ClearAllForwardings=yes", "RemoteCommand=none", "ServerAliveInterval=15", "ServerAliveCountMax=4"];

/// Exit code of ssh's own failures (ssh(1), EXIT STATUS).
pub const OWN_FAILURE: i32 = 255;

/// Exit code of a shell that finds no such program (XCU 2.8.2).
pub const NO_PROGRAM: i32 = 127;

/// The program that the user's `PATH` leads to.
pub fn program() -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).filter(|p| p.is_absolute()).map(|p| p.join("ssh")).find(|p| p.is_file());
    found.ok_or_else(|| {
        let failure = Failure::new(FaultKind::OperationFailed, "ssh is not here, and it leads to other machines");
        failure.hint("sudo apt-get install openssh-client")
    })
}

/// Its arguments for `line`, which a shell on `machine` takes apart; with a terminal there, or with plain streams.
pub fn arguments(machine: &Machine, terminal: bool, line: &str) -> Vec<OsString> {
    let mut words: Vec<String> = vec![if terminal { "-t" } else { "-T" }.to_owned()];
    words.extend(OPTIONS.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
    if manner::current().no_input {
        // No password, no unknown host key is asked for.
        words.extend(["-o", "BatchMode=yes"].map(str::to_owned));
    }
    words.extend(machine.words());
    words.push(line.to_owned());
    words.into_iter().map(OsString::from).collect()
}
