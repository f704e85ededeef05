//! What the host's git ignores in a repository beside what its own `.gitignore` files say: rules of this clone
//! (`info/exclude`) and of its user (gitignore(5)). The guest gets them too, or it would call untracked
//! what is not.

use std::path::PathBuf;

use super::git::path;
use super::repository::Repository;
use crate::os::files::read_limited;

/// Most bytes of a file of rules; a longer one is left out.
const LIMIT: u64 = 64 << 10;

/// All rules, the user's first: later ones win.
pub fn rules(repository: &Repository) -> Vec<u8> {
    let mut rules = Vec::new();
    for file in [of_user(repository), of_clone(repository)].into_iter().flatten() {
        // One that is not there, or is no file of rules, ignores nothing.
        if let Ok(text) = read_limited(&file, LIMIT) {
            rules.extend(text);
            rules.push(b'\n');
        }
    }
    rules
}

fn of_clone(repository: &Repository) -> Option<PathBuf> {
    let found = repository.git.line(&["rev-parse", "--git-path", "info/exclude"]).ok()??;
    let file = repository.top().join(path(&found));
    // A link in a repository of somebody else's may lead to any file.
    file.symlink_metadata().is_ok_and(|about| about.is_file()).then_some(file)
}

fn of_user(repository: &Repository) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    if let Some(named) = repository.excludes_file() {
        return match named.strip_prefix("~/") {
            Some(below) => home.map(|home| home.join(below)),
            None => Some(repository.top().join(named)),
        };
    }
    let home = || home.map(|home| home.join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|c| !c.is_empty()).map(PathBuf::from).or_else(home)?;
    Some(config.join("git/ignore"))
}
