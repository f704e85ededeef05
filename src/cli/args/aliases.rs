//! `[aliases]`, put in the place of the word that was typed, once, before anything is parsed. Pure.
//!
//! A command of banger's own is never another: an alias of its name is not used.

use std::collections::BTreeMap;
use std::ffi::OsString;

use argh::{CommandInfoWithArgs, FlagInfoKind};

use super::rewrite::{ALIASES, HELP};
use crate::host::aliases::{Alias, AliasName};

/// All that are configured.
pub type Aliases = BTreeMap<AliasName, Alias>;

/// The program's own name.
const PROGRAM: &str = "banger";

/// Whether `word` is a command of banger's own.
pub fn is_built_in(top: &CommandInfoWithArgs, word: &str) -> bool {
    word == HELP || top.commands.iter().any(|c| c.name == word) || ALIASES.iter().any(|(other, _)| *other == word)
}

/// Whether an alias may be meant: by the program's name, or by the first word that is no flag.
pub fn may_be_meant(top: &CommandInfoWithArgs, name: &str, words: &[OsString]) -> bool {
    let is_other = |at: usize| words[at].to_str().is_some_and(|word| !is_built_in(top, word));
    may_be_called(top, name) || command_at(top, words).is_some_and(is_other)
}

fn may_be_called(top: &CommandInfoWithArgs, name: &str) -> bool {
    name != PROGRAM && super::words_of_name(name, top).is_empty()
}

/// `words` of a program called `name`, with what an alias stands for in its place; and how many words, from where on,
/// are an alias's.
pub fn expand(top: &CommandInfoWithArgs, name: &str, words: &mut Vec<OsString>, aliases: &Aliases) -> Option<Inserted> {
    let put = |words: &mut Vec<OsString>, at: usize, removed: usize, alias: &Alias| {
        words.splice(at..at + removed, alias.words().iter().map(OsString::from));
        Some(Inserted { at, count: alias.words().len(), removed })
    };
    if let Some(alias) = aliases.get(name).filter(|_| may_be_called(top, name)) {
        return put(words, 0, 0, alias);
    }
    let at = command_at(top, words)?;
    let word = words[at].to_str().filter(|word| !is_built_in(top, word))?;
    put(words, at, 1, aliases.get(word)?)
}

/// Where an alias stood and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// The place of its first word.
    pub at: usize,
    /// How many words it has.
    pub count: usize,
    /// How many stood there before.
    pub removed: usize,
}

/// Where the command stands, behind banger's own flags and `help`.
fn command_at(top: &CommandInfoWithArgs, words: &[OsString]) -> Option<usize> {
    let takes_value =
        |word: &str| top.flags.iter().any(|flag| flag.long == word && matches!(flag.kind, FlagInfoKind::Option { .. }));
    let mut at = 0;
    loop {
        match words.get(at)?.to_str()? {
            "--" => return None,
            HELP => at += 1,
            flag if takes_value(flag) => at += 2,
            flag if flag.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    fn aliases(all: &[(&str, &str)]) -> Aliases {
        let one = |(name, text): &(&str, &str)| {
            (name.to_string().try_into().expect("a name"), text.to_string().try_into().expect("an alias"))
        };
        all.iter().map(one).collect()
    }

    fn expanded(name: &str, words: &[&str]) -> Vec<String> {
        let known = aliases(&[("t", "vm run --rm"), ("ps", "vm delete"), ("far", "--host ssh://box vm"), ("u", "t")]);
        let mut words: Vec<OsString> = words.iter().map(OsString::from).collect();
        expand(&table(), name, &mut words, &known);
        words.into_iter().map(|word| word.into_string().expect("text")).collect()
    }

    #[test]
    fn an_alias_is_replaced_where_the_command_stands_and_once() {
        assert_eq!(expanded("banger", &["t", "--", "t"]), ["vm", "run", "--rm", "--", "t"]);
        assert_eq!(expanded("banger", &["--host", "t", "t"]), ["--host", "t", "vm", "run", "--rm"]);
        assert_eq!(expanded("banger", &["--host=t", "t"]), ["--host=t", "vm", "run", "--rm"]);
        assert_eq!(expanded("banger", &["help", "t"]), ["help", "vm", "run", "--rm"]);
        assert_eq!(expanded("banger", &["far", "run"]), ["--host", "ssh://box", "vm", "run"]);
        assert_eq!(expanded("banger", &["u"]), ["t"]);
        for same in [&["vm", "t"][..], &["--", "t"], &["x"], &[]] {
            assert_eq!(expanded("banger", same), same, "{same:?}");
        }
    }

    #[test]
    fn a_link_of_its_name_is_the_alias() {
        assert_eq!(expanded("t", &["--", "true"]), ["vm", "run", "--rm", "--", "true"]);
        assert_eq!(expanded("x", &["ps"]), ["ps"]);
    }

    #[test]
    fn a_command_of_bangers_own_is_never_another() {
        assert_eq!(expanded("banger", &["ps"]), ["ps"]);
        assert_eq!(expanded("banger-ps", &["-a"]), ["-a"]);
        assert!(!may_be_meant(&table(), "banger", &["ps".into()]));
        assert!(!may_be_meant(&table(), "banger", &["--version".into()]));
        assert!(!may_be_meant(&table(), "banger-vm-run", &["--rm".into(), "--".into(), "t".into()]));
        assert!(may_be_meant(&table(), "banger", &["t".into()]));
        assert!(may_be_meant(&table(), "t", &["--help".into()]));
    }
}
