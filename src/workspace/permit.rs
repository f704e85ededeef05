//! Which changes a guest's patch may make to a tree of the host's: none outside of it, none to what is git's
//! own, none through a link, and, unless permitted, none that have git run programs.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::git::path;
use super::patch::{Change, PatchError};

/// Modes of files in a tree (git-fast-import(1), `filemodify`).
const MODES: [&str; 3] = ["100644", "100755", LINK];
const LINK: &str = "120000";

/// Folders of which hook managers run what is in them.
const HOOK_FOLDERS: [&[u8]; 2] = [b".husky", b".githooks"];

/// Attributes that name a program of the configuration (gitattributes(5)).
const DRIVERS: [&str; 4] = ["filter", "diff", "merge", "[attr]"];

/// What to hold a patch against.
pub struct Tree<'t> {
    /// The repository's top folder.
    pub top: &'t Path,
    /// Where the repository's hooks are, relative to it, as far as they are in the tree.
    pub hooks: Vec<Vec<u8>>,
    /// Permit what may have git run programs.
    pub allow_git_config: bool,
}

/// Whether `changes` may be made to the tree at `top`, without permission for what has git run programs.
pub fn permitted(top: &Path, changes: &[Change]) -> Result<(), PatchError> {
    Tree { top, hooks: Vec::new(), allow_git_config: false }.check(changes)
}

impl Tree<'_> {
    /// Checks all `changes`.
    pub fn check(&self, changes: &[Change]) -> Result<(), PatchError> {
        let is_link = |c: &&Change| c.mode.as_deref() == Some(LINK);
        let links: BTreeSet<&[u8]> = changes.iter().filter(is_link).filter_map(|c| c.new.as_deref()).collect();
        check_once(changes)?;
        for change in changes {
            for name in change.paths() {
                check_name(name)?;
                self.check_way(name, &links)?;
            }
            check_mode(change)?;
            self.check_moved_link(change)?;
            if !self.allow_git_config {
                self.check_programs(change)?;
            }
        }
        Ok(())
    }

    /// No folder on the way to `name` is a link, now or by this patch.
    fn check_way(&self, name: &[u8], links: &BTreeSet<&[u8]>) -> Result<(), PatchError> {
        let through = |link: &[u8]| PatchError::ThroughLink { path: shown(name), link: shown(link) };
        for (at, _) in name.iter().enumerate().filter(|(_, b)| **b == b'/') {
            let folder = &name[..at];
            let is_link = std::fs::symlink_metadata(self.top.join(path(folder))).is_ok_and(|about| about.is_symlink());
            if is_link || links.contains(folder) {
                return Err(through(folder));
            }
        }
        Ok(())
    }

    /// A link that is moved leads elsewhere.
    fn check_moved_link(&self, change: &Change) -> Result<(), PatchError> {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return Ok(()) };
        match std::fs::read_link(self.top.join(path(old))) {
            Ok(target) if old != new && !leads_inside(new, target.as_os_str().as_bytes()) => {
                Err(PatchError::LinkOut { path: shown(new), target: shown(target.as_os_str().as_bytes()) })
            }
            // No link, or not there: git refuses what is not what the patch says.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn check_programs(&self, change: &Change) -> Result<(), PatchError> {
        for name in change.paths() {
            let in_hooks = self.hooks.iter().any(|hooks| is_at_or_below(name, hooks));
            let managed = name.split(|b| *b == b'/').any(|part| HOOK_FOLDERS.contains(&part));
            let last = name.rsplit(|b| *b == b'/').next().unwrap_or_default();
            if in_hooks || managed || last.eq_ignore_ascii_case(b".gitmodules") {
                return Err(PatchError::RunsPrograms(shown(name)));
            }
            if last.eq_ignore_ascii_case(b".gitattributes") && !is_harmless(change) {
                return Err(PatchError::RunsPrograms(shown(name)));
            }
        }
        Ok(())
    }
}

