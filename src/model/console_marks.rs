//! When what stands in a console's log has come: the log itself is the guest's, byte by byte, and tells no times.
//!
//! Beside it is a list of marks, kept by whoever writes the log: each says where a stretch of the log begins and when
//! it has come. A stretch takes a second; of a log with many of them old ones are joined, so that the list stays small:
//! what is older than two minutes is then exact to a hundredth of its age. Pure.

/// Where a stretch of a log begins, and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Milliseconds since the epoch of its first byte.
    at_ms: u64,
    /// How many of them later, at most, its last byte came.
    span_ms: u32,
    /// Its first byte's place in the log.
    offset: u32,
}

/// The marks of one log, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleMarks(Vec<Mark>);

/// What has to be written of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Its last mark.
    Last,
    /// All of it.
    All,
}

/// What becomes of a log that is shortened: its beginning, a line that says so, its end.
#[derive(Debug, Clone, Copy)]
pub struct Shortening {
    /// Bytes of the beginning that stay.
    pub head: u64,
    /// Bytes that were left out between it and the end.
    pub left_out: u64,
    /// Bytes that were put there instead.
    pub put_in: u64,
}

impl ConsoleMarks {
    /// Most marks.
    pub const MAX: usize = 2048;

    /// Bytes of a mark.
    pub const MARK: usize = 16;

    /// How long a stretch is.
    const STRETCH_MS: u32 = 1000;

    /// Joined stretches take at most one part in so many of their age.
    const PRECISION: u64 = 128;

    /// Bytes come to a log of `size` bytes, at `now_ms` since the epoch. While a clock that was set back has not come
    /// to where it was, they belong to the last stretch.
    pub fn note(&mut self, now_ms: u64, size: u64) -> Change {
        if self.0.last().is_some_and(|last| now_ms < last.end_ms()) {
            return Change::None;
        }
        let Ok(offset) = u32::try_from(size) else { return Change::None };
        let is_full = self.0.len() >= Self::MAX;
        if is_full {
            self.join_old(now_ms);
        }
        self.0.push(Mark { at_ms: now_ms, span_ms: Self::STRETCH_MS, offset });
        if is_full { Change::All } else { Change::Last }
    }

    /// Joins stretches that together took less than [`PRECISION`](Self::PRECISION) of their age: of 136 years fewer
    /// are left than there may be. Where a clock that jumps leaves more, each two are joined.
    fn join_old(&mut self, now_ms: u64) {
        let mut joined: Vec<Mark> = Vec::new();
        for mark in std::mem::take(&mut self.0) {
            let both = joined.last().map(|last| last.with_next(mark)).filter(|both| both.is_old(now_ms));
            match (joined.last_mut(), both) {
                (Some(last), Some(both)) => *last = both,
                (_, None) | (None, _) => joined.push(mark),
            }
        }
        let each = if joined.len() < Self::MAX { 1 } else { 2 };
        let pairs = joined.chunks(each).map(|pair| pair.iter().copied().reduce(Mark::with_next).unwrap_or(pair[0]));
        self.0 = pairs.collect();
    }

    /// The log was shortened. What is left of a stretch whose beginning is gone begins with the line that says so.
    pub fn shorten(&mut self, how: Shortening) {
        let first_kept = how.head + how.left_out;
        let place = |mark: &Mark| u64::from(mark.offset);
        let gone = |mark: &&Mark| place(mark) >= how.head && place(mark) <= first_kept;
        let cut = self.0.iter().rfind(gone).map(|mark| Mark { offset: how.head as u32, ..*mark });
        let before = self.0.iter().filter(|mark| place(mark) < how.head).copied();
        let moved = |mark: &Mark| Mark { offset: (place(mark) - how.left_out + how.put_in) as u32, ..*mark };
        let after = self.0.iter().filter(|mark| place(mark) > first_kept).map(moved);
        self.0 = before.chain(cut).chain(after).collect();
    }

    /// Where in a log of `size` bytes that begins which came at `since_ms` or later: never behind the first such byte,
    /// and before it by no more than its stretch.
    pub fn start(&self, since_ms: u64, size: u64) -> u64 {
        let first = self.0.iter().find(|mark| mark.end_ms() > since_ms);
        first.map_or(size, |mark| u64::from(mark.offset)).min(size)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|mark| mark.to_bytes()).collect()
    }

    /// The last of them as bytes, and its place among the others'.
    pub fn last_bytes(&self) -> Option<(u64, [u8; Self::MARK])> {
        let last = self.0.last()?;
        Some(((self.0.len() - 1) as u64 * Self::MARK as u64, last.to_bytes()))
    }

    /// What `bytes` say. They need not be what was written: what makes no sense ends the list.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (marks, _) = bytes.as_chunks::<{ Self::MARK }>();
        let mut list: Vec<Mark> = Vec::new();
        for mark in marks.iter().take(Self::MAX).map(Mark::from_bytes) {
            if list.last().is_some_and(|last| mark.at_ms < last.at_ms || mark.offset < last.offset) {
                break;
            }
            list.push(mark);
        }
        Self(list)
    }
}

