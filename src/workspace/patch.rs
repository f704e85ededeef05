//! A patch out of a guest, read as the hostile thing it is. Only what `git diff-tree -p --binary` writes is
//! understood (git-diff(1), "Generating patch text with -p"), and everything else refused: so what
//! is checked here is what git will see. The caller asks git as well and compares.

use std::io::{self, BufRead};

/// Most bytes of a line that are looked at; the rest is content.
const LONGEST: usize = 8 << 10;

/// Most files that a patch changes.
const MAX_CHANGES: usize = 1 << 20;

/// Most bytes of the content that is kept of a file: a link's target, lines of attributes.
const MAX_KEPT: usize = 64 << 10;

/// Most bytes of all binary files that a patch announces; git holds them in memory.
const MAX_ANNOUNCED: u64 = 2 << 30;

/// Before each line of the header, which banger writes.
pub const HEADER: &str = "# ";

/// Why a patch was refused.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// Not what git writes.
    #[error("line {line} is not what git writes there: {found:?}")]
    Form {
        /// Counted from 1.
        line: u64,
        /// Its beginning.
        found: String,
    },
    /// It stops in the middle.
    #[error("it ends in the middle of a file")]
    Truncated,
    /// Too many files.
    #[error("it changes more than {MAX_CHANGES} files")]
    TooMany,
    /// A path that leads elsewhere.
    #[error("it writes {0:?}, which is not below the repository's folder")]
    Outside(String),
    /// git's own files.
    #[error("it writes {0:?}, which is git's own")]
    Repository(String),
    /// Through a link.
    #[error("it writes {path:?} through the link {link:?}")]
    ThroughLink {
        /// The path.
        path: String,
        /// The link.
        link: String,
    },
    /// A link out of the tree.
    #[error("it makes {path:?} a link to {target:?}, which is not in the repository")]
    LinkOut {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// One path in two changes.
    #[error("it changes {0:?} twice")]
    Twice(String),
    /// More than a patch may have.
    #[error("it announces files of more than {max} MiB", max = MAX_ANNOUNCED >> 20)]
    TooLarge,
    /// A mode that is none of a file's.
    #[error("it makes {path:?} something with mode {mode}")]
    Mode {
        /// The path.
        path: String,
        /// Octal.
        mode: String,
    },
    /// What has programs run here.
    #[error("it changes {0:?}, which can have git run programs (--allow-git-config permits it)")]
    RunsPrograms(String),
    /// git sees another patch.
    #[error("git does not see the same files in it")]
    Disagreement,
}

/// What happens to one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Its path before; `None` for a new one.
    pub old: Option<Vec<u8>>,
    /// Its path afterwards; `None` when it is removed.
    pub new: Option<Vec<u8>>,
    /// Its mode afterwards, where that is said.
    pub mode: Option<String>,
    /// What is added to it, as far as it is text and not too much.
    pub added: Vec<u8>,
    /// Whether all that is added is in `added`.
    pub is_whole: bool,
}

impl Change {
    /// The paths that it touches.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.old.iter().chain(&self.new).map(Vec::as_slice)
    }
}

/// Reads a whole patch.
pub fn read(input: impl BufRead) -> Result<Vec<Change>, PatchError> {
    let mut lines = Lines { input, number: 0, current: None, announced: 0 };
    let mut changes = Vec::new();
    while lines.peek()?.is_some_and(|line| line.is_empty() || line.starts_with(HEADER.as_bytes())) {
        lines.take()?;
    }
    while let Some(line) = lines.take()? {
        let names = line.strip_prefix(b"diff --git ").ok_or_else(|| lines.form(&line))?.to_vec();
        if changes.len() == MAX_CHANGES {
            return Err(PatchError::TooMany);
        }
        changes.push(change(&mut lines, &names)?);
    }
    Ok(changes)
}

/// Lines without their ends, each cut to [`LONGEST`].
struct Lines<R> {
    input: R,
    number: u64,
    current: Option<Vec<u8>>,
    /// Bytes of binary files so far.
    announced: u64,
}

impl<R: BufRead> Lines<R> {
    fn peek(&mut self) -> Result<Option<&[u8]>, PatchError> {
        if self.current.is_none() {
            self.current = self.next()?;
        }
        Ok(self.current.as_deref())
    }

