//! Where the cursor stands: the command that the words before it lead to, and what it has already. Pure.
//!
//! It walks the tables of `args` as `args::rewrite` does, but goes on where something is wrong.

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind};

use super::super::args::{ALIASES, HELP, takes_guest_command};
use super::super::manner;
use super::value::{self, Value};

/// A command that takes the words of another, as `help` does.
const OF_ANOTHER: &str = "schema";

/// A place in a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Spot {
    /// The words of the command.
    pub path: Vec<&'static str>,
    /// Its flags, arguments and commands.
    pub definition: CommandInfoWithArgs,
    /// The flags that it has already, by their long names.
    pub given: Vec<&'static str>,
    /// The arguments that it has already.
    pub arguments: Vec<String>,
    /// What comes next.
    pub place: Place,
    /// Flags are over: `--` was there.
    pub has_dashes: bool,
    /// Another machine's daemon is meant.
    pub is_far: bool,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// A command of the group.
    Command,
    /// An argument, or a flag.
    Argument,
    /// The value of a flag.
    Value(Value),
    /// A word of the command for the guest, which begins with this word of all.
    Guest(usize),
    /// Nothing that is known.
    Nothing,
}

/// Where one stands behind `words`, the program not among them.
pub fn find(top: &CommandInfoWithArgs, words: &[String]) -> Spot {
    let mut walk = Walk::new(top);
    for (at, word) in words.iter().enumerate() {
        if word == "--" && walk.awaited.is_none() && takes_guest_command(&walk.spot.path) {
            walk.spot.place = Place::Guest(at + 1);
            return walk.spot;
        }
        walk.step(word);
    }
    walk.end()
}

struct Walk {
    spot: Spot,
    /// The flag whose value comes next.
    awaited: Option<&'static FlagInfo<'static>>,
    is_help: bool,
    is_lost: bool,
}

impl Walk {
    fn new(top: &CommandInfoWithArgs) -> Self {
        let spot = Spot {
            path: Vec::new(),
            definition: top.clone(),
            given: Vec::new(),
            arguments: Vec::new(),
            place: Place::Nothing,
            has_dashes: false,
            is_far: false,
        };
        Self { spot, awaited: None, is_help: false, is_lost: false }
    }

    fn step(&mut self, word: &str) {
        let is_group = !self.spot.definition.commands.is_empty();
        if self.awaited.take().is_some() {
            return;
        }
        match word {
            "--" => self.spot.has_dashes = true,
            HELP if is_group => self.is_help = true,
            OF_ANOTHER if self.spot.path.is_empty() => self.is_help = true,
            flag if flag.len() > 1 && flag.starts_with('-') && !self.spot.has_dashes => self.flag(flag),
            command if is_group => self.command(command),
            argument => self.spot.arguments.push(argument.to_owned()),
        }
    }

    fn command(&mut self, word: &str) {
        let name = ALIASES.iter().find(|(alias, _)| *alias == word).map_or(word, |(_, name)| name);
        let found = self.spot.definition.commands.iter().find(|command| command.name == name).cloned();
        match found {
            Some(found) => {
                self.spot.path.push(found.name);
                self.spot.definition = found.command;
            }
            None => self.is_lost = true,
        }
    }

    fn flag(&mut self, word: &str) {
        let name = word.split('=').next().unwrap_or(word);
        let of_all = [manner::JSON, manner::NO_INPUT].into_iter().find(|flag| *flag == name);
        let Some(flag) = self.spot.flag(name) else {
            self.spot.given.extend(of_all);
            let letters = word
                .chars()
                .skip(1)
                .filter(|_| !word.starts_with("--"))
                .filter_map(|letter| self.spot.flag(&format!("-{letter}")));
            let letters: Vec<&str> = letters.map(|flag| flag.long).collect();
            self.spot.given.extend(letters);
            return;
        };
        self.spot.given.push(flag.long);
        self.spot.is_far |= flag.long == "--host" && self.spot.path.is_empty();
        if matches!(flag.kind, FlagInfoKind::Option { .. }) && !word.contains('=') {
            self.awaited = Some(flag);
        }
    }

    fn end(mut self) -> Spot {
        let is_group = !self.spot.definition.commands.is_empty();
        self.spot.place = match self.awaited {
            _ if self.is_lost || (self.is_help && !is_group) => Place::Nothing,
            Some(flag) => Place::Value(value::of_flag(&self.spot.path, flag)),
            None if is_group => Place::Command,
            None => Place::Argument,
        };
        self.spot
    }
}

impl Spot {
    /// The flag that is written `--long` or `-s`.
    pub fn flag(&self, name: &str) -> Option<&'static FlagInfo<'static>> {
        let letter =
            name.strip_prefix('-').filter(|rest| rest.chars().count() == 1).and_then(|rest| rest.chars().next());
        self.definition.flags.iter().find(|flag| flag.long == name || (letter.is_some() && flag.short == letter))
    }

    /// The flag whose value a word `--flag=…` has, with what stands before the value.
    pub fn joined<'w>(&self, word: &'w str) -> Option<(&'static FlagInfo<'static>, &'w str)> {
        let (name, _) = word.split_once('=').filter(|(name, _)| name.starts_with("--") && !self.has_dashes)?;
        let flag = self.flag(name).filter(|flag| matches!(flag.kind, FlagInfoKind::Option { .. }))?;
        Some((flag, &word[..=name.len()]))
    }

    /// Whether names of destinations may be asked for here.
    pub fn takes_destinations(&self) -> bool {
        self.place == Place::Value(Value::Destination) || self.flag("--allow").is_some()
    }
}
