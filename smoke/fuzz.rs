//! The helper under structured random requests: every kind of request, arbitrary ids, slots and
//! sizes, descriptors of every kind and number, frames that were tampered with, connections that end
//! anywhere. It goes on, leaves nothing, and touches nothing that is not its own.
//!
//! Everything follows from a seed, which is printed; `SMOKE_SEED` plays one again, and
//! `SMOKE_FUZZ_SECONDS` says for how long.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger::model::choice::Accel;
use banger::model::egress::{Cidr, NetGrant, Opening, Passage};
use banger::model::launch::{
    FakeFailure, FakeLaunch, JailDisk, JailLaunch, KernelArgs, Launch, LaunchFile, QemuLaunch,
};
use banger::model::publish::{Protocol, PublishedPort};
use banger::model::{Mib, OpId, Slot, Subnet, VmId};
use banger::os::random;
use banger::os::socket::{MAX_FILES, send_all};
use banger::protocol::frame::{self, FrameBuffer};
use banger::protocol::root::{RootAnswer, RootCall, RootReply, RootRequest};
use banger::protocol::{Hello, hello};
use rustix::fs::{Mode, OFlags};

use crate::census::{memory, wait_for_equality};
use crate::direct::{Wire, ask_helper, helper_pid};
use crate::fake::on_the_fake_monitor;
use crate::noise::Noise;
use crate::runner::skip;
use crate::traced::{self, CALLS, Judge, Roots};
use crate::world::World;

/// How long it goes on when nobody says.
const SECONDS: u64 = 20;

/// How much more memory the helper may have afterwards, in KiB.
const GROWTH: u64 = 8 << 10;

/// Connections that are left open on the way.
const LOOSE: usize = 24;

/// The helper lives through all of it, and strace finds nothing outside its roots.
pub fn helper_fuzzed(world: &World) {
    traced::judges_rightly();
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skip("strace is missing: apt-get install strace");
    }
    let world = &on_the_fake_monitor(world);
    let trace = world.folder().join("trace");
    let tracer = start_traced(world, &trace);
    let before = world.start_and_count();
    let socket = world.home().join("root-run/bangerd-root.sock");
    let (pid, at_first) = (helper_pid(&socket), memory(helper_pid(&socket)));
    let number = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty()).map(|v| v.parse().expect("a number"));
    let seed = number("SMOKE_SEED").unwrap_or_else(random::number);
    let seconds = number("SMOKE_FUZZ_SECONDS").unwrap_or(SECONDS);
    println!("| SMOKE_SEED={seed}");
    let mut fuzzer = Fuzzer::new(world, &socket, seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        fuzzer.deed();
        assert!(Path::new("/proc").join(pid.to_string()).exists(), "the helper ended, seed {seed}");
    }
    let counts = fuzzer.counts;
    drop((fuzzer.wire, fuzzer.loose));
    assert_eq!(helper_pid(&socket), pid, "the helper is another");
    let at_last = memory(pid);
    assert!(at_last <= at_first + GROWTH, "the helper grew from {at_first} to {at_last} KiB");
    release_all(&socket);
    wait_for_equality(world, &before, Duration::from_secs(20));
    let log = std::fs::read_to_string(world.home().join("root-run/bangerd-root.log")).expect("a log");
    let said = std::fs::read_to_string(world.folder().join("traced.out")).expect("an output");
    assert!(!log.contains("panicked") && !said.contains("panicked"), "it panicked: {said}");
    counts.iter().for_each(|(what, count)| println!("| {what} | {count} |"));
    println!("| VmRSS of the helper | {at_first} KiB before, {at_last} KiB after |");
    check_trace(world, &socket, &trace, tracer);
}

