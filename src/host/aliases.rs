//! `[aliases]` of `config.toml`: names of the user's own for commands of banger.

use std::fmt;

use serde::Deserialize;

use crate::model::words::Words;

/// Longest name, in characters.
const LONGEST_NAME: usize = 64;

/// What an alias is called: a word, and a file's name for whoever makes a link of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct AliasName(String);

impl AliasName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// A map of aliases is asked with the word that was typed.
impl std::borrow::Borrow<str> for AliasName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AliasName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        match begins && name.len() <= LONGEST_NAME && name.chars().all(is_plain) {
            true => Ok(Self(name)),
            false => Err(format!(
                "{name:?} is no name for an alias: letters, digits, - and _, at most {LONGEST_NAME}, and no - or _ in front"
            )),
        }
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The words that an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Alias {
    text: String,
    words: Vec<String>,
}

impl Alias {
    /// What it stands for.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Alias {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let found = Words::of(&text);
        if found.is_open {
            return Err(format!("{text:?} ends within quotes"));
        }
        let words: Vec<String> = found.words.into_iter().map(|word| word.text).collect();
        match words.first().map(String::as_str) {
            None => Err("an alias stands for the words of a command, as in t = \"vm run --rm\"".into()),
            Some("banger") => Err(format!("{text:?}: write it without `banger`, as in t = \"vm run --rm\"")),
            Some(_) => Ok(Self { text, words }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_the_words_of_a_command() {
        let alias = Alias::try_from("vm run --rm -- sh -c 'exit 42'".to_owned()).expect("an alias");
        assert_eq!(alias.words(), ["vm", "run", "--rm", "--", "sh", "-c", "exit 42"]);
        for bad in ["", "  ", "vm run 'x", "vm run \\", "banger vm run"] {
            assert!(Alias::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn its_name_is_a_word_and_a_files_name() {
        for good in ["t", "py3", "run-here", "A_b", "7"] {
            assert!(AliasName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "-t", "a b", "a/b", "..", "é", "a=b", "$x", &"a".repeat(65)] {
            assert!(AliasName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
