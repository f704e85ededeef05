//! How this process talks: text or JSON, asking or not. Found among the words before anything else is understood, so
//! that a wrong command line, too, is answered in the form that was asked for; one for the whole process.

use std::ffi::OsString;
use std::sync::OnceLock;

/// `--json`: what is printed is JSON, failures included.
pub const JSON: &str = "--json";

/// `--no-input`: nobody is asked anything.
pub const NO_INPUT: &str = "--no-input";

static MANNER: OnceLock<Manner> = OnceLock::new();

/// How to talk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// JSON on standard output, and a line of JSON on standard error for each thing to say.
    pub json: bool,
    /// Whatever would be asked fails instead, naming the flag that answers it.
    pub no_input: bool,
}

impl Manner {
    /// What `arguments` ask for; a command for the guest, behind `--`, is not ours.
    pub fn of(arguments: &[OsString]) -> Self {
        let own = || arguments.iter().take_while(|word| *word != "--");
        Self { json: own().any(|word| word == JSON), no_input: own().any(|word| word == NO_INPUT) }
    }

    /// The words that ask for it.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        [(self.json, JSON), (self.no_input, NO_INPUT)].into_iter().filter_map(|(asked, word)| asked.then_some(word))
    }
}

/// Whether `word` asks for a manner of any command.
pub fn is_word(word: &str) -> bool {
    matches!(word, JSON | NO_INPUT)
}

/// From now on this process talks so.
pub fn adopt(manner: Manner) {
    // A second one would come from nowhere: there is one command line.
    let _ = MANNER.set(manner);
}

/// How this process talks.
pub fn current() -> Manner {
    MANNER.get().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_anywhere_before_the_guests_command() {
        let of = |text: &str| Manner::of(&text.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of("vm run -- ls --json"), Manner::default());
        assert_eq!(of("--json ps"), Manner { json: true, no_input: false });
        assert_eq!(of("vm prnue --no-input --json -- x"), Manner { json: true, no_input: true });
        assert_eq!(of("a --json --no-input").words().collect::<Vec<_>>(), [JSON, NO_INPUT]);
    }
}
