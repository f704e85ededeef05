//! A wrong command line, said so that the next one is right.

use super::rewrite::{Line, with_program};
use crate::host::config::distance;

/// A command line was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// What is wrong.
    pub message: String,
    /// What to type.
    pub hint: String,
    /// A command for the guest was given: its exit codes are not ours.
    pub guest_command: bool,
}

impl Usage {
    /// Something is wrong with a line of the command `path`.
    pub fn new(message: impl Into<String>, path: &[&str]) -> Self {
        let hint = format!("{} --help", with_program(path));
        Self { message: message.into(), hint, guest_command: false }
    }

    /// Adds what was probably meant.
    pub fn suggest(mut self, meant: Option<&str>) -> Self {
        if let Some(meant) = meant {
            self.message.push_str(&format!("; did you mean `{meant}`?"));
        }
        self
    }

    /// Another next step than the page of help.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// Notes whether a command for the guest was given.
    pub fn before_guest_command(self, guest_command: bool) -> Self {
        Self { guest_command, ..self }
    }
}

/// The nearest of `known` that could be a slip of `typed`, or be its beginning.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let begins = |name: &str| typed.trim_start_matches('-').len() > 1 && name.starts_with(typed);
    // Of two that are as near, the one with the same letters is meant.
    let rank = |name: &'a str| (!begins(name), distance(typed, name), letters(typed) != letters(name), name);
    let (unlike, steps, _, name) = known.map(rank).min()?;
    (!unlike || steps <= (typed.chars().count() / 3).max(1)).then_some(name)
}

fn letters(word: &str) -> Vec<char> {
    let mut letters: Vec<char> = word.chars().collect();
    letters.sort_unstable();
    letters
}

/// What argh says, in our words.
pub fn of_argh(output: &str, line: &Line) -> Usage {
    let text = output.trim_end();
    let message = bad_value(text, line).or_else(|| stray(text, line)).or_else(|| missing(text));
    let message = message.unwrap_or_else(|| text.replace('\n', " "));
    Usage::new(message, &line.path).before_guest_command(line.guest_command.is_some())
}

/// `Error parsing option '--x' with value 'v': why`. The value may hold anything, a quote or a
/// newline included, so it is found by what was typed.
fn bad_value(text: &str, line: &Line) -> Option<String> {
    let option = text.strip_prefix("Error parsing option '").and_then(|r| r.split_once("' with value '"));
    let positional = text.strip_prefix("Error parsing positional argument '");
    let (name, rest) = option.or_else(|| positional.and_then(|r| r.split_once("' with value '")))?;
    let after = |word: &String| rest.strip_prefix(word.as_str()).and_then(|r| r.strip_prefix("': "));
    let why = line.words.iter().filter_map(after).min_by_key(|why| why.len())?;
    let why = if why == "duplicate values provided" { "given twice" } else { why };
    Some(format!("{}: {why}", if option.is_some() { name.to_owned() } else { name.to_uppercase() }))
}

fn stray(text: &str, line: &Line) -> Option<String> {
    let word = text.strip_prefix("Unrecognized argument: ")?;
    Some(format!("`{}` does not take {word:?}", with_program(&line.path)))
}

fn missing(text: &str) -> Option<String> {
    let names = text.strip_prefix("Required positional arguments not provided:")?;
    let names = names.strip_prefix("\n    ").unwrap_or(names).split('\n').map(str::trim);
    Some(format!("{} is missing", names.map(str::to_uppercase).collect::<Vec<_>>().join(" and ")))
}
