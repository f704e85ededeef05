//! A commit with all that belongs to it as one pack, straight from the host's git into the guest's: nothing
//! is written on the host. What the guest has already is left out. `pack-objects` would make a smaller one, but
//! without its index, and `index-pack` in an emulated guest takes longer than all the rest.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, BufWriter, PipeWriter, Read, Write};
use std::process::Stdio;

use super::error::WorkspaceError;
use super::git::{Git, GitError, failure, words_of};
use super::intake::Intake;
use super::pack::{Kind, PackWriter};
use super::status::NO_MODE;
use crate::model::ObjectId;

/// How the host's git is asked for objects.
const BATCH: [&str; 3] = ["cat-file", "--batch", "--buffer"];

/// Bytes that are read from git and written into the way at once.
const PORTION: usize = 256 << 10;

/// Most bytes of the line before an object.
const MAX_LINE: u64 = 200;

/// What is to travel.
#[derive(Debug, PartialEq, Eq)]
pub struct History {
    /// Names of the objects, a line each.
    pub objects: Vec<u8>,
    /// Whether the commit's parents stay behind.
    pub is_shallow: bool,
}

impl History {
    /// What a guest needs for `intake` that has the commit `old` with all that belongs to it.
    pub fn of(intake: &Intake, old: Option<&ObjectId>) -> Result<Self, WorkspaceError> {
        let git = &intake.repository.git;
        let old = old.filter(|old| has(git, old));
        let (mut objects, is_shallow) = match &intake.base {
            Some(base) => commit(git, base, old)?,
            None => (Vec::new(), false),
        };
        let mut known: HashSet<&[u8]> = HashSet::new();
        for object in staged(intake) {
            if known.insert(object) {
                objects.extend_from_slice(object);
                objects.push(b'\n');
            }
        }
        Ok(Self { objects, is_shallow })
    }

    /// A name for the pack that says what is in it.
    pub fn name(&self) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &self.objects);
        format!("pack-{}", hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// Writes the pack; its index.
    pub fn send(self, git: Git, out: PipeWriter) -> Result<Vec<u8>, WorkspaceError> {
        let run = |source| GitError::Run { what: BATCH[0].to_owned(), source };
        let mut command = git.command(BATCH);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(run)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let names = self.objects.clone();
        let feeding = stdin.map(|mut stdin| std::thread::spawn(move || stdin.write_all(&names)));
        let hearing = stderr.map(|stderr| std::thread::spawn(move || words_of(stderr)));
        let packed = match stdout {
            Some(stdout) => pack(BufReader::with_capacity(PORTION, stdout), &self.objects, out),
            None => Err(WorkspaceError::Pipe(io::ErrorKind::BrokenPipe.into())),
        };
        if packed.is_err() {
            // It may wait for somebody to read on.
            let _ = child.kill();
        }
        let status = child.wait().map_err(run)?;
        if let Some(feeding) = feeding {
            // Its end says more than who wrote to it.
            let _ = feeding.join();
        }
        let words = hearing.and_then(|hearing| hearing.join().ok()).unwrap_or_default();
        match status.code() {
            Some(0) | None => packed,
            code => Err(failure(&BATCH, code, &words).into()),
        }
    }
}

/// Packs what git says of each of `objects`.
fn pack(mut answers: impl BufRead, objects: &[u8], out: PipeWriter) -> Result<Vec<u8>, WorkspaceError> {
    let names: Vec<&[u8]> = objects.split(|b| *b == b'\n').filter(|name| !name.is_empty()).collect();
    let id_bytes = names.first().map_or(40, |name| name.len()) / 2;
    let count = u32::try_from(names.len()).map_err(|_| GitError::answer("rev-list", b"too many objects"))?;
    let out = BufWriter::with_capacity(PORTION, out);
    let mut writer = PackWriter::new(out, id_bytes, count).map_err(WorkspaceError::Pipe)?;
    for name in names {
        let (kind, size) = announced(&mut answers, name)?;
        let id = bytes_of(name).ok_or_else(|| GitError::answer("rev-list", name))?;
        writer.add(id, kind, size, &mut (&mut answers).take(size)).map_err(WorkspaceError::Pipe)?;
        let mut end = [0];
        answers.read_exact(&mut end).map_err(WorkspaceError::Pipe)?;
    }
    writer.finish().map_err(WorkspaceError::Pipe)
}

