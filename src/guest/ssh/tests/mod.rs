//! This server against the clients that people have: OpenSSH's over loopback, and libssh2 in the room
//! `carriers`. Where there is no OpenSSH these tests say so and do nothing.

mod channels;
mod clients;
mod files;
mod hostile;

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::error::SessionError;
use super::keys::Keys;
use super::{LIMITS, Limits, NAME, serve};
use crate::os::need;

/// One server, a thread per connection.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    /// Lets the owner of `authorized` in; `host` is the private key.
    fn start(host: &str, authorized: &str, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let keys = (host.to_owned(), authorized.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (keys, stream) = (keys.clone(), stream.expect("accepted"));
                std::thread::spawn(move || serve_one(stream.into(), &keys.0, &keys.1, limits));
            }
        });
        Self { folder: tempfile::tempdir().expect("a folder"), port }
    }

    /// A connection.
    fn socket(&self) -> OwnedFd {
        TcpStream::connect(("127.0.0.1", self.port)).expect("connected").into()
    }
}

/// What tells a process of these tests that it is a server.
const HOST: &str = "BANGER_TEST_SSH_HOST";
const AUTHORIZED: &str = "BANGER_TEST_SSH_AUTHORIZED";

/// A connection to a server in a process of its own, as in a guest.
pub fn connection_to_a_process(host: &str, authorized: &str) -> OwnedFd {
    let (near, far) = UnixStream::pair().expect("a pair");
    let mut command = Command::new(std::env::current_exe().expect("these tests"));
    command.args(["--exact", "guest::ssh::tests::the_server_of_a_process", "--nocapture"]);
    command.env(HOST, host).env(AUTHORIZED, authorized).stdin(OwnedFd::from(far)).stdout(Stdio::null());
    let mut child = command.spawn().expect("these tests run");
    std::thread::spawn(move || child.wait());
    near.into()
}

#[test]
fn the_server_of_a_process() {
    let (Ok(host), Ok(authorized)) = (std::env::var(HOST), std::env::var(AUTHORIZED)) else { return };
    std::fs::write("/proc/self/comm", NAME.to_bytes()).expect("named");
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("a connection");
    serve_one(socket, &host, &authorized, LIMITS).expect("served");
}

fn serve_one(socket: OwnedFd, host: &str, authorized: &str, limits: Limits) -> Result<(), SessionError> {
    serve(socket, Keys::new(host, authorized)?, limits)
}

/// A server and a client of OpenSSH's that knows it.
struct Pair {
    server: Server,
    user: PathBuf,
}

impl Pair {
    /// `None` where there is no OpenSSH, and that is said.
    fn start() -> Option<Self> {
        Self::with(&["-t", "ed25519"], LIMITS)
    }

    fn with(kind: &[&str], limits: Limits) -> Option<Self> {
        let is_there = need::is_met("ssh", "apt-get install openssh-client", Path::new("/usr/bin/ssh").exists());
        is_there.then(|| {
            let keys = tempfile::tempdir().expect("a folder").keep();
            let host = keygen(&keys, "host", &["-t", "ed25519"]);
            let user = keygen(&keys, "user", kind);
            let public = std::fs::read_to_string(user.with_extension("pub")).expect("a public key");
            let server = Server::start(&std::fs::read_to_string(&host).expect("a key"), &public, limits);
            let public_host = std::fs::read_to_string(host.with_extension("pub")).expect("a public key");
            let known = format!("[127.0.0.1]:{} {public_host}", server.port);
            std::fs::write(server.folder.path().join("known_hosts"), known).expect("written");
            let moved = server.folder.path().join("user");
            std::fs::copy(&user, &moved).expect("copied");
            std::fs::set_permissions(&moved, std::fs::Permissions::from_mode(0o600)).expect("set");
            std::fs::remove_dir_all(keys).expect("removed");
            Self { server, user: moved }
        })
    }

    fn options(&self) -> Vec<String> {
        let known = self.server.folder.path().join("known_hosts");
        let options = [
            "BatchMode=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "LogLevel=ERROR".to_owned(),
            format!("UserKnownHostsFile={}", known.display()),
            format!("IdentityFile={}", self.user.display()),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option]);
        ["-F".to_owned(), "none".to_owned()].into_iter().chain(options).collect()
    }

    fn address(&self) -> String {
        format!("{}@127.0.0.1", own_name())
    }

    fn command(&self, program: &str) -> Command {
        let port = if program == "ssh" { "-p" } else { "-P" };
        let mut command = Command::new(program);
        command.args(self.options()).args([port, &self.server.port.to_string()]).stdin(Stdio::null());
        command
    }

    /// Runs `line` there.
    fn run(&self, more: &[&str], line: &str) -> Output {
        self.command("ssh").args(more).args([&self.address(), line]).output().expect("ssh runs")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.folder.path().join(name)
    }
}

fn keygen(folder: &Path, name: &str, kind: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(&path).args(kind).status();
    assert!(made.expect("ssh-keygen runs").success());
    path
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Who runs the tests: in a guest it is root.
fn own_name() -> String {
    let own = crate::os::accounts::of_uid(rustix::process::geteuid().as_raw());
    own.map_or_else(|| "root".to_owned(), |account| account.name)
}
