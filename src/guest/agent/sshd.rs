//! ssh without waiting for sshd.
//!
//! The agent listens on port 22 and starts the image's `sshd -i` for each connection, as inetd would, or its
//! own server where the image has none. So ssh answers from the moment that `init` says ready, long before the
//! image's init has started anything, and no unit of the image can stop, restart or reconfigure it away.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::{SELF, start};
use crate::guest::console::{self, say};
use crate::guest::environment;
use crate::guest::error::{Doing, GuestError};
use crate::guest::ssh::{self, keys};
use crate::os::files;

/// Most connections at once.
const MAX_SESSIONS: usize = 64;

/// How long to wait when descriptors or memory are short.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Where images keep the server.
const CANDIDATES: [&str; 3] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"];

/// The folder that Debian's sshd locks itself into; nothing of the image creates it in time.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// What differs from the image's own configuration. PAM and reverse lookups would wait for
/// logind and for a resolver that may not be there yet.
const OPTIONS: [&str; 5] = [
    "UsePAM=no",
    "UseDNS=no",
    "PermitRootLogin=prohibit-password",
    "HostKey=/etc/ssh/ssh_host_ed25519_key",
    "PidFile=none",
];

/// What is started for each connection.
#[derive(Debug, PartialEq, Eq)]
enum Program {
    /// The image's.
    Image(PathBuf),
    /// This very binary (`guest::ssh`).
    Own,
}

/// Listens, and knows what to start.
pub struct Server {
    program: Program,
    listener: TcpListener,
}

/// Whether the image brings an ssh server: then that one is used.
pub fn is_in_image() -> bool {
    find(&CANDIDATES).is_some()
}

impl Server {
    /// Which server it is was decided by `init`, for this boot: it left keys for our own, or gave the image's
    /// its own. One that is installed later has other keys than those that the host knows.
    pub fn open() -> Result<Self, GuestError> {
        let image = if keys::are_there() { None } else { find(&CANDIDATES) };
        let program = image.map_or(Program::Own, Program::Image);
        let listener = listen().doing(|| "listen on port 22".into())?;
        Ok(Self { program, listener })
    }

    /// Whose server answers, in words.
    pub fn describe(&self) -> String {
        match &self.program {
            Program::Image(path) => path.display().to_string(),
            Program::Own => "banger's own server".to_owned(),
        }
    }

    /// Accepts for ever.
    pub fn serve(self) -> Result<(), GuestError> {
        let sessions = Arc::new(AtomicUsize::new(0));
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, &sessions),
                Err(e) if is_passing(&e) => {}
                // No event tells of free descriptors or memory; without a pause this would spin.
                Err(e) if is_shortage(&e) => std::thread::sleep(SHORTAGE_PAUSE),
                Err(e) => return Err(e).doing(|| "accept on port 22".into()),
            }
        }
    }

    fn admit(&self, stream: TcpStream, sessions: &Arc<AtomicUsize>) {
        if sessions.load(Ordering::Relaxed) >= MAX_SESSIONS {
            // Dropped: the client sees a closed connection.
            return say(&format!("ssh: refused a connection, {MAX_SESSIONS} are open"));
        }
        match self.start_session(stream) {
            Ok(child) => watch(child, sessions.clone()),
            Err(error) => say(&format!("trouble: cannot start {}: {error}", self.describe())),
        }
    }

    fn start_session(&self, stream: TcpStream) -> io::Result<Child> {
        let output = OwnedFd::from(stream.try_clone()?);
        let child = self
            .command()?
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(OwnedFd::from(stream))
            .stdout(output)
            .stderr(console::open().map_or_else(Stdio::null, Stdio::from))
            .process_group(0)
            .spawn()?;
        // What a person runs is no more precious than anything else; the agent is.
        let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");
        Ok(child)
    }

    fn command(&self) -> io::Result<Command> {
        match &self.program {
            Program::Image(path) => {
                files::ensure_dir(Path::new(PRIVILEGE_SEPARATION), 0o755)?;
                let mut command = Command::new(path);
                command.args(arguments());
                Ok(command)
            }
            Program::Own => {
                let mut command = Command::new(SELF);
                command.arg0("banger-agent").arg(ssh::FLAG).current_dir("/");
                Ok(command)
            }
        }
    }
}

fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-i".into(), "-e".into()];
    for option in OPTIONS {
        arguments.extend(["-o".into(), option.into()]);
    }
    // In one option: of several the first counts (sshd_config(5)).
    let variables: Vec<String> =
        environment::read().iter().map(|(name, value)| worded(&format!("{name}={value}"))).collect();
    if !variables.is_empty() {
        arguments.extend(["-o".into(), format!("SetEnv={}", variables.join(" ")).into()]);
    }
    arguments
}

/// One word of sshd's configuration: in quotes, with `\` before what would end them (`argv_split` in misc.c).
fn worded(text: &str) -> String {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./=".contains(&b));
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

fn find(candidates: &[&str]) -> Option<PathBuf> {
    candidates.iter().map(PathBuf::from).find(|p| p.is_file())
}

/// All addresses of both families, or of IPv4 where the kernel has no IPv6.
fn listen() -> io::Result<TcpListener> {
    let any = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, 22)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, 22))];
    TcpListener::bind(&any[..])
}

/// A client that gave up meanwhile: Linux passes the errors of its connection on (accept(2)).
fn is_passing(error: &io::Error) -> bool {
    let passing = [
        Errno::INTR,
        Errno::CONNABORTED,
        Errno::NETDOWN,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::NONET,
        Errno::PERM,
    ];
    passing.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

/// No descriptor or no memory at the moment.
fn is_shortage(error: &io::Error) -> bool {
    let shortage = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortage.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

/// Reaps the session's server when it ends.
fn watch(mut child: Child, sessions: Arc<AtomicUsize>) {
    sessions.fetch_add(1, Ordering::Relaxed);
    let counter = sessions.clone();
    let started = start("ssh session", move || {
        // Fails only when somebody else has reaped it.
        let _ = child.wait();
        counter.fetch_sub(1, Ordering::Relaxed);
    });
    if !started {
        sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_server_has_none() {
        assert_eq!(find(&["/nonexistent/sshd", "/proc"]), None);
    }

    #[test]
    fn a_client_that_gave_up_does_not_end_the_server() {
        assert!(is_passing(&io::Error::from_raw_os_error(Errno::CONNABORTED.raw_os_error())));
        assert!(!is_passing(&io::Error::from_raw_os_error(Errno::BADF.raw_os_error())));
    }
}
