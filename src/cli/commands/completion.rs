//! `completion`: prints the script that has a shell ask this binary.

use std::path::Path;

use super::super::render;
use super::super::report::Failure;
use crate::ssh::quote;
use crate::system::completions::Shell;

/// The name that a shell finds this program by.
const PROGRAM: &str = "banger";

/// Prints it.
pub fn completion(shell: Shell) -> Result<(), Failure> {
    render::text(&shell.script(&program()))
}

/// `banger` where that leads here, else the path of what runs: a word that all three shells read alike.
fn program() -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|file| file.is_file());
    let is_own = |file: &Path| file.canonicalize().is_ok_and(|file| file == own);
    if found.is_some_and(|file| is_own(&file)) {
        return PROGRAM.to_owned();
    }
    use std::os::unix::ffi::OsStrExt;
    quote(own.as_os_str().as_bytes()).unwrap_or_else(|| PROGRAM.to_owned())
}
