//! A repository on the host: where it is, what it is at, and what of its configuration matters in a guest.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::error::WorkspaceError;
use super::git::{Git, GitError};
use super::origin;
use crate::model::{GuestFolder, ObjectId};

/// Where repositories go in a guest: the home of who runs commands there.
const HOME: &str = "/root";

/// Most folders that one is made of.
const MAX_PARTS: usize = 64;

/// The folder of one whose own name is no plain text.
const NAMELESS: &str = "workspace";

/// Settings of the host's that make the guest's git see files the same way.
const SHARED_SETTINGS: [&str; 5] = ["user.name", "user.email", "core.autocrlf", "core.eol", "core.filemode"];

/// A repository with a working tree.
#[derive(Debug)]
pub struct Repository {
    /// git in its top folder.
    pub git: Git,
    /// The folder below it that was named, with `/` at its end; empty for the top.
    pub prefix: Vec<u8>,
    /// What `HEAD` is; `None` before the first commit.
    pub head: Option<ObjectId>,
    /// The branch that `HEAD` is on, `refs/heads/…`; `None` when it is detached.
    pub branch: Option<String>,
    /// `sha1` or `sha256`.
    pub object_format: String,
    config: BTreeMap<String, Setting>,
}

/// A value, and who set it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    value: String,
    /// Whether the user or the host did, and not the repository.
    is_users: bool,
}

