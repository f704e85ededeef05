//! A byte stream as lines of bounded length. One that is too long is told of once and skipped to its end.

use super::tool::MAX_TEXT;

/// Most bytes of a line: the longest text that a tool takes, each character escaped as two of six bytes (RFC 8259, 7), and
/// what stands around it.
pub const MAX_LINE: usize = (12 * MAX_TEXT) + (1 << 20);

/// What the stream brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line without its end; never empty.
    Whole(Vec<u8>),
    /// More than [`MAX_LINE`] bytes without an end.
    TooLong,
}

/// The beginning of a line whose end has not come.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    skips: bool,
}

impl Lines {
    /// The lines that `bytes`, the next of the stream, complete.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut found = Vec::new();
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.hold(piece, &mut found);
            let line = std::mem::take(&mut self.held);
            // Some clients send a carriage return as well, and some an empty line.
            if !std::mem::take(&mut self.skips) && !line.trim_ascii().is_empty() {
                found.push(Line::Whole(line));
            }
        }
        self.hold(last, &mut found);
        found
    }

    fn hold(&mut self, piece: &[u8], found: &mut Vec<Line>) {
        if self.skips {
            return;
        }
        if self.held.len() + piece.len() > MAX_LINE {
            self.held = Vec::new();
            self.skips = true;
            found.push(Line::TooLong);
        } else {
            self.held.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Line {
        Line::Whole(text.into())
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let stream = b"one\r\n\n  \ntwo\nthree";
        let at_once = Lines::default().hear(stream);
        assert_eq!(at_once, [whole("one\r"), whole("two")]);
        for size in 1..stream.len() {
            let mut lines = Lines::default();
            let apart: Vec<Line> = stream.chunks(size).flat_map(|chunk| lines.hear(chunk)).collect();
            assert_eq!(apart, at_once, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_costs_no_memory() {
        let mut lines = Lines::default();
        let block = vec![b'x'; 1 << 20];
        assert!((0..MAX_LINE >> 20).all(|_| lines.hear(&block).is_empty()), "so much is possible");
        assert_eq!(lines.hear(b"x"), [Line::TooLong]);
        assert!((0..100).all(|_| lines.hear(&block).is_empty()));
        assert!(lines.held.capacity() == 0);
        assert_eq!(lines.hear(b"rest\nnext\n"), [whole("next")]);
        let just = [vec![b'y'; MAX_LINE], vec![b'\n']].concat();
        assert_eq!(lines.hear(&just), [Line::Whole(vec![b'y'; MAX_LINE])]);
    }
}
