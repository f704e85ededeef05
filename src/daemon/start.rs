//! Start, readiness, signals, end.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::{error, info, warn};
use smol::future::FutureExt;
use smol::{Async, Executor, Timer};

use super::{Daemon, Ending, dns, helper, reconcile, secrets, server};
use crate::host::config::{Config, VmmSetting};
use crate::host::paths::Paths;
use crate::os::fault_point::FaultPoint;
use crate::os::files::{Lock, ensure_dir};
use crate::os::service::{self, Heartbeat};
use crate::protocol::hello::BUILD;
use crate::store::migrations::{self, Compatibility};
use crate::store::{Store, StoreError, previous};
use crate::vmm::deadline::within;

/// State of a system install, whoever asks.
const SYSTEM_STATE: &str = "/var/lib/banger";

/// How long the first client waits for all VMs to be found again: normally they are in milliseconds.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// Most bytes of standard input that are read: more than a mirror has, so that one that is too large is seen.
const MOST_INPUT: u64 = 1 << 17;

/// Exit code of a check that could not be made, and of a store that this build cannot use.
const INCOMPATIBLE: u8 = 2;

pub(super) fn run(arguments: Vec<OsString>) -> ExitCode {
    let words: Vec<String> = arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => serve(),
        ["--version"] => say(&format!("bangerd {BUILD}\n"), ExitCode::SUCCESS),
        ["--check-migrations"] => check(&Paths::current().state),
        ["--check-migrations", "--system"] => check(SYSTEM_STATE.as_ref()),
        ["--check-migrations", "--schema-on-stdin"] => check_input(),
        ["--restore-store", "--system"] => judge(previous::restore(SYSTEM_STATE.as_ref())),
        _ => {
            complain(
                "usage: bangerd [--version | --check-migrations [--system|--schema-on-stdin] | --restore-store --system]",
            );
            ExitCode::from(2)
        }
    }
}

fn check(state: &std::path::Path) -> ExitCode {
    judge(migrations::check(state))
}

/// For an update that tries this binary as nobody, who may not look at the store.
fn check_input() -> ExitCode {
    let mut mirror = Vec::new();
    match io::stdin().take(MOST_INPUT).read_to_end(&mut mirror) {
        Ok(_) => judge(migrations::check_mirror(&mirror)),
        Err(e) => {
            complain(&format!("cannot read standard input: {e}"));
            ExitCode::from(INCOMPATIBLE)
        }
    }
}

fn judge(answer: Result<Compatibility, StoreError>) -> ExitCode {
    match answer {
        Ok(Compatibility::Incompatible(id)) => {
            complain(&StoreError::Newer(id).to_string());
            ExitCode::from(INCOMPATIBLE)
        }
        Ok(compatibility) => ExitCode::from(compatibility.exit_code()),
        Err(e) => {
            complain(&e.to_string());
            ExitCode::from(INCOMPATIBLE)
        }
    }
}

