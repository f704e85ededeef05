//! The catalogue as the command line uses it: what is in it, what can be pulled of it, one source after the other.

use std::fmt::Display;

use log::debug;

use super::super::listing::Form;
use super::super::progress::Progress;
use super::super::render;
use super::super::report::Failure;
use super::super::table::Table;
use super::super::views::OfferView;
use crate::host::paths::Paths;
use crate::image::catalogue::{Catalogue, Entry, Source};
use crate::model::size::human;
use crate::protocol::{Fault, FaultKind};

/// What this binary and this host's files know.
pub fn load(paths: &Paths) -> Result<Catalogue, Failure> {
    Catalogue::load(&paths.catalogues).map_err(|e| Fault::of(FaultKind::BadRequest, &e).into())
}

/// The entry called `name`; `what` is `image` or `kernel`.
pub fn find<'c, Name: Ord + Display>(
    entries: &'c [Entry<Name>],
    what: &str,
    name: &Name,
) -> Result<&'c Entry<Name>, Failure> {
    let hint = format!("banger {what} list");
    let Some(entry) = entries.iter().find(|entry| entry.name == *name) else {
        let known: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
        let message = format!("{what} '{name}' not found, neither here nor in the catalogue");
        let fault = Fault::new(FaultKind::NotFound, message).cause(format!("the catalogue has {}", known.join(", ")));
        let fault = fault.hint(hint);
        // A name alone asks nobody outside: it may be a slip of the fingers.
        let elsewhere = (what == "image").then(|| format!("banger image pull {name}:latest      (of docker.io)"));
        return Err(elsewhere.into_iter().fold(fault, Fault::hint).into());
    };
    if entry.sources().is_empty() {
        let message = format!("the catalogue has {what} '{name}' for other machines than this one");
        return Err(Fault::new(FaultKind::NotFound, message).hint(hint).into());
    }
    Ok(entry)
}

/// Attempts one of `sources` after the other until one works. The last one's failure has those of the others as causes.
pub fn first_that_works(
    sources: &[&Source],
    possible: &dyn Fn(&Source) -> Result<(), Failure>,
    progress: &mut Progress,
    attempt: &mut dyn FnMut(&Source, &mut Progress) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut earlier = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let is_last = number + 1 == sources.len();
        // What has to be said of the last one is said by its attempt.
        if let (false, Err(reason)) = (is_last, possible(source)) {
            debug!("{source}: not possible: {}", reason.line());
            earlier.push(format!("{source}: {}", reason.line()));
            continue;
        }
        match attempt(source, progress) {
            Err(failure) if is_of_the_source(&failure) && is_last => return Err(failure.causes(earlier)),
            Err(failure) if is_of_the_source(&failure) => {
                let line = render::plain(&format!("{source}: {}", failure.line()));
                progress.note(&format!("banger: warning: {line}: trying the next source"));
                earlier.push(line);
            }
            other => return other,
        }
    }
    Err(Failure::new(FaultKind::NotFound, "there is no source for this machine"))
}

/// Whether another source may do better.
fn is_of_the_source(failure: &Failure) -> bool {
    use FaultKind::{BadRequest, NotFound, OperationFailed, Refused};
    failure.kind().is_some_and(|kind| matches!(kind, BadRequest | NotFound | OperationFailed | Refused))
}

/// `list --available`: what of `entries` can be pulled and is not here.
pub fn list<Name: Display>(
    entries: &[Entry<Name>],
    is_here: impl Fn(&Name) -> bool,
    form: &Form,
) -> Result<(), Failure> {
    let offered = offered(entries, is_here);
    form.print(
        &offered,
        |entry| OfferView::from(*entry),
        |entry| entry.name.to_string(),
        |whole| table(&offered, whole),
    )
}

/// The end of a list of what is here: what else can be pulled. A catalogue that is wrong is no reason to show nothing of
/// what is here.
pub fn below<Name: Display>(
    paths: &Paths,
    entries: impl Fn(&Catalogue) -> &[Entry<Name>],
    is_here: impl Fn(&Name) -> bool,
    whole: bool,
) -> String {
    match load(paths) {
        Ok(catalogue) => {
            let offered = offered(entries(&catalogue), is_here);
            if offered.is_empty() { String::new() } else { format!("\n{}", table(&offered, whole)) }
        }
        Err(failure) => {
            render::note(&format!("banger: warning: {}", render::plain(&failure.line())));
            String::new()
        }
    }
}

fn offered<Name>(entries: &[Entry<Name>], is_here: impl Fn(&Name) -> bool) -> Vec<&Entry<Name>> {
    entries.iter().filter(|entry| !entry.sources().is_empty() && !is_here(&entry.name)).collect()
}

