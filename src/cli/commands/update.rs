//! `update`: what the room of that name does, on this host.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use super::super::args::Update;
use super::super::interrupt::Interrupts;
use super::super::progress::Progress;
use super::super::render;
use super::super::report::Failure;
use super::system::{needs_root, needs_systemd};
use super::update_faults::fault;
use super::update_host::SystemHost;
use crate::host::config::Config;
use crate::host::paths::{Paths, ROOTS_CACHE};
use crate::os::fault_point::{FaultPoint, Moment};
use crate::os::files::read_limited;
use crate::protocol::{Event, Fault, FaultKind};
use crate::system::install::system_paths;
use crate::update::journal::Turn;
use crate::update::{
    Asked, Fetcher, Ground, Host, JOURNAL, Key, MOST_KEY, Origin, Outcome, Place, RecoverError, Recovered, Told,
    UpdateError, Version, Wish, embedded_url, standing,
};

/// `banger update`.
pub fn update(asked: &Update) -> Result<(), Failure> {
    if asked.check {
        return check(asked);
    }
    needs_root("update")?;
    let host = SystemHost::new();
    // Who has no service manager has no services to follow; that is not found out half way.
    if host.installed().is_ok_and(|installed| installed.is_some()) {
        needs_systemd()?;
    }
    let wish = Asked { wish: Wish { to: asked.to, force: asked.force }, dry_run: asked.dry_run };
    let outcome = with_ground(&host, is_test(asked), |ground| crate::update::update(ground, || origin(asked), wish));
    say(&outcome.map_err(|e| fault(&e))?)
}

/// The turn of whoever changes the installation.
#[must_use]
pub struct Settled {
    _turn: Option<Turn>,
    /// An interrupted update that could not be brought to an end is still written down.
    is_left: bool,
}

impl Settled {
    /// Everything that an update touches was made anew, or is gone: one that was interrupted is forgotten.
    pub fn replaced(self) -> Result<(), Failure> {
        if self.is_left {
            let journal = Path::new(JOURNAL);
            crate::update::abandon(journal).map_err(|e| Fault::failed("cannot forget an interrupted update", &e))?;
            render::note("the update that was interrupted is forgotten");
        }
        Ok(())
    }
}

/// Brings an interrupted update to an end, before something else changes the installation. Where it has no end, that is
/// said: what follows is the way out.
pub fn settle() -> Result<Settled, Failure> {
    let turn = turn_of(&system_paths());
    if !turn.parent().is_some_and(Path::exists) {
        return Ok(Settled { _turn: None, is_left: false });
    }
    let turn = Turn::attempt(&turn).map_err(|e| fault(&e.into()))?.ok_or_else(|| fault(&UpdateError::Busy))?;
    let ended = with_ground(&SystemHost::new(), false, |ground| {
        let recovered = crate::update::recover(ground.journal, ground.host, ground.gate, ground.tell)?;
        recovered.iter().for_each(|recovered| (ground.tell)(Told::Recovered(recovered)));
        Ok(())
    });
    let is_left = match ended {
        Ok(()) => false,
        Err(
            error @ UpdateError::Recover(
                RecoverError::Broken { .. } | RecoverError::Lost { .. } | RecoverError::Journal(_),
            ),
        ) => {
            render::note(&fault(&error).line());
            true
        }
        Err(error) => return Err(fault(&error)),
    };
    Ok(Settled { _turn: Some(turn), is_left })
}

/// In the helper's folder, which is closed to all but root.
fn turn_of(paths: &Paths) -> PathBuf {
    paths.root_state.join("turn")
}

/// Changes nothing, and needs no root.
fn check(asked: &Update) -> Result<(), Failure> {
    let installed = SystemHost::new().installed().map_err(|e| fault(&e.into()))?;
    let own = || Version::of_this_build().map_err(|e| Fault::of(FaultKind::OperationFailed, &e));
    let running = installed.map_or_else(own, |installed| Ok(installed.version))?;
    let manifest = origin(asked).and_then(|origin| origin.manifest()).map_err(|e| fault(&e))?;
    let said = render::plain(&standing(&manifest, running));
    render::either(&serde_json::json!({ "running": running.to_string(), "standing": said }), || said.clone())
}