/// The helper as a child of strace, which writes to `trace`.
fn start_traced(world: &World, trace: &Path) -> Child {
    let binary = world.binary().to_str().expect("a plain path");
    let path = trace.to_str().expect("a plain path");
    let calls = format!("trace={CALLS}");
    let arguments = ["-f", "-y", "-s", "4096", "--seccomp-bpf", "-o", path, "-e", &calls, "--", binary];
    let output = File::create(world.folder().join("traced.out")).expect("an output file");
    let mut command = world.command("strace", &arguments);
    command.args(["--as", "bangerd-root", "--owner", "0"]).stdin(Stdio::null());
    command.stdout(output.try_clone().expect("a second descriptor")).stderr(output);
    let tracer = command.spawn().expect("strace starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(world.home().join("root-run/bangerd-root.sock")).is_err() {
        assert!(Instant::now() < deadline, "the helper does not listen under strace");
        // Started by strace: no event tells.
        std::thread::sleep(Duration::from_millis(50));
    }
    tracer
}

fn release_all(socket: &Path) {
    let Ok(RootReply::Inventory(entries)) = ask_helper(socket, RootRequest::Inventory) else {
        panic!("no inventory at the end");
    };
    for entry in entries {
        ask_helper(socket, RootRequest::ReleaseVm { id: entry.id }).expect("each can be released");
    }
    // Of a network that was asked for without a VM.
    ask_helper(socket, RootRequest::RemoveNetwork).expect("the network can be removed");
}

fn check_trace(world: &World, socket: &Path, trace: &Path, mut tracer: Child) {
    let installation = std::fs::read_to_string(world.home().join("root-run/installation")).expect("a number");
    world.banger(&["daemon", "stop"]).output().ok();
    ask_helper_to_end(socket);
    // It ends with the last of what it traces, and has written all of it then.
    tracer.wait().expect("strace can be reaped");
    let runtime = world.home().join("root-run");
    let mut judge = Judge::new(Roots {
        runtime,
        disks: world.home().join("root-state"),
        installation: installation.trim_end().to_owned(),
    });
    judge.read(BufReader::new(File::open(trace).expect("a trace")));
    let touched = judge.touched.iter().map(|(root, count)| format!("{root} {count}")).collect::<Vec<_>>().join(", ");
    println!("| system calls judged | {}; touched: {touched} |", judge.judged);
    assert!(judge.violations.is_empty(), "outside its roots:\n{}", judge.violations.join("\n"));
    assert!(judge.judged > 1000, "strace saw next to nothing");
}

/// `daemon stop` may have ended it.
fn ask_helper_to_end(socket: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(socket).is_ok() {
        assert!(Instant::now() < deadline, "the helper does not end");
        let mut wire = Wire::connect(socket);
        wire.send(&[frame::encode(&Hello::ours()).expect("a hello"), encoded(RootRequest::Shutdown)].concat());
        // Another's process: no event tells.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn encoded(request: RootRequest) -> Vec<u8> {
    frame::encode(&RootCall { op: OpId::from_random(0x00f0_22ed), request }).expect("a request fits a frame")
}

/// Some ids and slots come again, so that requests meet VMs.
fn id(noise: &mut Noise) -> VmId {
    if noise.one_in(4) { VmId::from_random(noise.number()) } else { VmId::from_random(noise.below(6) as u64) }
}

fn slot(noise: &mut Noise) -> Slot {
    let number = if noise.one_in(4) { noise.below(250) } else { noise.below(6) };
    Slot::new(number as u8 + 1).expect("a slot")
}

fn subnet(noise: &mut Noise) -> Option<Subnet> {
    let [a, b, c, ..] = noise.number().to_le_bytes();
    let address = match noise.below(3) {
        0 => Ipv4Addr::new(10, b, c, 0),
        1 => Ipv4Addr::new(172, 16 + b % 16, c, 0),
        _ => Ipv4Addr::new(a, b, c, 0),
    };
    Subnet::new(address).filter(|_| !noise.one_in(3))
}

fn size(noise: &mut Noise) -> Mib {
    let sizes = [0, 1, 64, 256, 4096, 1 << 20, u32::MAX / 2, u32::MAX];
    Mib(if noise.one_in(3) { noise.number() as u32 } else { sizes[noise.below(sizes.len())] })
}

fn boot_args(noise: &mut Noise) -> KernelArgs {
    let length = if noise.one_in(4) { 1024 } else { noise.below(64) };
    let pieces = ["-", ",", " ", "=", "/", "..", "%n", "\"", "'", "$(id)", "init=", "-device", "~", "x"];
    let mut text = String::new();
    while text.len() < length {
        text.push_str(pieces[noise.below(pieces.len())]);
    }
    text.truncate(1024);
    text.parse().expect("printable")
}

fn address(noise: &mut Noise) -> Ipv4Addr {
    let known = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::new(203, 0, 113, 7), Ipv4Addr::BROADCAST];
    if noise.one_in(2) { Ipv4Addr::from(noise.number() as u32) } else { known[noise.below(known.len())] }
}

