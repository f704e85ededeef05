//! Completions for three shells: commands, flags, fixed values, files.
//!
//! Names of VMs, images and kernels are known to the daemon alone: [`Value::Live`] says where they belong.
//!
//! [`Value::Live`]: crate::values::Value::Live

mod bash;
mod fish;
mod zsh;

use std::path::Path;

use banger::cli::{self, Page};

use crate::{Outcome, write_file};

/// What each file says of itself.
const ORIGIN: &str = "written by release/papers from the definitions of the commands";

/// Writes a file for each shell, under the name that its shell looks for.
pub fn write(folder: &Path) -> Outcome {
    let pages = cli::pages();
    write_file(&folder.join("bash/banger"), &bash::script(&pages))?;
    write_file(&folder.join("zsh/_banger"), &zsh::script(&pages))?;
    write_file(&folder.join("fish/banger.fish"), &fish::script(&pages))
}

/// `vm run`.
fn words(page: &Page) -> String {
    page.path.join(" ")
}

/// The words of the page's group, and its own word with its aliases; none for `banger` itself.
fn in_group(page: &Page) -> Option<(String, Vec<&'static str>)> {
    let (own, group) = page.path.split_last()?;
    Some((group.join(" "), [&[*own], page.aliases.as_slice()].concat()))
}

/// One quoted word; both quotings are those of all three shells.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