    fn take(&mut self) -> Result<Option<Vec<u8>>, PatchError> {
        self.peek()?;
        Ok(self.current.take())
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, PatchError> {
        let mut line = Vec::new();
        let mut is_there = false;
        loop {
            let piece = match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if piece.is_empty() {
                break;
            }
            is_there = true;
            let end = piece.iter().position(|b| *b == b'\n');
            let content = &piece[..end.unwrap_or(piece.len())];
            line.extend_from_slice(&content[..content.len().min(LONGEST - line.len())]);
            let used = content.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        self.number += u64::from(is_there);
        Ok(is_there.then_some(line))
    }

    fn form(&self, line: &[u8]) -> PatchError {
        let found = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        PatchError::Form { line: self.number, found }
    }

    /// The next line, which has to begin with `start`; what follows it.
    fn expect(&mut self, start: &str) -> Result<Vec<u8>, PatchError> {
        let line = self.take()?.ok_or(PatchError::Truncated)?;
        match line.strip_prefix(start.as_bytes()) {
            Some(rest) => Ok(rest.to_vec()),
            None => Err(self.form(&line)),
        }
    }
}

/// What the lines between `diff --git` and the content say.
#[derive(Default)]
struct Extended {
    old_mode: Option<String>,
    new_mode: Option<String>,
    /// The mode behind the objects' names: that of a file that keeps its.
    kept_mode: Option<String>,
    is_new: bool,
    is_deleted: bool,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

fn change(lines: &mut Lines<impl BufRead>, names: &[u8]) -> Result<Change, PatchError> {
    let extended = extended(lines)?;
    let mode = extended.new_mode.clone().or(extended.kept_mode.clone());
    let mut change = Change { mode, is_whole: true, ..Change::default() };
    let (old, new) = match (extended.from.clone(), extended.to.clone()) {
        (Some(from), Some(to)) => (from, to),
        (None, None) => {
            let name = same_name(names).ok_or_else(|| lines.form(names))?;
            (name.clone(), name)
        }
        _ => return Err(lines.form(names)),
    };
    // Where there is content, git says of which mode it is: without that, a link could become another.
    let is_open = change.mode.is_none() && !extended.is_deleted;
    match lines.peek()? {
        Some(line) if is_open && (line.starts_with(b"--- ") || line == b"GIT binary patch") => {
            let line = line.to_vec();
            return Err(lines.form(&line));
        }
        Some(line) if line.starts_with(b"--- ") => text(lines, &extended, &old, &new, &mut change)?,
        Some(b"GIT binary patch") => {
            change.is_whole = false;
            binary(lines)?;
        }
        Some(line) if line.starts_with(b"diff --git ") => {}
        None => {}
        Some(line) => {
            let line = line.to_vec();
            return Err(lines.form(&line));
        }
    }
    change.old = (!extended.is_new).then_some(old);
    change.new = (!extended.is_deleted).then_some(new);
    Ok(change)
}

impl Extended {
    /// Whether git would write all of it above one file.
    fn is_sound(&self) -> bool {
        let comes_or_goes = self.is_new || self.is_deleted;
        let moves = self.from.is_some() || self.to.is_some();
        let changes_mode = self.old_mode.is_some() || self.new_mode.is_some();
        let keeps_mode = self.kept_mode.is_some();
        let is_both = (self.is_new && self.is_deleted) || (comes_or_goes && moves) || (keeps_mode && changes_mode);
        !is_both
    }
}

/// How the lines begin that may stand there.
const HEADS: [&str; 11] = [
    "old mode ",
    "new mode ",
    "new file mode ",
    "deleted file mode ",
    "rename from ",
    "rename to ",
    "copy from ",
    "copy to ",
    "index ",
    "similarity index ",
    "dissimilarity index ",
];

fn extended(lines: &mut Lines<impl BufRead>) -> Result<Extended, PatchError> {
    let mut found = Extended::default();
    let mut kinds = Vec::new();
    while let Some(line) = lines.peek()? {
        let line = line.to_vec();
        let is_fine = if let Some(mode) = line.strip_prefix(b"old mode ") {
            found.old_mode = octal(mode);
            found.old_mode.is_some()
        } else if let Some(mode) = line.strip_prefix(b"new mode ") {
            found.new_mode = octal(mode);
            found.new_mode.is_some()
        } else if let Some(mode) = line.strip_prefix(b"new file mode ") {
            (found.new_mode, found.is_new) = (octal(mode), true);
            found.new_mode.is_some()
        } else if let Some(mode) = line.strip_prefix(b"deleted file mode ") {
            (found.old_mode, found.is_deleted) = (octal(mode), true);
            found.old_mode.is_some()
        } else if let Some(name) = line.strip_prefix(b"rename from ").or(line.strip_prefix(b"copy from ")) {
            found.from = unquoted(name);
            found.from.is_some()
        } else if let Some(name) = line.strip_prefix(b"rename to ").or(line.strip_prefix(b"copy to ")) {
            found.to = unquoted(name);
            found.to.is_some()
        } else if let Some(rest) = line.strip_prefix(b"index ") {
            index(rest, &mut found)
        } else if line.starts_with(b"similarity index ") || line.starts_with(b"dissimilarity index ") {
            true
        } else {
            break;
        };
        lines.take()?;
        // Each once, and only together with what git writes beside it.
        let kind: Vec<u8> = line.iter().copied().take_while(|b| b.is_ascii_lowercase() || *b == b' ').collect();
        let kind = HEADS.iter().find(|head| kind.starts_with(head.as_bytes())).copied();
        if !is_fine || !found.is_sound() || kinds.contains(&kind) {
            return Err(lines.form(&line));
        }
        kinds.push(kind);
    }
    Ok(found)
}

/// `OBJECT..OBJECT[ MODE]`: the mode where it stays the same.
fn index(rest: &[u8], found: &mut Extended) -> bool {
    let mut words = rest.splitn(2, |b| *b == b' ');
    let objects = words.next().unwrap_or_default();
    if !objects.iter().all(|b| b.is_ascii_hexdigit() || *b == b'.') {
        return false;
    }
    match words.next() {
        None => true,
        Some(mode) => {
            found.kept_mode = octal(mode);
            found.kept_mode.is_some()
        }
    }
}

fn octal(mode: &[u8]) -> Option<String> {
    let is_fine = mode.len() == 6 && mode.iter().all(|b| (b'0'..=b'7').contains(b));
    is_fine.then(|| String::from_utf8_lossy(mode).into_owned())
}

/// `--- NAME`, `+++ NAME`, and hunks.
fn text(
    lines: &mut Lines<impl BufRead>,
    extended: &Extended,
    old: &[u8],
    new: &[u8],
    change: &mut Change,
) -> Result<(), PatchError> {
    for (start, prefix, name, is_absent) in
        [("--- ", b"a/", old, extended.is_new), ("+++ ", b"b/", new, extended.is_deleted)]
    {
        let said = lines.expect(start)?;
        // git puts a tab behind a name with blanks in it.
        let plain = said.strip_suffix(b"\t").unwrap_or(&said);
        let expected = if is_absent { b"/dev/null".to_vec() } else { [prefix, name].concat() };
        if unquoted(plain).as_deref() != Some(&expected[..]) {
            return Err(lines.form(&said));
        }
    }
    let mut hunks = 0;
    while lines.peek()?.is_some_and(|line| line.starts_with(b"@@ -")) {
        hunk(lines, change)?;
        hunks += 1;
    }
    if hunks == 0 { Err(PatchError::Truncated) } else { Ok(()) }
}

fn hunk(lines: &mut Lines<impl BufRead>, change: &mut Change) -> Result<(), PatchError> {
    let head = lines.take()?.unwrap_or_default();
    let (mut old, mut new) = counts(&head).ok_or_else(|| lines.form(&head))?;
    while old > 0 || new > 0 {
        let line = lines.take()?.ok_or(PatchError::Truncated)?;
        let counted = match line.first() {
            Some(b' ') => old.checked_sub(1).zip(new.checked_sub(1)),
            Some(b'-') => old.checked_sub(1).zip(Some(new)),
            Some(b'+') => Some(old).zip(new.checked_sub(1)),
            Some(b'\\') => Some((old, new)),
            Some(_) | None => None,
        };
        (old, new) = counted.ok_or_else(|| lines.form(&line))?;
        if line.first() == Some(&b'+') {
            keep(change, &line);
        }
    }
    while lines.peek()?.is_some_and(|line| line.starts_with(b"\\")) {
        lines.take()?;
    }
    Ok(())
}

fn keep(change: &mut Change, line: &[u8]) {
    if change.added.len() + line.len() > MAX_KEPT || line.len() >= LONGEST {
        change.is_whole = false;
        return;
    }
    change.added.extend_from_slice(&line[1..]);
    change.added.push(b'\n');
}

/// Lines before and after: `@@ -START[,COUNT] +START[,COUNT] @@`.
fn counts(head: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(&head[..head.len().min(100)]).ok().or_else(|| {
        // The heading behind the numbers may be anything.
        let end = head.windows(3).position(|w| w == b" @@")?;
        std::str::from_utf8(&head[..end + 3]).ok()
    })?;
    let (ranges, _) = text.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let count = |range: &str| -> Option<u64> {
        let (start, count) = range.split_once(',').unwrap_or((range, "1"));
        let plain = |text: &str| !text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit());
        (plain(start) && plain(count)).then(|| count.parse().ok()).flatten()
    };
    Some((count(old)?, count(new)?))
}

/// `GIT binary patch` and one or two blocks, each ended by an empty line.
fn binary(lines: &mut Lines<impl BufRead>) -> Result<(), PatchError> {
    lines.expect("GIT binary patch")?;
    let mut blocks = 0;
    while let Some(size) = lines.peek()?.and_then(|l| l.strip_prefix(b"literal ").or(l.strip_prefix(b"delta "))) {
        let size = std::str::from_utf8(size).ok().and_then(|size| size.parse::<u64>().ok());
        let line = lines.take()?.unwrap_or_default();
        lines.announced = lines.announced.saturating_add(size.ok_or_else(|| lines.form(&line))?);
        if lines.announced > MAX_ANNOUNCED {
            return Err(PatchError::TooLarge);
        }
        blocks += 1;
        loop {
            let line = lines.take()?.ok_or(PatchError::Truncated)?;
            // A letter for the length, and at most 65 of git's base 85, which has neither blank nor quote.
            let is_data = line.len() <= 66 && line.iter().all(u8::is_ascii_graphic);
            match line.first() {
                None => break,
                Some(first) if first.is_ascii_alphabetic() && is_data => {}
                Some(_) => return Err(lines.form(&line)),
            }
        }
    }
    if (1..=2).contains(&blocks) { Ok(()) } else { Err(PatchError::Truncated) }
}

/// The one name in `a/NAME b/NAME`; `None` when there are two.
fn same_name(names: &[u8]) -> Option<Vec<u8>> {
    if names.starts_with(b"\"") {
        let end = end_of_quoted(names)?;
        let (first, rest) = names.split_at(end);
        let (first, second) = (unquoted(first)?, unquoted(rest.strip_prefix(b" ")?)?);
        let name = first.strip_prefix(b"a/")?;
        return (second.strip_prefix(b"b/") == Some(name)).then(|| name.to_vec());
    }
    // `a/` + NAME + ` b/` + NAME
    let length = names.len().checked_sub(5)?;
    let (first, second) = names.split_at(2 + length / 2);
    let name = first.strip_prefix(b"a/")?;
    (length % 2 == 0 && second.strip_prefix(b" b/") == Some(name)).then(|| unquoted(name)).flatten()
}

fn end_of_quoted(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// A name as git writes it: as it is, or quoted as in C with octal escapes (`core.quotePath`).
fn unquoted(text: &[u8]) -> Option<Vec<u8>> {
    let Some(inner) = text.strip_prefix(b"\"") else {
        // What has these in it, git quotes.
        let is_plain = !text.is_empty() && !text.iter().any(|b| b.is_ascii_control() || matches!(b, b'"' | b'\\'));
        return is_plain.then(|| text.to_vec());
    };
    let mut name = Vec::new();
    let mut rest = inner.iter().copied();
    loop {
        match rest.next()? {
            b'"' => return (rest.next().is_none() && !name.is_empty()).then_some(name),
            b'\\' => name.push(escaped(&mut rest)?),
            byte => name.push(byte),
        }
    }
}

fn escaped(rest: &mut impl Iterator<Item = u8>) -> Option<u8> {
    Some(match rest.next()? {
        b'a' => 7,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 11,
        b'f' => 12,
        b'r' => b'\r',
        quote @ (b'"' | b'\\') => quote,
        first @ b'0'..=b'3' => {
            let digit = |b: u8| (b'0'..=b'7').contains(&b).then(|| b - b'0');
            let (second, third) = (digit(rest.next()?)?, digit(rest.next()?)?);
            let byte = (first - b'0') * 64 + second * 8 + third;
            // No file's name has it.
            (byte != 0).then_some(byte)?
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
