//! Everything that is printed goes through here: tables, JSON, sizes, ages, colour.
//!
//! The only file that writes to the standard streams. A reader that went away ends the command
//! quietly (`Failure::ReaderGone`); std's macros would panic.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::manner;
use super::report::Failure;
use crate::os::tty;
use crate::protocol::FaultKind;

/// Whether colour may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// No colour.
    #[cfg(test)]
    pub const PLAIN: Self = Self { colour: false };
    /// Colour.
    #[cfg(test)]
    pub const COLOURED: Self = Self { colour: true };

    /// What suits standard error.
    pub fn of_stderr() -> Self {
        Self::of(tty::is_terminal(io::stderr().as_fd()), |name| std::env::var_os(name))
    }

    /// What suits standard output.
    pub fn of_stdout() -> Self {
        Self::of(tty::is_terminal(io::stdout().as_fd()), |name| std::env::var_os(name))
    }

    /// Colour on a terminal that has any; never under `NO_COLOR` (no-color.org), always under `CLICOLOR_FORCE`
    /// (bixense.com/clicolors).
    fn of(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty() && value != "0");
        let refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_capable = is_terminal
            && variable("TERM").is_none_or(|value| value != "dumb")
            && variable("CLICOLOR").is_none_or(|value| value != "0");
        Self { colour: !refused && (is_capable || is_set("CLICOLOR_FORCE")) }
    }

    /// `text`, dimmed: what is there for whoever looks for it.
    pub fn dim(self, text: &str) -> String {
        self.painted("2", text)
    }

    /// `text` of what failed.
    pub fn failed(self, text: &str) -> String {
        self.painted("1;31", text)
    }

    /// `text` of what could be better, or is under way.
    pub fn warned(self, text: &str) -> String {
        self.painted("33", text)
    }

    /// `text` of what is well.
    pub fn well(self, text: &str) -> String {
        self.painted("32", text)
    }

    /// `text` that leads to what to type.
    pub fn hint(self, text: &str) -> String {
        self.painted("36", text)
    }

    /// A sequence of ECMA-48, "SGR", around `text`.
    fn painted(self, sequence: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{sequence}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Writes `text` to standard output as it is.
pub fn text(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// Writes `text` and a newline to standard output.
pub fn line(line: &str) -> Result<(), Failure> {
    text(&format!("{line}\n"))
}

/// Writes `content` to standard output.
pub fn bytes(content: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(content).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::new(FaultKind::OperationFailed, format!("cannot write to standard output: {e}")),
    })
}

/// Writes `text` and a newline to standard error; as JSON, where that is asked for.
pub fn note(text: &str) {
    if manner::current().json {
        return object("note", &text);
    }
    // Where standard error is closed nobody is left to be told.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes an object with one member to standard error, on a line of its own.
pub fn object<T: serde::Serialize>(name: &str, value: &T) {
    let value = serde_json::to_value(value).unwrap_or_default();
    // Where standard error is closed nobody is left to be told.
    let _ = writeln!(io::stderr(), "{}", serde_json::json!({ name: value }));
}

/// Writes `value` to standard output where JSON is asked for, else a line of text.
pub fn either<T: serde::Serialize>(value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
    if manner::current().json { json(value) } else { line(&text()) }
}

/// Writes a name to standard output: what a command was about, for the next one.
pub fn name(name: &str) -> Result<(), Failure> {
    if manner::current().json { json(&serde_json::json!({ "name": name })) } else { line(name) }
}

/// Writes `text` to standard error, where the answer will stand behind it.
pub fn prompt(text: &str) {
    // Where standard error is closed nobody is left to be asked.
    let _ = write!(io::stderr(), "{text}");
}

/// Writes `value` as JSON to standard output.
pub fn json<T: serde::Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(FaultKind::OperationFailed, format!("cannot write JSON: {e}")))?;
    line(&text)
}

/// `text` with control characters escaped: names of processes, reasons and the like may come from
/// a guest, and must not drive the terminal.
pub fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// The lines of `text`, each like [`plain`], those behind the first set off by `indent` blanks.
pub fn plain_lines(text: &str, indent: usize) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join(&format!("\n{:indent$}", ""))
}

/// `name: value` lines, aligned. One without a name goes on with the value above it.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let label = |name: &str| if name.is_empty() { String::new() } else { format!("{name}:") };
    facts.iter().map(|(name, value)| format!("{:width$}{}\n", label(name), plain(value))).collect()
}

/// Time from `then` to `now` (Unix seconds): `5s`, `3m`, `2h`, `4d`.
pub fn age(now: u64, then: u64) -> String {
    duration(now.saturating_sub(then))
}

/// `5s`, `3m`, `2h`, `4d`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// What a guest's console said, for a terminal: text, line ends and colours; no other control
/// sequences. Keeps its place between pieces.
#[derive(Debug, Default)]
pub struct ConsoleFilter {
    sequence: Option<Vec<u8>>,
}

/// Longest colour sequence that is passed on.
const MAX_SEQUENCE: usize = 32;

impl ConsoleFilter {
    /// The next piece, filtered.
    pub fn pass(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len());
        for byte in piece {
            self.byte(*byte, &mut out);
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (&mut self.sequence, byte) {
            (None, 0x1b) => self.sequence = Some(vec![byte]),
            (None, b'\n' | b'\r' | b'\t' | b' '..=b'~' | 0x80..) => out.push(byte),
            (None, _) => {}
            // Only `ESC [ digits;digits m` (ECMA-48 SGR) is let through.
            (Some(held), b'[') if held.len() == 1 => held.push(byte),
            (Some(held), b'0'..=b'9' | b';') if (2..MAX_SEQUENCE).contains(&held.len()) => held.push(byte),
            (Some(held), b'm') if held.len() >= 2 => {
                out.append(held);
                out.push(byte);
                self.sequence = None;
            }
            (Some(held), b'?' | b'>' | b'=') if held.len() == 2 => held.push(byte),
            (Some(_), 0x1b) => self.sequence = Some(vec![byte]),
            (Some(_), _) => self.sequence = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_and_for_whoever_insists() {
        let style = |is_terminal, set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            Style::of(is_terminal, |name| set.iter().find(|(n, _)| n == name).map(|(_, v)| v.into())).colour
        };
        assert!(style(true, &[]) && style(true, &[("NO_COLOR", "")]) && style(false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!style(false, &[]) && !style(true, &[("TERM", "dumb")]) && !style(true, &[("CLICOLOR", "0")]));
        assert!(
            !style(true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]) && !style(false, &[("CLICOLOR_FORCE", "0")])
        );
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(age(1_000_000 + seconds, 1_000_000), text);
        }
        assert_eq!(age(1, 2), "0s");
    }

    #[test]
    fn a_console_keeps_its_colours_and_nothing_else() {
        let mut filter = ConsoleFilter::default();
        let mut out = filter.pass(b"\x1b[0;1;31mFAILED\x1b[");
        out.extend(filter.pass(b"0m ok\r\n\x1b]0;title\x07\x1b[2J\x1b[?25lx\x08"));
        let text = String::from_utf8(out).expect("text");
        assert!(text.starts_with("\x1b[0;1;31mFAILED\x1b[0m ok\r\n"), "{text:?}");
        assert!(!text.contains('\x07') && !text.contains("[2J") && !text.contains("?25"), "{text:?}");
    }
}
