//! What of a repository goes into a guest, decided before there is one: every file by name, and the
//! differences between commit, index and files, so that git says the same there as here.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::WorkspaceError;
use super::git::{GitError, path, pieces};
use super::repository::{Repository, below};
use super::status::{self, Staged, Unmerged};
use crate::model::ObjectId;
use crate::model::workspace::Wanted;

/// Patterns, as in `.gitignore`, of what git ignores and a run needs all the same; at the top.
pub const INCLUDE_FILE: &str = ".bangerinclude";

/// Mode of a submodule in an index.
const SUBMODULE: &[u8] = b"160000";

/// Most names in an error.
const SOME: usize = 5;

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// A new branch in the guest.
    pub branch: Option<String>,
    /// The commit that it begins from; `HEAD` where there is none.
    pub from: Option<String>,
    /// Untracked files too.
    pub untracked: bool,
    /// Files and folders that go in whatever git thinks of them.
    pub include: Vec<PathBuf>,
    /// Leave the folders of submodules empty.
    pub no_submodules: bool,
}

/// Where the guest's `HEAD` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// On a branch, `refs/heads/…`.
    Branch(String),
    /// On no branch.
    Detached,
}

/// A file and its mode as git writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// `100644`, `100755`, `120000`.
    pub mode: String,
    /// Its path, below the top.
    pub path: Vec<u8>,
    /// Why it goes in.
    pub why: Why,
}

/// Why a file goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// git tracks it.
    Tracked,
    /// `--include-untracked`.
    Untracked,
    /// `--include` or [`INCLUDE_FILE`].
    Included,
}

/// All that goes in.
#[derive(Debug)]
pub struct Intake {
    /// From where.
    pub repository: Repository,
    /// What was asked for, for the next time.
    pub wanted: Wanted,
    /// The commit that the guest begins from.
    pub base: Option<ObjectId>,
    /// Where its `HEAD` is.
    pub head: Head,
    /// How the index differs from that commit.
    pub staged: Vec<Staged>,
    /// Conflicts.
    pub unmerged: Vec<Unmerged>,
    /// Files that are only meant to be added.
    pub intended: Vec<Vec<u8>>,
    /// Files that are in the index and not here.
    pub deleted: Vec<Vec<u8>>,
    /// Files whose content travels as it is here, for the commit does not have it.
    pub edited: Vec<Vec<u8>>,
    /// Files that git does not know, and is not to ignore.
    pub untracked: Vec<Vec<u8>>,
    /// Files that git ignores.
    pub included: Vec<Vec<u8>>,
    /// Files that a filter of this host's changed, such as git-lfs: their content travels, and git in the
    /// guest takes them for unchanged.
    pub filtered: Vec<Vec<u8>>,
    /// Files that are not here on purpose (sparse checkout).
    pub skipped: Vec<Vec<u8>>,
    /// Files that git was told to take for unchanged.
    pub assumed: Vec<Vec<u8>>,
    /// Folders of submodules, left empty.
    pub submodules: Vec<Vec<u8>>,
    /// Untracked files that stay here.
    pub left_out: usize,
    /// Whether edits stay here, because another commit was asked for.
    pub leaves_edits: bool,
    tracked: Vec<Entry>,
}

/// A file that git tracks.
#[derive(Debug, Clone)]
struct Entry {
    mode: Vec<u8>,
    path: Vec<u8>,
}

impl Intake {
    /// Looks at the repository that `folder` is in.
    pub fn of(folder: &Path, wishes: &Wishes) -> Result<Self, WorkspaceError> {
        let repository = Repository::open(folder)?;
        let base = match &wishes.from {
            Some(from) => Some(repository.commit(from)?),
            None => repository.head.clone(),
        };
        let head = match (&wishes.branch, &repository.branch) {
            (Some(name), _) => Head::Branch(repository.branch_name(name)?),
            (None, Some(branch)) => Head::Branch(branch.clone()),
            (None, None) => Head::Detached,
        };
        if wishes.branch.is_some() && base.is_none() {
            return Err(WorkspaceError::NoCommits);
        }
        let status = status::parse(&repository.git.answer(&status::COMMAND)?)?;
        let mut intake = Self {
            base,
            head,
            staged: Vec::new(),
            unmerged: Vec::new(),
            intended: Vec::new(),
            deleted: Vec::new(),
            edited: Vec::new(),
            untracked: Vec::new(),
            included: Vec::new(),
            filtered: Vec::new(),
            skipped: Vec::new(),
            assumed: Vec::new(),
            submodules: Vec::new(),
            left_out: 0,
            leaves_edits: false,
            tracked: Vec::new(),
            wanted: Wanted {
                branch: wishes.branch.clone(),
                from: wishes.from.clone(),
                untracked: wishes.untracked,
                include: Vec::new(),
                no_submodules: wishes.no_submodules,
            },
            repository,
        };
        if intake.base == intake.repository.head {
            intake.take_index()?;
            intake.take_filtered(&status)?;
            (intake.staged, intake.unmerged) = (status.staged, status.unmerged);
            (intake.intended, intake.deleted, intake.edited) = (status.intended, status.deleted, status.edited);
        } else {
            intake.leaves_edits = !status.staged.is_empty() || !status.edited.is_empty() || !status.deleted.is_empty();
            intake.take_commit()?;
        }
        if !intake.submodules.is_empty() && !wishes.no_submodules {
            let names = intake.submodules.iter().take(SOME).map(|p| String::from_utf8_lossy(p).into_owned()).collect();
            return Err(WorkspaceError::Submodules { top: intake.repository.top().to_owned(), names });
        }
        intake.take_others(status.untracked, wishes)?;
        Ok(intake)
    }

