//! `banger daemon …`.

use argh::{ArgsInfo, FromArgs};

/// Commands of `banger daemon`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum DaemonCommand {
    Start(DaemonStart),
    Stop(DaemonStop),
    Status(DaemonStatus),
    Socket(DaemonSocket),
}

/// `daemon start`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "start",
    description = "start daemon and helper, unless they run",
    usage = "[--owner USER]",
    help_triggers("-h", "--help"),
    example = "sudo banger daemon start --owner $USER\nbanger daemon status",
    note = "The helper needs root. With --owner the daemon, and so the VMs, belong to that\naccount, which then needs no root. Commands of root start both by themselves."
)]
pub struct DaemonStart {
    /// the account that the VMs belong to (default: the caller)
    #[argh(option, arg_name = "user")]
    pub owner: Option<String>,
}

/// `daemon stop`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "stop",
    description = "stop daemon and helper; VMs go on running",
    usage = "",
    help_triggers("-h", "--help"),
    example = "banger daemon stop && banger daemon start",
    note = "To stop the VMs too: banger vm stop $(banger ps -q), before this."
)]
pub struct DaemonStop {}

/// `daemon status`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "status",
    description = "versions, sockets, network, monitor; starts nothing",
    usage = "[--json]",
    help_triggers("-h", "--help"),
    example = "banger daemon status\nbanger daemon status --json",
    note = "Exits with 6 when the daemon does not run."
)]
pub struct DaemonStatus {
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `daemon socket`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "socket",
    description = "print the path of the daemon's socket",
    usage = "",
    help_triggers("-h", "--help"),
    example = "banger daemon socket"
)]
pub struct DaemonSocket {}