/// Each path in one change alone, or removed by one and made anew by the next, as git writes it when a file
/// becomes a link: what is checked of one must not be undone by another.
fn check_once(changes: &[Change]) -> Result<(), PatchError> {
    let mut seen: BTreeMap<&[u8], bool> = BTreeMap::new();
    for change in changes {
        let mut paths: Vec<&[u8]> = change.paths().collect();
        paths.dedup();
        for name in paths {
            let was_removed = seen.insert(name, change.new.is_none());
            let is_made = change.old.is_none();
            match was_removed {
                None => {}
                Some(true) if is_made => {}
                Some(_) => return Err(PatchError::Twice(shown(name))),
            }
        }
    }
    Ok(())
}

/// Whether all that is added to a file of attributes can be seen, and names no program.
fn is_harmless(change: &Change) -> bool {
    let moved = change.old.is_some() && change.new.is_some() && change.old != change.new;
    let text = String::from_utf8_lossy(&change.added).to_lowercase();
    change.is_whole && !moved && !DRIVERS.iter().any(|driver| text.contains(driver))
}

fn is_at_or_below(name: &[u8], folder: &[u8]) -> bool {
    name.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A relative path of real names, none of them git's.
fn check_name(name: &[u8]) -> Result<(), PatchError> {
    let is_outside = name.is_empty() || name.len() > 4096 || name.contains(&0);
    let parts = || name.split(|b| *b == b'/');
    if is_outside || parts().any(|part| matches!(part, b"" | b"." | b"..")) {
        return Err(PatchError::Outside(shown(name)));
    }
    if parts().any(is_gits_own) { Err(PatchError::Repository(shown(name))) } else { Ok(()) }
}

/// `.git`, and what some file systems take for it: in other letters, with what HFS+ ignores in it, with blanks,
/// dots or a stream behind it, or by its short name on NTFS (git's own `verify_path`, path.c).
fn is_gits_own(part: &[u8]) -> bool {
    let text = String::from_utf8_lossy(part);
    let seen: String = text.chars().filter(|c| !is_ignored_by_hfs(*c)).flat_map(char::to_lowercase).collect();
    let seen = seen.split(':').next().unwrap_or_default().trim_end_matches([' ', '.']);
    matches!(seen, ".git" | "git~1")
}

fn is_ignored_by_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// A file or a link, and a link leads to somewhere in the tree.
fn check_mode(change: &Change) -> Result<(), PatchError> {
    let (Some(name), Some(mode)) = (&change.new, &change.mode) else { return Ok(()) };
    if !MODES.contains(&mode.as_str()) {
        return Err(PatchError::Mode { path: shown(name), mode: mode.clone() });
    }
    if mode != LINK {
        return Ok(());
    }
    let target = change.added.strip_suffix(b"\n").unwrap_or(&change.added);
    if change.is_whole && leads_inside(name, target) {
        return Ok(());
    }
    Err(PatchError::LinkOut { path: shown(name), target: shown(target) })
}

/// Whether a link called `name` to `target` stays in the tree, and out of git's own folder. `..` behind a name is
/// refused: the name may be a link itself, and up from where that leads is anywhere.
fn leads_inside(name: &[u8], target: &[u8]) -> bool {
    let mut above = name.iter().filter(|b| **b == b'/').count();
    let mut goes_down = false;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"." => {}
            b".." if above == 0 || goes_down => return false,
            b".." => above -= 1,
            // Absolute at the front; nothing in the middle.
            b"" if target.starts_with(b"/") => return false,
            b"" => {}
            part if is_gits_own(part) => return false,
            _ => goes_down = true,
        }
    }
    !target.is_empty() && !target.contains(&b'\n') && !target.contains(&0)
}

