//! Hostile bytes at both sockets: answered or closed, in bounded time and memory, and both processes
//! go on serving everybody else.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use banger::model::OpId;
use banger::os::socket::{MAX_FILES, send_all};
use banger::protocol::hello::PROTOCOL;
use banger::protocol::owner::OwnerRequest;
use banger::protocol::root::{RootCall, RootRequest};
use banger::protocol::{Hello, frame};

use crate::census;
use crate::daemons::pids;
use crate::direct::{Wire, call};
use crate::noise::Noise;
use crate::world::World;

/// What the random bytes begin with.
const SEED: u64 = 0x5eed_0003_000d;

/// How much more memory either process may have afterwards, in KiB.
const GROWTH: u64 = 4 << 10;

/// A peer that owes something is let go after 10 s; more is a busy machine's.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long an honest peer may wait while others attack.
const HONEST: Duration = Duration::from_secs(2);

/// Who is attacked.
struct Target {
    name: &'static str,
    socket: PathBuf,
    pid: i32,
    /// A request that every version answers.
    status: Vec<u8>,
}

type Attack = (&'static str, fn(&Target) -> String);

const ATTACKS: [Attack; 10] = [
    ("4 GiB announced", huge_lengths),
    ("every truncation", truncated),
    ("random bytes", random),
    ("random bodies in whole frames", random_bodies),
    ("another version", another_version),
    ("24 and 253 descriptors", descriptors),
    ("a byte each 100 ms", slow),
    ("500 that never greet", silent_crowd),
    ("500 that greet and stay", greeting_crowd),
    ("64 KiB of half a request, 200 times", half_requests),
];

/// All attacks on both.
pub fn are_answered_or_closed(world: &World) {
    world.start();
    println!("| target | attack | observed | seconds | VmRSS KiB before | after |");
    for target in both(world) {
        target.answers();
        let (memory, files) = (target.memory(), target.open_files());
        for (name, attack) in ATTACKS {
            let (began, before) = (Instant::now(), target.memory());
            let seen = attack(&target);
            let (took, after) = (began.elapsed().as_secs_f32(), target.memory());
            println!("| {} | {name} | {seen} | {took:.1} | {before} | {after} |", target.name);
            target.answers();
        }
        let after = target.memory();
        assert!(after <= memory + GROWTH, "{} grew from {memory} to {after} KiB", target.name);
        target.wait_for_files(files);
    }
    assert!(world.owner().vms().is_empty(), "a row was left");
    world.banger(&["ps"]).output().ok();
}

/// Two hundred costly requests of one peer, sent in advance, do not hold up another's single one.
pub fn one_peer_does_not_starve_another(world: &World) {
    const MANY: usize = 200;
    world.start();
    let [_, helper] = both(world);
    let (mut greedy, mut modest) = (helper.connect().greet(), helper.connect().greet());
    greedy.send(&root(RootRequest::EnsureNetwork { prefer: None }).repeat(MANY));
    modest.send(&helper.status);
    modest.receive().expect("the helper answers");
    let served = greedy.arrived();
    println!("| helper | {MANY} requests in advance | {served} were answered before another peer's one |");
    assert!(served < 20, "{served} of {MANY} were answered first");
    for _ in served..MANY {
        greedy.receive().expect("each is answered");
    }
    greedy.send(&root(RootRequest::RemoveNetwork));
    greedy.receive().expect("the helper answers");
}

fn both(world: &World) -> [Target; 2] {
    let (daemon, helper) = pids(world);
    let at = |path: &str| world.home().join(path);
    let (owner, root) = (call(OwnerRequest::Status), root(RootRequest::Status));
    [
        Target { name: "daemon", socket: at("run/bangerd.sock"), pid: daemon, status: owner },
        Target { name: "helper", socket: at("root-run/bangerd-root.sock"), pid: helper, status: root },
    ]
}

fn root(request: RootRequest) -> Vec<u8> {
    frame::encode(&RootCall { op: OpId::from_random(0x0005_310c), request }).expect("a request fits a frame")
}

impl Target {
    fn connect(&self) -> Wire {
        Wire::connect(&self.socket)
    }

    /// It lives and answers somebody honest soon.
    fn answers(&self) {
        let began = Instant::now();
        let mut wire = self.connect().greet();
        wire.send(&self.status);
        wire.receive().unwrap_or_else(|| panic!("the {} hung up on an honest peer", self.name));
        assert!(began.elapsed() < HONEST, "the {} took {:?} for its status", self.name, began.elapsed());
        let pid = banger::os::socket::peer(wire.socket()).expect("credentials").pid;
        assert_eq!(pid, self.pid, "the {} did not survive", self.name);
    }

    fn memory(&self) -> u64 {
        census::memory(self.pid)
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("it lives").count()
    }

    /// Connections that this side has closed are noticed soon.
    fn wait_for_files(&self, before: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.open_files() > before && Instant::now() < deadline {
            // Another process's table: no event tells.
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(self.open_files() <= before, "the {} keeps {} of {before} files", self.name, self.open_files());
    }
}

/// Hears everything until the other side hangs up; how many frames that were.
fn drain(mut wire: Wire) -> usize {
    std::iter::from_fn(|| wire.receive()).count()
}

/// Sends nothing more, and hears the rest.
fn finish(wire: Wire) -> usize {
    // It may have hung up already.
    let _ = wire.socket().shutdown(Shutdown::Write);
    drain(wire)
}

fn huge_lengths(target: &Target) -> String {
    for length in [u32::MAX, 1 << 31, (1 << 20) + 1] {
        for mut wire in [target.connect(), target.connect().greet()] {
            wire.send(&length.to_le_bytes());
            drain(wire);
        }
    }
    "closed".into()
}

fn truncated(target: &Target) -> String {
    let whole = [frame::encode(&Hello::ours()).expect("a hello"), target.status.clone()].concat();
    for cut in 0..whole.len() {
        let mut wire = target.connect();
        wire.send(&whole[..cut]);
        finish(wire);
    }
    format!("{} closed", whole.len())
}

fn random(target: &Target) -> String {
    let mut noise = Noise(SEED);
    for round in 0..200 {
        let mut wire = if round % 2 == 0 { target.connect() } else { target.connect().greet() };
        wire.send(&noise.bytes(32 << 10));
        finish(wire);
    }
    format!("200 closed, seed {SEED:#x}")
}

/// The other side must decode each of them: a kind of request that there is, and rubbish after it,
/// more than any request without words has.
fn random_bodies(target: &Target) -> String {
    const KINDS: u64 = 24;
    let mut noise = Noise(SEED);
    let mut answered = 0;
    for _ in 0..200 {
        let kind = (noise.number() % KINDS) as u8;
        let body = [&[1, kind], &noise.number().to_le_bytes()[..], &noise.bytes(4 << 10)].concat();
        let mut wire = target.connect().greet();
        wire.send(&[&(body.len() as u32).to_le_bytes(), body.as_slice()].concat());
        answered += finish(wire);
    }
    format!("{answered} of 200 answered, all closed, seed {SEED:#x}")
}

fn another_version(target: &Target) -> String {
    for protocol in [0, PROTOCOL - 1, PROTOCOL + 1, u32::MAX] {
        let mut wire = target.connect();
        wire.send(&frame::encode(&Hello { protocol, build: "another".into() }).expect("a hello"));
        wire.send(&target.status);
        assert!(finish(wire) >= 2, "no hello or no status for protocol {protocol}");
    }
    "told the build and the status, closed".into()
}

fn descriptors(target: &Target) -> String {
    let file = std::fs::File::open("/dev/null").expect("a file");
    for wire in [target.connect(), target.connect().greet()] {
        // Beside the bytes of one header, which the other side collects.
        for _ in 0..3 {
            // It hangs up when there are too many, perhaps before all are sent.
            let _ = send_all(wire.socket(), &[9], &[file.as_fd(); MAX_FILES]);
        }
        finish(wire);
    }
    flooded_with_files(target, &file);
    "closed".into()
}

/// As many as the kernel takes in one message (`SCM_MAX_FD`), which the other side must close.
fn flooded_with_files(target: &Target, file: &std::fs::File) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let wire = target.connect().greet();
    let all = [file.as_fd(); 253];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&all)), "253 descriptors fit");
    let bytes = [std::io::IoSlice::new(&target.status)];
    sendmsg(wire.socket(), &bytes, &mut control, SendFlags::NOSIGNAL).expect("the kernel takes 253");
    drain(wire);
}

