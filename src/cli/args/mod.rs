//! Low arguments: what was typed, as types, before anything looks at the machine.
//!
//! So `--help` and `--version` work where nothing else does. argh parses; `rewrite` stands before
//! it, because argh knows neither `--opt=value` nor aliases, nor suggestions, nor `-- CMD`.
//! argh lists a command's whole description in its group's help, so descriptions are one line and
//! the rest of a page stands in notes and examples.

mod aliases;
mod completion;
mod create;
mod daemon;
mod egress;
mod image;
mod kernel;
mod lifecycle;
mod mcp;
mod pages;
mod rewrite;
mod secret;
mod ssh_config;
mod system;
mod update;
mod usage;
mod vm;
mod wish;
mod workspace;

use std::ffi::OsString;

use super::format::Format;
use super::listing::Form;
use super::remote::Machine;
use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};

pub use aliases::{Aliases, Inserted, expand, is_built_in, may_be_meant};
pub use completion::Completion;
pub use create::{VmFlags, VmRun};
pub use daemon::DaemonCommand;
pub use egress::{Allow, EgressFlags};
pub use image::{CacheCommand, ImageCommand, ImageList, ImagePull, ImageRegister};
pub use kernel::{KernelCommand, KernelImport, KernelList};
pub use lifecycle::{VmSet, VmWait};
pub use mcp::Mcp;
pub use pages::{Page, pages};
pub use rewrite::{ALIASES, HELP, takes_guest_command};
pub use secret::{AskedSecret, Source};
pub use ssh_config::SshConfig;
pub use system::{SystemCommand, SystemGroup};
pub use update::Update;
pub use usage::{Usage, nearest};
pub use vm::{ListFlags, Tail, VmAttach, VmCommand, VmExec, VmLogs, VmQuestion};
pub use wish::{ImageWish, PullSource};
pub use workspace::{WorkspaceCommand, WorkspaceExport, WorkspacePrepare};

/// A whole command line, understood.
#[derive(Debug, PartialEq)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// What stood behind `--`, for the guest.
    pub guest_command: Option<Vec<OsString>>,
    /// The machine whose daemon is asked; `None`: what the environment says.
    pub host: Option<Machine>,
}

/// What the command line led to.
#[derive(Debug, PartialEq)]
pub enum Parsed {
    /// Something to do, and the words for it, without those before the command.
    Do(Box<Invocation>, Vec<String>),
    /// `--help`: the page, and the words of the command that it describes.
    Help {
        /// The page.
        text: String,
        /// `["vm", "run"]`.
        path: Vec<&'static str>,
    },
}

#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    description = "Throw-away virtual machines on one Linux host.",
    usage = "[--host ssh://MACHINE] <command> [...]",
    help_triggers("-h", "--help"),
    example = "A fresh VM, one command in it, and nothing left behind:\n  banger vm run --rm -- uname -a",
    example = "A repository in a fresh VM, its tests, and their exit code:\n  banger vm run --rm ./repo -- make test",
    example = "A VM with a shell:\n  banger vm run",
    note = "Every command has its own page: banger vm run --help.",
    note = "--host, or BANGER_HOST, has another machine's daemon do it, through your ssh:\nbanger --host ssh://me@big.example vm run --rm ./repo -- make test",
    note = "Exit codes: 0 done, 1 failed, 2 wrong command line, 3 not found, 4 conflict,\n5 refused, 6 daemon or helper unavailable, 70 internal. With `-- CMD`: the\nexit code of CMD; 125 when banger itself failed."
)]
/// top
struct Top {
    #[argh(switch)]
    /// print the version
    version: bool,
    /// another machine: ssh://[USER@]MACHINE[:PORT]
    #[argh(option, arg_name = "ssh")]
    host: Option<Machine>,
    /// print JSON, failures included
    #[argh(switch)]
    json: bool,
    /// ask nothing
    #[argh(switch)]
    #[allow(dead_code, reason = "of any command: `manner`")]
    no_input: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

/// All commands.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process, and argh takes no box")]
pub enum Command {
    Vm(VmGroup),
    Ps(Ps),
    Image(ImageGroup),
    Kernel(KernelGroup),
    Daemon(DaemonGroup),
    System(SystemGroup),
    Update(Update),
    Doctor(Doctor),
    SshConfig(SshConfig),
    Completion(Completion),
    Schema(Schema),
    Mcp(Mcp),
    Version(Version),
}

/// `banger vm`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "vm",
    description = "create, use and delete virtual machines",
    usage = "<command> [...]",
    help_triggers("-h", "--help"),
    example = "banger vm run --rm -- cat /etc/os-release\nbanger vm run --name box\nbanger vm ssh box\nbanger vm delete box",
    note = "start boots a stopped VM; stop shuts one down gracefully; restart is both;\nkill ends one at once, when stop hangs; delete removes it with its disk, for\never; prune does so with all that do not run."
)]
pub struct VmGroup {
    /// which
    #[argh(subcommand)]
    pub command: VmCommand,
}