fn port(noise: &mut Noise) -> Option<u16> {
    (!noise.one_in(3)).then(|| noise.number() as u16)
}

/// Sometimes more than there may be.
fn passage(noise: &mut Noise) -> Passage {
    let count = if noise.one_in(8) { noise.below(300) } else { noise.below(4) };
    let net = |noise: &mut Noise| loop {
        if let Some(net) = Cidr::new(address(noise), noise.below(33) as u8) {
            return net;
        }
    };
    let nets = (0..count).map(|_| NetGrant { net: net(noise), port: port(noise) }).collect();
    let diverted = (0..noise.below(4)).map(|_| noise.number() as u16).collect();
    Passage { everywhere: noise.one_in(2), names: noise.one_in(2), nets, diverted }
}

fn ports(noise: &mut Noise) -> Vec<PublishedPort> {
    let count = if noise.one_in(8) { noise.below(100) } else { noise.below(3) };
    let protocol = |noise: &mut Noise| if noise.one_in(2) { Protocol::Tcp } else { Protocol::Udp };
    let published = |noise: &mut Noise| PublishedPort {
        address: address(noise),
        host: noise.number() as u16,
        guest: noise.number() as u16,
        protocol: protocol(noise),
    };
    (0..count).map(|_| published(noise)).collect()
}

fn openings(noise: &mut Noise) -> Vec<Opening> {
    let count = if noise.one_in(8) { noise.below(300) } else { noise.below(4) };
    let seconds = |noise: &mut Noise| if noise.one_in(4) { noise.number() as u32 } else { noise.below(90) as u32 };
    (0..count).map(|_| Opening { address: address(noise), port: port(noise), seconds: seconds(noise) }).collect()
}

/// The kind of request after `request`, with random contents. Whoever adds a kind decides here.
fn next_kind(request: &RootRequest, noise: &mut Noise) -> RootRequest {
    match request {
        RootRequest::Status => RootRequest::EnsureNetwork { prefer: subnet(noise) },
        RootRequest::EnsureNetwork { .. } => RootRequest::RemoveNetwork,
        RootRequest::RemoveNetwork => RootRequest::LaunchVm {
            id: id(noise),
            slot: slot(noise),
            launch: launch(noise),
            passage: passage(noise),
            ports: ports(noise),
        },
        RootRequest::LaunchVm { .. } => RootRequest::AttachVm { id: id(noise) },
        RootRequest::AttachVm { .. } => RootRequest::ReleaseVm { id: id(noise) },
        RootRequest::ReleaseVm { .. } => RootRequest::Inventory,
        RootRequest::Inventory => RootRequest::OpenChannel { id: id(noise), channel: noise.number() as u8 },
        RootRequest::OpenChannel { .. } => RootRequest::Farewell { id: id(noise) },
        RootRequest::Farewell { .. } => RootRequest::Facilities,
        RootRequest::Facilities => RootRequest::Disks,
        RootRequest::Disks => RootRequest::RemoveDisk { id: id(noise) },
        RootRequest::RemoveDisk { .. } => RootRequest::SetPassage { id: id(noise), passage: passage(noise) },
        RootRequest::SetPassage { .. } => RootRequest::OpenAddresses { id: id(noise), openings: openings(noise) },
        RootRequest::OpenAddresses { .. } => RootRequest::Traffic { id: id(noise) },
        RootRequest::Traffic { .. } => RootRequest::CheckPorts { ports: ports(noise) },
        RootRequest::CheckPorts { .. } => RootRequest::ListenDns,
        RootRequest::ListenDns => RootRequest::ListenSecrets,
        RootRequest::ListenSecrets => RootRequest::OpenDisk { id: id(noise) },
        RootRequest::OpenDisk { .. } => RootRequest::Shutdown,
        RootRequest::Shutdown => RootRequest::Status,
    }
}

