//! A commit with all that belongs to it as one pack, straight from the host's git into the guest's: nothing
//! is written on the host. What the guest has already is left out.

use std::collections::HashSet;
use std::io::{self, PipeWriter, Write};
use std::process::Stdio;

use super::error::WorkspaceError;
use super::git::{Git, GitError, failure, words_of};
use super::intake::Intake;
use super::status::NO_MODE;
use crate::model::ObjectId;
use crate::shell::Command;

/// How objects are packed: deltas that are there are used, none are looked for, and what has to be
/// compressed is so quickly. The way into a guest is short; a guest's time is dear.
const PACK: [&str; 6] = ["pack-objects", "--stdout", "-q", "--window=0", "--delta-base-offset", "--compression=1"];

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

    /// Writes the pack.
    pub fn send(self, git: Git, out: PipeWriter) -> Result<(), WorkspaceError> {
        let run = |source| GitError::Run { what: PACK[0].to_owned(), source };
        let mut command = git.command(PACK);
        let mut child = command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).spawn().map_err(run)?;
        // It holds the writing end, which has to close with the child.
        drop(command);
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let feeding = stdin.map(|mut stdin| std::thread::spawn(move || stdin.write_all(&self.objects)));
        let words = stderr.map(words_of).unwrap_or_default();
        let status = child.wait().map_err(run)?;
        if let Some(feeding) = feeding {
            // Its end says more than who wrote to it.
            let _ = feeding.join();
        }
        match status.code() {
            Some(0) => Ok(()),
            // Nobody read on: who did not says why.
            None => Err(WorkspaceError::Pipe(io::ErrorKind::BrokenPipe.into())),
            code => Err(failure(&PACK, code, &words).into()),
        }
    }

    /// Takes the pack in, in the guest.
    pub fn receive(folder: &str) -> Command {
        Command::new(["git", "-C", folder, "index-pack", "--stdin"])
    }
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

fn has_parents(git: &Git, commit: &ObjectId) -> Result<bool, GitError> {
    Ok(git.answer(&["rev-list", "--parents", "--max-count=1", commit.as_str()])?.contains(&b' '))
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
