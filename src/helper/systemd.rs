//! Scopes: cgroups that systemd makes for processes that it did not start (systemd.scope(5)).
//!
//! On a host that systemd runs, all cgroups are its own; one made behind its back may be taken down
//! by it. It is asked at its private socket, which is root's and there without a message bus. What
//! is called is documented in org.freedesktop.systemd1(5).

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::authority::Root;
use super::dbus::{Answer, Body, Bus, Message, Target};
use crate::os::socket::peer;

/// There when systemd runs this host (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Where it listens to root.
const SOCKET: &str = "/run/systemd/private";

/// Where virtual machines belong (systemd.special(7)).
pub const SLICE: &str = "machine.slice";

/// How long all of one deed may take. A `daemon-reexec` is over sooner.
const LIMIT: Duration = Duration::from_secs(8);

/// How long it may not listen.
const LISTENS: Duration = Duration::from_secs(1);

const MANAGER: Target<'static> = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// A scope to be made.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Its name with `.scope`.
    pub name: &'a str,
    /// What people are shown.
    pub description: &'a str,
    /// Who is moved into it. Each must be an unreaped child of the caller, or the pid might be
    /// another's by the time that systemd looks.
    pub pids: &'a [u32],
    /// Bytes.
    pub memory: u64,
    /// Threads.
    pub tasks: u64,
    /// Microseconds of CPU time in each second.
    pub cpu: u64,
}

/// Why there is no scope.
#[derive(Debug)]
pub enum NoScope {
    /// There is one of that name.
    Exists,
    /// It could not be asked, or refused.
    Failed(io::Error),
}

impl From<io::Error> for NoScope {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Whether systemd runs this host.
pub fn is_running() -> bool {
    Path::new(BOOTED).symlink_metadata().is_ok_and(|about| about.is_dir())
}

/// Makes a scope; done when its job is.
pub fn start_scope(_: &Root, scope: &Scope<'_>) -> Result<(), NoScope> {
    let mut bus = connect(Path::new(SOCKET), Instant::now() + LIMIT)?;
    let answer = bus.call(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", &start_body(scope))?;
    let job = match answer {
        Answer::Refusal { name, .. } if name == UNIT_EXISTS => return Err(NoScope::Exists),
        other => job_of(other)?,
    };
    match wait_for_job(&mut bus, &job)?.as_str() {
        "done" => Ok(()),
        other => Err(io::Error::other(format!("its job ended: {other}")).into()),
    }
}

/// Kills all that is in a scope and takes it away; done when it is gone.
pub fn stop_scope(_: &Root, name: &str) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    let mut bus = connect(Path::new(SOCKET), deadline)?;
    let mut kill = Body::default();
    // The last is `i`, which has the bytes of a `u`.
    kill.text(name).text("all").number(rustix::process::Signal::KILL.as_raw() as u32);
    // One without a process cannot be killed; whether there is one is seen next.
    if is_missing(&bus.call(MANAGER, "KillUnit", "ssi", &kill)?) {
        return Ok(());
    }
    let mut stop = Body::default();
    stop.text(name).text("replace");
    match bus.call(MANAGER, "StopUnit", "ss", &stop)? {
        answer if is_missing(&answer) => return Ok(()),
        answer => wait_for_job(&mut bus, &job_of(answer)?)?,
    };
    let mut get = Body::default();
    get.text(name);
    if is_missing(&bus.call(MANAGER, "GetUnit", "s", &get)?) {
        return Ok(());
    }
    // It is forgotten soon after its end.
    bus.wait_for_signal(|signal| forgotten(signal, name).then_some(()))
}

/// `UnitRemoved(s id, o unit)`.
fn forgotten(signal: &Message, name: &str) -> bool {
    let id = signal.values("so").filter(|_| signal.is_signal("UnitRemoved"));
    id.is_some_and(|mut values| values.text() == Some(name))
}

fn start_body(scope: &Scope<'_>) -> Body {
    let mut body = Body::default();
    body.text(scope.name).text("fail");
    body.array(8, |list| {
        for (name, value) in [
            ("Description", scope.description),
            ("Slice", SLICE),
            ("CollectMode", "inactive-or-failed"),
            // For the host's end alone; a VM's own is a kill.
            ("KillMode", "control-group"),
        ] {
            list.structure().text(name).signature("s").text(value);
        }
        for (name, value) in [("Delegate", 0), ("SendSIGKILL", 1)] {
            list.structure().text(name).signature("b").number(value);
        }
        for (name, value) in [
            ("MemoryMax", scope.memory),
            ("TasksMax", scope.tasks),
            ("CPUQuotaPerSecUSec", scope.cpu),
            ("TimeoutStopUSec", 10_000_000),
        ] {
            list.structure().text(name).signature("t").long(value);
        }
        list.structure().text("PIDs").signature("au").array(4, |pids| {
            for pid in scope.pids {
                pids.number(*pid);
            }
        });
    });
    body.array(8, |_| {});
    body
}

/// Connects to systemd. While it executes itself anew nobody listens for a moment, and its socket is
/// made anew.
fn connect(path: &Path, deadline: Instant) -> io::Result<Bus> {
    let patience = deadline.min(Instant::now() + LISTENS);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                let peer = peer(stream.as_fd())?;
                // Of another pid namespace it would have another pid here, and take ours for others'.
                if (peer.uid, peer.pid) != (0, 1) {
                    return Err(io::Error::other(format!("{} is not this host's systemd's", path.display())));
                }
                return Bus::greet(stream, deadline);
            }
            Err(e) => {
                let passes = matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
                if !passes || Instant::now() > patience {
                    return Err(e);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn job_of(answer: Answer) -> io::Result<String> {
    match answer {
        Answer::Return(message) => {
            let job = message.values("o").and_then(|mut values| values.text().map(str::to_owned));
            job.ok_or_else(|| io::Error::other("systemd names no job"))
        }
        Answer::Refusal { name, message } => Err(io::Error::other(format!("systemd refuses: {message} ({name})"))),
    }
}

fn is_missing(answer: &Answer) -> bool {
    matches!(answer, Answer::Refusal { name, .. } if name == NO_SUCH_UNIT)
}

/// Waits for the end of `job`; what it came to.
fn wait_for_job(bus: &mut Bus, job: &str) -> io::Result<String> {
    bus.wait_for_signal(|signal| removed(signal, job))
}

/// `JobRemoved(u id, o job, s unit, s result)`.
fn removed(signal: &Message, job: &str) -> Option<String> {
    let mut values = signal.values("uoss").filter(|_| signal.is_signal("JobRemoved"))?;
    values.number()?;
    let is_ours = values.text()? == job;
    values.text()?;
    let result = values.text()?;
    is_ours.then(|| result.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_listens_there_is_no_scope_and_no_long_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let began = Instant::now();
        assert!(connect(&folder.path().join("missing"), began + LIMIT).is_err());
        assert!(began.elapsed() < LIMIT / 2);
        let path = folder.path().join("deaf");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(connect(&path, Instant::now() + Duration::from_millis(50)).is_err());
    }
}
