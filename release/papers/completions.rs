//! The scripts of completion, which ask the binary: `banger completion` prints the same.

use std::path::Path;

use banger::system::completions::Shell;

use crate::{Outcome, write_file};

/// Writes a file for each shell, under the name that its shell looks for.
pub fn write(folder: &Path) -> Outcome {
    let each = |shell: Shell| {
        let file = folder.join(shell.as_str()).join(shell.file());
        write_file(&file, &shell.script("banger"))
    };
    Shell::ALL.into_iter().try_for_each(each)
}
