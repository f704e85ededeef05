//! The words of a line, quoted as a shell has it (POSIX XCU 2.2): for what people write into a file, and for a line that
//! is not finished yet. Nothing is expanded.

/// A word and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Without its quotes.
    pub text: String,
    /// In the line, in characters.
    pub start: usize,
}

/// What a line consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// In their order.
    pub words: Vec<Word>,
    /// The line ends within the last word, so that more may belong to it.
    pub is_within: bool,
    /// The line ends within quotes, or behind a backslash.
    pub is_open: bool,
}

impl Words {
    /// The words of `line`.
    pub fn of(line: &str) -> Self {
        let mut found = Self { words: Vec::new(), is_within: false, is_open: false };
        let mut quote = None;
        let mut characters = line.chars().enumerate().peekable();
        while let Some((at, c)) = characters.next() {
            match (quote, c) {
                (None, c) if c.is_whitespace() => found.is_within = false,
                (None, '\'' | '"') => {
                    found.begin(at);
                    quote = Some(c);
                }
                (Some(open), c) if c == open => quote = None,
                (None, '\\') => {
                    found.begin(at);
                    found.is_open = characters.peek().is_none();
                    found.extend(characters.next());
                }
                // Within double quotes a backslash means something before few characters only.
                (Some('"'), '\\') if characters.peek().is_some_and(|(_, next)| "\"\\$`".contains(*next)) => {
                    found.extend(characters.next());
                }
                (_, c) => {
                    found.begin(at);
                    found.extend(Some((at, c)));
                }
            }
        }
        found.is_open |= quote.is_some();
        found
    }

    fn begin(&mut self, at: usize) {
        if !self.is_within {
            self.is_within = true;
            self.words.push(Word { text: String::new(), start: at });
        }
    }

    fn extend(&mut self, next: Option<(usize, char)>) {
        if let Some(word) = self.words.last_mut() {
            word.text.extend(next.map(|(_, c)| c));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        Words::of(line).words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_are_those_of_a_shell() {
        assert_eq!(texts("vm run  --rm\t-- true "), ["vm", "run", "--rm", "--", "true"]);
        assert_eq!(
            texts(r#"sh -c 'exit "42"' "a \"b\" \x" c\ d '' e"f"'g'"#),
            ["sh", "-c", "exit \"42\"", "a \"b\" \\x", "c d", "", "efg"]
        );
        assert!(texts("  ").is_empty());
    }

    #[test]
    fn where_a_line_ends_is_told() {
        let end = |line: &str| (Words::of(line).is_within, Words::of(line).is_open);
        assert_eq!(end("a b"), (true, false));
        assert_eq!(end("a b "), (false, false));
        assert_eq!(end("a 'b "), (true, true));
        assert_eq!(end("a \"b"), (true, true));
        assert_eq!(end("a b\\"), (true, true));
        assert_eq!(end(""), (false, false));
    }

    #[test]
    fn places_are_counted_in_characters() {
        let starts: Vec<usize> = Words::of("ø 'ü x'  y").words.iter().map(|word| word.start).collect();
        assert_eq!(starts, [0, 2, 9]);
    }

    proptest::proptest! {
        #[test]
        fn any_line_has_words(line: String) {
            for word in Words::of(&line).words {
                proptest::prop_assert!(word.start < line.chars().count());
            }
        }
    }
}