/// `NAME TYPE SIZE`, the line before an object's content (git-cat-file(1), "Batch Output").
fn announced(answers: &mut impl BufRead, name: &[u8]) -> Result<(Kind, u64), WorkspaceError> {
    let mut line = Vec::new();
    answers.take(MAX_LINE).read_until(b'\n', &mut line).map_err(WorkspaceError::Pipe)?;
    let words: Vec<&[u8]> = line.trim_ascii_end().split(|b| *b == b' ').collect();
    let understood = match words.as_slice() {
        [found, kind, size] if *found == name => {
            Kind::of(kind).zip(std::str::from_utf8(size).ok().and_then(|size| size.parse().ok()))
        }
        _ => None,
    };
    Ok(understood.ok_or_else(|| GitError::answer("cat-file", &line))?)
}

fn bytes_of(name: &[u8]) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    name.chunks(2).map(pair).collect()
}

/// Whether the host has this commit.
fn has(git: &Git, commit: &ObjectId) -> bool {
    git.answer(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).is_ok()
}

/// The names of the objects of `base`, without those of `old`; whether its parents stay behind.
fn commit(git: &Git, base: &ObjectId, old: Option<&ObjectId>) -> Result<(Vec<u8>, bool), WorkspaceError> {
    if old == Some(base) {
        return Ok((Vec::new(), false));
    }
    let since = old.map(|old| commits_since(git, base, old)).transpose()?.flatten();
    let is_shallow = since.is_none() && has_parents(git, base)?;
    let wanted = objects(git, &since.unwrap_or_else(|| format!("{base}\n")))?;
    let Some(old) = old else { return Ok((wanted, is_shallow)) };
    // Not by way of its history: the guest has this one commit, and perhaps nothing of what came before.
    let had = objects(git, &format!("{old}\n"))?;
    let had: HashSet<&[u8]> = had.split(|b| *b == b'\n').collect();
    let missing = wanted.split_inclusive(|b| *b == b'\n').filter(|line| !had.contains(line.trim_ascii_end()));
    Ok((missing.flatten().copied().collect(), is_shallow))
}

/// The names of `commits`, a line each, and of all that belongs to each of them.
fn objects(git: &Git, commits: &str) -> Result<Vec<u8>, GitError> {
    let words = ["rev-list", "--objects", "--no-object-names", "--no-walk=unsorted", "--stdin"];
    git.answer_to(&words, commits.as_bytes().to_vec())
}

/// What the commit itself says: the host's own repository may be shallow, and then `rev-list` knows of none.
fn has_parents(git: &Git, commit: &ObjectId) -> Result<bool, GitError> {
    let text = git.answer(&["cat-file", "commit", commit.as_str()])?;
    Ok(text.split(|b| *b == b'\n').take_while(|line| !line.is_empty()).any(|line| line.starts_with(b"parent ")))
}

/// The commits that lead from `old` to `base`, a line each, where one follows the other, so that none has a parent
/// that the guest lacks.
fn commits_since(git: &Git, base: &ObjectId, old: &ObjectId) -> Result<Option<String>, GitError> {
    let since = format!("{old}..{base}");
    let answer = git.answer(&["rev-list", "--reverse", "--topo-order", "--parents", &since])?;
    let (mut commits, mut last) = (String::new(), old.as_str().to_owned());
    for line in String::from_utf8_lossy(&answer).lines() {
        match line.split_once(' ') {
            Some((commit, parent)) if parent == last => {
                commits.push_str(&format!("{commit}\n"));
                last = commit.to_owned();
            }
            _ => return Ok(None),
        }
    }
    Ok((last == base.as_str()).then_some(commits))
}

fn staged(intake: &Intake) -> impl Iterator<Item = &[u8]> {
    let staged = intake.staged.iter().filter(|s| s.mode != NO_MODE && s.mode != b"160000").map(|s| s.object.as_slice());
    let unmerged = intake.unmerged.iter().flat_map(|u| &u.stages);
    staged.chain(unmerged.filter(|(_, mode, _)| mode != b"160000").map(|(_, _, object)| object.as_slice()))
}
