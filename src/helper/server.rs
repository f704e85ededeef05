//! Sockets, frames and the one loop: a listener, some connections, the signals that end it, and the
//! pidfds of all monitors.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::authority::Root;
use super::connection::{Asked, Connection};
use super::error::{Doing, HelperError, Result};
use super::folder::Folder;
use super::permit;
use super::service::Service;
use crate::host::paths::{Environment, Paths};
use crate::os::accounts::{self, Account};
use crate::os::own_folder::OwnFolder;
use crate::os::service::{self, Heartbeat, Listener};
use crate::protocol::root::RootRequest;

/// Conversations at the same time: the daemon's few, a person's, and some to spare.
const MAX_CONNECTIONS: usize = 16;

const SOCKET: &str = "bangerd-root.sock";
const LOG: &str = "bangerd-root.log";
const LOCK: &str = "bangerd-root.lock";

/// The variable that permits the monitor of the tests.
const FAKE: &str = "BANGER_FAKE_VMM";

struct Server {
    owner: u32,
    listener: UnixListener,
    signals: UnixStream,
    connections: Vec<Connection>,
    service: Service,
    heart: Option<Heartbeat>,
    shutting_down: bool,
    _lock: OwnedFd,
}

/// Which of what was waited on has something.
struct Ready {
    signals: bool,
    listener: bool,
    rules: bool,
    connections: Vec<bool>,
    pidfds: Vec<bool>,
}

/// Serves until told to end. Monitors go on.
pub fn serve(arguments: &[OsString]) -> Result<()> {
    let owner = parse_owner(arguments)?;
    // A new session: what is typed at the terminal of whoever started it is not meant for it. Fails
    // only for the leader of a process group, which systemd or a shell has put where it shall be.
    let _ = rustix::process::setsid();
    let root = Root::claim()?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let mut server = Server::start(root, owner)?;
    log::info!("ready for uid {owner}, pid {}", std::process::id());
    crate::os::readiness::announce().doing("let go of standard output")?;
    while !server.shutting_down {
        server.turn()?;
    }
    log::info!("ending; monitors go on");
    service::tell_stopping();
    Ok(())
}

fn parse_owner(arguments: &[OsString]) -> Result<u32> {
    let usage = || HelperError::Usage("usage: bangerd-root --owner UID".into());
    match arguments {
        [flag, uid] if flag == "--owner" => uid.to_str().and_then(|u| u.parse().ok()).ok_or_else(usage),
        _ => Err(usage()),
    }
}

/// The runtime directory for `owner`, and the one for disks. One that no account database knows has no home.
fn open_folders(root: &Root, owner: u32) -> Result<(Folder, OwnFolder)> {
    let nobody =
        || Account { name: owner.to_string(), uid: owner, gid: owner, home: "/".into(), shell: "/bin/sh".into() };
    let account = accounts::of_uid(owner).unwrap_or_else(nobody);
    let paths = Paths::new(&Environment::of_account(&account));
    for path in [&paths.root_run, &paths.root_state] {
        if let (0, Some(parent)) = (owner, path.parent()) {
            std::fs::create_dir_all(parent).doing(format!("create folder {}", parent.display()))?;
        }
    }
    Ok((Folder::open(root, &paths.root_run)?, OwnFolder::open(&paths.root_state, 0o700)?))
}

impl Server {
    fn start(root: Root, owner: u32) -> Result<Self> {
        let (folder, disks) = open_folders(&root, owner)?;
        let lock = lock(&folder)?;
        crate::os::logger::install_for_daemon(&folder.at(LOG)).doing("open the log")?;
        let signals = signals().doing("wait for signals")?;
        let Listener { socket: listener, is_own } = service::listen(&folder.at(SOCKET)).doing("listen")?;
        listener.set_nonblocking(true).doing("listen")?;
        let fake = std::env::var_os(FAKE).is_some_and(|value| value == "1");
        // The socket answers only once all VMs are known: until then connections wait in its queue.
        if is_own {
            folder.give(SOCKET, owner)?;
        }
        let service = Service::start(root, folder, disks, fake)?;
        let (connections, heart) = (Vec::new(), Heartbeat::wanted());
        Ok(Self { owner, listener, signals, connections, service, heart, shutting_down: false, _lock: lock })
    }

    /// Waits for anything, and serves all of it.
    fn turn(&mut self) -> Result<()> {
        let ready = self.wait()?;
        if let Some(heart) = &mut self.heart {
            heart.beat();
        }
        self.shutting_down |= ready.signals;
        // From the back, because each one that ended is taken out.
        for at in (0..ready.pidfds.len()).rev().filter(|at| ready.pidfds[*at]) {
            self.service.notice_end(at);
        }
        if ready.rules {
            self.service.notice_rules();
        }
        let now = Instant::now();
        for (at, ready) in ready.connections.iter().enumerate() {
            if *ready || self.connections[at].has_work() {
                self.converse(at);
            }
            self.connections[at].check_patience(now);
        }
        self.connections.retain(|connection| !connection.is_over());
        if ready.listener {
            self.accept();
        }
        Ok(())
    }

