//! The agent: answers the daemon over one port and lets ssh in.
//!
//! One process (and one that starts it again, `keeper`), blocking threads, no executor: *port reader* (hears), *port writer* (says),
//! *worker* (answers what takes time), *ssh* (accepts on port 22), *button* (the machine's power
//! button), and the main thread (signals). Whatever comes over the port is garbled until proven
//! otherwise; nothing that it holds is executed or becomes a path.

/// The machine's power button.
mod button;
/// Who is connected to somebody who listens.
mod connected;
/// Connections over a vsock.
mod connections;
/// What starts the agent again.
mod keeper;
/// Sockets that listen.
mod listeners;
/// What is said to the host.
pub mod mouth;
/// The virtio-serial port.
mod port;
/// What is asked, and the answers.
pub mod requests;
/// Reading one stream until it ends.
pub mod serve;
/// Telling pid 1 to end this guest.
mod shutdown;
/// ssh without waiting for sshd.
pub mod sshd;
/// Numbers of the running system.
mod stats;

use std::ffi::{CStr, OsString};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::mouth::Mouth;
use self::requests::{Facts, Hands, Worker};
use super::console::{say, uptime};
use super::error::{Doing, GuestError, chain};
use super::init::TROUBLES_PATH;
use super::shell::channels::Channels;
use super::shell::{jobs, tools, user};
use super::ssh;
use crate::protocol::guest::Announcement;

/// Stack of a thread: none here is deep.
const STACK: usize = 128 << 10;

/// This binary; its file may be gone with the initramfs.
pub const SELF: &str = "/proc/self/exe";

/// What `init` starts: the keeper, which starts the agent.
pub const KEEPER: &str = "--keep";

/// What the keeper starts.
const GUEST: &str = "--guest";

/// Runs keeper or agent until told to end. Started by hand it refuses, as `init` does: on a host it
/// would take port 22.
pub fn run(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [word] if word == KEEPER => keeper::run(),
        [word] if word == GUEST => attend(),
        [flag] if flag == ssh::FLAG => ssh::run(),
        [flag, word] if flag == tools::FLAG => tools::run(word),
        [flag, number] if flag == jobs::FLAG => keep_job(number),
        [flag, words @ ..] if flag == user::FLAG => user::run(words),
        _ => {
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "banger-agent: it belongs into a guest, where init starts it");
            ExitCode::from(70)
        }
    }
}

fn keep_job(number: &OsString) -> ExitCode {
    match jobs::keep(&number.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("trouble: job {}: {error}", number.to_string_lossy()));
            ExitCode::FAILURE
        }
    }
}

fn attend() -> ExitCode {
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("the agent cannot go on: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

fn live() -> Result<(), GuestError> {
    become_independent(c"banger-agent");
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).doing(|| "wait for signals".into())?;
    let mouth = Arc::new(Mouth::default());
    let troubles = announce_troubles(&mouth);
    let ssh = start_ssh(&mouth);
    let facts = Facts { ssh, troubles };
    mouth.announce(ready(ssh));
    say(if ssh { "ready, ssh answers" } else { "ready, without ssh" });
    start("button", || button::watch(shutdown::begin));
    let worker = Worker::start(mouth.clone(), facts, Hands::Guest(Channels::default()));
    let talker = mouth.clone();
    start("port", move || report("port", port::talk(&talker, &worker)));
    // SIGHUP is what a vanished terminal sends: no reason to end.
    signals.forever().find(|s| *s != SIGHUP);
    mouth.announce(Announcement::GoingDown);
    mouth.wait_until_said(LAST_WORDS);
    Ok(())
}

/// How long the last words may take.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(200);

/// Out of init's session, named, last to be chosen by the out-of-memory killer, and with the
/// limits that systemd would give (`DefaultLimitNOFILE`): ssh sessions inherit them.
fn become_independent(name: &CStr) {
    let files = Rlimit { current: Some(1024), maximum: Some(524_288) };
    // Each fails only when it is so already or not allowed; the agent works without.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(name);
    let _ = setrlimit(Resource::Nofile, files);
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
}

fn announce_troubles(mouth: &Mouth) -> Vec<String> {
    let troubles: Vec<String> =
        std::fs::read_to_string(TROUBLES_PATH).unwrap_or_default().lines().map(str::to_owned).collect();
    for text in &troubles {
        mouth.announce(Announcement::Trouble { text: text.clone() });
    }
    troubles
}

/// Whether ssh answers from now on.
fn start_ssh(mouth: &Mouth) -> bool {
    match sshd::Server::open() {
        Ok(server) => {
            say(&format!("ssh: {}", server.describe()));
            start("ssh", move || report("ssh", server.serve()))
        }
        Err(error) => {
            let text = chain(&error);
            say(&format!("trouble: {text}"));
            mouth.announce(Announcement::Trouble { text });
            false
        }
    }
}

/// What is announced once the guest can be used.
pub fn ready(ssh: bool) -> Announcement {
    Announcement::Ready {
        boot_id: stats::boot_id(),
        ssh,
        uptime_ms: uptime().as_millis().try_into().unwrap_or(u64::MAX),
    }
}

/// A thread named after what it does; whether it runs.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let started = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work);
    if let Err(error) = &started {
        say(&format!("trouble: cannot start the thread for {name}: {error}"));
    }
    started.is_ok()
}

fn report(name: &str, result: Result<(), GuestError>) {
    if let Err(error) = result {
        say(&format!("trouble: {name}: {}", chain(&error)));
    }
}