const KINDS: usize = 20;

fn request(noise: &mut Noise) -> RootRequest {
    // Launches are what most can go wrong with.
    let steps = if noise.one_in(2) { 3 } else { noise.below(KINDS) };
    (0..steps).fold(RootRequest::Status, |request, _| next_kind(&request, noise))
}

/// The monitor after `launch`'s, with random contents.
fn next_monitor(launch: &Launch, noise: &mut Noise) -> Launch {
    match launch {
        Launch::Fake(_) => Launch::Qemu(QemuLaunch {
            accel: if noise.one_in(2) { Accel::Kvm } else { Accel::Tcg },
            vcpus: noise.number() as u8,
            memory: size(noise),
            boot_args: boot_args(noise),
            modules_drive: noise.one_in(2),
        }),
        Launch::Qemu(_) => Launch::Firecracker(jail(noise)),
        Launch::Firecracker(_) => Launch::Fake(fake(noise)),
    }
}

const MONITORS: usize = 3;

fn jail(noise: &mut Noise) -> JailLaunch {
    let disk = if noise.one_in(3) { JailDisk::Snapshot { size: size(noise) } } else { JailDisk::Whole };
    JailLaunch { vcpus: noise.number() as u8, memory: size(noise), disk, modules_drive: noise.one_in(3) }
}

/// As QEMU is run, or in a jail as Firecracker is.
fn fake(noise: &mut Noise) -> FakeLaunch {
    FakeLaunch { fail: failure(noise), jail: noise.one_in(2).then(|| jail(noise)) }
}

fn launch(noise: &mut Noise) -> Launch {
    let steps = if noise.one_in(3) { noise.below(MONITORS) } else { 0 };
    let first = Launch::Fake(fake(noise));
    (0..steps).fold(first, |launch, _| next_monitor(&launch, noise))
}

fn failure(noise: &mut Noise) -> Option<FakeFailure> {
    use FakeFailure::{AfterHello, AtSpawn, IgnoresShutdown, SilentGuest};
    [Some(AtSpawn), Some(SilentGuest), Some(AfterHello), Some(IgnoresShutdown), None, None][noise.below(6)]
}

/// What is passed as a descriptor.
struct Drawer {
    folder: PathBuf,
    kinds: Vec<OwnedFd>,
}

impl Drawer {
    fn fill(world: &World) -> Self {
        let folder = world.person();
        let (file, gone, read) = (folder.join("file"), folder.join("gone"), folder.join("read"));
        for path in [&file, &gone, &read] {
            // Whole sectors: it may be a disk.
            std::fs::write(path, [7; 5120]).expect("written");
        }
        let open = |path: &Path, flags| rustix::fs::open(path, flags, Mode::empty()).expect("opened");
        let (left, right) = UnixStream::pair().expect("a pair");
        let (pipe_out, pipe_in) = rustix::pipe::pipe().expect("a pipe");
        let kinds = vec![
            open(&file, OFlags::WRONLY),
            open(&file, OFlags::RDWR | OFlags::APPEND),
            open(&file, OFlags::PATH),
            open(&gone, OFlags::RDWR),
            open(&folder, OFlags::RDONLY | OFlags::DIRECTORY),
            open(&folder, OFlags::PATH),
            open(Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY),
            open(Path::new("/dev/null"), OFlags::RDWR),
            open(Path::new("/dev/zero"), OFlags::RDONLY),
            open(Path::new("/proc/self/status"), OFlags::RDONLY),
            open(Path::new("/etc/passwd"), OFlags::RDONLY),
            left.into(),
            right.into(),
            pipe_out,
            pipe_in,
            rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("an eventfd"),
        ];
        std::fs::remove_file(gone).expect("removed");
        Self { folder, kinds }
    }