    fn wait(&self) -> Result<Ready> {
        let pidfds = self.service.pidfds();
        let vigil = self.service.vigil();
        let always = [self.signals.as_fd(), self.listener.as_fd(), vigil];
        let mut waited: Vec<_> = always.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        waited.extend(self.connections.iter().map(|connection| {
            let wanted = if connection.is_sending() { PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(connection.socket(), wanted)
        }));
        waited.extend(pidfds.iter().map(|pidfd| PollFd::from_borrowed_fd(*pidfd, PollFlags::IN)));
        match poll(&mut waited, self.patience().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(std::io::Error::from(e)).doing("wait"),
        }
        let mut ready = waited.iter().map(|polled| !polled.revents().is_empty());
        let mut next = || ready.next() == Some(true);
        let (signals, listener, rules) = (next(), next(), next());
        let connections = ready.by_ref().take(self.connections.len()).collect();
        Ok(Ready { signals, listener, rules, connections, pidfds: ready.collect() })
    }

    /// How long nothing needs to be done when nothing happens; `None`: for ever.
    fn patience(&self) -> Option<Timespec> {
        if self.connections.iter().any(Connection::has_work) {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let beat = self.heart.as_ref().map(Heartbeat::due);
        let first = self.connections.iter().filter_map(Connection::deadline).chain(beat).min()?;
        // Rounded up: a wait that ends too early would be repeated until the time has come.
        let rest = first.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Some(Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) })
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let caller = crate::os::socket::peer(stream.as_fd()).map(|peer| (permit::caller(peer.uid, self.owner), peer));
        match caller {
            Ok((Some(_), _)) if !self.has_room() => {
                log::warn!("a connection was refused: {MAX_CONNECTIONS} are open");
            }
            Ok((Some(caller), _)) => match Connection::new(stream, caller) {
                Ok(connection) => self.connections.push(connection),
                Err(e) => log::warn!("a connection was lost: {e}"),
            },
            Ok((None, peer)) => log::warn!("uid {} may not speak to this helper", peer.uid),
            Err(e) => log::warn!("a connection of unknown origin was refused: {e}"),
        }
    }

    /// Whether one more fits in, if need be in the place of the oldest that has not greeted: silence,
    /// however often, keeps nobody out.
    fn has_room(&mut self) -> bool {
        if self.connections.len() < MAX_CONNECTIONS {
            return true;
        }
        let stranger = self.connections.iter().position(|connection| !connection.has_greeted());
        stranger.map(|at| self.connections.remove(at)).is_some()
    }

    /// One request at most: the others take their turn in between.
    fn converse(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.is_sending() {
            connection.send();
        } else if !connection.has_work() {
            connection.receive();
        }
        if let Some(asked) = self.connections[at].next_request() {
            self.answer(at, asked);
        }
    }

    fn answer(&mut self, at: usize, (call, files): Asked) {
        let (op, begun) = (call.op, Instant::now());
        let summary = permit::summary(op, &call.request);
        let shutdown = matches!(call.request, RootRequest::Shutdown);
        let quiet = matches!(call.request, RootRequest::Status | RootRequest::Inventory);
        match self.service.handle(call, files) {
            Ok((reply, files)) => {
                let level = if quiet { log::Level::Debug } else { log::Level::Info };
                log::log!(level, "{summary}: done in {} ms", begun.elapsed().as_millis());
                self.connections[at].answer(&Ok(reply), files);
            }
            Err(error) => {
                log::warn!("{summary}: {}", error.line());
                self.connections[at].answer(&Err(error.fault()), Vec::new());
            }
        }
        self.shutting_down |= shutdown;
    }
}

/// Held as long as the helper lives (flock(2)).
fn lock(folder: &Folder) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(folder.at(LOCK), flags, Mode::from_raw_mode(0o600)).doing("open the lock")?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(HelperError::AlreadyRunning),
        Err(e) => Err(std::io::Error::from(e)).doing("lock"),
    }
}

/// The signals that end the helper, as something to wait on.
fn signals() -> std::io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_a_number_and_nothing_else_is_taken() {
        let parsed = |words: &[&str]| parse_owner(&words.iter().map(OsString::from).collect::<Vec<_>>()).ok();
        assert_eq!(parsed(&["--owner", "1000"]), Some(1000));
        for bad in [&[][..], &["--owner"], &["--owner", "root"], &["--owner", "-1"], &["1000"]] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
