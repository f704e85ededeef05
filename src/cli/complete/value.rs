//! What may stand behind a flag, or in the place of an argument: decided by the command and the name of the value. Pure.

use argh::{FlagInfo, FlagInfoKind, PositionalInfo};

/// What fits in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One of these.
    Words(Vec<&'static str>),
    /// A file or a folder of this host.
    Files,
    /// A folder of this host.
    Folders,
    /// An account of this host.
    Users,
    /// What the daemon, or the catalogue, knows.
    Live(Live),
    /// A file of this host, or `NAME:PATH`.
    Copied,
    /// What an image can be pulled from.
    ImageSource,
    /// A destination on the network: a name for several that the user has configured.
    Destination,
    /// Another machine.
    Machine,
    /// Anything.
    Free,
}

/// Names that come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// VMs.
    Vms(Which),
    /// Images.
    Images(Where),
    /// Kernels.
    Kernels(Where),
}

/// Which VMs a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that answer.
    Running,
    /// Those that have a process, whatever it does.
    Alive,
    /// Those that could be started.
    Startable,
}

/// Of those that are here, and of those that the catalogue has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// Only those here.
    Here,
    /// Those here that are files of the user's.
    Registered,
    /// Both.
    Anywhere,
    /// Those of the catalogue that are not here.
    Elsewhere,
}

/// What stands behind `flag` of the command `path`.
pub fn of_flag(path: &[&str], flag: &FlagInfo<'static>) -> Value {
    let FlagInfoKind::Option { arg_name } = flag.kind else { return Value::Free };
    match arg_name {
        "file" | "path" => Value::Files,
        "dir" => Value::Folders,
        "user" => Value::Users,
        "image" => Value::Live(Live::Images(Where::Anywhere)),
        "kernel" => Value::Live(Live::Kernels(Where::Anywhere)),
        "platform" => Value::Words(vec!["linux/amd64", "linux/arm64"]),
        // A template of the user's, or this.
        "template" => Value::Words(vec!["json"]),
        "which" if path.first() == Some(&"vm") => Value::Words(vec!["image", "minimal"]),
        "host" => Value::Destination,
        "ssh" => Value::Machine,
        choice => choices(choice),
    }
}

/// What stands in the place of `argument` of the command `path`.
pub fn of_argument(path: &[&str], argument: &PositionalInfo<'static>) -> Value {
    match (path, argument.name) {
        (["vm", "cp"], _) => Value::Copied,
        (["vm", ..], "path") => Value::Folders,
        (_, "path" | "file") => Value::Files,
        (["vm", command @ ..], "name") => Value::Live(Live::Vms(which(command))),
        (_, "vm") => Value::Live(Live::Vms(Which::All)),
        // The new image's own name.
        (["image", "commit"], "name") => Value::Free,
        (["image", "pull"], "source") => Value::ImageSource,
        (["image", "promote"], "name") => Value::Live(Live::Images(Where::Registered)),
        (["image", ..], "name") => Value::Live(Live::Images(Where::Here)),
        (["kernel", "pull"], "name") => Value::Live(Live::Kernels(Where::Elsewhere)),
        (["kernel", ..], "name") => Value::Live(Live::Kernels(Where::Here)),
        (_, choice) => choices(choice),
    }
}

/// What in `time|off` stands for something else than itself.
const KINDS: [&str; 6] = ["time", "size", "n", "name", "file", "path"];

/// `on|off`, or `time|off`, of which only `off` is a word.
fn choices(name: &'static str) -> Value {
    let words: Vec<&str> = name.split('|').filter(|word| !KINDS.contains(word)).collect();
    if name.contains('|') { Value::Words(words) } else { Value::Free }
}

/// Which VMs the command `vm COMMAND` is for.
fn which(command: &[&str]) -> Which {
    match command {
        ["start"] => Which::Startable,
        ["ssh" | "exec" | "attach" | "ping" | "health" | "ports" | "egress" | "stats"] | ["workspace", _] => {
            Which::Running
        }
        ["stop" | "kill" | "wait"] => Which::Alive,
        _ => Which::All,
    }
}
