//! The floor under a cold start: QEMU by itself, with the arguments and files of a real VM.
//!
//! banger starts a VM once. Its arguments are read from `/proc/PID/cmdline`, its initramfs with the
//! identity is taken from `/proc/PID/fd`, so nothing here can drift away from what banger does. Each round starts the same arguments again; only what belongs to one boot is new (overlay, serial log, tap,
//! sockets), and is made before the clock starts. The clock runs from QEMU's start over the agent's
//! `Ready` and one command through the client that `vm run` uses, to QEMU's end by SIGKILL. There is no
//! daemon, sandboxing by a helper, cgroup, bridge or rule in it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger::host::facts::{QEMU, find_program};
use banger::model::{OpId, VmRecord};
use banger::protocol::ear::{Ear, Heard};
use banger::protocol::frame;
use banger::protocol::guest::{Announcement, FromGuest, GuestHello, GuestReply, GuestRequest, PREAMBLE, ToGuest};
use banger::protocol::shell::TOKEN;
use banger::shell::{AgentShell, Command as GuestCommand, GuestShell, Io, Timeouts};
use banger::vmm::{NewDisk, of_kind};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::BOOT;
use crate::world::World;

/// The tap of all rounds, one after the other.
const TAP: &str = "bench0";

/// A VM without banger.
pub struct Floor {
    world: World,
    vm: VmRecord,
    address: Ipv4Addr,
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
    /// The socket of the first channel for commands.
    Shell,
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
        let line = std::fs::read_to_string(format!("/proc/{process}/cmdline")).expect("its arguments");
        let line: Vec<&str> = line.split_terminator('\0').skip(1).collect();
        let words = (0..line.len()).map(|at| Word::of(&line, at, &vm, &state)).collect();
        world.banger(&["vm", "delete", "model"]).output().ok();
        let address = vm.address.expect("a running VM has an address");
        Self { world: world.clone(), vm, address, words }
    }

    /// Starts it, waits until it is ready, runs `true` in it, kills it; how long that took.
    pub fn round(&self) -> Duration {
        let boot = Boot::prepare(self);
        let begun = Instant::now();
        let (mut qemu, agent) = boot.start(self);
        let mut agent = Agent::greet(agent, self);
        agent.wait_until_ready();
        agent.run_true();
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
            _ if is("id=shell0") => Self::Shell,
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
            Self::Shell => listen(&floor.file("shell")),
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
    let image = Path::new("/no/such/image");
    let disk = NewDisk { path, size: vm.spec.disk, image, accel: vm.accel, snapshots: false, tell: &|_| {} };
    of_kind(vm.vmm).make_disk(disk).expect("a disk");
    File::options().read(true).write(true).open(path).expect("the disk opens").into()
}

/// The guest's agent, spoken to as the daemon does.
struct Agent<'f> {
    stream: UnixStream,
    ear: Ear<FromGuest>,
    floor: &'f Floor,
}

impl<'f> Agent<'f> {
    fn greet(mut stream: UnixStream, floor: &'f Floor) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(BOOT))).expect("a socket has timeouts");
        let hello = frame::encode(&GuestHello::ours()).expect("a hello");
        stream.write_all(&[PREAMBLE.as_slice(), &hello].concat()).expect("QEMU takes it");
        Self { stream, ear: Ear::default(), floor }
    }

    /// Waits for a message that `wanted` accepts.
    fn wait_for<T>(&mut self, mut wanted: impl FnMut(FromGuest) -> Option<T>) -> T {
        let mut chunk = [0; 4096];
        loop {
            let count = self.stream.read(&mut chunk).expect("the guest speaks in time");
            let errors = || std::fs::read_to_string(self.floor.errors()).unwrap_or_default();
            assert!(count > 0, "QEMU has ended: {}", errors());
            for heard in self.ear.hear(&chunk[..count]) {
                if let Heard::Message(message) = heard
                    && let Some(found) = wanted(message)
                {
                    return found;
                }
            }
        }
    }

    fn wait_until_ready(&mut self) {
        self.wait_for(|message| match message {
            FromGuest::Announce(Announcement::Ready { ssh: true, .. }) => Some(()),
            _ => None,
        });
    }

    /// `true` over the first channel, as `vm run` runs it.
    fn run_true(&mut self) {
        let token = [7; TOKEN];
        let request = GuestRequest::OpenShell { token };
        let asked = ToGuest::Request { number: 1, op: OpId::BACKGROUND, request };
        self.stream.write_all(&frame::encode(&asked).expect("a request")).expect("QEMU takes it");
        let channel = self.wait_for(|message| match message {
            FromGuest::Reply { number: 1, reply } => Some(reply),
            _ => None,
        });
        assert_eq!(channel, Ok(GuestReply::Shell { channel: 0 }));
        let socket = UnixStream::connect(self.floor.file("shell")).expect("the channel's socket listens");
        let mut shell = AgentShell::open(socket.into(), token, "model", Timeouts::default()).expect("a channel");
        let null = File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
        let io = Io { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd(), control: None };
        assert_eq!(shell.run(&GuestCommand::new(["true"]), io).expect("true runs").exit_code(), 0);
    }
}
