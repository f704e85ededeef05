//! One binary takes the place of another, and units and services follow; on any failure all of it goes back. What is to
//! be done, in which order, is in `plan`; here is how each step is done.

use std::io;
use std::path::{Path, PathBuf};

use super::Told;
use super::digest::Digest;
use super::journal::{Journal, JournalError};
use super::plan::{Back, Cure, Lies, Step, cure, way_back};
use super::site::{Host, Site, Trouble, copy_program, digest_of};
use super::stage::Staged;
use super::version::Version;
use crate::os::fault_point::Moment;
use crate::os::files::{named, remove_file};

/// Asked on both sides of each step, forward ([`Step::name`]) and back ([`Back::name`]): its error has that step fail.
pub type Gate<'a> = &'a dyn Fn(&str, Moment) -> io::Result<()>;

/// Something of the way back that did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrepaired {
    /// What was being done.
    pub back: Back,
    /// Why it did not work.
    pub trouble: Trouble,
    /// What to type.
    pub command: String,
}

/// Why the new binary is not installed.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// It failed, and everything is as it was.
    #[error("the update to v{to} failed (to {}), and v{from} is back", .step.doing())]
    TakenBack {
        /// At which step.
        step: Step,
        /// Why.
        #[source]
        cause: Trouble,
        /// What is installed.
        from: Version,
        /// What was to be.
        to: Version,
    },
    /// It failed, and so did a part of the way back.
    #[error("the update to v{to} failed (to {}), and not all of it could be taken back", .step.doing())]
    Broken {
        /// At which step.
        step: Step,
        /// Why.
        #[source]
        cause: Trouble,
        /// What was to be.
        to: Version,
        /// What did not work, all of it.
        left: Vec<Unrepaired>,
    },
}

/// What became of an interrupted update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// The old version is installed.
    TakenBack {
        /// Which.
        installed: Version,
        /// What was to be.
        wanted: Version,
    },
    /// The new version is installed.
    Finished(Version),
    /// Something else is installed; only leftovers were removed.
    LeftBe,
}

/// Why an interrupted update is still one.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A part of it did not work.
    #[error("the update to v{to} that was interrupted could not be brought to an end")]
    Broken {
        /// What was to be.
        to: Version,
        /// What did not work.
        left: Vec<Unrepaired>,
    },
    /// There is no binary any more.
    #[error("neither v{from} nor v{to} lies at {}: copy a banger there and run `banger system install`", binary.display())]
    Lost {
        /// What was installed.
        from: Version,
        /// What was to be.
        to: Version,
        /// Where.
        binary: PathBuf,
    },
    /// A file of this machine; the message names it.
    #[error(transparent)]
    File(#[from] io::Error),
}

/// A replacement under way.
pub struct Swap<'a> {
    /// Where.
    pub site: &'a Site,
    /// What follows.
    pub host: &'a dyn Host,
    /// Asked at each step.
    pub gate: Gate<'a>,
    /// Told of each step.
    pub tell: &'a mut dyn FnMut(Told),
}