fn shown(name: &[u8]) -> String {
    super::intake::quoted(&name[..name.len().min(200)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(name: &str) -> Change {
        Change { new: Some(name.into()), mode: Some("100644".into()), is_whole: true, ..Change::default() }
    }

    fn link(name: &str, target: &str) -> Change {
        Change { mode: Some(LINK.into()), added: format!("{target}\n").into(), ..to(name) }
    }

    fn check(changes: &[Change]) -> Result<(), String> {
        let top = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/etc", top.path().join("etc")).expect("made");
        std::fs::create_dir(top.path().join("real")).expect("made");
        let tree = Tree { top: top.path(), hooks: vec![b"tools/hooks".to_vec()], allow_git_config: false };
        tree.check(changes).map_err(|e| e.to_string())
    }

    #[test]
    fn ordinary_changes_pass() {
        let renamed = Change { old: Some("a".into()), ..to("b") };
        let removed = Change { new: None, mode: None, old: Some("c".into()), ..to("") };
        let attributes = Change { added: b"*.png binary\n* text=auto\n".to_vec(), ..to(".gitattributes") };
        let all = [
            to("real/x"),
            to(".gitignore"),
            to("git/x"),
            to(".github/workflows/x"),
            renamed,
            removed,
            attributes,
            link("a/l", "../b"),
            link("l", "a/b"),
        ];
        assert_eq!(check(&all), Ok(()));
    }

    #[test]
    fn nothing_outside_of_the_tree_nothing_of_gits_nothing_through_links() {
        let outside = ["../x", "a/../../x", "/etc/passwd", "a//b", "./x", "a/.", ""];
        let gits = [
            ".git/hooks/post-checkout",
            ".GIT/config",
            "a/.git/x",
            ".git",
            ".git./x",
            ".git /x",
            "GIT~1/x",
            ".g\u{200c}it/config",
            ".git::$INDEX_ALLOCATION/x",
        ];
        let through = ["etc/passwd", "etc/a/b"];
        for name in outside.iter().chain(&gits).chain(&through) {
            assert!(check(&[to(name)]).is_err(), "{name}");
            assert!(check(&[Change { old: Some((*name).into()), ..to("x") }]).is_err(), "{name}");
        }
        assert!(check(&[link("l", "real"), to("l/x")]).is_err(), "a link of the same patch");
        assert!(check(&[to("l/x"), link("l", "real")]).is_err(), "in any order");
    }

    #[test]
    fn links_stay_inside() {
        for (name, target) in [
            ("l", "/etc"),
            ("l", ".."),
            ("a/l", "../../x"),
            ("l", ".git/hooks"),
            ("l", "a/../.."),
            ("l", "a/../b"),
            ("l", "x\0"),
            ("a/l", "../b/.."),
        ] {
            assert!(check(&[link(name, target)]).is_err(), "{name} to {target}");
        }
        let moved = Change { old: Some("etc".into()), mode: None, ..to("real/etc") };
        assert!(check(&[moved]).is_err(), "a link that is moved");
        assert!(check(&[Change { added: Vec::new(), ..link("l", "") }]).is_err(), "a file that becomes a link");
        assert!(check(&[Change { is_whole: false, ..link("l", "a") }]).is_err(), "a target that was not seen");
        for mode in ["160000", "040000", "100600", "104755"] {
            assert!(check(&[Change { mode: Some(mode.into()), ..to("x") }]).is_err(), "{mode}");
        }
    }

    #[test]
    fn a_path_is_changed_once_or_removed_and_made_anew() {
        let removed = |name: &str| Change { old: Some(name.into()), new: None, mode: None, ..to("") };
        let edited = |name: &str| Change { old: Some(name.into()), ..to(name) };
        assert_eq!(check(&[removed("x"), link("x", "y")]), Ok(()), "a file that becomes a link");
        for twice in [[link("k", "a"), edited("k")], [edited("k"), edited("k")], [to("k"), to("k")]] {
            assert!(check(&twice).is_err(), "{twice:?}");
        }
    }

    #[test]
    fn what_runs_programs_needs_permission() {
        let attributes = |added: &str| Change { added: added.into(), ..to("a/.gitattributes") };
        let refused = [
            to(".gitmodules"),
            to(".husky/pre-commit"),
            to("tools/hooks/pre-push"),
            to("frontend/.husky/pre-commit"),
            attributes("*.c filter=evil\n"),
            attributes("[attr]x diff=y\n"),
            Change { is_whole: false, ..attributes("") },
            Change { old: Some("harmless".into()), ..attributes("") },
        ];
        for change in refused {
            let changes = [change];
            assert!(check(&changes).is_err(), "{changes:?}");
            let tree = Tree { top: Path::new("/nowhere"), hooks: Vec::new(), allow_git_config: true };
            assert!(tree.check(&changes).is_ok(), "{changes:?}");
        }
    }
}
