//! What a shell asks: its name, the words before the cursor, and the word that the cursor is in.

use crate::model::words::Words;
use crate::system::completions::Shell;

/// A line up to its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub shell: Shell,
    /// The name that the program was called by, without its folder.
    pub program: String,
    /// Those behind it that are complete.
    pub words: Vec<String>,
    /// What of the current one stands before the cursor.
    pub word: String,
    /// How bash has it.
    pub bash: Option<BashLine>,
}

/// What only bash needs: it takes a line apart otherwise than a command line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BashLine {
    /// Where each word begins, the program first and the current one last, in characters.
    pub starts: Vec<usize>,
    /// What of the current word bash replaces: what stands behind the last `=` or `:`.
    pub replaced: String,
    /// Candidates are only shown, as after a second Tab.
    pub is_list: bool,
    /// The terminal's width.
    pub columns: usize,
}

/// `COMP_TYPE` (bash(1)) where candidates are listed: `?`, `!` and `@`.
const LISTS: [&str; 3] = ["63", "33", "64"];

impl Request {
    /// The request that `arguments` are; none where they are none.
    pub fn read(arguments: &[String]) -> Option<Self> {
        let (shell, rest) = arguments.split_first()?;
        match (shell.parse().ok()?, rest) {
            (Shell::Bash, [line, replaced, kind, columns]) => Self::of_bash(line, replaced, kind, columns),
            (shell @ Shell::Zsh, [program, words @ .., word]) => Some(Self::of_words(shell, program, words, word)),
            // fish hands over the current word as it was typed, perhaps with a quote that is still open.
            (shell @ Shell::Fish, [program, words @ .., word]) => {
                let unquoted: String = Words::of(word).words.into_iter().map(|word| word.text).collect();
                Some(Self::of_words(shell, program, words, &unquoted))
            }
            (Shell::Bash | Shell::Zsh | Shell::Fish, _) => None,
        }
    }

    fn of_words(shell: Shell, program: &str, words: &[String], word: &str) -> Self {
        let program = base_name(program);
        Self { shell, program, words: words.to_vec(), word: word.to_owned(), bash: None }
    }

    fn of_bash(line: &str, replaced: &str, kind: &str, columns: &str) -> Option<Self> {
        let Words { mut words, is_within, .. } = Words::of(line);
        let mut starts: Vec<usize> = words.iter().map(|word| word.start).collect();
        let word = if is_within && words.len() > 1 { words.pop()?.text } else { String::new() };
        if !is_within {
            starts.push(line.chars().count());
        }
        let mut words = words.into_iter().map(|word| word.text);
        let program = base_name(&words.next()?);
        // Called for another command, as `sudo` does, what is replaced is bash's word, a separator among them.
        let replaced = if matches!(replaced, "=" | ":") { "" } else { replaced }.to_owned();
        let bash =
            BashLine { starts, replaced, is_list: LISTS.contains(&kind), columns: columns.parse().unwrap_or(80) };
        Some(Self { shell: Shell::Bash, program, words: words.collect(), word, bash: Some(bash) })
    }
}

fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Option<Request> {
        Request::read(&arguments.iter().map(|word| word.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn a_line_of_bash_is_taken_apart_here() {
        let request = read(&["bash", "./banger vm run --image=py", "py", "9", "120"]).expect("one");
        assert_eq!((request.program.as_str(), request.word.as_str()), ("banger", "--image=py"));
        assert_eq!(request.words, ["vm", "run"]);
        let bash = request.bash.expect("bash's");
        assert_eq!((bash.starts, bash.replaced.as_str(), bash.columns), (vec![0, 9, 12, 16], "py", 120));
        let request = read(&["bash", "banger vm ", "", "63", ""]).expect("one");
        assert_eq!((request.words, request.word), (vec!["vm".to_owned()], String::new()));
        assert!(request.bash.is_some_and(|bash| bash.is_list && bash.starts == [0, 7, 10]));
    }

    #[test]
    fn words_come_as_they_are() {
        let request = read(&["zsh", "/usr/bin/banger-vm-run", "--name", "a b", ""]).expect("one");
        assert_eq!((request.program.as_str(), request.words.len(), request.word.as_str()), ("banger-vm-run", 2, ""));
        assert_eq!(read(&["fish", "banger", "vm", "'ru"]).expect("one").word, "ru");
    }

    #[test]
    fn what_is_no_request_is_not_answered() {
        for words in [&[][..], &["bash"], &["bash", "banger"], &["csh", "a", "b"], &["zsh", "banger"], &["fish"]] {
            assert_eq!(read(words), None, "{words:?}");
        }
    }
}