impl Swap<'_> {
    /// Installs `staged` in the place of `from`. What it gives back could not be tidied up, which harms nobody.
    pub fn replace(mut self, from: Version, staged: &Staged) -> Result<Vec<Trouble>, SwapError> {
        let to = staged.version;
        let failed = |step, cause: Trouble| SwapError::TakenBack { step, cause, from, to };
        let old = installed_digest(self.site).map_err(|cause| failed(Step::Lay, cause))?;
        // What was not well before is no reason against the new one. Where that cannot be told, all must be well.
        let before = self.host.failed_checks(&self.site.binary).unwrap_or_default();
        let binary = self.site.binary.clone();
        let mut journal = Journal { step: Step::Lay, from, to, old, new: staged.digest.clone(), binary };
        for step in Step::ALL {
            journal.step = step;
            let done = self.forward(&journal, staged, &before);
            match done {
                Ok(()) => {}
                // The new one is installed, and well. Nobody shall take it back for a journal that could not be
                // brought up to date: to remove it takes no room.
                Err(trouble) if step == Step::Settle => {
                    let is_told = matches!(Journal::read(&self.site.journal), Ok(Some(found)) if found.step == step);
                    let left = if is_told { None } else { Journal::remove(&self.site.journal).err() };
                    return Ok([Some(trouble), left.map(Trouble::from)].into_iter().flatten().collect());
                }
                Err(cause) => return Err(self.give_up(&journal, cause)),
            }
        }
        Ok(Vec::new())
    }

    fn forward(&mut self, journal: &Journal, staged: &Staged, before: &[String]) -> Result<(), Trouble> {
        let step = journal.step;
        (self.tell)(Told::Stage(step.doing()));
        journal.write(&self.site.journal)?;
        (self.gate)(step.name(), Moment::Before)?;
        let site = self.site;
        match step {
            Step::Lay => {
                copy_program(&staged.path, &site.new_binary(), &journal.new)?;
                site.sync()?;
            }
            Step::Keep => keep(site, &journal.old)?,
            Step::Swap => {
                rename(&site.new_binary(), &site.binary)?;
                site.sync()?;
            }
            Step::Units => self.host.refresh_units(&site.binary)?,
            Step::Restart => self.host.restart(&site.binary, journal.to)?,
            Step::Doctor => examine(self.host, &site.binary, before)?,
            Step::Settle => clear(site)?,
        }
        Ok((self.gate)(step.name(), Moment::After)?)
    }

    fn give_up(&mut self, journal: &Journal, cause: Trouble) -> SwapError {
        let (step, from, to) = (journal.step, journal.from, journal.to);
        let left = self.back(way_back(step), journal);
        if left.is_empty() {
            return SwapError::TakenBack { step, cause, from, to };
        }
        SwapError::Broken { step, cause, to, left }
    }

    /// Goes all of `way`, whatever fails on it. What the update laid down stays as long as it may be needed.
    fn back(&mut self, way: &[Back], journal: &Journal) -> Vec<Unrepaired> {
        let mut left = Vec::new();
        for back in way {
            if *back == Back::Clear && !left.is_empty() {
                continue;
            }
            (self.tell)(Told::Stage(back.doing()));
            if let Err(trouble) = self.one_back(*back, journal) {
                left.push(Unrepaired { back: *back, trouble, command: self.site.by_hand(*back) });
            }
        }
        left
    }

    fn one_back(&mut self, back: Back, journal: &Journal) -> Result<(), Trouble> {
        (self.gate)(back.name(), Moment::Before)?;
        let site = self.site;
        match back {
            Back::File => put_back(site, &journal.old)?,
            Back::Store => self.host.restore_store(&site.binary)?,
            Back::Units => self.host.refresh_units(&site.binary)?,
            Back::Restart => self.host.restart(&site.binary, journal.from)?,
            Back::Clear => clear(site)?,
        }
        Ok((self.gate)(back.name(), Moment::After)?)
    }

    fn bring_to_an_end(&mut self, journal: &Journal) -> Result<Recovered, RecoverError> {
        let (from, to) = (journal.from, journal.to);
        let (installed, previous) = (lies(&self.site.binary, journal)?, lies(&self.site.previous(), journal)?);
        // A machine that was restarted meanwhile may run the new one for months: then it stays, if it is well.
        if installed == Lies::New && journal.step < Step::Settle && self.is_well(journal) {
            let left = self.follow(journal);
            return if left.is_empty() { Ok(Recovered::Finished(to)) } else { Err(RecoverError::Broken { to, left }) };
        }
        let (left, recovered) = match cure(journal.step, installed, previous) {
            Cure::TakeBack => {
                let begun = if installed == Lies::Old { journal.step } else { journal.step.max(Step::Swap) };
                (self.back(way_back(begun), journal), Recovered::TakenBack { installed: from, wanted: to })
            }
            Cure::Finish => (self.back(&[Back::Clear], journal), Recovered::Finished(to)),
            Cure::Follow => (self.follow(journal), Recovered::Finished(to)),
            Cure::LeaveBe => (self.back(&[Back::Clear], journal), Recovered::LeftBe),
            Cure::Lost => return Err(RecoverError::Lost { from, to, binary: self.site.binary.clone() }),
        };
        if left.is_empty() { Ok(recovered) } else { Err(RecoverError::Broken { to, left }) }
    }

    /// Whether both services run the new one, and its doctor finds nothing failed.
    fn is_well(&self, journal: &Journal) -> bool {
        self.host.answers(journal.to).is_ok() && examine(self.host, &self.site.binary, &[]).is_ok()
    }

    /// The new one is all there is.
    fn follow(&mut self, journal: &Journal) -> Vec<Unrepaired> {
        let stays = Journal { from: journal.to, ..journal.clone() };
        self.back(&[Back::Units, Back::Restart, Back::Clear], &stays)
    }
}

