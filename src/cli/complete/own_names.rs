//! Links to this program that are commands of their own: `banger-ps`, or the name of an alias.

use std::path::Path;

use super::super::args::{self, Aliases};
use super::is_plain;

/// Most files of a folder of `PATH` that are looked at.
const MOST_FILES: usize = 1 << 16;

/// What begins the name of a link that says its command.
const PREFIX: &str = "banger-";

/// Their names, those in `PATH`.
pub fn all(aliases: &Aliases) -> Vec<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Ok(own) = std::env::current_exe() else { return Vec::new() };
    let mut found: Vec<String> =
        std::env::split_paths(&path).flat_map(|folder| below(&folder, &own, aliases)).collect();
    found.sort();
    found.dedup();
    found
}

fn below(folder: &Path, own: &Path, aliases: &Aliases) -> Vec<String> {
    let top = args::table();
    let listed = std::fs::read_dir(folder).into_iter().flatten().take(MOST_FILES).flatten();
    let names = listed.filter_map(|entry| entry.file_name().into_string().ok());
    let is_command = |name: &String| {
        let is_said = name.starts_with(PREFIX) && !args::words_of_name(name, &top).is_empty();
        (is_said || aliases.contains_key(name.as_str())) && is_plain(name)
    };
    let leads_here = |name: &String| folder.join(name).canonicalize().is_ok_and(|file| file == own);
    names.filter(is_command).filter(leads_here).collect()
}