impl Mark {
    fn end_ms(&self) -> u64 {
        self.at_ms.saturating_add(self.span_ms.into())
    }

    fn is_old(&self, now_ms: u64) -> bool {
        u64::from(self.span_ms) * ConsoleMarks::PRECISION <= now_ms.saturating_sub(self.end_ms())
    }

    /// Its stretch and the next one as one.
    fn with_next(self, next: Self) -> Self {
        let span = next.end_ms().saturating_sub(self.at_ms);
        Self { span_ms: u32::try_from(span).unwrap_or(u32::MAX), ..self }
    }

    fn to_bytes(self) -> [u8; ConsoleMarks::MARK] {
        let mut bytes = [0; ConsoleMarks::MARK];
        bytes[..8].copy_from_slice(&self.at_ms.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.span_ms.to_le_bytes());
        bytes[12..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ConsoleMarks::MARK]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Self {
            at_ms: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            span_ms: u32::from_le_bytes([i, j, k, l]),
            offset: u32::from_le_bytes([m, n, o, p]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten bytes in each of these seconds.
    fn of_seconds(seconds: impl Iterator<Item = u64>) -> (ConsoleMarks, u64) {
        let (mut marks, mut size) = (ConsoleMarks::default(), 0);
        for second in seconds {
            marks.note(second * 1000, size);
            size += 10;
        }
        (marks, size)
    }

    #[test]
    fn what_came_since_a_time_is_found_to_the_second() {
        let (marks, size) = of_seconds([100, 101, 102, 500].into_iter());
        for (since_ms, start) in
            [(0, 0), (100_999, 0), (101_000, 10), (102_500, 20), (103_000, 30), (499_000, 30), (501_000, 40)]
        {
            assert_eq!(marks.start(since_ms, size), start, "{since_ms}");
        }
        assert_eq!(marks.start(0, 0), 0, "of a log that was emptied meanwhile");
    }

    #[test]
    fn within_a_second_and_while_a_clock_was_set_back_there_is_no_new_mark() {
        let mut marks = ConsoleMarks::default();
        assert_eq!(marks.note(5000, 0), Change::Last);
        assert_eq!((marks.note(5999, 10), marks.note(1000, 20)), (Change::None, Change::None));
        assert_eq!(marks.note(6000, 30), Change::Last);
        assert_eq!((marks.start(1000, 40), marks.start(5500, 40), marks.start(6000, 40)), (0, 0, 30));
    }

    #[test]
    fn a_long_list_stays_small_never_lies_and_knows_what_is_young_exactly() {
        let seconds = 100_000;
        let (marks, size) = of_seconds(0..seconds);
        assert!(marks.0.len() <= ConsoleMarks::MAX, "{}", marks.0.len());
        for second in 0..seconds {
            let start = marks.start(second * 1000, size);
            assert!(start <= second * 10, "{second}: {start}");
            let (late, age) = (second - start / 10, seconds - second);
            assert!(late <= age / 100, "{age} s ago: {late} s too early");
        }
    }

    #[test]
    fn a_clock_that_jumps_fills_nothing() {
        let (marks, size) = of_seconds((0..10_000).map(|n| n * 3_000_000));
        assert!(marks.0.len() <= ConsoleMarks::MAX && size == 100_000);
        assert_eq!(marks.start(u64::MAX, size), size);
    }

    #[test]
    fn marks_move_with_a_log_that_is_shortened() {
        // 0..10 stay, 10..75 go, 5 bytes stand there instead.
        let (mut marks, size) = of_seconds(0..10);
        marks.shorten(Shortening { head: 10, left_out: 65, put_in: 5 });
        let size = size - 65 + 5;
        let starts: Vec<u64> = (0..10).map(|second| marks.start(second * 1000, size)).collect();
        assert_eq!(starts, [0, 10, 10, 10, 10, 10, 10, 10, 20, 30]);
        marks.note(10_000, size);
        assert_eq!(marks.start(10_000, size + 10), size);
    }

    #[test]
    fn bytes_are_read_back_and_lies_end_the_list() {
        let (marks, _) = of_seconds([3, 4, 9].into_iter());
        let bytes = marks.to_bytes();
        assert_eq!(ConsoleMarks::from_bytes(&bytes), marks);
        assert_eq!(marks.last_bytes(), Some((32, *bytes.last_chunk().expect("whole"))));
        for length in 0..bytes.len() {
            assert_eq!(ConsoleMarks::from_bytes(&bytes[..length]).0, marks.0[..length / 16]);
        }
        let backwards = [&bytes[32..], &bytes[..16]].concat();
        assert_eq!(ConsoleMarks::from_bytes(&backwards).0.len(), 1);
        assert_eq!(ConsoleMarks::from_bytes(&vec![0xff; 1 << 20]).0.len(), ConsoleMarks::MAX);
        assert!(ConsoleMarks::from_bytes(&[0xff; 16]).start(u64::MAX, 5) <= 5);
    }
}