    /// What the index has.
    fn take_index(&mut self) -> Result<(), WorkspaceError> {
        let answer = self.repository.git.answer(&["ls-files", "-z", "-v", "--stage", "--full-name"])?;
        for line in pieces(&answer) {
            let (tag, mode, path) = indexed(line).ok_or_else(|| GitError::answer("ls-files", line))?;
            match tag {
                // A conflict has up to three entries, of which the first is enough to list it.
                _ if self.tracked.last().is_some_and(|last| last.path == path) => continue,
                b'S' | b's' => self.skipped.push(path.to_vec()),
                tag if tag.is_ascii_lowercase() => self.assumed.push(path.to_vec()),
                _ => {}
            }
            if mode == SUBMODULE {
                self.submodules.push(path.to_vec());
            } else if !tag.eq_ignore_ascii_case(&b'S') {
                self.tracked.push(Entry { mode: mode.to_vec(), path: path.to_vec() });
            }
        }
        Ok(())
    }

    /// What a commit has that is not `HEAD`.
    fn take_commit(&mut self) -> Result<(), WorkspaceError> {
        let Some(base) = &self.base else { return Ok(()) };
        let answer = self.repository.git.answer(&["ls-tree", "-r", "-z", "--full-tree", base.as_str()])?;
        for line in pieces(&answer) {
            let (mode, path) = in_tree(line).ok_or_else(|| GitError::answer("ls-tree", line))?;
            if mode == SUBMODULE {
                self.submodules.push(path.to_vec());
            } else {
                self.tracked.push(Entry { mode: mode.to_vec(), path: path.to_vec() });
            }
        }
        Ok(())
    }

    /// Files whose content a filter of this host's makes.
    fn take_filtered(&mut self, status: &status::Status) -> Result<(), WorkspaceError> {
        let filters: BTreeSet<Vec<u8>> = self.repository.filters().iter().map(|f| f.as_bytes().to_vec()).collect();
        if filters.is_empty() || self.tracked.is_empty() {
            return Ok(());
        }
        let mut paths = Vec::new();
        for entry in &self.tracked {
            paths.extend_from_slice(&entry.path);
            paths.push(0);
        }
        let answer = self.repository.git.answer_to(&["check-attr", "--stdin", "-z", "filter"], paths)?;
        let words: Vec<&[u8]> = answer.split(|b| *b == 0).collect();
        let known: BTreeSet<&[u8]> = status.edited.iter().chain(&status.deleted).map(Vec::as_slice).collect();
        for triple in words.chunks_exact(3) {
            if filters.contains(triple[2]) && !known.contains(triple[0]) {
                self.filtered.push(triple[0].to_vec());
            }
        }
        Ok(())
    }

    /// What git does not track.
    fn take_others(&mut self, untracked: Vec<Vec<u8>>, wishes: &Wishes) -> Result<(), WorkspaceError> {
        let untracked: BTreeSet<Vec<u8>> = untracked.into_iter().collect();
        let mut wanted = self.patterns()?;
        for path in &wishes.include {
            let inside = self.inside(path)?;
            wanted.extend(self.included_at(&inside)?);
            self.wanted.include.push(inside.into_os_string().into_vec());
        }
        if wishes.untracked {
            wanted.extend(untracked.iter().cloned());
        }
        self.left_out = untracked.difference(&wanted).count();
        (self.untracked, self.included) = wanted.into_iter().partition(|path| untracked.contains(path));
        Ok(())
    }

    /// What the include file names.
    fn patterns(&self) -> Result<BTreeSet<Vec<u8>>, WorkspaceError> {
        let file = self.repository.top().join(INCLUDE_FILE);
        if !std::fs::symlink_metadata(&file).is_ok_and(|about| about.is_file()) {
            return Ok(BTreeSet::new());
        }
        let from = format!("--exclude-from={INCLUDE_FILE}");
        let answer = self.repository.git.answer(&["ls-files", "-z", "--others", "--ignored", "--full-name", &from])?;
        Ok(files_of(&answer))
    }