fn table<Name: Display>(offered: &[&Entry<Name>], whole: bool) -> String {
    let row =
        |entry: &&Entry<Name>| vec![entry.name.to_string(), human(entry.approximate_bytes), entry.description.clone()];
    Table::new(&["TO PULL", "SIZE", "WHAT IT IS"], offered.iter().map(row)).text(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::builder::Recipe;
    use crate::image::oci::Reference;
    use crate::model::ImageName;

    fn registry(number: u8) -> Source {
        Source::Oci(format!("h.example/{number}:t").parse::<Reference>().expect("a reference"))
    }

    fn failed(kind: FaultKind) -> Failure {
        Failure::from(Fault::new(kind, "it broke").cause("a wire"))
    }

    /// Which sources were tried, and what came of it; `outcomes` are those of the attempts.
    fn tried(sources: &[&Source], impossible: bool, outcomes: &[Option<FaultKind>]) -> (usize, Result<(), Failure>) {
        let mut attempts = 0;
        let possible = |source: &Source| match source {
            Source::Packages(_) if impossible => Err(failed(FaultKind::OperationFailed)),
            _ => Ok(()),
        };
        let result = first_that_works(sources, &possible, &mut Progress::new(), &mut |_, _| {
            attempts += 1;
            outcomes[attempts - 1].map_or(Ok(()), |kind| Err(failed(kind)))
        });
        (attempts, result)
    }

    fn fault(result: Result<(), Failure>) -> Fault {
        match result.expect_err("failed") {
            Failure::Fault { fault, .. } => *fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_source_that_works_is_taken() {
        let (one, two) = (registry(1), registry(2));
        assert_eq!(tried(&[&one, &two], false, &[None]), (1, Ok(())));
        for kind in [FaultKind::NotFound, FaultKind::OperationFailed, FaultKind::Refused, FaultKind::BadRequest] {
            assert_eq!(tried(&[&one, &two], false, &[Some(kind), None]), (2, Ok(())));
        }
    }

    #[test]
    fn the_last_failure_has_the_others_as_causes() {
        let (one, two) = (registry(1), registry(2));
        let outcomes = [Some(FaultKind::OperationFailed), Some(FaultKind::NotFound)];
        let (attempts, result) = tried(&[&one, &two], false, &outcomes);
        let fault = fault(result);
        assert_eq!((attempts, fault.kind), (2, FaultKind::NotFound));
        assert_eq!(fault.causes, ["a wire", "registry h.example/1:t: it broke: a wire"]);
    }

    #[test]
    fn packages_that_cannot_be_are_passed_over_unless_nothing_follows() {
        let (packages, one) = (Source::Packages(Recipe::DebianBookworm), registry(1));
        assert_eq!(tried(&[&packages, &one], true, &[None]), (1, Ok(())));
        let (attempts, result) = tried(&[&packages, &one], true, &[Some(FaultKind::NotFound)]);
        assert_eq!((attempts, fault(result).causes.len()), (1, 2), "it is said after all");
        let (attempts, result) = tried(&[&one, &packages], true, &[Some(FaultKind::NotFound); 2]);
        assert_eq!((attempts, fault(result).causes.len()), (2, 2));
    }

    #[test]
    fn what_no_source_can_help_ends_it() {
        let (one, two) = (registry(1), registry(2));
        for kind in [FaultKind::Cancelled, FaultKind::Unavailable, FaultKind::AlreadyExists] {
            let (attempts, result) = tried(&[&one, &two], false, &[Some(kind), None]);
            assert_eq!((attempts, fault(result).kind), (1, kind));
        }
    }

    #[test]
    fn what_is_here_is_not_offered() {
        let catalogue = Catalogue::load(&[]).expect("loads");
        let name: ImageName = "debian-bookworm".parse().expect("a name");
        assert_eq!(offered(catalogue.images(), |_| false).len(), 1);
        assert_eq!(offered(catalogue.images(), |other| *other == name).len(), 0);
        assert!(
            table(&offered(catalogue.images(), |_| false), true)
                .starts_with("TO PULL          SIZE     WHAT IT IS\ndebian")
        );
    }

    #[test]
    fn an_unknown_name_is_not_found() {
        let catalogue = Catalogue::load(&[]).expect("loads");
        let failure = find(catalogue.images(), "image", &"nothing".parse().expect("a name")).expect_err("unknown");
        assert_eq!(failure.exit_code(false), 3);
        assert!(failure.line().contains("the catalogue has debian-bookworm"), "{}", failure.line());
    }
}
