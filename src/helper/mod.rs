//! The root helper, `bangerd-root`: the only code that runs with privileges.
//!
//! One thread, blocking, one request at a time. It takes typed operations from one uid: ids,
//! validated names and open descriptors, never a path, a command line or a rule, and derives every
//! name by itself. What each privileged deed is for and what the caller can choose of it is in
//! `PRIVILEGES.md` beside this file. `banger-stage` and `banger-console`, which run between the
//! helper and a machine monitor, live here too.

/// The privilege as a value.
mod authority;
/// The bridge and its address.
mod bridge;
/// The cgroup of each VM.
mod cgroup;
/// One helper per network namespace.
mod claim;
/// One peer's conversation, never waited for.
mod connection;
/// Connections that the kernel remembers.
mod conntrack;
/// `banger-console`: keeps what a monitor writes, bounded.
mod console;
/// Fresh connections to a running monitor.
mod contact;
/// Messages to and from systemd, as bytes.
mod dbus;
/// Block devices for monitors in jails.
mod disk;
/// The sockets that DNS is answered on.
mod dns;
/// What goes wrong here.
mod error;
/// The descriptors that come with a launch.
mod files;
/// Firecracker's command line, and its jailer's.
mod firecracker;
/// Other firewalls of this host.
mod firewalls;
/// The runtime directory, reached by descriptor.
mod folder;
/// Whether this host forwards packets.
mod forwarding;
/// Whether a monitor that was just started will live.
mod greeting;
/// What a monitor that finds its files by name sees.
mod jail;
/// Making all that one boot needs, and taking it back.
mod launch;
/// What was made, written down before it is made.
mod ledger;
/// Monitors as processes: watched, reaped, killed.
mod monitor;
/// A network namespace for a monitor that opens its tap by name.
mod netns;
/// Where guests may go.
mod passage;
/// Who may ask what.
mod permit;
/// Ports of the host that lead into guests.
mod ports;
/// What a process may, by its own `/proc`.
mod powers;
/// Programs of the host that answer soon or are ended.
mod programs;
/// A machine monitor's command line.
mod qemu;
/// systemd-resolved.
mod resolved;
/// The rules, applied with `nft`.
mod rules;
/// Sockets, frames and the one loop.
mod server;
/// Requests become deeds.
mod service;
/// All that is made for one VM, and how each part is taken back.
mod site;
/// Starting a child that keeps only what it is given.
mod spawn;
/// `banger-stage`: gives up what the monitor must not have.
mod stage;
/// Scopes, which systemd makes.
mod systemd;
/// The tap of each VM.
mod tap;
/// The speed of the CPU's counter, for guests that cannot measure it.
mod tsc;
/// Named steps, and the list backwards.
mod undo;
/// Deeds that a VM's own user may do.
mod user;
/// The little that a monitor sees of the filesystem.
mod view;
/// Notices when somebody takes rules away.
mod vigil;

/// Raw calls that no crate wraps.
#[allow(unsafe_code)]
mod sys;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// `bangerd-root --owner UID`: serves until told to end.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    finish("bangerd-root", server::serve(&arguments))
}

/// `banger-stage`: becomes a monitor with nothing but what the helper gave it. Returns only when
/// that failed.
pub fn run_stage(arguments: Vec<OsString>) -> ExitCode {
    finish("banger-stage", stage::become_monitor(&arguments).map(|never| match never {}))
}

/// `banger-console`: keeps what a monitor writes until it ends.
pub fn run_console(arguments: Vec<OsString>) -> ExitCode {
    finish("banger-console", console::keep(&arguments))
}

fn finish(name: &str, result: Result<(), error::HelperError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    log::error!("{}", error.line());
    // Whoever started it may be gone; the exit code remains.
    let _ = writeln!(std::io::stderr(), "{name}: {}", error.line());
    ExitCode::FAILURE
}