/// Whether the hidden flags are there, which the tests use.
fn is_test(asked: &Update) -> bool {
    asked.manifest_url.is_some() && asked.pubkey_file.is_some()
}

/// Where releases come from: as typed, as configured, as built.
fn origin(asked: &Update) -> Result<Origin, UpdateError> {
    let key = match &asked.pubkey_file {
        Some(path) => Key::from_pem(&path.display().to_string(), &read_limited(path, MOST_KEY)?)?,
        None => Key::of_this_build()?,
    };
    let local = asked.manifest_url.is_some();
    let configured = || -> Result<Option<String>, UpdateError> {
        let config = Config::load(&Paths::current().config).map_err(io::Error::other)?;
        Ok(config.update.manifest_url.or_else(|| embedded_url().map(str::to_owned)))
    };
    let address = asked.manifest_url.clone().map_or_else(configured, |url| Ok(Some(url)))?;
    let manifest = Place::parse(&address.ok_or(UpdateError::NoAddress)?, local)?;
    Ok(Origin { fetcher: Fetcher::new(local), manifest, key })
}

/// Has `work` done with this host's files, showing how far it is. From the first step of a swap on signals are taken
/// note of and no more: one fails the next step, and all goes back.
fn with_ground<T>(
    host: &SystemHost,
    for_tests: bool,
    work: impl FnOnce(Ground) -> Result<T, UpdateError>,
) -> Result<T, UpdateError> {
    let faults = FaultPoint::of_environment(for_tests)?;
    let interrupts: RefCell<Option<Interrupts>> = RefCell::default();
    let gate = |step: &str, moment: Moment| {
        let mut taken = interrupts.borrow_mut();
        let interrupts = match &mut *taken {
            Some(interrupts) => interrupts,
            none => none.insert(Interrupts::take_over()?),
        };
        let is_forward = crate::update::Step::named(step).is_some();
        match interrupts.next_end().filter(|_| is_forward) {
            Some(signal) => Err(io::Error::new(io::ErrorKind::Interrupted, format!("signal {signal} came"))),
            None => faults.pass(step, moment),
        }
    };
    let mut progress = Progress::new();
    let mut tell = |told: Told| show(&mut progress, told);
    let paths = system_paths();
    let cache = Path::new(ROOTS_CACHE);
    work(Ground {
        host,
        journal: Path::new(JOURNAL),
        turn: &turn_of(&paths),
        cache,
        state: &paths.state,
        gate: &gate,
        tell: &mut tell,
    })
}

fn show(progress: &mut Progress, told: Told) {
    match told {
        Told::Stage(name) => progress.stage(name),
        Told::Bytes { done, total } => progress.show(&Event::Progress { done, total: Some(total) }),
        Told::Recovered(recovered) => progress.note(&match recovered {
            Recovered::TakenBack { installed, wanted } => {
                format!("an update to v{wanted} was interrupted: v{installed} is back")
            }
            Recovered::Finished(version) => format!("an update was interrupted: v{version} is installed"),
            Recovered::LeftBe => "an update was interrupted, and something else was installed since".to_owned(),
        }),
    }
}

fn say(outcome: &Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::UpToDate(version) => render::note(&format!("banger v{version} is installed already")),
        Outcome::Would { from, to, will_migrate } => {
            let store = if *will_migrate { "; its first start brings the store up" } else { "" };
            let text = format!("v{from} would be replaced by v{to}, which is verified and runs here{store}");
            let view =
                serde_json::json!({ "from": from.to_string(), "to": to.to_string(), "will_migrate": will_migrate });
            return render::either(&view, || text);
        }
        Outcome::Updated { to, after, left } => {
            render::note(&format!("banger v{to} is installed; daemon and helper answer; VMs go on running"));
            for trouble in left {
                render::note(&format!("banger: warning: {}; the next `sudo banger update` tidies up", trouble));
            }
            if let Some(next) = after {
                render::note(&format!("v{next} can be reached from here: sudo banger update"));
            }
        }
    }
    Ok(())
}
