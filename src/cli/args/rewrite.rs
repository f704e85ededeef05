//! The argv before argh sees it: aliases, `--opt=value`, `-aq`, `--`, suggestions. Pure.
//!
//! It walks the same table of commands and flags that argh parses by, so that both agree.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

use super::super::manner;
use super::aliases::Aliases;
use super::usage::{Usage, nearest};
use crate::ssh::quote;

/// Other words for a command.
pub const ALIASES: [(&str, &str); 2] = [("ls", "list"), ("rm", "delete")];

/// Before the words of a command, or in the place of a group's: the page.
pub const HELP: &str = "help";

/// Commands that take `-- CMD` for the guest.
const WITH_GUEST_COMMAND: [&[&str]; 3] = [&["vm", "run"], &["vm", "ssh"], &["vm", "exec"]];

/// The command whose one word, without `--`, may be a path or a program for the guest.
const PATH_OR_COMMAND: [&str; 2] = ["vm", "run"];

/// An argv made plain.
#[derive(Debug, Default, PartialEq)]
pub struct Line {
    /// The words of the command, without aliases.
    pub path: Vec<&'static str>,
    /// What argh gets, the command's words included.
    pub words: Vec<String>,
    /// What stood behind `--`, of a command that hands it to the guest.
    pub guest_command: Option<Vec<OsString>>,
    /// Which of `words` are neither the command's nor flags.
    positional_at: Vec<usize>,
}

impl Line {
    /// Puts what is no flag behind all flags, and `--` between them: argh takes a lone `-`, a stream, for a flag.
    fn flags_first(&mut self) {
        let words = std::mem::take(&mut self.words).into_iter().enumerate();
        let (behind, mut before): (Vec<_>, Vec<_>) = words.partition(|(at, _)| self.positional_at.contains(at));
        before.push((0, "--".to_owned()));
        self.words = before.into_iter().chain(behind).map(|(_, word)| word).collect();
    }
}

/// Whether the command takes `-- CMD` for the guest.
pub fn takes_guest_command(path: &[&str]) -> bool {
    WITH_GUEST_COMMAND.contains(&path)
}

/// Makes `arguments` plain; `aliases` may be meant where nothing is.
pub fn read(top: &CommandInfoWithArgs, arguments: Vec<OsString>, aliases: &Aliases) -> Result<Line, Usage> {
    let (typed, rest) = split(arguments);
    let mut line = Line::default();
    let whole = (rest.is_none()).then(|| typed.clone());
    let mut reader = Reader {
        top,
        aliases,
        at: top,
        line: &mut line,
        help: false,
        positionals: 0,
        for_guest_at: None,
        perhaps_at: None,
        has_unknown_letters: false,
        manner: BTreeSet::new(),
    };
    let read = typed.into_iter().map(into_text).collect::<Result<Vec<_>, _>>().and_then(|words| reader.words(words));
    let (help, groups) = (reader.help, !reader.at.commands.is_empty());
    // `vm run uname -a`: a word that is no path, and more that does not fit.
    let for_guest_at = match (reader.perhaps_at, reader.for_guest_at) {
        (Some(at), Some(_)) => Some(at),
        (Some(at), None) if reader.has_unknown_letters && whole.is_some() => Some(at),
        (_, at) => at,
    };
    let for_guest = takes_guest_command(&line.path);
    if let (Some(whole), Some(at), true, false) = (whole, for_guest_at, for_guest, help) {
        return Err(without_dashes(&line.path, &whole, at));
    }
    let finished = read.and_then(|()| finish(&mut line, rest.clone(), help, groups, for_guest));
    // Whoever passes a command reads its exit code: a wrong command line must not look like it.
    finished.map_err(|usage| usage.before_guest_command(for_guest && rest.is_some())).map(|()| line)
}

fn split(mut arguments: Vec<OsString>) -> (Vec<OsString>, Option<Vec<OsString>>) {
    match arguments.iter().position(|a| a == "--") {
        Some(at) => {
            let rest = arguments.split_off(at).split_off(1);
            (arguments, Some(rest))
        }
        None => (arguments, None),
    }
}

/// What other tools call a command, where it is near nothing here or to something else.
const HABITS: [(&str, &str); 6] =
    [("top", "stats"), ("inspect", "show"), ("info", "show"), ("view", "show"), ("shell", "ssh"), ("connect", "ssh")];

