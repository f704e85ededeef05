//! `banger vm restart|wait|prune`: the rest of a VM's life.

use argh::{ArgsInfo, FromArgs};

use crate::model::VmName;

/// `vm restart`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "restart",
    description = "shut VMs down gracefully and boot them again",
    usage = "NAME...",
    help_triggers("-h", "--help"),
    example = "banger vm restart box",
    note = "Waits until each answers. One that does not run is booted. The disk is kept;\nwhat is in the guest's memory is not."
)]
pub struct VmRestart {
    /// the VMs
    #[argh(positional, arg_name = "name")]
    pub names: Vec<VmName>,
}

/// `vm wait`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "wait",
    description = "wait until VMs do not run any more",
    usage = "NAME... [--json]",
    help_triggers("-h", "--help"),
    example = "banger vm wait box && banger vm delete box",
    note = "Prints each as it ends: its state and why. It ends at once for a VM that does\nnot run."
)]
pub struct VmWait {
    /// the VMs
    #[argh(positional, arg_name = "name")]
    pub names: Vec<VmName>,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `vm prune`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "prune",
    description = "delete all VMs that do not run, with their disks, for ever",
    usage = "[-f]",
    help_triggers("-h", "--help"),
    example = "banger vm prune\nbanger vm prune -f",
    note = "Names them and asks first. One that is started meanwhile is left alone.\nExits with 1 when one could not be deleted."
)]
pub struct VmPrune {
    /// do not ask
    #[argh(switch, short = 'f')]
    pub force: bool,
}
