//! Tables of text: columns as wide as their widest cell, two blanks apart; on a terminal cut to its width, so that no
//! row goes on in a second line.

use std::os::fd::AsFd;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::render::{Style, plain};
use crate::os::tty;

/// Between two columns.
const GAP: usize = 2;

/// A column that is cut keeps at least so much.
const LEAST: usize = 8;

/// Shows a cell in colour.
pub type Paint = fn(Style, &str) -> String;

/// Rows below headers.
pub struct Table<'a> {
    headers: &'a [&'a str],
    rows: Vec<Vec<String>>,
    painted: Option<(usize, Paint)>,
}

impl<'a> Table<'a> {
    /// A table; control characters in its cells are escaped.
    pub fn new(headers: &'a [&'a str], rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        let rows = rows.into_iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
        Self { headers, rows, painted: None }
    }

    /// With the cells of column `at` in colour.
    pub fn paint(self, at: usize, paint: Paint) -> Self {
        Self { painted: Some((at, paint)), ..self }
    }

    /// For standard output: in full where that is no terminal, or `whole` is asked for.
    pub fn text(&self, whole: bool) -> String {
        let stdout = std::io::stdout();
        let fd = stdout.as_fd();
        let terminal = tty::is_terminal(fd).then(|| tty::size(fd)).flatten();
        self.laid_out(terminal.filter(|_| !whole).map(|(columns, _)| usize::from(columns)), Style::of_stdout())
    }

    /// At most `width` columns wide, if that can be done.
    fn laid_out(&self, width: Option<usize>, style: Style) -> String {
        let mut widths = self.widths();
        if let Some(width) = width {
            shrink(&mut widths, width);
        }
        let headers: Vec<String> = self.headers.iter().map(|h| (*h).to_owned()).collect();
        let mut text = line(&headers, &widths, None);
        for row in &self.rows {
            text.push_str(&line(row, &widths, self.painted.map(|(at, paint)| (at, style, paint))));
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width());
            cells.chain([self.headers[at].len()]).max().unwrap_or(0)
        };
        (0..self.headers.len()).map(width).collect()
    }
}

/// Takes from the widest column as long as it must and can. The first says what the row is about: it is left whole.
fn shrink(widths: &mut [usize], limit: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > limit {
        let Some(widest) = widths.iter_mut().skip(1).max() else { return };
        if *widest <= LEAST {
            return;
        }
        *widest -= 1;
    }
}

fn line(row: &[String], widths: &[usize], painted: Option<(usize, Style, Paint)>) -> String {
    let last = row.len().saturating_sub(1);
    let cells = row.iter().zip(widths).enumerate().map(|(at, (cell, width))| {
        let cell = cut(cell, *width);
        let blanks = if at == last { 0 } else { width.saturating_sub(cell.width()) };
        let shown = match painted {
            Some((column, style, paint)) if column == at => paint(style, &cell),
            _ => cell,
        };
        format!("{shown}{:blanks$}", "")
    });
    let text = cells.collect::<Vec<_>>().join(&" ".repeat(GAP));
    format!("{}\n", text.trim_end())
}

/// `cell` in at most `width` columns.
fn cut(cell: &str, width: usize) -> String {
    if cell.width() <= width {
        return cell.to_owned();
    }
    let (mut kept, mut used) = (String::new(), 1);
    for c in cell.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = Table::new(&["NAME", "STATE"], rows(&[&["box", "running"], &["a-long-name", "ø\x1b[2J"]]));
        let expected = "NAME         STATE\nbox          running\na-long-name  ø\\u{1b}[2J\n";
        assert_eq!(table.laid_out(None, Style::PLAIN), expected);
        assert_eq!(Table::new(&["NAME"], []).laid_out(Some(2), Style::PLAIN), "NAME\n");
    }

    #[test]
    fn wide_and_combining_characters_take_what_they_take() {
        let table = Table::new(&["A", "B"], rows(&[&["漢字", "x"], &["e\u{301}e", "x"]]));
        assert_eq!(table.laid_out(None, Style::PLAIN), "A     B\n漢字  x\ne\u{301}e    x\n");
        assert_eq!((cut("漢字漢字", 5).as_str(), cut("漢字", 4).as_str()), ("漢字…", "漢字"));
    }

    #[test]
    fn on_a_narrow_terminal_the_widest_column_gives_way_and_the_first_stays() {
        let wide = "x".repeat(60);
        let name = "n".repeat(30);
        let table = Table::new(&["NAME", "SOURCE", "AGE"], rows(&[&[&name, &wide, "3m"]]));
        for line in table.laid_out(Some(60), Style::PLAIN).lines() {
            assert!(line.width() <= 60, "{line}");
            assert!(line.starts_with("NAME") || line.starts_with(&name) && line.contains("x…  3m"), "{line}");
        }
        let narrow = table.laid_out(Some(10), Style::PLAIN);
        assert!(narrow.contains(&format!("{name}  xxxxxxx…  3m")), "{narrow}");
    }

    #[test]
    fn colour_does_not_move_columns() {
        let paint: Paint = |style, cell| style.well(cell);
        let table = Table::new(&["STATE", "AGE"], rows(&[&["up", "3m"]])).paint(0, paint);
        assert_eq!(table.laid_out(None, Style::COLOURED), "STATE  AGE\n\x1b[32mup\x1b[0m     3m\n");
    }
}
