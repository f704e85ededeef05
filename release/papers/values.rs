//! What may stand behind a flag, or in the place of an argument: decided by the name of the value.

use argh::{FlagInfo, FlagInfoKind, Optionality};
use banger::cli::Page;

/// What a shell offers for a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One of these.
    Words(Vec<&'static str>),
    /// A file or a folder of this host.
    File,
    /// A folder of this host.
    Folder,
    /// An account of this host.
    User,
    /// What only the daemon knows. Nothing is offered for it by a file that knows the commands alone.
    Live(Live),
    /// Anything.
    Free,
}

/// Kinds of names that come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// VMs.
    Vm,
    /// Images, here or to be pulled.
    Image,
    /// Kernels, here or to be pulled.
    Kernel,
}

/// A flag that is not hidden.
pub struct Flag {
    /// `-p`.
    pub short: Option<char>,
    /// `publish`.
    pub long: &'static str,
    /// One line.
    pub description: &'static str,
    /// What follows it.
    pub value: Option<Value>,
    /// It may be given again.
    pub repeats: bool,
}

/// An argument in its place.
pub struct Argument {
    /// One line.
    pub description: &'static str,
    /// What it is.
    pub value: Value,
    /// All that follows is of its kind.
    pub repeats: bool,
}

/// The flags of a page, `--help` included.
pub fn flags(page: &Page) -> Vec<Flag> {
    let visible = page.definition.flags.iter().filter(|flag| !flag.hidden);
    visible.map(|flag| of_flag(page, flag)).collect()
}

fn of_flag(page: &Page, flag: &FlagInfo<'static>) -> Flag {
    let value = match flag.kind {
        FlagInfoKind::Switch => None,
        FlagInfoKind::Option { arg_name } => Some(of_option(page, arg_name)),
    };
    Flag {
        short: short(flag),
        long: flag.long.trim_start_matches('-'),
        description: flag.description,
        value,
        repeats: repeats(&flag.optionality),
    }
}

/// The letter of a flag. argh tells that of `--help`, which each command has, to nobody.
pub fn short(flag: &FlagInfo) -> Option<char> {
    flag.short.or_else(|| (flag.long == "--help").then_some('h'))
}

/// The arguments of a page.
pub fn arguments(page: &Page) -> Vec<Argument> {
    let visible = page.definition.positionals.iter().filter(|argument| !argument.hidden);
    visible
        .map(|argument| Argument {
            description: argument.description,
            value: of_argument(page, argument.name),
            repeats: repeats(&argument.optionality),
        })
        .collect()
}

/// Behind `--` stands a command for the guest.
pub fn takes_command(page: &Page) -> bool {
    page.help.lines().next().is_some_and(|usage| usage.contains("-- CMD"))
}

fn repeats(optionality: &Optionality) -> bool {
    matches!(optionality, Optionality::Repeating | Optionality::Greedy)
}

fn of_option(page: &Page, name: &'static str) -> Value {
    match name {
        "file" | "path" => Value::File,
        "dir" => Value::Folder,
        "user" => Value::User,
        "image" => Value::Live(Live::Image),
        "kernel" => Value::Live(Live::Kernel),
        "platform" => Value::Words(vec!["linux/amd64", "linux/arm64"]),
        "which" if page.path.first() == Some(&"vm") => Value::Words(vec!["image", "minimal"]),
        choice if choice.contains('|') => Value::Words(choice.split('|').collect()),
        _ => Value::Free,
    }
}

fn of_argument(page: &Page, name: &str) -> Value {
    match (page.path.first().copied(), name) {
        (_, "path" | "src" | "dst" | "file") => Value::File,
        (_, "vm") | (Some("vm"), "name") => Value::Live(Live::Vm),
        // The new image's own name.
        (Some("image"), "name") if page.path.contains(&"commit") => Value::Free,
        (Some("image"), "name" | "source") => Value::Live(Live::Image),
        (Some("kernel"), "name") => Value::Live(Live::Kernel),
        _ => Value::Free,
    }
}