/// A frame that has begun is not waited for longer because a byte comes now and then; who speaks
/// meanwhile is answered.
fn slow(target: &Target) -> String {
    let mut wires = [target.connect(), target.connect().greet()];
    let began = Instant::now();
    wires.iter_mut().for_each(|wire| wire.send(&1000u32.to_le_bytes()));
    while wires.iter().any(|wire| !is_closed(wire.socket())) {
        assert!(began.elapsed() < PATIENCE, "it waits for ever for the rest of a frame");
        wires.iter_mut().for_each(|wire| wire.send(&[0]));
        // The pace of the attack.
        std::thread::sleep(Duration::from_millis(100));
        target.answers();
    }
    format!("closed after {:.1} s", began.elapsed().as_secs_f32())
}

/// Whether the other side has hung up; what it has said before is read over.
fn is_closed(socket: &UnixStream) -> bool {
    use rustix::net::{RecvFlags, recv};
    let mut buffer = [0; 4096];
    loop {
        match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => return true,
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => return false,
            Err(e) => panic!("a socket cannot be read: {e}"),
        }
    }
}

fn silent_crowd(target: &Target) -> String {
    let began = Instant::now();
    let crowd: Vec<Wire> = (0..500).map(|_| target.connect()).collect();
    // While all of them are there.
    target.answers();
    let at_once = crowd.iter().filter(|wire| is_closed(wire.socket())).count();
    for wire in crowd {
        drain(wire);
    }
    assert!(began.elapsed() < PATIENCE, "silence was listened to for {:?}", began.elapsed());
    format!("answers meanwhile; {at_once} closed at once, all after {:.1} s", began.elapsed().as_secs_f32())
}

fn greeting_crowd(target: &Target) -> String {
    let mut crowd: Vec<Wire> = (0..500).map(|_| target.connect()).collect();
    let hello = frame::encode(&Hello::ours()).expect("a hello");
    crowd.iter_mut().for_each(|wire| wire.send(&[hello.clone(), target.status.clone()].concat()));
    let answered = crowd.into_iter().map(finish).filter(|frames| *frames >= 2).count();
    assert!(answered > 0, "nobody was answered");
    format!("{answered} answered, {} closed", 500 - answered)
}

/// As much as is kept of a request, on many connections at once.
fn half_requests(target: &Target) -> String {
    let half = [&(64u32 << 10).to_le_bytes(), &vec![0; (64 << 10) - 1][..]].concat();
    let mut crowd: Vec<Wire> = Vec::new();
    for _ in 0..200 {
        let mut wire = target.connect();
        wire.send(&frame::encode(&Hello::ours()).expect("a hello"));
        wire.send(&half);
        crowd.push(wire);
    }
    let memory = target.memory();
    for wire in crowd {
        drain(wire);
    }
    format!("{memory} KiB at most, all closed")
}
