//! The floor under a cold start: QEMU by itself, with the arguments and files of a real VM.
//!
//! banger starts a VM once. Its arguments are read from `/proc/PID/cmdline`, its initramfs with the
//! identity is taken from `/proc/PID/fd`, so nothing here can drift away from what banger does. Each round starts the same arguments again; only what belongs to one boot is new (overlay, serial log, tap,
//! sockets), and is made before the clock starts. The clock runs from QEMU's start over the agent's
//! `Ready` and one command through the client that `vm run` uses, to QEMU's end by SIGKILL. There is no
//! daemon, sandboxing by a helper, cgroup, bridge or rule in it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger::host::facts::{QEMU, find_program};
use banger::model::{Mib, VmRecord};
use banger::protocol::ear::{Ear, Heard};
use banger::protocol::frame;
use banger::protocol::guest::{Announcement, FromGuest, GuestHello, PREAMBLE};
use banger::ssh::{Access, Command as GuestCommand, GuestShell, Io, SshShell, Timeouts};
use banger::vmm::of_kind;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::BOOT;
use crate::world::World;

/// The client that `vm run` uses for its command.
const CLIENT: fn(&Floor) = over_ssh;

/// The tap of all rounds, one after the other.
const TAP: &str = "bench0";

/// A VM without banger.
pub struct Floor {
    world: World,
    vm: VmRecord,
    address: Ipv4Addr,
    access: Access,
    words: Vec<Word>,
}

/// One argument of QEMU.
enum Word {
    /// Said again as it is.
    Plain(String),
    /// With the number of a descriptor between two texts.
    Numbered(String, What, String),
    /// The tap, by name instead.
    Tap(String),
}

/// What a descriptor is.
enum What {
    /// A file that is only read, open.
    Again(File),
    /// The copy-on-write disk.
    Overlay,
    /// Where serial output goes.
    Serial,
    /// The socket of the guest's agent.
    Agent,
    /// Any other socket that listens.
    Socket,
}

impl Floor {
    /// Has banger start a VM, and takes from it what is needed to start it without banger.
    pub fn of_a_vm(world: &World) -> Self {
        world.banger(&["vm", "create", "--name", "model"]).limit(BOOT).output().ok();
        let vm = world.owner().vm("model");
        let process = vm.process.expect("a running VM has a process").pid;
        let state = world.home().join("state");
        let folder = state.join("vms").join(vm.id.as_str());
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("the VM's keys");
        let access = Access {
            name: "model".into(),
            user: "root".into(),
            private_key: read("id_ed25519"),
            host_key: read("host_ed25519.pub"),
        };
        let line = std::fs::read_to_string(format!("/proc/{process}/cmdline")).expect("its arguments");
        let line: Vec<&str> = line.split_terminator('\0').skip(1).collect();
        let words = (0..line.len()).map(|at| Word::of(&line, at, &vm, &state)).collect();
        world.banger(&["vm", "delete", "model"]).output().ok();
        let address = vm.address.expect("a running VM has an address");
        Self { world: world.clone(), vm, address, access, words }
    }

    /// Starts it, waits until it is ready, runs `true` in it, kills it; how long that took.
    pub fn round(&self) -> Duration {
        let boot = Boot::prepare(self);
        let begun = Instant::now();
        let (mut qemu, agent) = boot.start(self);
        wait_for_ready(agent, &self.errors());
        CLIENT(self);
        qemu.kill().expect("QEMU can be killed");
        qemu.wait().expect("QEMU can be reaped");
        let took = begun.elapsed();
        self.world.tool("ip", &["link", "del", TAP]).output().ok();
        took
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.folder().join(format!("floor-{name}"))
    }

    fn errors(&self) -> PathBuf {
        self.file("errors")
    }

    fn gateway(&self) -> String {
        let [a, b, c, _] = self.address.octets();
        format!("{a}.{b}.{c}.1/24")
    }
}

impl Word {
    /// `line[at]`. Descriptors in a set are told by what uses the set: QEMU has closed those numbers.
    fn of(line: &[&str], at: usize, vm: &VmRecord, state: &Path) -> Self {
        let word = line[at];
        let Some((before, number, after)) = split_at_number(word) else { return Self::Plain(word.into()) };
        if word.starts_with("tap,") {
            return Self::Tap(before.trim_end_matches("fd=").to_owned());
        }
        let used_as = match after.strip_prefix(",set=") {
            Some(set) => user_of_set(line, set),
            None if at > 0 && line[at - 1] == "-chardev" => word,
            None => line[at - 1],
        };
        Self::Numbered(before.into(), What::of(used_as, number, vm, state), after.into())
    }
}

/// The word that uses `/dev/fdset/SET`.
fn user_of_set<'a>(line: &[&'a str], set: &str) -> &'a str {
    let path = format!("/dev/fdset/{set}");
    let uses = |word: &&&str| word.split(',').any(|part| part.ends_with(&path));
    line.iter().find(uses).expect("what is added to a set is used")
}

impl What {
    fn of(used_as: &str, number: i32, vm: &VmRecord, state: &Path) -> Self {
        let kernel = state.join("kernels").join(vm.spec.kernel.as_str());
        let again = |path: PathBuf| Self::Again(File::open(path).expect("root may open what QEMU has open"));
        let is = |part: &str| used_as.split(',').any(|p| p == part);
        match used_as {
            "-kernel" => again(kernel.join("vmlinux")),
            "-initrd" => {
                let process = vm.process.expect("a running VM has a process").pid;
                again(format!("/proc/{process}/fd/{number}").into())
            }
            _ if is("node-name=image-file") => again(state.join("images").join(format!("{}.ext4", vm.spec.image))),
            _ if is("node-name=modules-file") => again(kernel.join("modules.ext4")),
            _ if is("node-name=overlay-file") => Self::Overlay,
            _ if is("id=serial") => Self::Serial,
            _ if is("id=agent") => Self::Agent,
            _ if used_as.starts_with("socket,") => Self::Socket,
            unknown => panic!("nothing here knows what {unknown:?} is given"),
        }
    }
}

