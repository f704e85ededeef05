//! The host's `git`, asked about a repository: no hook and no file system monitor of it is run. Its content filters
//! are, as by every `git status`; not while a patch is applied.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Most bytes of an answer: the list of a million paths.
const MAX_ANSWER: u64 = 512 << 20;

/// Most bytes that are kept of what git says went wrong.
const MAX_WORDS: u64 = 16 << 10;

/// Most bytes of memory of a git that reads what a guest wrote, and of a file that it writes.
const MAX_MEMORY: u64 = 6 << 30;
const MAX_FILE: u64 = 2 << 30;

/// Where git was told to look by whoever runs banger, a hook of another repository perhaps
/// (`git rev-parse --local-env-vars`), and what would have it run programs.
const FOREIGN: [&str; 18] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_LITERAL_PATHSPECS",
    "GIT_GLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
    "GIT_EXTERNAL_DIFF",
];

/// Why the host's git did not answer.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It is not there.
    #[error("git is not installed on this host")]
    Missing,
    /// It could not be run or heard.
    #[error("cannot run git {what}")]
    Run {
        /// The subcommand.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("git {what} failed: {said}")]
    Failed {
        /// The subcommand.
        what: String,
        /// Its exit code; `None` after a signal.
        code: Option<i32>,
        /// Its words.
        said: String,
    },
    /// What it answered makes no sense.
    #[error("git {what} answered something that cannot be understood: {found:?}")]
    Answer {
        /// The subcommand.
        what: String,
        /// The beginning of it.
        found: String,
    },
    /// It answered too much.
    #[error("git {what} answered more than {max} MiB", max = MAX_ANSWER >> 20)]
    TooLong {
        /// The subcommand.
        what: String,
    },
}

impl GitError {
    /// An answer that makes no sense.
    pub fn answer(what: &str, found: &[u8]) -> Self {
        let found = String::from_utf8_lossy(&found[..found.len().min(120)]).into_owned();
        Self::Answer { what: what.to_owned(), found }
    }
}

/// git in one folder.
#[derive(Debug, Clone)]
pub struct Git {
    folder: PathBuf,
    settings: Vec<String>,
    is_bounded: bool,
}

impl Git {
    /// git as run in `folder`.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), settings: Vec::new(), is_bounded: false }
    }

    /// The same with `settings`, each `KEY=VALUE`, before all that is configured.
    pub fn with_settings(&self, settings: impl IntoIterator<Item = String>) -> Self {
        let mut git = self.clone();
        git.settings.extend(settings);
        git
    }

    /// The same with as much memory and as large files as a patch may need, in a process group of its own: what
    /// ends this process must not end it half-way.
    pub fn bounded(&self) -> Self {
        Self { is_bounded: true, ..self.clone() }
    }

    /// Where it runs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process for `words`, not started.
    pub fn command<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&self.folder);
        for name in FOREIGN {
            command.env_remove(name);
        }
        // Reading only: no lock is taken, so a git of the user's own is never in the way (git(1)).
        command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        // Objects travel under their own names, with their own content.
        command.env("GIT_NO_REPLACE_OBJECTS", "1");
        // A partial clone's missing ones would be fetched by programs that its own configuration names.
        command.env("GIT_NO_LAZY_FETCH", "1");
        for setting in ["core.fsmonitor=false", "core.hooksPath=/dev/null", "core.quotePath=true"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.args(words);
        command
    }

    /// What `git WORDS` answers.
    pub fn answer<W: AsRef<OsStr>>(&self, words: &[W]) -> Result<Vec<u8>, GitError> {
        self.answer_to(words, Vec::new())
    }

    /// What `git WORDS` answers to `input`.
    pub fn answer_to<W: AsRef<OsStr>>(&self, words: &[W], input: Vec<u8>) -> Result<Vec<u8>, GitError> {
        let output = self.output(words, input)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(failure(words, output.status.code(), &output.stderr))
    }

    /// One line of an answer; `None` where git says no, with exit code 1 and no words or fewer.
    pub fn line(&self, words: &[&str]) -> Result<Option<Vec<u8>>, GitError> {
        let output = self.output(words, Vec::new())?;
        match output.status.code() {
            Some(0) => {
                let mut line = output.stdout;
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                Ok(Some(line))
            }
            Some(1) => Ok(None),
            code => Err(failure(words, code, &output.stderr)),
        }
    }

    /// Runs `git WORDS` and says all that it said.
    pub fn output<W: AsRef<OsStr>>(&self, words: &[W], input: Vec<u8>) -> Result<Output, GitError> {
        let what = name_of(words);
        let run = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound if self.folder.is_dir() => GitError::Missing,
            _ => GitError::Run { what: what.clone(), source },
        };
        let mut command = self.command(words);
        let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        if self.is_bounded {
            command.process_group(0);
        }
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(run)?;
        if self.is_bounded {
            limit(&child).map_err(run)?;
        }
        let output = converse(&mut child, input);
        if output.is_err() {
            // It may wait for somebody to read on.
            let _ = child.kill();
        }
        let status = child.wait().map_err(run)?;
        let (stdout, stderr) = output.map_err(run)?;
        if stdout.len() as u64 > MAX_ANSWER {
            return Err(GitError::TooLong { what });
        }
        Ok(Output { status, stdout, stderr })
    }
}

