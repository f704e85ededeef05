//! `banger vm restart|wait|prune|set|stats`: the rest of a VM's life.

use argh::{ArgsInfo, FromArgs};

use super::create::vcpus;
use super::egress::{Allow, on_or_off};
use crate::model::{IdleStop, Lifetime, Mib, Reach, TimeSpan, VmChange, VmName};

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
    usage = "NAME... [--timeout TIME] [--json]",
    help_triggers("-h", "--help"),
    example = "banger vm wait box && banger vm delete box\nbanger vm wait --timeout 10m box || echo still there",
    note = "Prints each as it ends: its state and why. It ends at once for a VM that does\nnot run. Exits with 0 when all have ended, however; 124 when the time is over\nbefore that. One that boots is waited for: `vm create` and `vm start` return\nwhen it answers."
)]
pub struct VmWait {
    /// the VMs
    #[argh(positional, arg_name = "name")]
    pub names: Vec<VmName>,
    /// wait no longer than this: 90s, 10m, 2h
    #[argh(option, arg_name = "time")]
    pub timeout: Option<TimeSpan>,
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

/// `vm set`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "set",
    description = "change a VM: where it may go and when it ends at any time",
    usage = "NAME [flags]",
    help_triggers("-h", "--help"),
    example = "banger vm stop box && banger vm set box --memory 4G --disk-size 20G\nbanger vm set box --ttl 2h\nbanger vm set box --ttl none\nbanger vm set box --idle-stop 30m\nbanger vm set box --nat on\nbanger vm set box --allow example.org:443 --disallow 10.0.0.0/8",
    note = "vCPUs, memory and disk change while it does not run. Connections that are not\nallowed any more end at once.",
    note = "A disk only grows; the guest's filesystem grows with the next start.",
    note = "Sizes: 512M, 4G, 4GiB; a bare number is MiB. Times: 90s, 10m, 2h, 1d, 1h30m; a\nbare number is seconds, counted from now."
)]
pub struct VmSet {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// virtual CPUs
    #[argh(option, arg_name = "n", from_str_fn(vcpus))]
    pub vcpu: Option<u8>,
    /// memory
    #[argh(option, arg_name = "size")]
    pub memory: Option<Mib>,
    /// size of its disk
    #[argh(option, arg_name = "size")]
    pub disk_size: Option<Mib>,
    /// delete it after this time, running or not; none: do not
    #[argh(option, arg_name = "time")]
    pub ttl: Option<Lifetime>,
    /// stop it once nobody has used it for this time; off: do not
    #[argh(option, arg_name = "time|off")]
    pub idle_stop: Option<IdleStop>,
    /// let it reach the internet: on, or off
    #[argh(option, arg_name = "on|off", from_str_fn(on_or_off))]
    pub nat: Option<Reach>,
    /// let it reach HOST[:PORT], *.DOMAIN, CIDR or @SET, too; repeatable
    #[argh(option, arg_name = "host")]
    pub allow: Vec<Allow>,
    /// take that back; repeatable
    #[argh(option, arg_name = "host")]
    pub disallow: Vec<Allow>,
}

impl VmSet {
    /// What shall change; the destinations come from elsewhere, for their sets must be looked up.
    pub fn change(&self) -> VmChange {
        VmChange {
            vcpus: self.vcpu,
            memory: self.memory,
            disk: self.disk_size,
            lifetime: self.ttl,
            idle_stop: self.idle_stop,
            reach: self.nat,
            ..VmChange::default()
        }
    }
}

/// `vm stats`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "stats",
    description = "CPU, memory and disk that VMs use, on the host and in the guest",
    usage = "[NAME...] [--json]",
    help_triggers("-h", "--help"),
    example = "banger vm stats\nbanger vm stats box --json",
    note = "Without NAME: all that run. MEM, PEAK and LIMIT are those of the VM's cgroup\non the host; a guest whose agent is silent has them too."
)]
pub struct VmStats {
    /// the VMs
    #[argh(positional, arg_name = "name")]
    pub names: Vec<VmName>,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}
