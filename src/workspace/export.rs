//! What came of a repository in a guest, as one patch: made by the guest, bounded here, and only written down.

use std::fs::File;
use std::io::{self, BufWriter, PipeReader, Read, Write};
use std::os::fd::AsFd;

use super::error::WorkspaceError;
use super::guest::{self, Guest, first_line};
use crate::model::GuestFolder;
use crate::shell::Outcome;

/// Most bytes of a patch where nothing else is asked for.
pub const MAX_PATCH: u64 = 1 << 30;

/// Most bytes of the line that a guest says first.
const MAX_LINE: usize = 80;

/// Most bytes of a summary.
const MAX_SUMMARY: u64 = 8 << 20;

/// What a patch is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// The commit that was brought in.
    Base,
    /// All that was brought in, edits included: what the guest itself has done.
    Prepared,
    /// A commit that the guest has.
    Commit(String),
}

impl From {
    fn word(&self) -> &str {
        match self {
            Self::Base => "@base",
            Self::Prepared => "@prepared",
            Self::Commit(text) => text,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The commit or tree that it begins from, as the guest says.
    pub from: String,
    /// Bytes of the patch without its header.
    pub bytes: u64,
}

/// Writes the patch, of at most `limit` bytes, to `out`, behind what `header` makes of the name of what it begins from.
pub fn export(
    mut guest: Guest<'_>,
    folder: &GuestFolder,
    from: &From,
    out: File,
    limit: u64,
    header: impl FnOnce(&str) -> String + Send + 'static,
) -> Result<Exported, WorkspaceError> {
    let command =
        guest::command(guest::EXPORT, &[folder.as_str(), from.word(), "-p", "--binary", "--full-index", "-M"]);
    let (reader, writer) = io::pipe().map_err(WorkspaceError::Pipe)?;
    let writing = std::thread::spawn(move || write_down(reader, out, limit, header));
    let ended = guest.run(&command, &guest::null()?, &writer.as_fd());
    drop(writer);
    let written =
        writing.join().unwrap_or_else(|_| Err(WorkspaceError::Pipe(io::Error::other("the writing broke off"))));
    match (ended, written) {
        // The guest was cut short because nobody read on: here is why.
        (Ok((Outcome::Exited(1..), _)), Err(e @ (WorkspaceError::TooLarge(_) | WorkspaceError::Pipe(_)))) => Err(e),
        (Ok((outcome, words)), written) => {
            guest::judge("make the patch", &outcome, &words)?;
            written
        }
        (Err(_), Err(e @ WorkspaceError::TooLarge(_))) => Err(e),
        (Err(e), _) => Err(e.into()),
    }
}

fn write_down(
    mut reader: PipeReader,
    out: File,
    limit: u64,
    header: impl FnOnce(&str) -> String,
) -> Result<Exported, WorkspaceError> {
    let line = first_line(&mut reader, MAX_LINE).map_err(WorkspaceError::Pipe)?;
    let is_name = line.bytes().all(|b| b.is_ascii_hexdigit());
    let from = if is_name { line } else { String::new() };
    let mut out = BufWriter::with_capacity(1 << 16, out);
    out.write_all(header(&from).as_bytes()).map_err(WorkspaceError::Pipe)?;
    let bytes = io::copy(&mut (&mut reader).take(limit.saturating_add(1)), &mut out).map_err(WorkspaceError::Pipe)?;
    if bytes > limit {
        return Err(WorkspaceError::TooLarge(limit >> 20));
    }
    out.flush().map_err(WorkspaceError::Pipe)?;
    Ok(Exported { from, bytes })
}

/// How many lines a file gained and lost; `None` for one that is not text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Lines gained and lost.
    pub lines: Option<(u64, u64)>,
    /// Its path.
    pub path: Vec<u8>,
}

/// The files that a patch would change.
pub fn summary(mut guest: Guest<'_>, folder: &GuestFolder, from: &From) -> Result<Vec<Summary>, WorkspaceError> {
    let doing = "see what has changed";
    let words = [folder.as_str(), from.word(), "--numstat", "-z", "--no-renames"];
    let command = guest::command(guest::EXPORT, &words);
    let (mut reader, writer) = io::pipe().map_err(WorkspaceError::Pipe)?;
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        first_line(&mut reader, MAX_LINE)?;
        reader.take(MAX_SUMMARY).read_to_end(&mut text).map(|_| text)
    });
    let ended = guest.run(&command, &guest::null()?, &writer.as_fd());
    drop(writer);
    let text = reading.join().unwrap_or_else(|_| Err(io::Error::other("the reading broke off")));
    let (outcome, errors) = ended?;
    guest::judge(doing, &outcome, &errors)?;
    let text = text.map_err(WorkspaceError::Pipe)?;
    super::git::pieces(&text).map(|line| summarized(line).ok_or_else(|| not_understood(doing, line))).collect()
}

fn not_understood(doing: &'static str, line: &[u8]) -> WorkspaceError {
    WorkspaceError::Guest {
        doing,
        said: format!("not understood: {}", super::intake::quoted(&line[..line.len().min(80)])),
    }
}

/// `GAINED⇥LOST⇥PATH`, both `-` where it is no text.
fn summarized(line: &[u8]) -> Option<Summary> {
    let mut fields = line.splitn(3, |b| *b == b'\t');
    let (gained, lost, path) = (fields.next()?, fields.next()?, fields.next()?);
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
    let lines = match (gained, lost) {
        (b"-", b"-") => None,
        _ => Some((number(gained)?, number(lost)?)),
    };
    (!path.is_empty()).then(|| Summary { lines, path: path.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_lines_and_a_path() {
        let summary = |line: &str| summarized(line.as_bytes());
        assert_eq!(summary("3\t0\ta\tb"), Some(Summary { lines: Some((3, 0)), path: b"a\tb".to_vec() }));
        assert_eq!(summary("-\t-\tx"), Some(Summary { lines: None, path: b"x".to_vec() }));
        for bad in ["", "3\t0", "3\t0\t", "-\t1\tx", "x\t1\ty"] {
            assert_eq!(summary(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_patch_that_never_ends_is_given_up_and_a_base_that_is_none_is_not_believed() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let sending = std::thread::spawn(move || {
            writer.write_all(b"\x1b[2J evil\ndiff").expect("written");
        });
        let mut out = tempfile::tempfile().expect("a file");
        let exported = write_down(reader, out.try_clone().expect("cloned"), 4, |from| format!("# from: {from}\n"));
        sending.join().expect("sent");
        assert_eq!(exported.expect("written"), Exported { from: String::new(), bytes: 4 });
        use std::io::Seek;
        out.rewind().expect("rewound");
        let mut text = String::new();
        out.read_to_string(&mut text).expect("read");
        assert_eq!(text, "# from: \ndiff");
    }
}
