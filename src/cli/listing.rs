//! A list in the form that is asked for: a table, names, JSON, or lines by a template.

use serde::Serialize;

use super::format::Format;
use super::render;
use super::report::Failure;

/// How a list is to be printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// Names only, one per line.
    pub quiet: bool,
    /// JSON.
    pub json: bool,
    /// Cells in full, however wide the terminal is.
    pub no_trunc: bool,
    /// Lines by a template.
    pub format: Option<Format>,
}

impl Form {
    /// Prints `items`: each as `view` shows it to programs, or by its name, or all of them in a `table`, which is told
    /// whether its cells are to be whole.
    pub fn print<'a, T, V: Serialize>(
        &self,
        items: &'a [T],
        view: impl Fn(&'a T) -> V,
        name: impl Fn(&T) -> String,
        table: impl FnOnce(bool) -> String,
    ) -> Result<(), Failure> {
        let views = || items.iter().map(&view).collect::<Vec<V>>();
        match &self.format {
            Some(format) => render::text(&format.text(&views())?),
            None if self.json => render::json(&views()),
            None if self.quiet => render::text(&items.iter().map(|item| name(item) + "\n").collect::<String>()),
            None => render::text(&table(self.no_trunc)),
        }
    }
}