/// What stands before and behind the number of a descriptor.
fn split_at_number(word: &str) -> Option<(&str, i32, &str)> {
    let start = ["/proc/self/fd/", "fd="].iter().find_map(|mark| Some(word.find(mark)? + mark.len()))?;
    let length = word[start..].find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len() - start);
    Some((&word[..start], word[start..start + length].parse().ok()?, &word[start + length..]))
}

/// What one boot needs, made before the clock starts.
struct Boot {
    program: PathBuf,
    arguments: Vec<String>,
    files: Vec<OwnedFd>,
    errors: File,
}

impl Boot {
    fn prepare(floor: &Floor) -> Self {
        for arguments in [
            &["tuntap", "add", "dev", TAP, "mode", "tap"][..],
            &["addr", "add", &floor.gateway(), "dev", TAP],
            &["link", "set", TAP, "up"],
        ] {
            floor.world.tool("ip", arguments).output().ok();
        }
        let (mut arguments, mut files) = (Vec::new(), Vec::new());
        for word in &floor.words {
            arguments.push(match word {
                Word::Plain(text) => text.clone(),
                Word::Tap(before) => format!("{before}ifname={TAP},script=no,downscript=no"),
                Word::Numbered(before, what, after) => {
                    files.push(what.open(floor, arguments.len()));
                    let number = files.last().map_or(-1, AsRawFd::as_raw_fd);
                    format!("{before}{number}{after}")
                }
            });
        }
        let program = find_program(QEMU).expect("QEMU is installed");
        let errors = File::create(floor.errors()).expect("a file for errors");
        Self { program, arguments, files, errors }
    }

    /// The descriptors stay open across this one start only; afterwards QEMU alone has them.
    fn start(self, floor: &Floor) -> (Child, UnixStream) {
        let inherit = |flags| {
            self.files.iter().for_each(|file| fcntl_setfd(file, flags).expect("a descriptor has flags"));
        };
        inherit(FdFlags::empty());
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.errors);
        let child = command.spawn().expect("QEMU starts");
        inherit(FdFlags::CLOEXEC);
        (child, UnixStream::connect(floor.file("agent")).expect("the agent's socket listens"))
    }
}

impl What {
    /// The descriptor for one boot; `number` tells sockets apart.
    fn open(&self, floor: &Floor, number: usize) -> OwnedFd {
        match self {
            Self::Again(file) => file.try_clone().expect("a second descriptor").into(),
            Self::Serial => File::create(floor.file("serial")).expect("a serial log").into(),
            Self::Agent => listen(&floor.file("agent")),
            Self::Socket => listen(&floor.file(&format!("socket-{number}"))),
            Self::Overlay => overlay(&floor.file("disk"), &floor.vm),
        }
    }
}

fn listen(path: &Path) -> OwnedFd {
    banger::os::files::remove_file(path).expect("the last round's socket goes");
    UnixListener::bind(path).expect("a socket").into()
}

fn overlay(path: &Path, vm: &VmRecord) -> OwnedFd {
    banger::os::files::remove_file(path).expect("the last round's disk goes");
    let size: Mib = vm.spec.disk;
    of_kind(vm.vmm).expect("the monitor is known").make_disk(path, size).expect("a disk");
    File::options().read(true).write(true).open(path).expect("the disk opens").into()
}

/// Greets the agent as the daemon does, and waits for its `Ready`.
fn wait_for_ready(mut agent: UnixStream, errors: &Path) {
    agent.set_read_timeout(Some(Duration::from_secs(BOOT))).expect("a socket has timeouts");
    let hello = frame::encode(&GuestHello::ours()).expect("a hello");
    agent.write_all(&[PREAMBLE.as_slice(), &hello].concat()).expect("QEMU takes it");
    let (mut ear, mut chunk) = (Ear::<FromGuest>::default(), [0; 4096]);
    loop {
        let count = agent.read(&mut chunk).expect("the guest speaks in time");
        assert!(count > 0, "QEMU has ended: {}", std::fs::read_to_string(errors).unwrap_or_default());
        let is_ready = |heard: &Heard<FromGuest>| {
            matches!(heard, Heard::Message(FromGuest::Announce(Announcement::Ready { ssh: true, .. })))
        };
        if ear.hear(&chunk[..count]).iter().any(is_ready) {
            return;
        }
    }
}

/// `true` through banger's own ssh.
fn over_ssh(floor: &Floor) {
    let socket = reach(SocketAddr::from((floor.address, 22))).expect("ssh listens");
    let shell = SshShell::connect(socket.into(), &floor.access, Timeouts::default(), None);
    let null = File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
    let io = Io { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd(), control: None };
    let ended = shell.expect("ssh lets us in").run(&GuestCommand::new(["true"]), io);
    assert_eq!(ended.expect("true runs").exit_code(), 0);
}

/// A connection, at the second try where the host is still looking in vain for the last guest of that
/// address: banger's daemon does the same.
fn reach(address: SocketAddr) -> std::io::Result<TcpStream> {
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(10));
    match connect() {
        Err(e) if e.kind() == std::io::ErrorKind::HostUnreachable => connect(),
        other => other,
    }
}
