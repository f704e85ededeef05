//! Names that only the daemon knows, asked for in the time that who types does not notice. Starts nothing: a daemon that
//! does not run, hangs, or is another version's knows no names.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::super::client::Channel;
use super::offer::Candidate;
use super::value::{Live, Where, Which};
use crate::host::paths::{Environment, Paths};
use crate::image::catalogue::{Catalogue, Entry};
use crate::model::image::{ImageRecord, KernelRecord};
use crate::model::size::human;
use crate::model::{OpId, VmRecord, VmState};
use crate::os::files::is_locked;
use crate::os::random;
use crate::protocol::Hello;
use crate::protocol::owner::{Answer, Call, OwnerReply, OwnerRequest};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_millis(300);

/// How long the daemon may take of that: the catalogue is there without it.
const DAEMON_LIMIT: Duration = Duration::from_millis(250);

/// The variable that names another machine.
const HOST: &str = "BANGER_HOST";

/// What is called so, with what it is.
pub fn names(live: &Live) -> Vec<Candidate> {
    if std::env::var_os(HOST).is_some_and(|host| !host.is_empty()) {
        return Vec::new();
    }
    let (live, paths) = (*live, Paths::current());
    let (tell, told) = mpsc::channel();
    // On a thread of its own, for connecting may block, too; the end of the process ends it.
    std::thread::spawn(move || tell.send(of(live, &paths)));
    told.recv_timeout(LIMIT).unwrap_or_default()
}

fn of(live: Live, paths: &Paths) -> Vec<Candidate> {
    match live {
        Live::Vms(which) => match ask(paths, request_for(which)) {
            Some(OwnerReply::Vms(vms)) => vms.iter().filter(|vm| is_meant(vm.state, which)).map(vm).collect(),
            _ => Vec::new(),
        },
        Live::Images(place) => {
            let here = match ask(paths, OwnerRequest::ListImages) {
                Some(OwnerReply::Images(images)) => images,
                _ => Vec::new(),
            };
            let is_meant = |image: &&ImageRecord| place != Where::Registered || image.place.is_some();
            let here: Vec<Candidate> = here.iter().filter(is_meant).map(image).collect();
            joined(here, place, paths, Catalogue::images)
        }
        Live::Kernels(place) => {
            let here = match ask(paths, OwnerRequest::ListKernels) {
                Some(OwnerReply::Kernels(kernels)) => kernels,
                _ => Vec::new(),
            };
            joined(here.iter().map(kernel).collect(), place, paths, Catalogue::kernels)
        }
    }
}

/// What is here, and what the catalogue has, each where it is wanted.
fn joined<Name: std::fmt::Display>(
    here: Vec<Candidate>,
    place: Where,
    paths: &Paths,
    entries: impl Fn(&Catalogue) -> &[Entry<Name>],
) -> Vec<Candidate> {
    if matches!(place, Where::Here | Where::Registered) {
        return here;
    }
    let catalogue = Catalogue::load(&paths.catalogues).unwrap_or_default();
    let offered = entries(&catalogue).iter().filter(|entry| !entry.sources().is_empty());
    let mut all: Vec<Candidate> =
        offered.map(|entry| Candidate::new(&entry.name, format!("to be pulled: {}", entry.description))).collect();
    all.retain(|entry| here.iter().all(|known| known.text != entry.text));
    if place == Where::Anywhere { here.into_iter().chain(all).collect() } else { all }
}

fn request_for(which: Which) -> OwnerRequest {
    match which {
        Which::Running | Which::Alive => OwnerRequest::ListRunning,
        Which::All | Which::Startable => OwnerRequest::ListVms,
    }
}

fn is_meant(state: VmState, which: Which) -> bool {
    match (which, state) {
        (Which::All, _) => true,
        (Which::Running, state) => state == VmState::Running,
        (Which::Alive, VmState::Starting | VmState::Running | VmState::Stopping) => true,
        (Which::Startable, VmState::Created | VmState::Stopped | VmState::Error) => true,
        (Which::Alive | Which::Startable, _) => false,
    }
}

fn vm(vm: &VmRecord) -> Candidate {
    Candidate::new(&vm.spec.name, format!("{}, {}", vm.state, vm.spec.image))
}

fn image(image: &ImageRecord) -> Candidate {
    Candidate::new(&image.name, format!("{}, {}", human(image.size.bytes()), image.source))
}

fn kernel(kernel: &KernelRecord) -> Candidate {
    Candidate::new(&kernel.name, kernel.release.clone())
}

/// The daemon's reply; none where there is none in time.
fn ask(paths: &Paths, request: OwnerRequest) -> Option<OwnerReply> {
    let deadline = Instant::now() + DAEMON_LIMIT;
    let rest = || Some(deadline.saturating_duration_since(Instant::now()));
    if !is_awake(paths) {
        return None;
    }
    let mut channel = Channel::connect(&paths.socket(), "daemon").ok()??;
    channel.send(&Hello::ours(), &[]).ok()?;
    channel.receive::<Hello>(rest()).ok()?.check("the daemon", "").ok()?;
    channel.send(&Call { op: OpId::from_random(random::number()), request }, &[]).ok()?;
    loop {
        match channel.receive::<Answer>(rest()).ok()? {
            Answer::Event(_) => {}
            Answer::Reply(reply) => return reply.ok(),
        }
    }
}

/// Whether the daemon runs. In a system install it is systemd that listens: a connection would start it.
fn is_awake(paths: &Paths) -> bool {
    !Environment::current().is_system() || is_locked(&paths.daemon_lock()).unwrap_or(false)
}