    /// What `request` asks for, or something else.
    fn take(&self, request: &RootRequest, noise: &mut Noise) -> Vec<OwnedFd> {
        let asked = request.files();
        let count = if noise.one_in(5) { noise.below(MAX_FILES + 1) } else { asked };
        let right = noise.below(3) > 0;
        (0..count).map(|at| if right { self.right(request, at) } else { self.any(noise) }).collect()
    }

    /// Console and disk are read and written, all else is only read.
    fn right(&self, request: &RootRequest, at: usize) -> OwnedFd {
        let wanted = match request {
            RootRequest::LaunchVm { launch, .. } => launch.files().get(at).copied(),
            _ => None,
        };
        let both = matches!(wanted, Some(LaunchFile::Console | LaunchFile::Disk));
        let (name, flags) = if both { ("file", OFlags::RDWR) } else { ("read", OFlags::RDONLY) };
        rustix::fs::open(self.folder.join(name), flags, Mode::empty()).expect("opened")
    }

    fn any(&self, noise: &mut Noise) -> OwnedFd {
        self.kinds[noise.below(self.kinds.len())].try_clone().expect("a second descriptor")
    }
}

/// Asks, and counts what comes of it.
struct Fuzzer {
    socket: PathBuf,
    noise: Noise,
    drawer: Drawer,
    wire: Option<Wire>,
    loose: Vec<Wire>,
    /// VMs that were launched and not released.
    launched: Vec<VmId>,
    counts: BTreeMap<String, u64>,
}

