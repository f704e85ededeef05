//! What a terminal shows of the bytes that programs write to it, with the time at which each line was finished.
//!
//! As much of ECMA-48 as banger writes: colours, going up, erasing. What is not understood is left out.

/// How a character looks: parameters of SGR, as in `1;31`; empty: plain.
pub type Look = String;

/// A line of the screen.
#[derive(Debug, Default, Clone)]
pub struct Line {
    /// Its characters.
    pub cells: Vec<(char, Look)>,
    /// When it was last written, in seconds from the beginning.
    pub at: f64,
}

/// A screen of any height.
#[derive(Debug)]
pub struct Screen {
    /// What it shows.
    pub lines: Vec<Line>,
    row: usize,
    column: usize,
    look: Look,
}

impl Screen {
    /// What `text` leaves on it; `time(N)` is when its byte N was written.
    pub fn of(text: &str, time: impl Fn(usize) -> f64) -> Self {
        let mut screen = Self { lines: vec![Line::default()], row: 0, column: 0, look: Look::new() };
        let mut rest = text.char_indices().peekable();
        while let Some((at, character)) = rest.next() {
            match character {
                '\r' => screen.column = 0,
                '\n' => screen.down(),
                '\x1b' if rest.peek().is_some_and(|(_, next)| *next == '[') => {
                    rest.next();
                    let mut parameters = String::new();
                    let last = rest.by_ref().map(|(_, c)| c).find(|c| {
                        parameters.push(*c);
                        c.is_ascii_alphabetic()
                    });
                    parameters.pop();
                    screen.control(last.unwrap_or('m'), &parameters);
                }
                control if control.is_control() => {}
                printed => screen.print(printed, time(at)),
            }
        }
        screen
    }

    fn down(&mut self) {
        self.row += 1;
        self.column = 0;
        if self.row == self.lines.len() {
            self.lines.push(Line::default());
        }
    }

    fn print(&mut self, character: char, at: f64) {
        let line = &mut self.lines[self.row];
        while line.cells.len() <= self.column {
            line.cells.push((' ', Look::new()));
        }
        line.cells[self.column] = (character, self.look.clone());
        line.at = at;
        self.column += 1;
    }

    fn control(&mut self, kind: char, parameters: &str) {
        let count = parameters.parse().unwrap_or(1);
        match kind {
            'm' => self.look = parameters.trim_start_matches('0').to_owned(),
            'A' => self.row = self.row.saturating_sub(count),
            'B' => (0..count).for_each(|_| self.down()),
            'G' => self.column = count - 1,
            'K' if parameters == "2" => self.lines[self.row].cells.clear(),
            'K' => self.lines[self.row].cells.truncate(self.column),
            'J' => {
                self.lines[self.row].cells.truncate(self.column);
                self.lines.truncate(self.row + 1);
            }
            _ => {}
        }
    }
}
