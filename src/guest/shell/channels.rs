//! The channels of a guest: which are in use, and the thread that serves each.
//!
//! A channel is free again only once its host was seen to go, so that a late farewell of one host
//! cannot end the conversation of the next.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::session;
use super::wire::{Kind, Wire};
use crate::guest::agent;
use crate::guest::console::say;
use crate::guest::vsock::{self, Listener};
use crate::protocol::shell::{CHANNELS, Token, channel_name};

/// How long a host that has announced itself may take to come.
const COMING: Duration = Duration::from_secs(10);

const CLASS: &str = "/sys/class/virtio-ports";

/// The first vsock port of a command, and how many there are: each is one channel.
const FIRST_PORT: u32 = 1100;
const PORTS: u32 = 4096;

/// All channels.
#[derive(Debug, Default)]
pub struct Channels {
    known: Mutex<Vec<Channel>>,
    /// Vsock ports that were given out, counted.
    ports: AtomicU32,
    /// Commands that run over a vsock.
    running: Arc<AtomicU32>,
    /// Hosts that are connected to a channel of the monitor's.
    hosts: Arc<AtomicU32>,
}

/// What waits for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// This channel of the monitor's.
    Channel(u8),
    /// One connection to this vsock port.
    Port(u32),
}

#[derive(Debug)]
struct Channel {
    orders: Sender<Token>,
    busy: Arc<Mutex<bool>>,
}

impl Channels {
    /// Has a channel wait for `token`; which one, or why there is none.
    pub fn open(&self, token: Token) -> Result<Opened, String> {
        if vsock::is_there() {
            self.open_port(token).map(Opened::Port)
        } else {
            self.open_channel(token).map(Opened::Channel)
        }
    }

    /// Commands that somebody is connected to.
    pub fn in_use(&self) -> u32 {
        self.running.load(Ordering::Relaxed) + self.hosts.load(Ordering::Relaxed)
    }

    /// Has a vsock port of its own wait for one connection.
    fn open_port(&self, token: Token) -> Result<u32, String> {
        let running = self.running.clone();
        if running.fetch_add(1, Ordering::Relaxed) >= MAX_RUNNING {
            running.fetch_sub(1, Ordering::Relaxed);
            return Err(format!("{MAX_RUNNING} commands run already"));
        }
        let opened = self.bind_port().and_then(|(port, listener)| {
            let counted = running.clone();
            let serving = move || {
                serve_one(&listener, token);
                counted.fetch_sub(1, Ordering::Relaxed);
            };
            agent::start("shell", serving).then_some(port).ok_or_else(|| "there is no thread for it".to_owned())
        });
        if opened.is_err() {
            running.fetch_sub(1, Ordering::Relaxed);
        }
        opened
    }

    /// The next port that nobody listens on.
    fn bind_port(&self) -> Result<(u32, Listener), String> {
        let mut failed = "no vsock port is free".to_owned();
        for _ in 0..PORTS {
            let port = FIRST_PORT + self.ports.fetch_add(1, Ordering::Relaxed) % PORTS;
            match Listener::bind(port) {
                Ok(listener) => return Ok((port, listener)),
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(e) => {
                    failed = format!("cannot listen on vsock port {port}: {e}");
                    break;
                }
            }
        }
        Err(failed)
    }

    fn open_channel(&self, token: Token) -> Result<u8, String> {
        let mut known = lock(&self.known);
        if let Some(at) = known.iter().position(|c| !*lock(&c.busy)) {
            *lock(&known[at].busy) = true;
            known[at].orders.send(token).map_err(|_| format!("channel {at} is broken"))?;
            return u8::try_from(at).map_err(|e| e.to_string());
        }
        loop {
            let number = u8::try_from(known.len()).ok().filter(|n| *n < CHANNELS);
            let number = number.ok_or_else(|| format!("all {CHANNELS} channels are in use"))?;
            let (channel, has_host) = Channel::make(number, &self.hosts)?;
            // An agent before this one gave it out, and its host is still there: not for the next.
            if !has_host {
                channel.orders.send(token).map_err(|_| format!("channel {number} is broken"))?;
                known.push(channel);
                return Ok(number);
            }
            known.push(channel);
        }
    }
}

/// Most commands at once over a vsock: each has a thread here.
const MAX_RUNNING: u32 = 256;

/// Serves the one host that comes, if it says the token.
fn serve_one(listener: &Listener, token: Token) {
    let served = listener.accept_within(COMING).and_then(|came| {
        let Some(host) = came else { return Ok(()) };
        let mut wire = Wire::new(File::from(host), Kind::Connection)?;
        if wire.begin(token, COMING)? { session::serve(&mut wire) } else { Ok(()) }
    });
    if let Err(e) = served {
        say(&format!("trouble: a conversation over vsock broke: {e}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked has ended the process (`panic = "abort"`).
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    /// The channel, and whether a host is there that nobody of this agent has let in.
    fn make(number: u8, hosts: &Arc<AtomicU32>) -> Result<(Self, bool), String> {
        let path = find(Path::new(CLASS), &channel_name(number)).ok_or("this monitor has no more channels")?;
        let open = OpenOptions::new().read(true).write(true).open(&path);
        let file = open.map_err(|e| format!("cannot open {}: {e}", path.display()))?;
        let wire = Wire::new(file, Kind::Port).map_err(|e| format!("cannot watch {}: {e}", path.display()))?;
        let has_host = wire.is_host_here();
        let (orders, queue) = channel();
        let busy = Arc::new(Mutex::new(true));
        let (shared, hosts) = (busy.clone(), hosts.clone());
        if !agent::start("shell", move || attend(wire, has_host, &queue, &shared, &hosts)) {
            return Err("there is no thread for another channel".into());
        }
        Ok((Self { orders, busy }, has_host))
    }
}

/// The device of the port called `name`.
fn find(class: &Path, name: &str) -> Option<PathBuf> {
    let named = |port: &fs::DirEntry| fs::read_to_string(port.path().join("name")).is_ok_and(|n| n.trim() == name);
    let port = fs::read_dir(class).ok()?.flatten().find(named)?;
    Some(Path::new("/dev").join(port.file_name()))
}

/// Serves one host after the other. A channel that breaks stays busy for ever.
fn attend(mut wire: Wire, has_host: bool, orders: &Receiver<Token>, busy: &Mutex<bool>, hosts: &AtomicU32) {
    if has_host {
        counted(hosts, || release(&mut wire, busy));
    }
    for token in orders {
        counted(hosts, || {
            let served =
                wire.begin(token, COMING).and_then(|came| if came { session::serve(&mut wire) } else { Ok(()) });
            if let Err(e) = served {
                say(&format!("trouble: a conversation over a channel broke: {e}"));
            }
            release(&mut wire, busy);
        });
    }
}

fn counted(hosts: &AtomicU32, serve: impl FnOnce()) {
    hosts.fetch_add(1, Ordering::Relaxed);
    serve();
    hosts.fetch_sub(1, Ordering::Relaxed);
}

/// Free once its host has gone; one whose host cannot be watched is never free.
fn release(wire: &mut Wire, busy: &Mutex<bool>) {
    match wire.wait_until_gone() {
        Ok(()) => *lock(busy) = false,
        Err(e) => say(&format!("trouble: a channel cannot be used any more: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_channels_says_so() {
        assert!(find(Path::new("/no/such/class"), "x").is_none());
        let why = Channels::default().open_channel([0; 16]).expect_err("none");
        assert!(why.contains("channels"), "{why}");
    }
}
