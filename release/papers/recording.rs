//! A picture of a session on a terminal, for a page that is read anywhere: one SVG, in which lines appear when they did.
//!
//! Where pictures do not move, or a reader does not want them to, all lines are there at once.

use std::path::Path;

use crate::screen::{Line, Screen};
use crate::{Outcome, read_file, write_file};

/// Pixels of a character and of a line.
const CHARACTER: f64 = 8.4;
const LINE: usize = 20;

/// Pixels around the text.
const MARGIN: usize = 16;

/// Nobody waits longer than this for the next line, in seconds.
const PAUSE: f64 = 2.0;

const HEAD: &str = r##"<style>
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#d8dee9;white-space:pre;animation:w steps(1)}
@keyframes w{from,to{visibility:hidden}}
@media(prefers-reduced-motion){text{animation:none}}
.b{font-weight:bold;fill:#fff}.d{fill:#7b8494}.r{fill:#ff7b72}.g{fill:#7ee787}.y{fill:#e3b341}.c{fill:#79c0ff}
</style>
<rect width="100%" height="100%" rx="8" fill="#15191f"/>
"##;

/// Writes `picture` of what script(1) has written: what was printed, and when.
pub fn write(printed: &Path, times: &Path, picture: &Path) -> Outcome {
    let text = read_file(printed)?;
    // The lines of script(1) itself, around those of the session.
    let body = text.split_once('\n').map_or("", |(_, rest)| rest);
    let body = body.rsplit_once("\nScript done").map_or(body, |(body, _)| body);
    let moments = moments(&read_file(times)?)?;
    let time = |at: usize| moments.iter().find(|(end, _)| at < *end).map_or(0.0, |(_, seconds)| *seconds);
    let mut screen = Screen::of(body, time);
    while screen.lines.last().is_some_and(|line| line.cells.iter().all(|(c, _)| *c == ' ')) {
        screen.lines.pop();
    }
    write_file(picture, &svg(&screen.lines))
}

/// For each piece that was printed where it ends, in bytes, and when it came.
fn moments(times: &str) -> Result<Vec<(usize, f64)>, String> {
    let (mut end, mut now) = (0, 0.0);
    let moment = |line: &str| {
        let (pause, bytes) = line.split_once(' ').ok_or_else(|| format!("no pause and bytes: {line}"))?;
        now += pause.parse::<f64>().map_err(|e| format!("{pause}: {e}"))?;
        end += bytes.trim().parse::<usize>().map_err(|e| format!("{bytes}: {e}"))?;
        Ok((end, now))
    };
    times.lines().map(moment).collect()
}

fn svg(lines: &[Line]) -> String {
    let columns = lines.iter().map(|line| line.cells.len()).max().unwrap_or(0);
    let width = (columns as f64 * CHARACTER) as usize + 2 * MARGIN;
    let height = lines.len() * LINE + 2 * MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xml:space=\"preserve\" viewBox=\"0 0 {width} {height}\" width=\"{width}\">\n{HEAD}"
    );
    let (mut shown, mut written) = (0.0, 0.0_f64);
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.cells.is_empty()) {
        // No line comes before the one above it, whatever was written when.
        shown += (line.at - written).clamp(0.0, PAUSE);
        written = written.max(line.at);
        let y = MARGIN + LINE * number + LINE - 6;
        text +=
            &format!("<text x=\"{MARGIN}\" y=\"{y}\" style=\"animation-duration:{shown:.2}s\">{}</text>\n", runs(line));
    }
    text + "</svg>\n"
}

/// Its characters, those of the same look together.
fn runs(line: &Line) -> String {
    let mut text = String::new();
    for run in line.cells.chunk_by(|one, other| one.1 == other.1) {
        let letters: String = run.iter().map(|(character, _)| escaped(*character)).collect();
        match class(&run[0].1) {
            "" => text += &letters,
            class => text += &format!("<tspan class=\"{class}\">{letters}</tspan>"),
        }
    }
    text.trim_end().to_owned()
}

fn class(look: &str) -> &'static str {
    match look.rsplit(';').next().unwrap_or_default() {
        "1" => "b",
        "2" => "d",
        "31" => "r",
        "32" => "g",
        "33" => "y",
        "34" | "36" => "c",
        _ => "",
    }
}

fn escaped(character: char) -> String {
    match character {
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '&' => "&amp;".into(),
        other => other.to_string(),
    }
}