impl Fuzzer {
    fn new(world: &World, socket: &Path, seed: u64) -> Self {
        let (noise, drawer) = (Noise(seed | 1), Drawer::fill(world));
        let (loose, launched, counts) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { socket: socket.to_owned(), noise, drawer, wire: None, loose, launched, counts }
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    fn deed(&mut self) {
        match self.noise.below(12) {
            0 | 1 => self.tampered(),
            2 => self.hang_up(),
            3 => self.another_peer(),
            4 | 5 => self.make_room(),
            _ => {
                let request = request(&mut self.noise);
                self.structured(request);
            }
        }
    }

    /// Slots that stay taken would have most launches refused at once.
    fn make_room(&mut self) {
        let count = if self.noise.one_in(20) { self.launched.len() } else { self.launched.len().min(1) };
        for _ in 0..count {
            let at = self.noise.below(self.launched.len());
            let id = self.launched.swap_remove(at);
            if !self.structured(RootRequest::ReleaseVm { id: id.clone() }) {
                self.launched.push(id);
            }
        }
        if self.launched.is_empty() {
            self.structured(RootRequest::RemoveNetwork);
        }
    }

    /// A request that can be read, with descriptors; whether it was done.
    fn structured(&mut self, request: RootRequest) -> bool {
        if let RootRequest::LaunchVm { id, .. } = &request
            && !self.launched.contains(id)
        {
            self.launched.push(id.clone());
        }
        let mut files = self.drawer.take(&request, &mut self.noise);
        if request == RootRequest::Shutdown && files.is_empty() {
            // It must not be obeyed: the helper shall live.
            files.push(self.drawer.any(&mut self.noise));
        }
        let name = name_of(&request);
        let mut wire = self.wire.take().unwrap_or_else(|| Wire::connect(&self.socket).greet());
        let beside: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        // It may have hung up; then there is no answer either.
        let _ = send_all(wire.socket(), &encoded(request), &beside);
        let outcome = match wire.receive() {
            None => "hung up".to_owned(),
            Some(body) => {
                self.wire = Some(wire);
                match frame::decode::<RootAnswer>(&body).expect("an answer") {
                    Ok(_) => "done".to_owned(),
                    Err(fault) => format!("{:?}", fault.kind),
                }
            }
        };
        self.count(format!("{name}: {outcome}"));
        outcome == "done"
    }

    /// A frame of which bytes were changed, cut or added.
    fn tampered(&mut self) {
        let mut bytes = encoded(request(&mut self.noise));
        for _ in 0..1 + self.noise.below(4) {
            let (at, value) = (self.noise.below(bytes.len()), self.noise.number() as u8);
            match self.noise.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, value),
                2 => bytes.extend(value.to_le_bytes().repeat(self.noise.below(2000))),
                _ if bytes.is_empty() => {}
                _ => bytes[at] = value,
            }
            // A body that is whole again, whatever is in it.
            if self.noise.one_in(2) && bytes.len() > frame::HEADER {
                let length = (bytes.len() - frame::HEADER) as u32;
                bytes[..frame::HEADER].copy_from_slice(&length.to_le_bytes());
            }
        }
        if asks_to_end(&bytes) {
            return;
        }
        let mut wire = self.connect();
        let files = self.drawer.take(&RootRequest::Status, &mut self.noise);
        let beside: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let _ = if bytes.is_empty() { Ok(()) } else { send_all(wire.socket(), &bytes, &beside) };
        let _ = wire.socket().shutdown(Shutdown::Write);
        while wire.receive().is_some() {}
        self.count("tampered frames");
    }

    /// Nothing more after a part of a frame, or after all of it, unheard.
    fn hang_up(&mut self) {
        let request = request(&mut self.noise);
        let bytes = encoded(if request == RootRequest::Shutdown { RootRequest::Status } else { request.clone() });
        let files = self.drawer.take(&request, &mut self.noise);
        let beside: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let wire = self.connect();
        let cut = 1 + self.noise.below(bytes.len());
        let _ = send_all(wire.socket(), &bytes[..cut], &beside);
        self.count("hung up in mid-frame or unheard");
    }

    /// One more that stays, greeted or not, or of another version.
    fn another_peer(&mut self) {
        let mut wire = Wire::connect(&self.socket);
        match self.noise.below(4) {
            0 => {}
            1 => wire.send(&frame::encode(&Hello::ours()).expect("a hello")),
            2 => wire.send(&(self.noise.number() as u32 % (1 << 17)).to_le_bytes()),
            _ => {
                let protocol = hello::PROTOCOL.wrapping_add(1 + self.noise.number() as u32 % 9);
                wire.send(&frame::encode(&Hello { protocol, build: "x".into() }).expect("a hello"));
            }
        }
        self.loose.push(wire);
        if self.loose.len() > LOOSE {
            let at = self.noise.below(LOOSE);
            // All at once now and then: what they kept others from comes free.
            if self.noise.one_in(8) { self.loose.clear() } else { drop(self.loose.swap_remove(at)) }
        }
        self.count("peers that stay");
    }

    /// A new one that has greeted; the helper's hello is not waited for.
    fn connect(&mut self) -> Wire {
        let mut wire = Wire::connect(&self.socket);
        wire.send(&frame::encode(&Hello::ours()).expect("a hello"));
        wire
    }
}

fn name_of(request: &RootRequest) -> String {
    let shown = format!("{request:?}");
    let name = shown.split([' ', '{']).next().unwrap_or_default();
    if let RootRequest::LaunchVm { launch, .. } = request {
        return format!("{name} {:?}", launch.kind());
    }
    name.to_owned()
}

/// Whether the helper would read a request to end in it.
fn asks_to_end(bytes: &[u8]) -> bool {
    let mut buffer = FrameBuffer::default();
    buffer.push(bytes);
    let bodies = std::iter::from_fn(|| buffer.next_body().ok().flatten());
    bodies.filter_map(|body| frame::decode::<RootCall>(&body).ok()).any(|call| call.request == RootRequest::Shutdown)
}
