//! All pages of help as data, for what is written of them beside the binary: man pages
//! (`release/papers`). The binary itself calls nothing here.

use std::ffi::OsString;

use argh::{ArgsInfo, CommandInfoWithArgs, SubCommandInfo};

use super::rewrite::ALIASES;
use super::{Parsed, Top, parse};

/// A command, or a group of commands.
pub struct Page {
    /// Its words: `["vm", "run"]`; none for `banger` itself.
    pub path: Vec<&'static str>,
    /// Other words for the last one.
    pub aliases: Vec<&'static str>,
    /// The page as `--help` prints it, without what depends on the host.
    pub help: String,
    /// Its flags, arguments, examples and notes; of a group, its commands.
    pub definition: CommandInfoWithArgs,
}

/// All pages, each group before its commands.
pub fn pages() -> Vec<Page> {
    let mut found = Vec::new();
    collect(&[], Top::get_args_info(), &mut found);
    found
}

fn collect(path: &[&'static str], definition: CommandInfoWithArgs, found: &mut Vec<Page>) {
    let commands: Vec<SubCommandInfo> = definition.commands.clone();
    let known = |name: &&str| path.last() == Some(name);
    found.push(Page {
        path: path.to_vec(),
        aliases: ALIASES.iter().filter(|(_, name)| known(name)).map(|(alias, _)| *alias).collect(),
        help: help(path),
        definition,
    });
    for command in commands {
        collect(&[path, &[command.name]].concat(), command.command, found);
    }
}

fn help(path: &[&str]) -> String {
    let words = path.iter().copied().chain(["--help"]).map(OsString::from).collect();
    match parse("banger", words) {
        Ok(Parsed::Help { text, .. }) => text,
        Ok(Parsed::Do(..)) | Err(_) => unreachable!("`--help` behind the words of a command is its page"),
    }
}
