//! Text that is used and never shown.

use std::fmt;

/// A password, a token or a header made of one. Whoever prints it sees that there is one.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hidden(String);

impl Hidden {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for a header or a form.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