/// Limits what `child` can take of this host.
fn limit(child: &Child) -> io::Result<()> {
    for (resource, most) in [(Resource::As, MAX_MEMORY), (Resource::Fsize, MAX_FILE)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        match prlimit(Some(Pid::from_child(child)), resource, limit) {
            // It has done already what it had to do.
            Ok(_) | Err(Errno::SRCH) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Feeds `child` and hears it out.
fn converse(child: &mut Child, input: Vec<u8>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feeding = stdin.map(|mut stdin| std::thread::spawn(move || stdin.write_all(&input)));
    let hearing = stderr.map(|stderr| std::thread::spawn(move || words_of(stderr)));
    let mut answer = Vec::new();
    if let Some(stdout) = stdout {
        stdout.take(MAX_ANSWER + 1).read_to_end(&mut answer)?;
    }
    if let Some(feeding) = feeding {
        // Who stops reading has said why.
        let _ = feeding.join();
    }
    let words = hearing.and_then(|hearing| hearing.join().ok()).unwrap_or_default();
    Ok((answer, words))
}

/// The beginning of what is said; the rest is read, or its writer would wait.
pub fn words_of(mut stderr: impl Read) -> Vec<u8> {
    let mut words = Vec::new();
    // What cannot be heard is not missed: the exit code says that something went wrong.
    let _ = stderr.by_ref().take(MAX_WORDS).read_to_end(&mut words);
    let _ = io::copy(&mut stderr, &mut io::sink());
    words
}

/// The failure that `words` ended with.
pub fn failure<W: AsRef<OsStr>>(words: &[W], code: Option<i32>, said: &[u8]) -> GitError {
    let said = String::from_utf8_lossy(said);
    let said = said.lines().map(|l| l.trim_start_matches("fatal: ").trim_start_matches("error: "));
    let said = said.filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    GitError::Failed { what: name_of(words), code, said }
}

fn name_of<W: AsRef<OsStr>>(words: &[W]) -> String {
    words.first().map(|w| w.as_ref().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The pieces of `answer` that end with NUL.
pub fn pieces(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    answer.split(|b| *b == 0).filter(|piece| !piece.is_empty())
}

/// Bytes as a path.
pub fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_says_why_it_failed_and_a_no_is_no_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let git = Git::at(folder.path());
        let error = git.answer(&["rev-parse", "--show-toplevel"]).expect_err("no repository");
        assert!(error.to_string().contains("not a git repository"), "{error}");
        git.answer(&["init", "-q"]).expect("made");
        assert_eq!(git.line(&["config", "--get", "no.such"]).expect("answers"), None);
        assert_eq!(git.line(&["config", "--get", "core.bare"]).expect("answers"), Some(b"false".to_vec()));
    }

    #[test]
    fn a_caller_that_is_a_hook_does_not_lead_git_elsewhere() {
        let command = Git::at(Path::new("/")).command(["status"]);
        let removed = |name: &str| command.get_envs().any(|(n, v)| n == name && v.is_none());
        assert!(removed("GIT_DIR") && removed("GIT_INDEX_FILE"));
    }
}
