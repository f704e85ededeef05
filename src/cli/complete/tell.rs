//! An offer in the form that each shell's script reads: a line of what to do, then a line for each candidate. Pure.

use std::fmt::Write;

use super::super::render::plain;
use super::offer::{Candidate, Native, Offer};
use super::request::{BashLine, Request};
use crate::system::completions::Shell;

/// Most candidates that a shell is told: more than this nobody reads.
const MOST: usize = 4096;

/// The text for who asked; `guest_at` is the word with which the command for the guest begins.
pub fn tell(request: &Request, offer: &Offer, guest_at: Option<usize>) -> String {
    match (request.shell, &request.bash, guest_at) {
        (Shell::Bash, Some(line), Some(at)) => {
            line.starts.get(at).map(|at| format!("command {at}\n")).unwrap_or_default()
        }
        (_, _, Some(at)) => format!("command {at}\n"),
        (Shell::Bash, Some(line), None) => bash(request, line, offer),
        (Shell::Zsh, _, None) => zsh(offer),
        (Shell::Fish | Shell::Bash, _, None) => fish(request, offer),
    }
}

fn native(offer: &Offer) -> &'static str {
    match offer.native {
        Some(Native::Files) => "files",
        Some(Native::Folders) => "folders",
        Some(Native::Users) => "users",
        None => "",
    }
}

fn lines(first: &str, candidates: impl Iterator<Item = String>) -> String {
    candidates.take(MOST).fold(format!("{}\n", first.trim()), |mut text, line| {
        // Writing into a string does not fail.
        let _ = writeln!(text, "{line}");
        text
    })
}

/// Readline inserts what all have in common, of what it replaces only; and shows them as they are.
fn bash(request: &Request, line: &BashLine, offer: &Offer) -> String {
    let fixed = request.word.strip_suffix(&line.replaced).unwrap_or_default();
    let fits = |candidate: &&Candidate| format!("{}{}", offer.stem, candidate.text).starts_with(&request.word);
    let rest = |candidate: &Candidate| {
        let whole = format!("{}{}", offer.stem, candidate.text);
        Candidate::new(whole.strip_prefix(fixed).unwrap_or_default(), plain(&candidate.about))
    };
    let fitting: Vec<Candidate> = offer.candidates.iter().filter(fits).map(rest).collect();
    let only = if let [only] = fitting.as_slice() { only.goes_on() } else { false };
    let first = format!("{} {}", if only { "nospace" } else { "" }, native(offer));
    if line.is_list && fitting.len() > 1 && offer.native.is_none() {
        return lines(&first, table(&fitting, line.columns).into_iter());
    }
    lines(&first, fitting.into_iter().map(|candidate| candidate.text))
}

/// Candidates with what they are, cut where the terminal ends.
fn table(candidates: &[Candidate], columns: usize) -> Vec<String> {
    let width = candidates.iter().map(|candidate| candidate.text.len()).max().unwrap_or(0);
    let room = columns.saturating_sub(width + 5);
    let line = |candidate: &Candidate| match candidate.about.as_str() {
        "" => candidate.text.clone(),
        about => format!("{:width$}  ({})", candidate.text, cut(about, room)),
    };
    candidates.iter().map(line).collect()
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(3)).collect();
    format!("{}...", kept.trim_end())
}

/// `_describe` wants `NAME:DESCRIPTION`; the script sets apart what is not followed by a blank, `+` in front.
fn zsh(offer: &Offer) -> String {
    let stem = offer.stem.chars().count();
    let line = |candidate: &Candidate| {
        let sign = if candidate.goes_on() { "+" } else { "" };
        format!("{sign}{}:{}", candidate.text.replace(':', "\\:"), plain(&candidate.about))
    };
    let first = format!("{} {}", if stem > 0 { stem.to_string() } else { String::new() }, native(offer));
    lines(&first, offer.candidates.iter().map(line))
}

/// fish finds what is typed anywhere in a candidate, letter by letter; but also in its description, which surprises.
fn fish(request: &Request, offer: &Offer) -> String {
    let whole = |candidate: &Candidate| format!("{}{}", offer.stem, candidate.text);
    let fits = |candidate: &&Candidate| {
        let whole = whole(candidate).to_lowercase();
        let mut letters = whole.chars();
        request.word.to_lowercase().chars().all(|typed| letters.any(|letter| letter == typed))
    };
    let line = |candidate: &Candidate| format!("{}\t{}", whole(candidate), plain(&candidate.about));
    lines(native(offer), offer.candidates.iter().filter(fits).map(line))
}