impl Repository {
    /// The repository that `path` is in.
    pub fn open(path: &Path) -> Result<Self, WorkspaceError> {
        let about = std::fs::metadata(path).map_err(|e| WorkspaceError::Path { path: path.to_owned(), source: e })?;
        if !about.is_dir() {
            return Err(WorkspaceError::NoFolder(path.to_owned()));
        }
        let here = Git::at(path);
        if !is_in_work_tree(&here, path)? {
            return Err(WorkspaceError::Bare(path.to_owned()));
        }
        let top = line(&here, &["rev-parse", "--show-toplevel"])?;
        let prefix = line(&here, &["rev-parse", "--show-prefix"])?;
        let git = Git::at(Path::new(OsStr::from_bytes(&top)));
        let own = line(&git, &["rev-parse", "--absolute-git-dir"])?;
        if !holds(git.folder(), Path::new(OsStr::from_bytes(&own))) {
            return Err(WorkspaceError::Elsewhere(git.folder().to_owned()));
        }
        let head = git.line(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])?;
        let branch = git.line(&["symbolic-ref", "--quiet", "HEAD"])?;
        let format = line(&git, &["rev-parse", "--show-object-format"])?;
        let config = settings(&git.answer(&["config", "--list", "-z", "--show-scope"])?)?;
        Ok(Self {
            head: head.map(|head| object("rev-parse", &head)).transpose()?,
            branch: branch.map(|branch| text("symbolic-ref", branch)).transpose()?,
            object_format: text("rev-parse", format)?,
            git,
            prefix,
            config,
        })
    }

    /// Its top folder.
    pub fn top(&self) -> &Path {
        self.git.folder()
    }

    /// The same as bytes.
    pub fn source(&self) -> Vec<u8> {
        self.top().as_os_str().to_owned().into_vec()
    }

    /// Where git keeps what belongs to this working tree alone.
    pub fn git_folder(&self) -> Result<PathBuf, WorkspaceError> {
        let found = line(&self.git, &["rev-parse", "--absolute-git-dir"])?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(found)))
    }

    /// All folders that it is made of, wherever they are: its top, where this working tree and where all of them keep
    /// what is git's, and other repositories whose objects it has.
    pub fn parts(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let absolute = |words: &[&str]| -> Result<PathBuf, WorkspaceError> {
            let found = line(&self.git, &[&["rev-parse", "--path-format=absolute"], words].concat())?;
            Ok(PathBuf::from(std::ffi::OsString::from_vec(found)))
        };
        let common = absolute(&["--git-common-dir"])?;
        let mut parts = vec![self.top().to_owned(), self.git_folder()?, common];
        let mut stores = vec![absolute(&["--git-path", "objects"])?];
        // Each may name more; git itself follows five deep.
        while let Some(store) = stores.pop() {
            if parts.len() > MAX_PARTS {
                return Err(WorkspaceError::Elsewhere(store));
            }
            stores.extend(alternates(&store)?);
            let packs = store.join("pack");
            parts.extend(packs.symlink_metadata().is_ok().then_some(packs));
            parts.push(store);
        }
        Ok(parts)
    }

    /// Its folder in a guest.
    pub fn guest_folder(&self) -> Result<GuestFolder, WorkspaceError> {
        let own = self.top().file_name().and_then(OsStr::to_str).unwrap_or(NAMELESS);
        let named = format!("{HOME}/{own}").parse::<GuestFolder>();
        named.or_else(|_| format!("{HOME}/{NAMELESS}").parse()).map_err(WorkspaceError::Folder)
    }

    /// The folder in a guest that is the one that was named.
    pub fn guest_prefix(&self, folder: &GuestFolder) -> Result<GuestFolder, WorkspaceError> {
        let below = String::from_utf8_lossy(&self.prefix);
        let below = below.trim_end_matches('/');
        if below.is_empty() {
            return Ok(folder.clone());
        }
        format!("{folder}/{below}").parse().map_err(WorkspaceError::Folder)
    }

    /// The commit that `text` names.
    pub fn commit(&self, text: &str) -> Result<ObjectId, WorkspaceError> {
        let wanted = format!("{text}^{{commit}}");
        match self.git.line(&["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted]) {
            Ok(Some(found)) => Ok(object("rev-parse", &found)?),
            Ok(None) | Err(GitError::Failed { .. }) => Err(WorkspaceError::NoCommit(text.to_owned())),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether `name` can be a branch.
    pub fn branch_name(&self, name: &str) -> Result<String, WorkspaceError> {
        match self.git.line(&["check-ref-format", "--branch", name]) {
            Ok(Some(found)) if found == name.as_bytes() => Ok(format!("refs/heads/{name}")),
            Ok(_) | Err(GitError::Failed { .. }) => Err(WorkspaceError::BranchName(name.to_owned())),
            Err(e) => Err(e.into()),
        }
    }

    /// Names of content filters that are configured here, such as git-lfs's.
    pub fn filters(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.config.keys().filter_map(|key| filter_of(key)).collect();
        names.dedup();
        names
    }

    /// Where hooks are looked for, when that is configured.
    pub fn hooks_path(&self) -> Option<&str> {
        self.value("core.hookspath")
    }

    /// The user's own file of rules; one that the repository names may be any file of the user's.
    pub fn excludes_file(&self) -> Option<&str> {
        self.config.get("core.excludesfile").filter(|s| s.is_users).map(|s| s.value.as_str())
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(|setting| setting.value.as_str())
    }

    /// Whether `path` is its top folder.
    pub fn is_at(&self, path: &Path) -> bool {
        path.canonicalize().ok().zip(self.top().canonicalize().ok()).is_some_and(|(path, top)| path == top)
    }

    /// What the guest's repository is configured with.
    pub fn guest_config(&self) -> Vec<(String, String)> {
        let shared = SHARED_SETTINGS.iter().filter_map(|key| Some(((*key).to_owned(), self.value(key)?.to_owned())));
        let origin = self.value("remote.origin.url").and_then(origin::without_credentials);
        let origin = origin.into_iter().flat_map(|url| {
            let fetch = "+refs/heads/*:refs/remotes/origin/*".to_owned();
            [("remote.origin.url".to_owned(), url), ("remote.origin.fetch".to_owned(), fetch)]
        });
        shared.chain(origin).collect()
    }
}

/// The object stores that `store` names (gitrepository-layout(5), `info/alternates`).
fn alternates(store: &Path) -> Result<Vec<PathBuf>, WorkspaceError> {
    let list = store.join("info/alternates");
    match std::fs::read(&list) {
        Ok(text) => {
            Ok(text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| store.join(super::git::path(l))).collect())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(WorkspaceError::Path { path: list, source: e }),
    }
}

/// What `HEAD` is in the repository whose top folder this is; nothing more is looked at.
pub fn head_at(top: &Path) -> Result<Option<ObjectId>, WorkspaceError> {
    let head = Git::at(top).line(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])?;
    Ok(head.map(|head| object("rev-parse", &head)).transpose()?)
}

/// Fails where there is no repository at all.
fn is_in_work_tree(git: &Git, path: &Path) -> Result<bool, WorkspaceError> {
    match git.line(&["rev-parse", "--is-inside-work-tree"]) {
        Ok(answer) => Ok(answer.as_deref() == Some(b"true")),
        Err(GitError::Failed { said, .. }) if said.starts_with("not a git repository") => {
            Err(WorkspaceError::NoRepository(path.to_owned()))
        }
        Err(e) => Err(e.into()),
    }
}

fn line(git: &Git, words: &[&str]) -> Result<Vec<u8>, GitError> {
    git.line(words)?.ok_or_else(|| GitError::answer(words[0], b""))
}

fn text(what: &str, bytes: Vec<u8>) -> Result<String, GitError> {
    String::from_utf8(bytes).map_err(|e| GitError::answer(what, e.as_bytes()))
}

/// The object that `bytes` name.
pub fn object(what: &str, bytes: &[u8]) -> Result<ObjectId, GitError> {
    let text = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| GitError::answer(what, bytes))
}

