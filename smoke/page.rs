//! The blocks of a page, by a convention that a reader sees, too.
//!
//! ```` ```sh ```` is run as it stands, and each command of it must succeed. ```` ```console ```` holds commands behind
//! `$ ` (going on behind `> `) and what they print; a line `...` stands for any lines. ```` ```toml ```` is a
//! config.toml, which banger must take. `text` and the languages of others are for reading. In front of a block,
//! `<!-- not run: REASON -->` says why it is for reading, too, and `<!-- first: COMMANDS -->` what is done before it.

use std::ops::Range;

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Commands.
    Shell,
    /// Commands with what they print.
    Console,
    /// Settings.
    Settings,
}

/// Languages of blocks that are only read.
const READ: [&str; 6] = ["text", "json", "yaml", "hcl", "groovy", "mermaid"];

/// A block with something to run.
#[derive(Debug)]
pub struct Block {
    /// What it is.
    pub kind: Kind,
    /// The lines between its fences, counted from 0.
    pub lines: Range<usize>,
    /// How far it is set off.
    pub indent: usize,
    /// What is done before it.
    pub first: Option<String>,
    /// Why it is not run.
    pub not_run: Option<String>,
}

/// A command of a console, with what it prints.
#[derive(Debug)]
pub struct Entry {
    /// What is typed.
    pub command: String,
    /// What comes.
    pub output: Vec<String>,
}

/// The blocks of `page`, or what is wrong with it.
pub fn blocks(page: &[&str]) -> Result<Vec<Block>, String> {
    let (mut found, mut first, mut not_run) = (Vec::new(), None, None);
    let mut at = 0;
    while at < page.len() {
        let line = page[at];
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(language) = text.strip_prefix("```") {
            let end = (at + 1..page.len()).find(|n| page[*n].trim() == "```");
            let end = end.ok_or_else(|| format!("line {}: a block without an end", at + 1))?;
            let kind = kind_of(language).map_err(|why| format!("line {}: {why}", at + 1))?;
            let (first, not_run) = (first.take(), not_run.take());
            found.extend(kind.map(|kind| Block { kind, lines: at + 1..end, indent, first, not_run }));
            at = end;
        } else if let Some(comment) = text.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            first = comment.strip_prefix("first: ").map(str::to_owned).or(first);
            not_run = comment.strip_prefix("not run: ").map(str::to_owned).or(not_run);
        } else if indent >= 4 && (at == 0 || page[at - 1].is_empty()) {
            return Err(format!("line {}: a block without a fence", at + 1));
        } else if !text.is_empty() && (first.is_some() || not_run.is_some()) {
            return Err(format!("line {}: a comment for a block, and no block", at + 1));
        }
        at += 1;
    }
    Ok(found)
}

fn kind_of(language: &str) -> Result<Option<Kind>, String> {
    match language {
        "sh" => Ok(Some(Kind::Shell)),
        "console" => Ok(Some(Kind::Console)),
        "toml" => Ok(Some(Kind::Settings)),
        read if READ.contains(&read) => Ok(None),
        other => Err(format!("a block of {other:?}: say sh, console, toml, or one of {}", READ.join(", "))),
    }
}

/// The commands of a console.
pub fn entries(lines: &[String]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in lines {
        if let Some(command) = line.strip_prefix("$ ") {
            entries.push(Entry { command: command.to_owned(), output: Vec::new() });
        } else if let Some(entry) = entries.last_mut() {
            match line.strip_prefix("> ").filter(|_| entry.output.is_empty()) {
                Some(more) => entry.command += &format!("\n{more}"),
                None => entry.output.push(line.clone()),
            }
        }
    }
    entries
}

/// Whether `printed` is what `shown` promises, whatever changes from day to day and from host to host.
pub fn agree(shown: &[String], printed: &str) -> bool {
    let plain = |lines: Vec<&str>| -> Vec<String> { lines.into_iter().map(lasting).collect() };
    let mut printed: Vec<&str> = printed.lines().collect();
    while printed.last().is_some_and(|line| line.trim().is_empty()) {
        printed.pop();
    }
    matches(&plain(shown.iter().map(String::as_str).collect()), &plain(printed))
}

fn matches(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "..." => (0..=printed.len()).any(|from| matches(rest, &printed[from..])),
        Some((line, rest)) => printed.split_first().is_some_and(|(first, more)| first == line && matches(rest, more)),
    }
}

/// Words behind a number that make it a size, a time or a count of the host's.
const UNITS: [&str; 11] = ["B", "bytes", "KiB", "MiB", "GiB", "vcpu", "ms", "s", "seconds", "minutes", "hours"];

/// A line without its times, sizes, ids and addresses.
fn lasting(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut said: Vec<String> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let inner = words[at].trim_matches(|c: char| "()[],;|\"'`".contains(c));
        let followed = words.get(at + 1).is_some_and(|next| UNITS.contains(&next.trim_matches(|c| "(),;".contains(c))));
        if is_number(inner) && followed {
            at += 1;
            said.push("#".into());
        } else {
            said.push(words[at].split('"').map(piece).collect::<Vec<_>>().join("\""));
        }
        at += 1;
    }
    said.join(" ").replace("[ #", "[#")
}

/// What stands between quotes, or a word without any.
fn piece(text: &str) -> String {
    let inner = text.trim_matches(|c: char| "()[],;|'`".contains(c));
    if passes(inner) { text.replacen(inner, "#", 1) } else { text.to_owned() }
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// `4.3s`, `8G`, `172.30.0.2`, `2026-01-31T12:34:56Z`, `8c6da12f0b11`.
fn passes(word: &str) -> bool {
    let digits = word.chars().take_while(|c| c.is_ascii_digit() || *c == '.').count();
    let unit = &word[digits..];
    let counted = digits > 0 && ["s", "ms", "m", "h", "d", "K", "M", "G", "KiB", "MiB", "GiB"].contains(&unit);
    let hexadecimal = word.len() >= 7 && word.chars().all(|c| c.is_ascii_hexdigit());
    let time = word.len() >= 10 && digits == 4 && word.chars().all(|c| c.is_ascii_digit() || "-:TZ.".contains(c));
    let has_digit = word.contains(|c: char| c.is_ascii_digit());
    counted || time || (hexadecimal && has_digit) || (is_number(word) && word.contains('.'))
}
