//! What is offered at a spot: candidates, or what only the shell knows. Pure: names come from the caller.

use std::fmt::Display;

use argh::{FlagInfo, FlagInfoKind, Optionality, PositionalInfo};

use super::super::args::{ALIASES, takes_guest_command};
use super::super::manner;
use super::spot::{Place, Spot};
use super::value::{self, Live, Value, Where, Which};

/// The flags of every command.
const OF_ALL: [(&str, &str); 2] = [(manner::JSON, "print JSON, failures included"), (manner::NO_INPUT, "ask nothing")];

/// Something to insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What is inserted behind the stem.
    pub text: String,
    /// What it is, in one line; may be empty.
    pub about: String,
}

impl Candidate {
    /// One candidate.
    pub fn new(text: impl Display, about: impl Into<String>) -> Self {
        Self { text: text.to_string(), about: about.into() }
    }

    /// Whether more of the same word follows it.
    pub fn goes_on(&self) -> bool {
        self.text.ends_with(['=', ':', '/'])
    }
}

/// What a shell finds by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    /// Files and folders.
    Files,
    /// Folders.
    Folders,
    /// Accounts.
    Users,
}

/// All that fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// What of the current word stays before each candidate.
    pub stem: String,
    /// What can be inserted.
    pub candidates: Vec<Candidate>,
    /// What the shell finds beside it.
    pub native: Option<Native>,
}

/// What the user has configured.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// Names for commands.
    pub aliases: Vec<Candidate>,
    /// Names for destinations.
    pub sets: Vec<Candidate>,
}

/// What fits at `spot`, of whose current word `word` is typed. `fetch` is asked for names only where some fit.
pub fn offer(spot: &Spot, word: &str, own: &Own, fetch: &mut dyn FnMut(&Live) -> Vec<Candidate>) -> Offer {
    let mut kitchen = Kitchen { own, fetch };
    let is_flag = word.starts_with('-') && word.len() > usize::from(takes_dash(spot)) && !spot.has_dashes;
    match &spot.place {
        Place::Guest(_) | Place::Nothing => Offer::default(),
        Place::Value(value) => kitchen.value(value, word, ""),
        Place::Command | Place::Argument if is_flag => match spot.joined(word) {
            Some((flag, stem)) => kitchen.value(&value::of_flag(&spot.path, flag), word, stem),
            None => of(flags(spot, word)),
        },
        Place::Command => of(commands(spot, word, own)),
        Place::Argument => kitchen.argument(spot, word),
    }
    .plain()
}

fn of(candidates: Vec<Candidate>) -> Offer {
    Offer { candidates, ..Offer::default() }
}

/// Whether `-` may be an argument, a stream.
fn takes_dash(spot: &Spot) -> bool {
    matches!(spot.path.as_slice(), ["vm", "cp"] | ["image", "pull"])
}

struct Kitchen<'a> {
    own: &'a Own,
    fetch: &'a mut dyn FnMut(&Live) -> Vec<Candidate>,
}

