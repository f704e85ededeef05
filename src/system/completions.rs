//! The scripts that have a shell ask this binary what fits (`banger-complete`), and where a shell looks for them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A shell that can be told what to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// bash, with bash-completion or without.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// In a script, the place of the program that is asked.
const PROGRAM: &str = "@BANGER@";

impl Shell {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bash, Self::Zsh, Self::Fish];

    /// Its program's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }

    /// The script, which asks `program`: a word of the shell.
    pub fn script(self, program: &str) -> String {
        let text = match self {
            Self::Bash => include_str!("completions/banger.bash"),
            Self::Zsh => include_str!("completions/_banger"),
            Self::Fish => include_str!("completions/banger.fish"),
        };
        text.replace(PROGRAM, program)
    }

    /// What the script's file is called, so that the shell finds it.
    pub fn file(self) -> &'static str {
        match self {
            Self::Bash => "banger",
            Self::Zsh => "_banger",
            Self::Fish => "banger.fish",
        }
    }

    /// Where it looks for files that an administrator has put there: bash-completion by its defaults, zsh by its
    /// `fpath`; fish looks into /usr/local only where `XDG_DATA_DIRS` has it, which a login over ssh does not.
    pub fn folder(self) -> PathBuf {
        match self {
            Self::Bash => "/usr/local/share/bash-completion/completions",
            Self::Zsh => "/usr/local/share/zsh/site-functions",
            Self::Fish => "/etc/fish/completions",
        }
        .into()
    }

    /// That folder behind those above it that not every host has.
    pub fn folders(self) -> Vec<PathBuf> {
        let is_everywhere =
            |folder: &Path| ["/", "/etc", "/usr", "/usr/local"].iter().any(|known| folder == Path::new(known));
        let folder = self.folder();
        let mut all: Vec<PathBuf> =
            folder.ancestors().filter(|above| !is_everywhere(above)).map(Path::to_owned).collect();
        all.reverse();
        all
    }
}

impl FromStr for Shell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|shell| shell.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is none of bash, zsh and fish"))
    }
}

impl fmt::Display for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_asks_the_program_that_it_is_given() {
        for shell in Shell::ALL {
            let script = shell.script("'/a b/banger'");
            assert!(
                script.contains("command '/a b/banger' --as banger-complete") && !script.contains(PROGRAM),
                "{shell}"
            );
            assert_eq!(shell.as_str().parse(), Ok(shell));
        }
        assert!("csh".parse::<Shell>().is_err());
    }
}
