//! `banger kernel …`.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use super::super::format::Format;
use super::super::listing::Form;
use crate::model::KernelName;
use crate::model::launch::KernelArgs;

/// Commands of `banger kernel`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum KernelCommand {
    List(KernelList),
    Show(KernelShow),
    Pull(KernelPull),
    Import(KernelImport),
    Delete(KernelDelete),
}

/// `kernel list`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "list",
    description = "list kernels, and what can be pulled (also: ls)",
    usage = "[-q] [--json] [--format T] [--no-trunc] [--available]",
    help_triggers("-h", "--help"),
    example = "banger kernel list\nbanger kernel list --json\nbanger kernel list --available"
)]
pub struct KernelList {
    /// names only, one per line
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
    /// only what the catalogue has and is not here
    #[argh(switch)]
    pub available: bool,
    /// print cells in full, however narrow the terminal is
    #[argh(switch)]
    pub no_trunc: bool,
    /// a line by this template: {{.name}}, any field of --json; or json
    #[argh(option, arg_name = "template")]
    pub format: Option<Format>,
}

impl KernelList {
    /// How it is to be printed.
    pub fn form(&self) -> Form {
        Form { quiet: self.quiet, json: self.json, no_trunc: self.no_trunc, format: self.format.clone() }
    }
}

/// `kernel show`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "show",
    description = "everything that is known of a kernel",
    usage = "NAME [--json]",
    help_triggers("-h", "--help"),
    example = "banger kernel show debian-bookworm"
)]
pub struct KernelShow {
    /// the kernel
    #[argh(positional, arg_name = "name")]
    pub name: KernelName,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `kernel pull`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "pull",
    description = "make a kernel of the catalogue available",
    usage = "NAME",
    help_triggers("-h", "--help"),
    example = "banger kernel pull debian-bookworm",
    note = "A kernel that is there already is left as it is. To make it anew:\n  banger kernel delete NAME && banger kernel pull NAME"
)]
pub struct KernelPull {
    /// a name of the catalogue
    #[argh(positional, arg_name = "name")]
    pub name: KernelName,
}

/// `kernel import`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "import",
    description = "take a kernel from files, or this host's own",
    usage = "(--host | --vmlinuz FILE [--modules DIR])\n       [--name NAME] [--boot-args 'ARGS']",
    help_triggers("-h", "--help"),
    example = "banger kernel import --host --name mine\nbanger kernel import --vmlinuz /boot/vmlinuz-6.1.0 \\\n  --modules /lib/modules/6.1.0 --name test --boot-args 'mitigations=off'\nbanger vm run --kernel mine",
    note = "Without --modules everything that a VM needs (virtio, ext4) must be built in."
)]
pub struct KernelImport {
    /// the kernel that this host runs, with its modules
    #[argh(switch)]
    pub host: bool,
    /// a kernel file: vmlinuz or vmlinux
    #[argh(option, arg_name = "file")]
    pub vmlinuz: Option<PathBuf>,
    /// its modules: a folder like /lib/modules/6.1.0
    #[argh(option, arg_name = "dir")]
    pub modules: Option<PathBuf>,
    /// local name (default: from the release or the file)
    #[argh(option, arg_name = "name")]
    pub name: Option<KernelName>,
    /// kernel arguments beside banger's own, kept with the kernel
    #[argh(option, arg_name = "args")]
    pub boot_args: Option<KernelArgs>,
}

/// `kernel delete`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "delete",
    description = "delete kernels that no VM uses (also: rm)",
    usage = "NAME...",
    help_triggers("-h", "--help"),
    example = "banger kernel delete mine"
)]
pub struct KernelDelete {
    /// the kernels
    #[argh(positional, arg_name = "name")]
    pub names: Vec<KernelName>,
}
