//! `banger-complete`: what fits where a shell's cursor stands. The scripts of `system::completions` call it.
//!
//! A line is understood by the tables that argh parses by (`spot`), what may stand there is looked up (`value`), and
//! becomes candidates (`offer`) in the shell's own form (`tell`): all of it pure. Only `live` asks the daemon, when that
//! runs already. Nothing here fails aloud: who types is not to be disturbed.

mod live;
mod offer;
mod own_names;
mod request;
mod spot;
mod tell;
mod value;

use std::ffi::OsString;

use super::args::{self, Aliases, Inserted};
use crate::host::config::Config;
use crate::host::paths::Paths;
use offer::{Candidate, Offer, Own};
use request::Request;
use spot::{Place, Spot};

/// The answer to a shell that calls with `arguments`; empty where nothing fits.
pub fn answer(arguments: &[OsString]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if arguments == ["names"] {
        return own_names::all(&aliases()).iter().map(|name| format!("{name}\n")).collect();
    }
    let Some(request) = Request::read(&arguments) else { return String::new() };
    let understood = Understood::of(&request);
    let own = own(&understood.spot);
    let mut fetch = |live: &value::Live| if understood.spot.is_far { Vec::new() } else { live::names(live) };
    let offer = offer::offer(&understood.spot, &request.word, &own, &mut fetch);
    tell::tell(&request, &offer, understood.guest_at)
}

/// A line, and where in it the command for the guest begins.
struct Understood {
    spot: Spot,
    /// Counted in the words that were typed, the program among them.
    guest_at: Option<usize>,
}

impl Understood {
    fn of(request: &Request) -> Self {
        let top = args::table();
        let mut words = args::words_of_name(&request.program, &top);
        let mut inserted = (!words.is_empty()).then_some(Inserted { at: 0, count: words.len(), removed: 0 });
        words.extend(request.words.iter().map(OsString::from));
        if args::may_be_meant(&top, &request.program, &words) {
            inserted = args::expand(&top, &request.program, &mut words, &aliases()).or(inserted);
        }
        let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let mut spot = spot::find(&top, &words);
        let guest_at = match spot.place {
            Place::Guest(at) => as_typed(at, inserted).map(|at| at + 1),
            Place::Command | Place::Argument | Place::Value(_) | Place::Nothing => None,
        };
        if matches!(spot.place, Place::Guest(_)) && guest_at.is_none() {
            spot.place = Place::Value(value::Value::Files);
        }
        Self { spot, guest_at }
    }
}

/// Where a word that is number `at` was typed; none where the command for the guest is the alias's own.
fn as_typed(at: usize, inserted: Option<Inserted>) -> Option<usize> {
    match inserted {
        None => Some(at),
        Some(alias) if at < alias.at + alias.count => None,
        Some(alias) => Some(at + alias.removed - alias.count),
    }
}

/// What the user has configured, where that can be offered.
fn own(spot: &Spot) -> Own {
    let is_top = spot.path.is_empty() && matches!(spot.place, Place::Command);
    if !is_top && !spot.takes_destinations() {
        return Own::default();
    }
    let config = Config::load(&Paths::current().config).unwrap_or_default();
    let plain = |text: &str| super::render::plain(text);
    Own {
        aliases: config.aliases.iter().map(|(name, alias)| Candidate::new(name, plain(alias.text()))).collect(),
        sets: config.egress.sets.keys().map(|name| Candidate::new(format!("@{name}"), "")).collect(),
    }
}

fn aliases() -> Aliases {
    Config::load(&Paths::current().config).map(|config| config.aliases).unwrap_or_default()
}

/// No shell takes it for anything but itself.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._:/@=+-|".contains(c))
}

impl Offer {
    /// Without what a shell might take for something else.
    fn plain(mut self) -> Self {
        self.candidates.retain(|candidate| is_plain(&candidate.text));
        self
    }
}

#[cfg(test)]
mod tests;
