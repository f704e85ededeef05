//! An sshd of our own, one process per connection.

use std::cell::RefCell;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::os::need;
use crate::shell::Timeouts;
use crate::ssh::{Access, KeyPair, SshError, SshShell, generate};

pub const SSHD: &str = "/usr/sbin/sshd";

pub struct Server {
    pub folder: tempfile::TempDir,
    pub host: KeyPair,
    pub user: KeyPair,
    children: RefCell<Vec<Child>>,
}

impl Server {
    /// `None` where there is no sshd, and that is said.
    pub fn start() -> Option<Self> {
        Self::with_options("")
    }

    pub fn with_options(options: &str) -> Option<Self> {
        let is_there = need::is_met("sshd", "apt-get install openssh-server", Path::new(SSHD).exists());
        is_there.then(|| Self::prepare(options).expect("a server"))
    }

    fn prepare(options: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (host, user) = (generate().expect("a key"), generate().expect("a key"));
        // Made by the service elsewhere; sshd refuses to run as root without it.
        let _ = std::fs::create_dir_all("/run/sshd");
        secret(&folder.path().join("host"), &host.private)?;
        secret(&folder.path().join("user"), &user.private)?;
        std::fs::write(folder.path().join("authorized_keys"), &user.public)?;
        let at = folder.path().display();
        let config = format!(
            "HostKey {at}/host\nAuthorizedKeysFile {at}/authorized_keys\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nLogLevel QUIET\n{options}\n"
        );
        std::fs::write(folder.path().join("config"), config)?;
        Ok(Self { folder, host, user, children: RefCell::new(Vec::new()) })
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// A connection to a server process of its own.
    pub fn socket(&self) -> OwnedFd {
        let (near, far) = UnixStream::pair().expect("a pair");
        self.serve(far.into());
        near.into()
    }

    /// The same over TCP.
    pub fn tcp_socket(&self) -> OwnedFd {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("its number")).expect("connected");
        self.serve(listener.accept().expect("accepted").0.into());
        near.into()
    }

    fn serve(&self, far: OwnedFd) {
        let child = Command::new(SSHD)
            .args(["-i", "-f"])
            .arg(self.config())
            .stdin(Stdio::from(far.try_clone().expect("a copy")))
            .stdout(Stdio::from(far))
            .stderr(Stdio::null())
            .spawn();
        self.children.borrow_mut().push(child.expect("sshd starts"));
    }

    /// From now on its processes do nothing, and their connections stay open.
    pub fn freeze(&self) {
        for child in self.children.borrow().iter() {
            let pid = rustix::process::Pid::from_child(child);
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stopped");
        }
    }

    pub fn access(&self) -> Access {
        Access {
            name: "box".into(),
            user: login_name(),
            private_key: self.user.private.clone(),
            host_key: self.host.public.clone(),
        }
    }

    pub fn connect(&self, access: &Access) -> Result<SshShell, SshError> {
        SshShell::connect(self.socket(), access, timeouts(), None)
    }

    pub fn shell(&self) -> SshShell {
        self.connect(&self.access()).expect("a session")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.children.get_mut() {
            // Gone already when its connection has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn timeouts() -> Timeouts {
    Timeouts { connect: Duration::from_secs(20), ..Timeouts::default() }
}

pub fn login_name() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn secret(path: &Path, content: &str) -> io::Result<()> {
    std::fs::write(path, content)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}