/// Whether the folder at `top` holds the repository in `own` itself, or a file that leads to it, as of a worktree: by
/// `core.worktree` a repository can claim any folder of its user's.
fn holds(top: &Path, own: &Path) -> bool {
    let inside = top.join(".git");
    match std::fs::metadata(&inside) {
        Ok(about) if about.is_dir() => {
            inside.canonicalize().ok().is_some_and(|dir| own.canonicalize().is_ok_and(|own| own == dir))
        }
        Ok(about) => about.is_file(),
        Err(_) => false,
    }
}

/// What `git config --list -z --show-scope` says: the last of each key counts, but those of banger's own command
/// lines; a value that is no text is left out, a filter's name that is none is refused.
fn settings(answer: &[u8]) -> Result<BTreeMap<String, Setting>, GitError> {
    let mut found = BTreeMap::new();
    let words: Vec<&[u8]> = answer.split(|b| *b == 0).collect();
    for pair in words.chunks_exact(2).filter(|pair| pair[0] != b"command") {
        let Ok(text) = std::str::from_utf8(pair[1]) else {
            if pair[1].starts_with(b"filter.") {
                return Err(GitError::answer("config", pair[1]));
            }
            continue;
        };
        // A key without a value is `true` (git-config(1)).
        let (key, value) = text.split_once('\n').unwrap_or((text, "true"));
        let is_users = matches!(pair[0], b"global" | b"system");
        found.insert(key.to_owned(), Setting { value: value.to_owned(), is_users });
    }
    Ok(found)
}

/// The filter that a key configures.
fn filter_of(key: &str) -> Option<&str> {
    let (name, what) = key.strip_prefix("filter.")?.rsplit_once('.')?;
    matches!(what, "clean" | "smudge" | "process").then_some(name)
}

/// A path relative to `top`, for one that need not be there; `None` when it lies outside.
pub fn below(top: &Path, path: &Path) -> Option<PathBuf> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The last part is not followed: a link is itself what is named.
    let whole = match path.file_name() {
        Some(name) => parent.canonicalize().ok()?.join(name),
        None => path.canonicalize().ok()?,
    };
    whole.strip_prefix(top.canonicalize().ok()?).ok().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_settings_are_read_from_the_list() {
        let list = b"system\0user.name\nA B\0global\0filter.lfs.clean\nx\0local\0filter.lfs.process\ny\0local\0filter.a.b.smudge\nz\0local\0core.bare\0local\0user.name\nC\nD\0command\0user.name\nE\0";
        let config = settings(list).expect("understood");
        assert_eq!(config["user.name"], Setting { value: "C\nD".into(), is_users: false });
        assert_eq!(config["core.bare"].value, "true");
        assert!(settings(b"local\0filter.\xff.clean\nx\0").is_err());
        let mut names: Vec<&str> = config.keys().filter_map(|k| filter_of(k)).collect();
        names.dedup();
        assert_eq!(names, ["a.b", "lfs"]);
    }

    #[test]
    fn a_path_is_below_its_repository_or_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path().join("r");
        std::fs::create_dir_all(top.join("a")).expect("made");
        std::os::unix::fs::symlink("/etc", top.join("l")).expect("made");
        assert_eq!(below(&top, &top.join("a/x")), Some("a/x".into()));
        assert_eq!(below(&top, &top.join("l")), Some("l".into()));
        assert_eq!(below(&top, &top.join("a/../b")), Some("b".into()));
        assert_eq!(below(&top, &top.join("l/passwd")), None);
        assert_eq!(below(&top, &top.join("../x")), None);
    }
}