fn serve() -> ExitCode {
    // A new session, so that the terminal of whoever started it cannot signal it; it fails only
    // for the leader of a process group, which systemd or a shell has put where it shall be.
    let _ = rustix::process::setsid();
    match prepare() {
        Ok(prepared) => prepared.run(),
        Err(message) => {
            error!("cannot start: {message}");
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

struct Prepared {
    daemon: Arc<Daemon>,
    listener: service::Listener,
    ending: smol::channel::Receiver<Ending>,
    signals: UnixStream,
    _lock: Lock,
}

fn prepare() -> Result<Prepared, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    raise_file_limit();
    let paths = Paths::current();
    for folder in [&paths.state, &paths.cache, &paths.run, &paths.images(), &paths.kernels(), &paths.vms()] {
        ensure_dir(folder, 0o700).map_err(|e| text(&e))?;
    }
    crate::os::logger::install_for_daemon(&paths.log()).map_err(|e| text(&e))?;
    let config = Config::load(&paths.config).map_err(|e| text(&e))?;
    // First of all: two that start at once would take each other's socket for a leftover.
    let lock = Lock::attempt(&paths.daemon_lock()).map_err(|e| text(&e))?;
    let lock = lock.ok_or("another bangerd of this installation is running")?;
    // Before the store: a second daemon shall find the socket answered, not the database locked.
    let listener = service::listen(&paths.socket()).map_err(|e| text(&e))?;
    let store = Store::open(&paths.state).map_err(|e| text(&e))?;
    let signals = terminating_signals().map_err(|e| text(&e))?;
    let (sender, ending) = smol::channel::bounded(1);
    let daemon = Arc::new(Daemon {
        helper: helper::Helper::new(&paths.root_socket()),
        dns: dns::Dns::new(&config.network.dns),
        secrets: secrets::Secrets::new(),
        store: Arc::new(store),
        executor: Arc::new(Executor::new()),
        machines: Mutex::new(HashMap::new()),
        making: Mutex::default(),
        reconciled: smol::lock::Mutex::new(false),
        workload: super::operation::Workload::default(),
        ending: sender,
        faults: FaultPoint::of_environment(config.vmm == VmmSetting::Fake).map_err(|e| text(&e))?,
        config,
        paths,
    });
    Ok(Prepared { daemon, listener, ending, signals, _lock: lock })
}

/// Each VM and each connection takes a few descriptors; the customary soft limit of 1024 is there for
/// programs that use select(2) (setrlimit(2), systemd.exec(5)).
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!("the limit of open files stays at {:?}: {e}", limit.current);
    }
}

/// A stream that becomes readable when SIGTERM, SIGINT or SIGHUP arrives.
fn terminating_signals() -> io::Result<UnixStream> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let (receiver, sender) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    Ok(receiver)
}

impl Prepared {
    fn run(self) -> ExitCode {
        let executor = self.daemon.executor.clone();
        // The second thread: one slow poll of a task must not hold up all others.
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let beside = executor.clone();
        let thread = std::thread::Builder::new().name("executor".into()).spawn(move || {
            smol::block_on(beside.run(async {
                // Closed when the first thread ends.
                let _ = stopped.recv().await;
            }))
        });
        if let Err(e) = thread {
            warn!("goes on with one thread: {e}");
        }
        let outcome = smol::block_on(executor.run(self.serve()));
        drop(stop);
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                error!("ends: {e}");
                ExitCode::FAILURE
            }
        }
    }

    async fn serve(self) -> io::Result<()> {
        let daemon = self.daemon;
        info!("banger {BUILD} serves {}", daemon.paths.socket().display());
        let (settling, settled) = smol::channel::bounded::<()>(1);
        daemon.spawn(reconcile::at_start(daemon.clone(), settling));
        if within(SETTLE_LIMIT, settled.recv()).await.is_none() {
            warn!("some virtual machines are still being found again; serving meanwhile");
        }
        crate::os::readiness::announce()?;
        if let Some(heart) = Heartbeat::wanted() {
            daemon.spawn(beat(heart));
        }
        let signals = Async::new(self.signals)?;
        let told = async {
            match self.ending.recv().await {
                Ok(Ending::StoreLost) => Err(io::Error::other("the store is lost to this process: see above")),
                // Nobody is left who could tell: the end all the same.
                Ok(Ending::Asked) | Err(_) => Ok(()),
            }
        };
        let signalled = async {
            signals.readable().await?;
            let mut byte = [0; 1];
            (&mut signals.get_ref()).read_exact(&mut byte)
        };
        let service::Listener { socket, is_own } = self.listener;
        let outcome = server::accept(&daemon, socket).or(told).or(signalled).await;
        info!("ends; virtual machines go on");
        service::tell_stopping();
        if is_own {
            // While the lock is held: it is this daemon's own name that goes.
            let _ = std::fs::remove_file(daemon.paths.socket());
        }
        outcome
    }
}

/// By a task among the others: where none of them gets on, this does not either.
async fn beat(mut heart: Heartbeat) {
    loop {
        Timer::at(heart.due()).await;
        heart.beat();
    }
}

fn complain(message: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr(), "bangerd: {message}");
}

fn say(text: &str, code: ExitCode) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
