//! Samples, medians, and the one table: a line per promise, with its limit.

use std::time::Duration;

/// What was measured for one promise.
pub struct Line {
    what: &'static str,
    measured: String,
    limit: String,
    held: bool,
}

impl Line {
    /// `ours` is at most `most` times `theirs`.
    pub fn ratio(what: &'static str, ours: &[Duration], theirs: &[Duration], most: f64) -> Self {
        let ratio = median(ours).as_secs_f64() / median(theirs).as_secs_f64();
        let measured = format!("{ratio:.3} = {} / {}", spread(ours), spread(theirs));
        Self { what, measured, limit: format!("{most:.2}"), held: ratio <= most }
    }

    /// `samples` take at most `most`.
    pub fn time(what: &'static str, samples: &[Duration], most: Duration) -> Self {
        Self { what, measured: spread(samples), limit: shown(most), held: median(samples) <= most }
    }

    /// `found` of `unit` are at most `most`.
    pub fn amount(what: &'static str, found: f64, most: f64, unit: &str) -> Self {
        let [measured, limit] = [found, most].map(|n| format!("{} {unit}", (n * 100.0).round() / 100.0));
        Self { what, measured, limit, held: found <= most }
    }

    fn columns(&self) -> [&str; 4] {
        [self.what, &self.measured, &self.limit, if self.held { "ok" } else { "MISSED" }]
    }
}

/// The table as text, and whether every limit was held.
pub fn table(lines: &[Line]) -> (String, bool) {
    let mut rows = vec![["what", "measured (median, least–most)", "limit", ""]];
    rows.extend(lines.iter().map(Line::columns));
    let widths = [0, 1, 2].map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    let padded = |row: &[&str; 4]| {
        let cells: String = (0..3).map(|at| format!("{:<width$}  ", row[at], width = widths[at])).collect();
        format!("{cells}{}\n", row[3])
    };
    (rows.iter().map(padded).collect(), lines.iter().all(|line| line.held))
}

/// The middle one; of an even number the later of the two.
pub fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

fn spread(samples: &[Duration]) -> String {
    let ends = samples.iter().min().zip(samples.iter().max());
    let (least, most) = ends.expect("something was measured");
    format!("{} ({}–{}, {}×)", shown(median(samples)), shown(*least), shown(*most), samples.len())
}

fn shown(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 1000.0 { format!("{milliseconds:.2} ms") } else { format!("{:.3} s", milliseconds / 1000.0) }
}
