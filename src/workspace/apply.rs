//! Putting a guest's patch into the repository that it came from: checked here, then by git, then applied to the
//! files alone. No program that the repository or its user configured is run meanwhile.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::error::WorkspaceError;
use super::git::{Git, GitError};
use super::patch::{self, Change, PatchError};
use super::permit::Tree;
use super::repository::Repository;

/// Applies the patch in `file` to the repository at `top`; how many files it changed.
pub fn apply(top: &Path, file: &Path, allow_git_config: bool) -> Result<usize, WorkspaceError> {
    let repository = Repository::open(top)?;
    if !repository.is_at(top) {
        return Err(WorkspaceError::NoRepository(top.to_owned()));
    }
    let changes = read(file)?;
    if changes.is_empty() {
        return Ok(0);
    }
    let hooks = hooks_in_tree(&repository);
    Tree { top: repository.top(), hooks, allow_git_config }.check(&changes)?;
    let git = quiet(&repository);
    let name = file.to_str().ok_or_else(|| WorkspaceError::DoesNotFit("its name is no text".into()))?;
    compare(&git, name, &changes)?;
    for words in [&["apply", "--check", "--", name][..], &["apply", "--", name]] {
        match git.answer(words) {
            Ok(_) => {}
            Err(GitError::Failed { said, .. }) => return Err(WorkspaceError::DoesNotFit(said)),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(changes.len())
}

fn read(file: &Path) -> Result<Vec<Change>, WorkspaceError> {
    let open = |source| WorkspaceError::File { verb: "read", path: file.to_owned(), source };
    Ok(patch::read(BufReader::with_capacity(1 << 16, File::open(file).map_err(open)?))?)
}

/// git without the filters that are configured, which it would run on every file that it writes.
fn quiet(repository: &Repository) -> Git {
    let none = |name: &&str| {
        let name = (*name).to_owned();
        ["clean=", "smudge=", "process=", "required=false"].map(|setting| format!("filter.{name}.{setting}"))
    };
    let settings: Vec<String> = repository.filters().iter().flat_map(none).collect();
    repository.git.bounded().with_settings(settings).with_settings(["apply.whitespace=nowarn".to_owned()])
}

/// Has git read the patch too: it must see the very files that were checked.
fn compare(git: &Git, file: &str, changes: &[Change]) -> Result<(), WorkspaceError> {
    let answer = match git.answer(&["apply", "--numstat", "-z", "--", file]) {
        Err(GitError::Failed { said, .. }) => return Err(WorkspaceError::DoesNotFit(said)),
        other => other?,
    };
    // `GAINED⇥LOST⇥PATH`, in the order of the patch; of a file that is renamed, git-apply names the new path alone.
    let seen: Vec<&[u8]> =
        super::git::pieces(&answer).filter_map(|line| line.splitn(3, |b| *b == b'\t').nth(2)).collect();
    let known: Vec<&[u8]> = changes.iter().filter_map(|c| c.new.as_deref().or(c.old.as_deref())).collect();
    if seen == known { Ok(()) } else { Err(PatchError::Disagreement.into()) }
}

/// Where the repository's hooks are, as far as they are in its tree: by name, and where that leads.
fn hooks_in_tree(repository: &Repository) -> Vec<Vec<u8>> {
    let Some(configured) = repository.hooks_path() else { return Vec::new() };
    let top = repository.top();
    let named = top.join(configured);
    let by_name = lexically(&named).strip_prefix(lexically(top)).ok().map(Path::to_owned);
    let real = named.canonicalize().ok().zip(top.canonicalize().ok());
    let led_to = real.and_then(|(named, top)| named.strip_prefix(top).ok().map(Path::to_owned));
    let inside = by_name.into_iter().chain(led_to).filter(|folder| !folder.as_os_str().is_empty());
    inside.map(|folder| folder.into_os_string().into_vec()).collect()
}

/// Without `.` and `..`, whether it is there or not.
fn lexically(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Made {
        folder: tempfile::TempDir,
        git: Git,
    }

    impl Made {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let git = Git::at(folder.path());
            git.answer(&["init", "-q"]).expect("made");
            for setting in ["user.name", "user.email"] {
                git.answer(&["config", setting, "x@example.org"]).expect("set");
            }
            std::fs::write(folder.path().join("a"), "one\n").expect("written");
            git.answer(&["add", "."]).expect("added");
            git.answer(&["commit", "-qm", "1"]).expect("committed");
            Self { folder, git }
        }

        fn apply(&self, patch: &str) -> Result<usize, String> {
            let elsewhere = tempfile::tempdir().expect("a folder");
            let file = elsewhere.path().join("patch");
            std::fs::write(&file, patch).expect("written");
            apply(self.folder.path(), &file, false).map_err(|e| format!("{e} ({e:?})"))
        }

        fn content(&self, name: &str) -> String {
            std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_else(|e| e.to_string())
        }
    }

    const EDIT: &str = "# banger\n\ndiff --git a/a b/a\nindex 1..2 100644\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-one\n+two\n";
    const NEW: &str =
        "diff --git a/b b/b\nnew file mode 100644\nindex 0..2\n--- /dev/null\n+++ b/b\n@@ -0,0 +1 @@\n+b\n";

    #[test]
    fn what_fits_is_applied_and_what_does_not_changes_nothing() {
        let made = Made::new();
        assert_eq!(made.apply(&format!("{EDIT}{NEW}")), Ok(2));
        assert_eq!((made.content("a").as_str(), made.content("b").as_str()), ("two\n", "b\n"));
        let again = made.apply(EDIT).expect_err("does not fit");
        assert!(again.contains("does not fit"), "{again}");
        assert_eq!(made.apply("# banger\n"), Ok(0));
        let hostile = NEW.replace("b/b b/b", "x").replace("a/b b/b", "a/../e b/../e").replace("+++ b/b", "+++ b/../e");
        assert!(made.apply(&format!("{}{hostile}", EDIT.replace("one", "two").replace("+two", "+3"))).is_err());
        assert_eq!(made.content("a"), "two\n", "nothing of a refused patch is applied");
    }

    #[test]
    fn hooks_in_the_tree_are_not_changed() {
        let made = Made::new();
        made.git.answer(&["config", "core.hooksPath", "tools/../tools/hooks"]).expect("set");
        let hook = NEW.replace("b/b", "b/tools/hooks/pre-commit").replace("a/b", "a/tools/hooks/pre-commit");
        let refused = made.apply(&hook).expect_err("refused");
        assert!(refused.contains("RunsPrograms"), "{refused}");
        assert!(!made.folder.path().join("tools").exists());
    }

    #[test]
    fn a_patch_that_git_would_read_otherwise_is_refused() {
        let made = Made::new();
        std::os::unix::fs::symlink("a", made.folder.path().join("l")).expect("made");
        made.git.answer(&["add", "l"]).expect("added");
        made.git.answer(&["commit", "-qm", "a link"]).expect("committed");
        let link = "diff --git a/n b/n\nnew file mode 120000\nindex 0..1 100644\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n";
        let turned = "diff --git a/l b/l\nindex 0..1\n--- a/l\n+++ b/l\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+/etc/shadow\n\\ No newline at end of file\n";
        let odd = "diff --git a/x \"q/x\" b/x \"q/x\"\nindex 0..1 100644\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";
        let huge =
            "diff --git a/h b/h\nnew file mode 100644\nindex 0..1\nGIT binary patch\nliteral 99999999999\nKcmZ\n\n";
        for patch in [link, turned, odd, huge] {
            assert!(made.apply(patch).is_err(), "{patch}");
        }
        assert_eq!(std::fs::read_link(made.folder.path().join("l")).expect("a link"), Path::new("a"));
        assert!(!made.folder.path().join("n").is_symlink());
    }

    #[test]
    fn no_filter_and_no_hook_is_run() {
        let made = Made::new();
        let trap = made.folder.path().join("trap");
        std::fs::write(&trap, format!("#!/bin/sh\ntouch {}.sprung\ncat\n", trap.display())).expect("written");
        std::fs::set_permissions(&trap, std::fs::Permissions::from_mode(0o755)).expect("set");
        let trap = trap.to_str().expect("text").to_owned();
        made.git.answer(&["config", "filter.trap.smudge", &trap]).expect("set");
        made.git.answer(&["config", "filter.trap.clean", &trap]).expect("set");
        made.git.answer(&["config", "filter.trap.required", "true"]).expect("set");
        made.git.answer(&["config", "core.fsmonitor", &trap]).expect("set");
        std::fs::write(made.folder.path().join(".git/info/attributes"), "* filter=trap\n").expect("written");
        assert_eq!(made.apply(&format!("{EDIT}{NEW}")), Ok(2));
        assert_eq!(made.content("b"), "b\n");
        assert!(!Path::new(&format!("{trap}.sprung")).exists());
    }
}
