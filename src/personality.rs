//! The table of names: what this binary is depends on what it was called.
//!
//! `banger --as NAME …` is the same without a symlink.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// What this binary can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personality {
    /// `banger`, and anything not named below: the command line.
    Cli,
    /// `bangerd`: the owner's daemon.
    Daemon,
    /// `bangerd-root`: the root helper.
    Helper,
    /// `init`: pid 1 of the initramfs.
    Init,
    /// `banger-agent`: the guest's agent.
    Agent,
    /// `banger-stage`: between the helper and a monitor: gives up what the monitor must not have.
    Stage,
    /// `banger-console`: keeps a monitor's serial output, bounded.
    Console,
    /// `banger-dial`: between the user's ssh and a VM's.
    Dial,
    /// `banger-complete`: what fits in a shell's line.
    Complete,
    /// `banger-relay`: another machine's way to this one's daemon.
    Relay,
    /// `banger-leash`: before a program that is to end with its parent.
    Leash,
    /// `banger-fake-vmm`: the monitor of the tests.
    FakeVmm,
}

const TABLE: [(&str, Personality); 12] = [
    ("banger", Personality::Cli),
    ("bangerd", Personality::Daemon),
    ("bangerd-root", Personality::Helper),
    ("init", Personality::Init),
    ("banger-agent", Personality::Agent),
    ("banger-stage", Personality::Stage),
    ("banger-console", Personality::Console),
    ("banger-dial", Personality::Dial),
    ("banger-complete", Personality::Complete),
    ("banger-relay", Personality::Relay),
    ("banger-leash", Personality::Leash),
    ("banger-fake-vmm", Personality::FakeVmm),
];

/// The personality called `name`, and whether the table has it.
fn named(name: &str) -> Option<Personality> {
    TABLE.iter().find(|(n, _)| *n == name).map(|(_, p)| *p)
}

/// Takes `argv` apart: who to be, under which name, with which arguments.
pub fn choose(argv: Vec<OsString>) -> (Personality, String, Vec<OsString>) {
    let mut argv = argv.into_iter();
    let called = argv.next().unwrap_or_default();
    let mut name = base_name(&called);
    let mut arguments: Vec<OsString> = argv.collect();
    if arguments.first().is_some_and(|a| a == "--as") && arguments.len() >= 2 {
        name = base_name(&arguments[1]);
        arguments.drain(..2);
    }
    (named(&name).unwrap_or(Personality::Cli), name, arguments)
}

fn base_name(path: &OsStr) -> String {
    let bytes = path.as_bytes();
    let start = bytes.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

/// Becomes what `argv` says.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let (personality, name, arguments) = choose(argv);
    match personality {
        Personality::Cli => crate::cli::run(&name, arguments),
        Personality::Daemon => crate::daemon::run(arguments),
        Personality::Helper => crate::helper::run(arguments),
        Personality::Init => crate::guest::run_init(),
        Personality::Agent => crate::guest::run_agent(arguments),
        Personality::Stage => crate::helper::run_stage(arguments),
        Personality::Console => crate::helper::run_console(arguments),
        Personality::Dial => crate::cli::run_dial(arguments),
        Personality::Complete => crate::cli::run_complete(arguments),
        Personality::Relay => crate::cli::run_relay(),
        Personality::Leash => crate::cli::run_leash(&arguments),
        Personality::FakeVmm => crate::guest::run_fake_vmm(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(argv: &[&str]) -> (Personality, Vec<OsString>) {
        let (personality, _, rest) = choose(argv.iter().map(OsString::from).collect());
        (personality, rest)
    }

    #[test]
    fn the_name_decides() {
        assert_eq!(chosen(&["/usr/bin/bangerd", "x"]), (Personality::Daemon, vec!["x".into()]));
        assert_eq!(chosen(&["/init"]), (Personality::Init, vec![]));
        assert_eq!(chosen(&["banger-vm-run", "--rm"]).0, Personality::Cli);
        assert_eq!(chosen(&[]).0, Personality::Cli);
    }

    #[test]
    fn as_overrides_the_name() {
        assert_eq!(chosen(&["banger", "--as", "bangerd-root", "y"]), (Personality::Helper, vec!["y".into()]));
        assert_eq!(chosen(&["banger", "--as"]), (Personality::Cli, vec!["--as".into()]));
    }
}