/// `banger ps`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "ps",
    description = "list running VMs (-a: all)",
    usage = "[-a] [-q] [--json] [--format TEMPLATE] [--no-trunc]",
    help_triggers("-h", "--help"),
    example = "banger ps\nbanger ps -a\nbanger vm stop $(banger ps -q)",
    note = "The same table as `banger vm list`, which shows all VMs."
)]
pub struct Ps {
    /// all VMs, not only running ones
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

impl Ps {
    /// How it is to be printed.
    pub fn form(&self) -> Form {
        Form { quiet: self.quiet, json: self.json, no_trunc: self.no_trunc, format: self.format.clone() }
    }
}

/// `banger doctor`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "doctor",
    description = "what is wrong with this host, and what to type",
    usage = "[-v] [--fix [--yes]] [--json]",
    help_triggers("-h", "--help"),
    example = "banger doctor\nbanger doctor -v",
    note = "One line where all is well, else what fails or could be better. Starts and\nchanges nothing, unless --fix is given: then it asks for each thing that is\nsafe to do (load a module, restart a service). Exits with 1 when something\nwill not work."
)]
pub struct Doctor {
    /// show what is well, too
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// mend what is safe to mend, after asking
    #[argh(switch)]
    pub fix: bool,
    /// with --fix: do not ask
    #[argh(switch)]
    pub yes: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `banger image`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "image",
    description = "the root filesystems that VMs start from",
    usage = "<command> [...]",
    help_triggers("-h", "--help"),
    example = "banger image list\nbanger image pull debian-bookworm",
    note = "`vm run` and `vm create` pull a missing image by themselves."
)]
pub struct ImageGroup {
    /// which
    #[argh(subcommand)]
    pub command: ImageCommand,
}

/// `banger kernel`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "kernel",
    description = "the kernels that VMs boot",
    usage = "<command> [...]",
    help_triggers("-h", "--help"),
    example = "banger kernel list\nbanger kernel pull debian-bookworm\nbanger kernel import --host --name mine\nbanger vm run --kernel mine",
    note = "`vm run` and `vm create` pull a missing kernel by themselves."
)]
pub struct KernelGroup {
    /// which
    #[argh(subcommand)]
    pub command: KernelCommand,
}

/// `banger daemon`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "daemon",
    description = "start, stop and look at the background processes",
    usage = "<command> [...]",
    help_triggers("-h", "--help"),
    example = "banger daemon status\nsudo banger daemon start --owner $USER\nbanger daemon stop",
    note = "Started by root, every command starts them by itself. VMs go on running\nwhile the daemon is stopped."
)]
pub struct DaemonGroup {
    /// which
    #[argh(subcommand)]
    pub command: DaemonCommand,
}