    /// Where `wanted`, which is relative to the caller's folder, is below the top.
    fn inside(&self, wanted: &Path) -> Result<PathBuf, WorkspaceError> {
        let top = self.repository.top();
        let outside = || WorkspaceError::Outside { path: wanted.to_owned(), top: top.to_owned() };
        let inside = below(top, wanted).ok_or_else(outside)?;
        match std::fs::symlink_metadata(top.join(&inside)) {
            Ok(_) if inside.as_os_str().is_empty() => Ok(PathBuf::from(".")),
            Ok(_) => Ok(inside),
            Err(_) => Err(WorkspaceError::NothingThere(wanted.to_owned())),
        }
    }

    /// The untracked files at and below `inside`.
    fn included_at(&self, inside: &Path) -> Result<BTreeSet<Vec<u8>>, WorkspaceError> {
        let words = ["--literal-pathspecs", "ls-files", "-z", "--others", "--full-name", "--"];
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).chain([inside.as_os_str()]).collect();
        Ok(files_of(&self.repository.git.answer(&words)?))
    }

    /// Every file that goes in, by path.
    pub fn listing(&self) -> Vec<Listed> {
        let deleted: BTreeSet<&[u8]> = self.deleted.iter().map(Vec::as_slice).collect();
        let changed: BTreeSet<&[u8]> = self.edited.iter().map(Vec::as_slice).collect();
        let tracked = self.tracked.iter().filter(|entry| !deleted.contains(entry.path.as_slice()));
        let tracked = tracked.map(|entry| {
            let here = changed.contains(entry.path.as_slice()).then(|| self.mode_here(&entry.path)).flatten();
            let mode = here.unwrap_or_else(|| String::from_utf8_lossy(&entry.mode).into_owned());
            Listed { mode, path: entry.path.clone(), why: Why::Tracked }
        });
        let other =
            |why: Why| move |path: &Vec<u8>| Some(Listed { mode: self.mode_here(path)?, path: path.clone(), why });
        let untracked = self.untracked.iter().filter_map(other(Why::Untracked));
        let included = self.included.iter().filter_map(other(Why::Included));
        let mut all: Vec<Listed> = tracked.chain(untracked).chain(included).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// How many files git tracks.
    pub fn tracked_count(&self) -> usize {
        self.tracked.len()
    }

    /// Paths of everything that git tracks.
    pub fn tracked(&self) -> impl Iterator<Item = &[u8]> {
        self.tracked.iter().map(|entry| entry.path.as_slice())
    }

    /// Paths of everything whose content travels as it is here.
    pub fn carried(&self) -> Vec<&[u8]> {
        // What git takes for unchanged may be changed.
        let all = [&self.edited, &self.assumed, &self.filtered, &self.untracked, &self.included];
        let mut paths: Vec<&[u8]> = all.into_iter().flatten().map(Vec::as_slice).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    fn mode_here(&self, file: &[u8]) -> Option<String> {
        let about = std::fs::symlink_metadata(self.repository.top().join(path(file))).ok()?;
        let mode = match about.mode() {
            _ if about.is_symlink() => "120000",
            mode if mode & 0o100 != 0 => "100755",
            _ => "100644",
        };
        Some(mode.to_owned())
    }
}

/// `TAG MODE OBJECT STAGE⇥PATH`.
fn indexed(line: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let at = line.iter().position(|b| *b == b'\t')?;
    let mut words = line[..at].split(|b| *b == b' ');
    let (tag, mode) = (words.next()?, words.next()?);
    let path = &line[at + 1..];
    (tag.len() == 1 && !path.is_empty()).then(|| (tag[0], mode, path))
}

/// `MODE TYPE OBJECT⇥PATH`.
fn in_tree(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|b| *b == b'\t')?;
    let mode = line[..at].split(|b| *b == b' ').next()?;
    Some((mode, &line[at + 1..]))
}

/// Files of an answer; folders that are repositories of their own are not.
fn files_of(answer: &[u8]) -> BTreeSet<Vec<u8>> {
    pieces(answer).filter(|path| !path.ends_with(b"/")).map(<[u8]>::to_vec).collect()
}

/// A path as git writes it where it has to be one line (`core.quotePath`, git-config(1)).
pub fn quoted(bytes: &[u8]) -> String {
    let plain = |b: &u8| (0x20..0x7f).contains(b) && !matches!(b, b'"' | b'\\');
    if bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            byte if plain(byte) => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\{byte:03o}")),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_index_and_tree_are_taken_apart() {
        let line = format!("H 100644 {} 0\ta b", "a".repeat(40));
        assert_eq!(indexed(line.as_bytes()), Some((b'H', &b"100644"[..], &b"a b"[..])));
        let line = format!("100755 blob {}\tx\ny", "a".repeat(40));
        assert_eq!(in_tree(line.as_bytes()), Some((&b"100755"[..], &b"x\ny"[..])));
        for bad in ["", "H 100644", "\tx", "HH 1 2 0\tx"] {
            assert_eq!(indexed(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_path_is_one_line_whatever_is_in_it() {
        assert_eq!(quoted(b"a b"), "a b");
        assert_eq!(quoted(b"a\nb\xff\"\\\t"), r#""a\nb\377\"\\\t""#);
        assert_eq!(quoted("ä".as_bytes()), r#""\303\244""#);
    }
}
