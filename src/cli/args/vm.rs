//! `banger vm …`.

use argh::{ArgsInfo, FromArgs};

use super::super::format::Format;
use super::super::listing::Form;
use super::create::{VmCreate, VmRun};
use super::egress::VmEgress;
use super::lifecycle::{VmPrune, VmRestart, VmSet, VmStats, VmWait};
use super::workspace::VmWorkspace;
use crate::model::{Since, TimeSpan, VmName};

/// Commands of `banger vm`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum VmCommand {
    Run(VmRun),
    Create(VmCreate),
    List(VmList),
    Show(VmShow),
    Ssh(VmSsh),
    Exec(VmExec),
    Attach(VmAttach),
    Cp(VmCp),
    Workspace(VmWorkspace),
    Logs(VmLogs),
    Start(VmStart),
    Stop(VmStop),
    Restart(VmRestart),
    Kill(VmKill),
    Wait(VmWait),
    Delete(VmDelete),
    Set(VmSet),
    Prune(VmPrune),
    Ping(VmPing),
    Health(VmHealth),
    Ports(VmPorts),
    Egress(VmEgress),
    Hosts(VmHosts),
    Stats(VmStats),
}

/// Which VMs to list, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFlags {
    pub all: bool,
    pub form: Form,
}

/// How much of the end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// All of it.
    All,
    /// So many lines.
    Lines(u64),
}

impl std::str::FromStr for Tail {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            number => number.parse().map(Self::Lines).map_err(|_| format!("{text:?} is no number of lines, nor `all`")),
        }
    }
}

/// A question to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmQuestion {
    pub name: VmName,
    pub json: bool,
}

/// `vm list`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "list",
    description = "list all VMs (also: ls; running ones: banger ps)",
    usage = "[-a] [-q] [--json] [--format TEMPLATE] [--no-trunc]",
    help_triggers("-h", "--help"),
    example = "banger vm list\nbanger vm list --json\nbanger vm list --format json\nbanger ps"
)]
pub struct VmList {
    /// all VMs: what it does anyway; `banger ps` needs it
    #[argh(switch, short = 'a')]
    pub all: bool,
    /// names only, one per line
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
    /// print cells in full, however narrow the terminal is
    #[argh(switch)]
    pub no_trunc: bool,
    /// a line by this template: {{.name}}, any field of --json; or json
    #[argh(option, arg_name = "template")]
    pub format: Option<Format>,
}

impl VmList {
    /// How it is to be printed.
    pub fn form(&self) -> Form {
        Form { quiet: self.quiet, json: self.json, no_trunc: self.no_trunc, format: self.format.clone() }
    }
}

/// `vm show`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "show",
    description = "everything that is known of a VM",
    usage = "NAME [--json]",
    help_triggers("-h", "--help"),
    example = "banger vm show box\nbanger vm show box --json"
)]
pub struct VmShow {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `vm ssh`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "ssh",
    description = "a shell, or a command, in a running VM",
    usage = "NAME [-- CMD...]",
    help_triggers("-h", "--help"),
    example = "banger vm ssh box\nbanger vm ssh box -- journalctl -b\nbanger vm ssh box -- tar c /etc > etc.tar",
    note = "The exit code is that of CMD or of the shell; 128+N when signal N ended it.\nWhen banger itself failed: with CMD 125; with a shell the codes of\n`banger --help`, or 255 when your own ssh failed.",
    note = "You are root, whatever user the image names: `banger vm exec` is that user.",
    note = "A VM that is stopped: banger vm start NAME."
)]
pub struct VmSsh {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
}

/// `vm exec`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "exec",
    description = "run a command in a running VM",
    usage = "NAME [-d] [--timeout TIME] [--auto-prepare] -- CMD...",
    help_triggers("-h", "--help"),
    example = "banger vm exec box -- make test\nbanger vm exec box -- sh -c 'exit 42'; echo $?\nsome-program | banger vm exec box -- sort",
    example = "A command that goes on without you, and what it says:\n  id=$(banger vm exec -d box -- make world)\n  banger vm attach box $id",
    note = "The exit code is that of CMD; 128+N when signal N ended it; 125 when banger\nitself failed. A shell to type in: banger vm ssh NAME.",
    note = "In the folder of the VM's workspace, where it has one. When the repository\nhere has moved on since it was brought in, that is said; --auto-prepare brings\nin what has changed first.",
    note = "Carried by banger's agent in the guest, else by ssh; `exec = \"agent\"` or \"ssh\"\nin config.toml, or BANGER_EXEC, chooses one."
)]
pub struct VmExec {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// let it go on, and print its number for `vm attach`
    #[argh(switch, short = 'd')]
    pub detach: bool,
    /// end CMD after this time, with exit code 124
    #[argh(option, arg_name = "time")]
    pub timeout: Option<TimeSpan>,
    /// bring in first what has changed in the repository since the last time
    #[argh(switch)]
    pub auto_prepare: bool,
}

/// `vm attach`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "attach",
    description = "what a command of `vm exec -d` says, from its start",
    usage = "NAME [ID] [--from N] [--no-follow]",
    help_triggers("-h", "--help"),
    example = "banger vm attach box        # which commands there are\nbanger vm attach box 1      # what it says, until it ends\nbanger vm attach box 1 --from 4096 --no-follow",
    note = "Ends with the command, with its exit code. Ctrl-C ends only the looking on.",
    note = "Kept until the VM stops: the last 4 MiB of a command's output (less in a small\nVM), of the last 32 commands."
)]
pub struct VmAttach {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// the command's number
    #[argh(positional, arg_name = "id")]
    pub id: Option<u32>,
    /// begin at this byte of its output
    #[argh(option, arg_name = "n", default = "0")]
    pub from: u64,
    /// print what there is now, and do not wait for more
    #[argh(switch)]
    pub no_follow: bool,
}