/// `banger version`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "version",
    description = "print the version",
    usage = "[--json]",
    help_triggers("-h", "--help"),
    example = "banger version"
)]
pub struct Version {
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `banger schema`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "schema",
    description = "what --json prints, as JSON Schema",
    usage = "[COMMAND...]",
    help_triggers("-h", "--help"),
    example = "banger schema\nbanger schema vm list\nbanger vm list --json",
    note = "Of a command: a schema for what it prints. Of none: all of them, by command.\nFields are added now and then; when one goes or means something else, the\nversion is another: banger version --json."
)]
pub struct Schema {
    /// the words of a command, such as `vm list`
    #[argh(positional, arg_name = "command")]
    pub command: Vec<String>,
}

/// All commands and flags, as data.
pub fn table() -> CommandInfoWithArgs {
    Top::get_args_info()
}

/// What was typed, with what an alias stands for in its place.
pub struct Typed {
    /// The words, those of the program's name among them: `banger-vm-run` is `banger vm run`.
    pub words: Vec<OsString>,
    aliases: Result<Aliases, String>,
}

impl Typed {
    /// `arguments` of a program called `name`. `load` is asked for the aliases where one may be meant.
    pub fn read<E: std::fmt::Display>(
        name: &str,
        arguments: Vec<OsString>,
        load: impl FnOnce() -> Result<Aliases, E>,
    ) -> Self {
        let top = table();
        let mut words = words_of_name(name, &top);
        words.extend(arguments);
        if !may_be_meant(&top, name, &words) {
            return Self { words, aliases: Ok(Aliases::new()) };
        }
        let aliases = load().map_err(|reason| reason.to_string());
        if let Ok(known) = &aliases {
            expand(&top, name, &mut words, known);
        }
        Self { words, aliases }
    }

    /// Understands it. Why the aliases cannot be had is said only when nothing else is meant.
    pub fn parse(self) -> Result<Parsed, Usage> {
        let for_guest = self.words.iter().any(|word| word == "--");
        match self.aliases {
            Ok(aliases) => understand(&table(), self.words, &aliases),
            Err(reason) => understand(&table(), self.words, &Aliases::new())
                .map_err(|_| Usage::new(reason, &[]).before_guest_command(for_guest)),
        }
    }
}

fn understand(top: &CommandInfoWithArgs, words: Vec<OsString>, aliases: &Aliases) -> Result<Parsed, Usage> {
    let line = rewrite::read(top, words, aliases)?;
    let borrowed: Vec<&str> = line.words.iter().map(String::as_str).collect();
    match Top::from_args(&["banger"], &borrowed) {
        Ok(top) => chosen(top, line),
        Err(exit) if exit.status.is_ok() => Ok(Parsed::Help { text: exit.output, path: line.path }),
        Err(exit) => Err(usage::of_argh(&exit.output, &line)),
    }
}

/// The same where there are no aliases.
pub fn parse(name: &str, arguments: Vec<OsString>) -> Result<Parsed, Usage> {
    Typed::read(name, arguments, || Ok::<_, std::convert::Infallible>(Aliases::new())).parse()
}

/// The command that the program's name is. `banger-0.1.0` and `banger-x86_64` are files of a release,
/// so only a name that begins with a command counts.
pub fn words_of_name(name: &str, top: &CommandInfoWithArgs) -> Vec<OsString> {
    let words: Vec<&str> = name.strip_prefix("banger-").map(|command| command.split('-').collect()).unwrap_or_default();
    let is_command = words.first().is_some_and(|first| top.commands.iter().any(|c| c.name == *first));
    if is_command { words.into_iter().map(OsString::from).collect() } else { Vec::new() }
}

fn chosen(top: Top, line: rewrite::Line) -> Result<Parsed, Usage> {
    let command = match (top.version, top.command) {
        (true, _) => Command::Version(Version { json: top.json }),
        (false, Some(command)) => command,
        (false, None) => return Err(rewrite::incomplete(&[])),
    };
    let words = match line.words.iter().position(|word| Some(word.as_str()) == line.path.first().copied()) {
        Some(at) => line.words[at..].to_vec(),
        None => vec!["version".to_owned()],
    };
    let invocation = Invocation { command, guest_command: line.guest_command, host: top.host };
    Ok(Parsed::Do(Box::new(invocation), words))
}

#[cfg(test)]
mod tests;
