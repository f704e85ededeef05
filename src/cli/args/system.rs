//! `banger system …`.

use argh::{ArgsInfo, FromArgs};

/// Commands of `banger system`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum SystemCommand {
    Install(SystemInstall),
    Status(SystemStatus),
    Restart(SystemRestart),
    Refresh(SystemRefresh),
    Uninstall(SystemUninstall),
}

/// `banger system`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "system",
    description = "install banger on this host, with its services",
    usage = "<command> [...]",
    help_triggers("-h", "--help"),
    example = "sudo banger system install\nbanger system status\nsudo banger system restart\nsudo banger system uninstall",
    note = "Installed, two services of systemd run banger's daemon (as its owner) and its\nroot helper, from boot on. Without systemd: banger daemon start."
)]
pub struct SystemGroup {
    /// which
    #[argh(subcommand)]
    pub command: SystemCommand,
}

/// `system install`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "install",
    description = "install this binary and its services, or bring them up to date",
    usage = "[--owner USER]",
    help_triggers("-h", "--help"),
    example = "sudo banger system install\nsudo banger system install --owner alice",
    note = "Copies itself to /usr/local/bin, unless a package has brought it, writes the\nunits and /etc/banger/install.toml, starts both services, and returns when\nthey answer. After a failure all is as it was. A second time it brings\neverything up to date; VMs go on running.\n\nVMs belong to the owner, whose commands then need no root: the account that\ncalled sudo, unless another is named."
)]
pub struct SystemInstall {
    /// the account that the VMs belong to (default: whoever called sudo)
    #[argh(option, arg_name = "user")]
    pub owner: Option<String>,
}

/// `system status`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "status",
    description = "owner, versions, services, sockets; starts nothing",
    usage = "[--json]",
    help_triggers("-h", "--help"),
    example = "banger system status\nbanger system status --json",
    note = "Exits with 3 where nothing is installed, with 6 when a service does not run."
)]
pub struct SystemStatus {
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `system restart`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "restart",
    description = "restart both services; VMs and commands in them go on",
    usage = "",
    help_triggers("-h", "--help"),
    example = "sudo banger system restart"
)]
pub struct SystemRestart {}

/// `system refresh`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "refresh",
    description = "rewrite the units as this binary wants them; starts nothing",
    usage = "",
    help_triggers("-h", "--help"),
    example = "sudo banger system refresh && sudo banger system restart",
    note = "What `banger update` does with the new binary. `system install` does it, too."
)]
pub struct SystemRefresh {}

/// `system uninstall`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "uninstall",
    description = "remove services, units, links and binary; data only with --purge",
    usage = "[--purge] [-f]",
    help_triggers("-h", "--help"),
    example = "sudo banger system uninstall\nsudo banger system uninstall --purge -f",
    note = "Refused while VMs run, unless forced: then they are stopped. VMs, images and\nkernels stay in /var/lib/banger for the next installation, unless purged."
)]
pub struct SystemUninstall {
    /// remove VMs, images, kernels and caches, too, for ever
    #[argh(switch)]
    pub purge: bool,
    /// stop VMs that run; do not ask
    #[argh(switch, short = 'f')]
    pub force: bool,
}