/// `vm cp`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "cp",
    description = "copy files and folders into a VM, and out of it",
    usage = "SRC DST",
    help_triggers("-h", "--help"),
    example = "banger vm cp ./app box:/opt\nbanger vm cp box:/etc/os-release .\nbanger vm cp ./app/. box:/opt/app      # the folder's content\ntar c . | banger vm cp - box:/srv      # a tar stream, either way",
    note = "One of both is NAME:PATH; a path without `/` in front is below /root. Into a\nfolder that is there, under its own name; else as DST.",
    note = "What arrives in a VM is root's, whatever user its image names; what arrives\nhere is yours. Set-id bits, devices, sockets and pipes are left out."
)]
pub struct VmCp {
    /// what: a path, NAME:PATH, or `-`
    #[argh(positional, arg_name = "src")]
    pub src: String,
    /// where: a path, NAME:PATH, or `-`
    #[argh(positional, arg_name = "dst")]
    pub dst: String,
}

/// `vm hosts`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "hosts",
    description = "lines for /etc/hosts with the VMs that run",
    usage = "",
    help_triggers("-h", "--help"),
    example = "banger vm hosts | sudo tee -a /etc/hosts",
    note = "For hosts without systemd-resolved; as of now. `banger doctor -v` says whether\nNAME.vm is resolved here without it."
)]
pub struct VmHosts {}

/// `vm logs`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "logs",
    description = "what a VM wrote to its serial console",
    usage = "NAME [-f] [-n N] [--since TIME]",
    help_triggers("-h", "--help"),
    example = "banger vm logs box\nbanger vm logs -f box\nbanger vm logs -n 20 box\nbanger vm logs --since 10m box",
    note = "The first place to look when a VM does not answer. Of its last boot; of a long\nlog the beginning and the end are kept.",
    note = "TIME is how long ago (90s, 10m, 2h, 1d) or when (2026-01-31T12:34:56Z). A\nconsole has no times: banger notes when each second's bytes come, so --since\nis exact to a second, and in a log of hours to a hundredth of how long ago."
)]
pub struct VmLogs {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// go on as it grows, until Ctrl-C
    #[argh(switch, short = 'f')]
    pub follow: bool,
    /// only the last N lines; all
    #[argh(option, short = 'n', arg_name = "n", default = "Tail::All")]
    pub tail: Tail,
    /// only what has come since then
    #[argh(option, arg_name = "time")]
    pub since: Option<Since>,
}

/// `vm start`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "start",
    description = "boot stopped VMs",
    usage = "NAME...",
    help_triggers("-h", "--help"),
    example = "banger vm start box && banger vm ssh box",
    note = "Waits until each answers. One that runs already is left alone."
)]
pub struct VmStart {
    /// the VMs
    #[argh(positional, arg_name = "name")]
    pub names: Vec<VmName>,
}

/// `vm stop`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "stop",
    description = "shut VMs down gracefully; their disks are kept",
    usage = "NAME...",
    help_triggers("-h", "--help"),
    example = "banger vm stop box\nbanger vm stop $(banger ps -q)",
    note = "When it hangs: banger vm kill NAME. To boot it again: banger vm start NAME."
)]
pub struct VmStop {
    /// the VMs
    #[argh(positional, arg_name = "name")]
    pub names: Vec<VmName>,
}

/// `vm kill`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "kill",
    description = "end VMs at once, when stop hangs; their disks are kept",
    usage = "NAME...",
    help_triggers("-h", "--help"),
    example = "banger vm kill box",
    note = "Like pulling the plug: what the guest had not written is lost."
)]
pub struct VmKill {
    /// the VMs
    #[argh(positional, arg_name = "name")]
    pub names: Vec<VmName>,
}

/// `vm delete`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "delete",
    description = "remove VMs with their disks, running or not, for ever (also: rm)",
    usage = "NAME...",
    help_triggers("-h", "--help"),
    example = "banger vm delete box\nbanger vm delete one two three",
    note = "Irreversible. To keep the disk: banger vm stop NAME."
)]
pub struct VmDelete {
    /// the VMs
    #[argh(positional, arg_name = "name")]
    pub names: Vec<VmName>,
}

/// `vm ping`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "ping",
    description = "ask a VM's agent whether it is there",
    usage = "NAME [--json]",
    help_triggers("-h", "--help"),
    example = "banger vm ping box"
)]
pub struct VmPing {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `vm health`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "health",
    description = "how a guest is: uptime, init, ssh, troubles at its start",
    usage = "NAME [--json]",
    help_triggers("-h", "--help"),
    example = "banger vm health box"
)]
pub struct VmHealth {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `vm ports`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "ports",
    description = "who listens on TCP in a guest, and at which URL",
    usage = "NAME [--json]",
    help_triggers("-h", "--help"),
    example = "banger vm ports box",
    note = "URL works on this host where NAME.vm is resolved (banger doctor -v);\nPUBLISHED is where -p leads to it, and works for whoever reaches that address."
)]
pub struct VmPorts {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}
