//! An update from its beginning to its end, in the order in which things may be refused: first what costs nothing, then
//! what is downloaded, and only then the swap.

use std::path::Path;

use super::choose::{Choice, Wish, choose};
use super::error::UpdateError;
use super::journal::{Journal, Turn};
use super::manifest::Manifest;
use super::proof::prove;
use super::site::{Host, Installed, Site, Trouble};
use super::stage::{Origin, Staged, Staging};
use super::swap::{Gate, Swap, recover};
use super::version::Version;
use super::{Told, arch, is_packaged};

/// What is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Which release.
    pub wish: Wish,
    /// Everything but the swap.
    pub dry_run: bool,
}

/// What an update works with.
pub struct Ground<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// The journal.
    pub journal: &'a Path,
    /// A name in the folder that the [`Turn`] is taken on, which nobody but root may open: whoever may could keep
    /// everybody from it.
    pub turn: &'a Path,
    /// The cache of root's, for the staging folder.
    pub cache: &'a Path,
    /// The folder of the store.
    pub state: &'a Path,
    /// Asked at each step of the swap.
    pub gate: Gate<'a>,
    /// Told of each stage.
    pub tell: &'a mut dyn FnMut(Told),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to do.
    UpToDate(Version),
    /// It would be done so.
    Would {
        /// What is installed.
        from: Version,
        /// What would be.
        to: Version,
        /// The store would be brought up.
        will_migrate: bool,
    },
    /// It is done.
    Updated {
        /// What is installed.
        to: Version,
        /// A newer one, which can be reached from there only.
        after: Option<Version>,
        /// What could not be tidied up.
        left: Vec<Trouble>,
    },
}

/// Updates what is installed to what `origin` has.
pub fn update(
    mut ground: Ground,
    origin: impl FnOnce() -> Result<Origin, UpdateError>,
    asked: Asked,
) -> Result<Outcome, UpdateError> {
    ground.installed()?;
    // Where nothing may be updated it does not matter that nothing could be verified.
    let origin = origin()?;
    let _turn = Turn::attempt(ground.turn)?.ok_or(UpdateError::Busy)?;
    ground.recover(asked.dry_run)?;
    // Recovering may have changed what is there.
    let installed = ground.installed()?;
    ground.refuse_operations(asked.wish.force)?;
    let (running, manifest) = (installed.version, origin.manifest()?);
    let Choice::Go { release, after } = choose(&manifest, running, asked.wish, arch())? else {
        return Ok(Outcome::UpToDate(running));
    };
    let staging = Staging::begin(ground.cache)?;
    let staged = origin.stage(release, arch(), &staging, ground.tell);
    let outcome = staged.and_then(|staged| ground.install(&installed, &staged, after, asked));
    if let Err(e) = staging.end() {
        // The next update makes the folder anew.
        log::warn!("the staging folder stays: {e}");
    }
    outcome
}

/// Where `running` stands among all releases of a manifest, on one line.
pub fn standing(manifest: &Manifest, running: Version) -> String {
    match choose(manifest, running, Wish::default(), arch()) {
        Ok(Choice::UpToDate) => format!("banger v{running} is up to date"),
        Ok(Choice::Go { release, .. }) => {
            let (version, date) = (release.version, &release.date);
            format!("banger v{version} of {date} can be had, this is v{running}: sudo banger update")
        }
        Err(refusal) => format!("banger v{running} stays: {refusal}"),
    }
}

impl Ground<'_> {
    /// What is installed, where that may be updated.
    fn installed(&self) -> Result<Installed, UpdateError> {
        let installed = self.host.installed()?.ok_or(UpdateError::NotInstalled)?;
        if is_packaged(&installed.binary) {
            return Err(UpdateError::Packaged(installed.binary));
        }
        Ok(installed)
    }

    fn recover(&mut self, only_look: bool) -> Result<(), UpdateError> {
        if only_look {
            return match Journal::read(self.journal)? {
                Some(journal) => Err(UpdateError::Interrupted(journal.to)),
                None => Ok(()),
            };
        }
        if let Some(recovered) = recover(self.journal, self.host, self.gate, self.tell)? {
            (self.tell)(Told::Recovered(&recovered));
        }
        Ok(())
    }

    fn refuse_operations(&self, force: bool) -> Result<(), UpdateError> {
        match force {
            true => Ok(()),
            false => match self.host.running_operations()? {
                0 => Ok(()),
                count => Err(UpdateError::Operations(count)),
            },
        }
    }

    fn install(
        &mut self,
        installed: &Installed,
        staged: &Staged,
        after: Option<Version>,
        asked: Asked,
    ) -> Result<Outcome, UpdateError> {
        let (from, to) = (installed.version, staged.version);
        (self.tell)(Told::Stage("try the new binary as nobody"));
        let proof = prove(staged, self.state, installed.owner)?;
        if asked.dry_run {
            return Ok(Outcome::Would { from, to, will_migrate: proof.will_migrate });
        }
        // The download may have taken long.
        self.refuse_operations(asked.wish.force)?;
        let site = Site { binary: installed.binary.clone(), journal: self.journal.to_owned() };
        let swap = Swap { site: &site, host: self.host, gate: self.gate, tell: &mut *self.tell };
        let left = swap.replace(from, staged)?;
        Ok(Outcome::Updated { to, after, left })
    }
}