impl Kitchen<'_> {
    fn argument(&mut self, spot: &Spot, word: &str) -> Offer {
        let Some(about) = next_argument(spot) else {
            return if word.is_empty() { of(flags(spot, word)) } else { Offer::default() };
        };
        let mut offer = match value::of_argument(&spot.path, about) {
            Value::Copied => self.copied(spot, word),
            value => self.value(&value, word, ""),
        };
        offer.candidates.retain(|candidate| !spot.arguments.contains(&candidate.text));
        offer
    }

    /// One of both sides is in a VM, and the other is not.
    fn copied(&mut self, spot: &Spot, word: &str) -> Offer {
        let is_in_vm = |side: &String| side.contains(':') && !side.starts_with(['/', '.']);
        let native = Some(Native::Files);
        match spot.arguments.first().map(is_in_vm) {
            // What is in a guest is not asked for.
            _ if is_in_vm(&word.to_owned()) => Offer::default(),
            Some(true) => Offer { native, ..Offer::default() },
            Some(false) => of(self.vms_with_colon()),
            None => Offer { native, ..of(self.vms_with_colon()) },
        }
    }

    fn vms_with_colon(&mut self) -> Vec<Candidate> {
        let vms = (self.fetch)(&Live::Vms(Which::Running));
        vms.into_iter().map(|vm| Candidate::new(format!("{}:", vm.text), vm.about)).collect()
    }

    /// What fits behind `stem`, with which `word` begins.
    fn value(&mut self, value: &Value, word: &str, stem: &str) -> Offer {
        let native = match value {
            Value::Files => Some(Native::Files),
            Value::Folders => Some(Native::Folders),
            Value::Users => Some(Native::Users),
            Value::ImageSource => return self.image_source(word),
            Value::Copied | Value::Words(_) | Value::Live(_) | Value::Destination | Value::Machine | Value::Free => {
                None
            }
        };
        let candidates = match value {
            Value::Words(words) => words.iter().map(|word| Candidate::new(word, "")).collect(),
            Value::Live(live) => (self.fetch)(live),
            Value::Destination => self.own.sets.clone(),
            Value::Machine => vec![Candidate::new("ssh://", "another machine, by your ssh")],
            Value::Copied | Value::Files | Value::Folders | Value::Users | Value::ImageSource | Value::Free => {
                Vec::new()
            }
        };
        Offer { stem: stem.to_owned(), candidates, native }
    }

    /// A name of the catalogue, or an archive behind its kind.
    fn image_source(&mut self, word: &str) -> Offer {
        const ARCHIVES: [(&str, &str); 2] =
            [("oci-archive:", "a file in OCI's layout"), ("docker-archive:", "a file of `docker save`")];
        if let Some((kind, _)) = ARCHIVES.iter().find(|(kind, _)| word.starts_with(kind)) {
            return Offer { stem: kind.to_string(), candidates: Vec::new(), native: Some(Native::Files) };
        }
        let mut candidates = (self.fetch)(&Live::Images(Where::Elsewhere));
        candidates.extend(ARCHIVES.iter().map(|(kind, about)| Candidate::new(kind, *about)));
        of(candidates)
    }
}

/// What the command takes next.
fn next_argument(spot: &Spot) -> Option<&'static PositionalInfo<'static>> {
    let positionals: &'static [PositionalInfo] = spot.definition.positionals;
    let repeats = |about: &&PositionalInfo| matches!(about.optionality, Optionality::Repeating | Optionality::Greedy);
    positionals.get(spot.arguments.len()).or_else(|| positionals.last().filter(repeats))
}

/// The commands of a group. Other words for one are no news, but complete.
fn commands(spot: &Spot, word: &str, own: &Own) -> Vec<Candidate> {
    let known = spot.definition.commands.iter();
    let mut all: Vec<Candidate> = known.map(|c| Candidate::new(c.name, c.command.description)).collect();
    let other = ALIASES.iter().filter(|(other, name)| *other == word && all.iter().any(|c| c.text == *name));
    let other: Vec<Candidate> = other.map(|(other, name)| Candidate::new(other, *name)).collect();
    if spot.path.is_empty() {
        let is_new = |alias: &&Candidate| !super::args::is_built_in(&spot.definition, &alias.text);
        all.extend(own.aliases.iter().filter(is_new).cloned());
        all.push(Candidate::new("help", "the page of a command"));
    }
    all.extend(other);
    all
}

/// The flags that can still be given, those of all commands last; `--` where a command for the guest may follow.
fn flags(spot: &Spot, word: &str) -> Vec<Candidate> {
    let repeats = |flag: &FlagInfo| matches!(flag.optionality, Optionality::Repeating);
    let is_possible = |flag: &&FlagInfo| !flag.hidden && (repeats(flag) || !spot.given.contains(&flag.long));
    let mut all = Vec::new();
    for flag in spot.definition.flags.iter().filter(is_possible) {
        let about = described(flag);
        let letter = flag.short.map(|letter| format!("-{letter}")).filter(|letter| letter == word);
        all.extend(letter.map(|letter| Candidate::new(letter, about.clone())));
        all.push(Candidate::new(flag.long, about));
    }
    let of_all = OF_ALL.iter().filter(|(flag, _)| spot.flag(flag).is_none() && !spot.given.contains(flag));
    all.extend(of_all.map(|(flag, about)| Candidate::new(flag, *about)));
    all.sort_by_key(|candidate| OF_ALL.iter().any(|(flag, _)| *flag == candidate.text) || candidate.text == "--help");
    all.extend(takes_guest_command(&spot.path).then(|| Candidate::new("--", "a command for the guest follows")));
    all
}

fn described(flag: &FlagInfo) -> String {
    match flag.kind {
        FlagInfoKind::Switch => flag.description.to_owned(),
        FlagInfoKind::Option { arg_name } => format!("{}: {}", arg_name.to_uppercase(), flag.description),
    }
}