/// Brings the update that was interrupted, if one was, to an end, whoever has begun it and however often that was tried.
/// Whoever calls this has the [`super::journal::Turn`].
pub fn recover(
    journal_path: &Path,
    host: &dyn Host,
    gate: Gate,
    tell: &mut dyn FnMut(Told),
) -> Result<Option<Recovered>, RecoverError> {
    let Some(journal) = Journal::read(journal_path)? else { return Ok(None) };
    let site = Site { binary: journal.binary.clone(), journal: journal_path.to_owned() };
    Swap { site: &site, host, gate, tell }.bring_to_an_end(&journal).map(Some)
}

/// Forgets an interrupted update whose end cannot be reached: everything that it touches was made anew, or is gone.
pub fn abandon(journal_path: &Path) -> io::Result<()> {
    match Journal::read(journal_path) {
        Ok(Some(Journal { binary, .. })) => clear(&Site { binary, journal: journal_path.to_owned() }),
        Ok(None) => Ok(()),
        Err(JournalError::File(e)) => Err(e),
        Err(JournalError::Malformed { .. }) => Journal::remove(journal_path),
    }
}

fn installed_digest(site: &Site) -> Result<Digest, Trouble> {
    let digest = digest_of(&site.binary)?;
    digest.ok_or_else(|| Trouble(format!("{} is not a file", site.binary.display())))
}

fn lies(path: &Path, journal: &Journal) -> io::Result<Lies> {
    Ok(match digest_of(path)? {
        Some(digest) if digest == journal.old => Lies::Old,
        Some(digest) if digest == journal.new => Lies::New,
        Some(_) => Lies::Other,
        None if path.symlink_metadata().is_ok() => Lies::Other,
        None => Lies::Nothing,
    })
}

/// A second name; a copy where the filesystem has no such thing.
fn keep(site: &Site, old: &Digest) -> io::Result<()> {
    let previous = site.previous();
    remove_file(&previous)?;
    if std::fs::hard_link(&site.binary, &previous).is_err() {
        copy_program(&site.binary, &previous, old)?;
    }
    site.sync()
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to).map_err(named("rename", from))
}

fn examine(host: &dyn Host, binary: &Path, before: &[String]) -> Result<(), Trouble> {
    let mut failed = host.failed_checks(binary)?;
    failed.retain(|check| !before.contains(check));
    if failed.is_empty() { Ok(()) } else { Err(Trouble(format!("its doctor finds failed: {}", failed.join(", ")))) }
}

/// Only what is known to be the old one is put there.
fn put_back(site: &Site, old: &Digest) -> Result<(), Trouble> {
    if digest_of(&site.binary)?.as_ref() == Some(old) {
        return Ok(());
    }
    let previous = site.previous();
    if digest_of(&previous)?.as_ref() != Some(old) {
        return Err(Trouble(format!("{} is not what was installed", previous.display())));
    }
    rename(&previous, &site.binary)?;
    Ok(site.sync()?)
}

/// The journal last: as long as it is there, somebody comes back to this.
fn clear(site: &Site) -> io::Result<()> {
    remove_file(&site.new_binary())?;
    remove_file(&site.previous())?;
    site.sync()?;
    Journal::remove(&site.journal)
}
