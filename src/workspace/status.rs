//! What `git status --porcelain=v2 -z` says (git-status(1), "Porcelain Format Version 2").

use super::git::{GitError, pieces};

/// How the command is called.
pub const COMMAND: [&str; 7] = [
    "status",
    "--porcelain=v2",
    "-z",
    "--no-renames",
    "--untracked-files=all",
    "--ignore-submodules=none",
    "--ignored=no",
];

/// What differs from the commit or the index.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Entries of the index that are not those of `HEAD`.
    pub staged: Vec<Staged>,
    /// Files whose content, mode or kind is not the index's.
    pub edited: Vec<Vec<u8>>,
    /// Files of the index that are not there.
    pub deleted: Vec<Vec<u8>>,
    /// Paths of an unfinished merge.
    pub unmerged: Vec<Unmerged>,
    /// Files that the index knows only as to be added (`git add -N`).
    pub intended: Vec<Vec<u8>>,
    /// Files that git neither tracks nor ignores.
    pub untracked: Vec<Vec<u8>>,
    /// Folders that are repositories of their own.
    pub nested: Vec<Vec<u8>>,
}

/// An entry of the index; without an object it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Octal, as git has it.
    pub mode: Vec<u8>,
    /// The object's name.
    pub object: Vec<u8>,
    /// Its path.
    pub path: Vec<u8>,
}

/// A path with up to three stages, each mode and object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmerged {
    /// Stages 1, 2 and 3, where they are there.
    pub stages: Vec<(u8, Vec<u8>, Vec<u8>)>,
    /// Their path.
    pub path: Vec<u8>,
}

/// git's way to say that nothing is there.
pub const NO_MODE: &[u8] = b"000000";

/// Understands an answer.
pub fn parse(answer: &[u8]) -> Result<Status, GitError> {
    let mut status = Status::default();
    for line in pieces(answer) {
        let understood = match line.first() {
            Some(b'1') => status.ordinary(line),
            Some(b'u') => status.unfinished(line),
            Some(b'?') => status.unknown(line),
            Some(b'#' | b'!') => Some(()),
            Some(_) | None => None,
        };
        understood.ok_or_else(|| GitError::answer("status", line))?;
    }
    Ok(status)
}

impl Status {
    /// `1 XY SUB MODE_HEAD MODE_INDEX MODE_HERE OBJECT_HEAD OBJECT_INDEX PATH`.
    fn ordinary(&mut self, line: &[u8]) -> Option<()> {
        let [_, changes, sub, _, mode, here, _, object, path] = fields::<9>(line)?;
        let [index, tree] = <[u8; 2]>::try_from(changes).ok()?;
        let is_intended = index == b'.' && mode == NO_MODE && here != NO_MODE;
        if is_intended {
            self.intended.push(path.to_vec());
            self.edited.push(path.to_vec());
            return Some(());
        }
        if index != b'.' {
            self.staged.push(Staged { mode: mode.to_vec(), object: object.to_vec(), path: path.to_vec() });
        }
        match tree {
            b'.' => {}
            b'D' => self.deleted.push(path.to_vec()),
            // A submodule's own affair.
            _ if sub.first() == Some(&b'S') => {}
            _ => self.edited.push(path.to_vec()),
        }
        Some(())
    }

    /// `u XY SUB MODE_1 MODE_2 MODE_3 MODE_HERE OBJECT_1 OBJECT_2 OBJECT_3 PATH`.
    fn unfinished(&mut self, line: &[u8]) -> Option<()> {
        let [_, _, _, m1, m2, m3, here, o1, o2, o3, path] = fields::<11>(line)?;
        let stages = [(1, m1, o1), (2, m2, o2), (3, m3, o3)];
        let stages = stages.into_iter().filter(|(_, mode, _)| *mode != NO_MODE);
        let stages = stages.map(|(stage, mode, object)| (stage, mode.to_vec(), object.to_vec())).collect();
        self.unmerged.push(Unmerged { stages, path: path.to_vec() });
        let list = if here == NO_MODE { &mut self.deleted } else { &mut self.edited };
        list.push(path.to_vec());
        Some(())
    }

    /// `? PATH`, a folder with `/` at its end.
    fn unknown(&mut self, line: &[u8]) -> Option<()> {
        let path = line.strip_prefix(b"? ")?;
        let list = if path.ends_with(b"/") { &mut self.nested } else { &mut self.untracked };
        list.push(path.to_vec());
        Some(())
    }
}

/// Fields with one blank between them; the last may have blanks itself.
fn fields<const N: usize>(line: &[u8]) -> Option<[&[u8]; N]> {
    let fields: Vec<&[u8]> = line.splitn(N, |b| *b == b' ').collect();
    let fields: [&[u8]; N] = fields.try_into().ok()?;
    fields.last().is_some_and(|last| !last.is_empty()).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const O: &str = "0000000000000000000000000000000000000000";

    #[test]
    fn each_kind_of_line_is_understood() {
        let lines = [
            format!("1 .M N... 100644 100644 100644 {A} {A} edited file"),
            format!("1 .D N... 100644 100644 000000 {A} {A} gone"),
            format!("1 A. N... 000000 100755 100755 {O} {A} new"),
            format!("1 D. N... 100644 000000 000000 {A} {O} removed"),
            format!("1 .A N... 000000 000000 100644 {O} {O} intended"),
            format!("1 .T N... 100644 100644 120000 {A} {A} kind"),
            format!("1 .M SC.. 160000 160000 160000 {A} {A} module"),
            format!("u UU N... 100644 100644 100644 100644 {A} {A} {A} both"),
            format!("u DU N... 100644 000000 100644 000000 {A} {O} {A} one"),
            "? new\nline".to_owned(),
            "? nested/".to_owned(),
            "# branch.oid (initial)".to_owned(),
        ];
        let status = parse(lines.join("\0").as_bytes()).expect("understood");
        let text = |list: &[Vec<u8>]| list.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>();
        assert_eq!(text(&status.edited), ["edited file", "intended", "kind", "both"]);
        assert_eq!(text(&status.deleted), ["gone", "one"]);
        assert_eq!(text(&status.intended), ["intended"]);
        assert_eq!(text(&status.untracked), ["new\nline"]);
        assert_eq!(text(&status.nested), ["nested/"]);
        let staged: Vec<_> = status.staged.iter().map(|s| (s.mode.as_slice(), s.path.as_slice())).collect();
        assert_eq!(staged, [(&b"100755"[..], &b"new"[..]), (b"000000", b"removed")]);
        let stages: Vec<usize> = status.unmerged.iter().map(|u| u.stages.len()).collect();
        assert_eq!(stages, [3, 2]);
    }

    #[test]
    fn what_is_no_status_is_an_error() {
        for line in ["x", "1 .M", "1 .M N... 1 1 1 a a ", "u UU N... 1 1 1 1 a a a", "1 MMM N... 1 1 1 a a p"] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