/// A command for the guest, from word `at` on, that does not stand behind `--`.
fn without_dashes(path: &[&'static str], typed: &[OsString], at: usize) -> Usage {
    let quoted = |word: &OsString| quote(word.as_bytes()).unwrap_or_default();
    let mut words: Vec<String> = typed.iter().map(quoted).collect();
    let message = format!("`{}` does not take {:?}", with_program(path), typed[at].to_string_lossy());
    // One word with blanks is a line for a shell.
    let is_line = at + 1 == typed.len() && typed[at].as_bytes().contains(&b' ');
    let before: &[&str] = if is_line { &["--", "sh", "-c"] } else { &["--"] };
    words.splice(at..at, before.iter().map(|word| (*word).to_owned()));
    let image = if path == ["vm", "run"] { ", an image behind --image" } else { "" };
    Usage::new(message, path)
        .hint(format!("banger {}      (a command for the guest stands behind `--`{image})", words.join(" ")))
}

fn into_text(word: OsString) -> Result<String, Usage> {
    word.into_string().map_err(|word| Usage::new(format!("{word:?} is not UTF-8"), &[]))
}

fn finish(
    line: &mut Line,
    rest: Option<Vec<OsString>>,
    help: bool,
    groups: bool,
    for_guest: bool,
) -> Result<(), Usage> {
    if help {
        // argh forbids other flags beside help; a person who asks for help has them already.
        line.words = line.path.iter().map(|w| (*w).to_owned()).chain(["--help".to_owned()]).collect();
        return Ok(());
    }
    if groups && !line.words.iter().any(|w| w == "--version") {
        return Err(incomplete(&line.path));
    }
    match rest {
        Some(command) if for_guest && command.is_empty() => {
            Err(Usage::new("there is no command after `--`", &line.path))
        }
        Some(command) if for_guest => {
            line.guest_command = Some(command);
            Ok(())
        }
        Some(more) => {
            line.words.push("--".into());
            for word in more {
                line.words.push(into_text(word)?);
            }
            Ok(())
        }
        None => {
            if line.words.iter().any(|word| word == "-") {
                line.flags_first();
            }
            Ok(())
        }
    }
}

/// A group without its command.
pub fn incomplete(path: &[&'static str]) -> Usage {
    Usage::new(format!("`{}` needs a command", with_program(path)), path)
}

/// `vm run` for `run`: the first group that has the command.
fn deeper(at: &CommandInfoWithArgs, word: &str) -> Option<String> {
    let group = at.commands.iter().find(|group| group.command.commands.iter().any(|c| c.name == word))?;
    Some(format!("{} {word}", group.name))
}

/// `banger vm run`.
pub fn with_program(path: &[&str]) -> String {
    std::iter::once(&"banger").chain(path).copied().collect::<Vec<_>>().join(" ")
}

fn looks_like_path(word: &str) -> bool {
    word.contains('/') || word.starts_with('.')
}

struct Reader<'a, 'l> {
    top: &'a CommandInfoWithArgs,
    aliases: &'a Aliases,
    at: &'a CommandInfoWithArgs,
    line: &'l mut Line,
    help: bool,
    /// Words that are neither commands nor flags.
    positionals: usize,
    /// The first of them that the command does not take.
    for_guest_at: Option<usize>,
    /// One that is taken for a path and looks like a program.
    perhaps_at: Option<usize>,
    /// `-la` and the like, which the command does not have.
    has_unknown_letters: bool,
    /// What is asked of any command, wherever it stood.
    manner: BTreeSet<String>,
}

impl Reader<'_, '_> {
    fn words(&mut self, words: Vec<String>) -> Result<(), Usage> {
        self.all_words(words)?;
        // A command that has it among its own flags is told, too.
        let own: Vec<String> = self.manner.iter().filter(|word| self.find(word).is_some()).cloned().collect();
        self.line.words.extend(own);
        Ok(())
    }

    fn all_words(&mut self, words: Vec<String>) -> Result<(), Usage> {
        let count = words.len();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let before_commands = !self.at.commands.is_empty() && word == HELP;
            if before_commands || word == "-h" || word == "--help" {
                self.help = true;
            } else if word.len() > 1 && word.starts_with('-') {
                self.flag(&word, &mut words)?;
            } else if self.at.commands.is_empty() {
                self.positional(word, count - words.len() - 1);
            } else {
                self.command(&word)?;
            }
        }
        Ok(())
    }

    fn positional(&mut self, word: String, at: usize) {
        let takes = self.at.positionals.len();
        let repeats = self.at.positionals.iter().any(|p| matches!(p.optionality, Optionality::Repeating));
        self.positionals += 1;
        if self.line.path == PATH_OR_COMMAND && self.positionals == 1 && !looks_like_path(&word) {
            self.perhaps_at = Some(at);
        }
        if self.positionals > takes && !repeats {
            self.for_guest_at.get_or_insert(at);
        }
        self.line.positional_at.push(self.line.words.len());
        self.line.words.push(word);
    }

    fn command(&mut self, word: &str) -> Result<(), Usage> {
        let canonical = ALIASES.iter().find(|(alias, _)| *alias == word).map_or(word, |(_, name)| name);
        let at = self.at;
        match at.commands.iter().find(|c| c.name == canonical) {
            Some(found) => {
                self.at = &found.command;
                self.line.path.push(found.name);
                self.line.words.push(found.name.to_owned());
                Ok(())
            }
            None => {
                let message = format!("`{}` has no command {word:?}", with_program(&self.line.path));
                Err(Usage::new(message, &self.line.path).suggest(self.meant(word, canonical).as_deref()))
            }
        }
    }

    /// What was probably meant by a word that is no command here.
    fn meant(&self, word: &str, canonical: &str) -> Option<String> {
        let is_here = |name: &str| self.at.commands.iter().any(|c| c.name == name);
        if let Some((_, name)) = HABITS.iter().find(|(habit, _)| *habit == word) {
            return if is_here(name) { Some((*name).to_owned()) } else { deeper(self.top, name) };
        }
        let known = self.at.commands.iter().map(|c| c.name).chain(ALIASES.iter().map(|(alias, _)| *alias));
        if !self.line.path.is_empty() {
            return nearest(word, known).map(str::to_owned).or_else(|| deeper(self.top, canonical));
        }
        let own = self.aliases.keys().map(|name| name.as_str());
        deeper(self.top, canonical).or_else(|| nearest(word, known.chain(own)).map(str::to_owned))
    }

    fn flag(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), Usage> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (word, None),
        };
        if manner::is_word(word) {
            self.manner.insert(word.to_owned());
            return Ok(());
        }
        let Some(flag) = self.find(name) else { return self.letters(word) };
        self.line.words.push(name.to_owned());
        match (&flag.kind, value) {
            (FlagInfoKind::Switch, None) => {}
            (FlagInfoKind::Switch, Some(_)) => {
                return Err(Usage::new(format!("{name} takes no value"), &self.line.path));
            }
            (FlagInfoKind::Option { .. }, Some(value)) => self.line.words.push(value.to_owned()),
            (FlagInfoKind::Option { .. }, None) => match rest.next() {
                Some(value) => self.line.words.push(value),
                None => return Err(Usage::new(format!("{name} needs a value"), &self.line.path)),
            },
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&'static FlagInfo<'static>> {
        let short = name.strip_prefix('-').and_then(|n| (n.chars().count() == 1).then(|| n.chars().next()).flatten());
        self.at.flags.iter().find(|f| f.long == name || (short.is_some() && f.short == short))
    }

    /// `-aq` is `-a -q` where both are switches.
    fn letters(&mut self, word: &str) -> Result<(), Usage> {
        let single: Vec<String> = word.chars().skip(1).map(|letter| format!("-{letter}")).collect();
        let is_switch = |f: &String| self.find(f).is_some_and(|f| matches!(f.kind, FlagInfoKind::Switch));
        if !word.starts_with("--") && single.iter().all(is_switch) {
            self.line.words.extend(single);
            return Ok(());
        }
        self.has_unknown_letters = !word.starts_with("--");
        let name = word.split('=').next().unwrap_or(word);
        let own = self.at.flags.iter().filter(|f| !f.hidden).map(|f| f.long);
        let known = own.chain([manner::JSON, manner::NO_INPUT]);
        let message = format!("`{}` has no option {name:?}", with_program(&self.line.path));
        Err(Usage::new(message, &self.line.path).suggest(nearest(name, known)))
    }
}
