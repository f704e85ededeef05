//! Guests that say too much: on their console, to their command line, over their agent's port. The
//! daemon stays as small as it was, and another VM is served as before.
//!
//! Who is root in a guest is its agent: it ends banger's own and speaks in its place.

use std::time::{Duration, Instant};

use banger::protocol::guest::{
    Announcement, FromGuest, GuestHello, GuestReply, ListeningPort, MAX_PORTS, PORT_NAME, PREAMBLE,
};
use banger::protocol::{MAX_FRAME, frame};

use crate::census;
use crate::command::Running;
use crate::daemons::pids;
use crate::exec::BOOT;
use crate::guests::wait_for_distribution;
use crate::world::World;

/// How much more memory the daemon may have after a flood, in KiB: a few frames.
const GROWTH: u64 = 4 << 10;

/// How much a command line may have whose reader is slow, in KiB.
const COMMAND_LINE: u64 = 32 << 10;

/// How long another VM may take for a command and a ping: generous, because a flood takes a whole CPU
/// of the few that emulate all guests. The table says how long it took without.
const CALM: Duration = Duration::from_secs(60);

/// Answers for requests up to this number: the guest need not know which one is asked.
const NUMBERS: u64 = 16;

type Flood = (&'static str, fn(&World) -> String);

/// All floods; `calm` is the VM that shall not notice.
pub fn are_bounded(world: &World) {
    world.start();
    let create = |name| world.banger(&["vm", "create", "--name", name, "--memory", "512M"]).limit(BOOT).spawn();
    for creating in ["calm", "loud", "babbler"].map(create) {
        creating.wait().ok();
    }
    // What the distributions do at their start would be measured too.
    ["calm", "loud", "babbler"].iter().for_each(|name| wait_for_distribution(world, name));
    let before = census::memory(pids(world).0);
    println!("| flood | observed | daemon VmRSS KiB before | after | another VM's command took |");
    let floods: [Flood; 6] = [
        ("none", |_| "idle".into()),
        ("console", console),
        ("output into a slow reader", slow_reader),
        ("output into a closed reader", closed_reader),
        ("100,000 listening ports", ports),
        ("1,000,000 agent messages", messages),
    ];
    for (name, flood) in floods {
        let seen = flood(world);
        let (after, took) = (census::memory(pids(world).0), calm(world));
        println!("| {name} | {seen} | {before} | {after} | {:.1} s |", took.as_secs_f32());
        assert!(after <= before + GROWTH, "{name}: the daemon grew from {before} to {after} KiB");
    }
    let states: Vec<_> = world.owner().vms().iter().map(|vm| vm.state.as_str()).collect();
    assert_eq!(states, ["running"; 3], "a flood has ended a VM");
}

/// How long a command and a ping take in the VM that floods nothing.
fn calm(world: &World) -> Duration {
    let began = Instant::now();
    world.guest("calm", &["true"]).output().ok();
    world.banger(&["vm", "ping", "calm"]).output().ok();
    let took = began.elapsed();
    assert!(took < CALM, "another VM took {took:?}");
    took
}

/// Written for as long as the other VM is used.
fn console(world: &World) -> String {
    let flood = ["sh", "-c", "echo begun; exec timeout 15 sh -c 'yes flood >/dev/console'"];
    let running = world.guest("loud", &flood).spawn();
    running.wait_for_output("begun");
    let took = calm(world);
    running.wait().ends(124);
    format!("another VM's command took {:.1} s meanwhile", took.as_secs_f32())
}

/// What nobody reads is not read from the guest either; nothing of it is lost.
fn slow_reader(world: &World) -> String {
    let running = piped(world, "( echo begun >&2; sleep 8; head -c 1000000 | wc -c )");
    running.wait_for_lines(1);
    let deadline = Instant::now() + Duration::from_secs(6);
    let mut most = 0;
    while Instant::now() < deadline {
        // Another process's memory: no event tells.
        std::thread::sleep(Duration::from_millis(200));
        most = most.max(shell_of_loud(world).map_or(0, census::memory));
    }
    assert!((1..COMMAND_LINE).contains(&most), "a command line whose reader is slow has {most} KiB");
    assert_eq!(running.wait().ok().text(), "1000000");
    format!("the command line had {most} KiB at most")
}

/// A reader that has had enough ends the command line, and that the guest's command.
fn closed_reader(world: &World) -> String {
    let began = Instant::now();
    let counted = piped(world, "head -c 1000000 | wc -c").wait().ok();
    assert_eq!(counted.text(), "1000000");
    let gone = "for _ in $(seq 100); do pgrep -x cat >/dev/null || exit 0; sleep 0.1; done; exit 1";
    world.guest("loud", &["sh", "-c", gone]).output().ok();
    format!("all ended after {:.1} s", began.elapsed().as_secs_f32())
}

/// Endless output of a guest into `reader`, a shell command.
fn piped(world: &World, reader: &str) -> Running {
    let script = format!("\"$0\" vm ssh loud -- cat /dev/zero | {reader}");
    world.tool("sh", &["-c", &script, &world.binary().display().to_string()]).spawn()
}

/// The command line that [`piped`] has started, once it is there.
fn shell_of_loud(world: &World) -> Option<i32> {
    let namespace = std::fs::metadata(format!("/run/netns/{}", world.netns())).expect("the namespace");
    let all = census::inhabitants(world.folder(), Some(&namespace));
    all.iter().find(|i| i.description().contains("banger vm ssh")).map(census::Inhabitant::pid)
}

/// In the guest: banger's agent is gone for good, and its port is descriptor 3.
const TAKE_THE_PORT: &str = "pkill -STOP -x banger-keeper; pkill -KILL -x banger-agent
    port=/dev/$(basename $(dirname $(grep -lx NAME /sys/class/virtio-ports/*/name)))
    until { exec 3<>$port; } 2>/dev/null; do sleep 0.1; done";

fn take_the_port(rest: &str) -> String {
    format!("{}\n{rest}", TAKE_THE_PORT.replace("NAME", PORT_NAME))
}

/// More ports than an agent may report are cut by the daemon, many more end the guest's agent link.
fn ports(world: &World) -> String {
    let (many, far_too_many) = (answers(10 * MAX_PORTS), answers(100_000));
    let script = take_the_port(&format!(
        "head -c {} >/tmp/many; cat >/tmp/far-too-many
         for lie in many far-too-many; do
             echo $lie; dd bs=4096 count=1 <&3 >/dev/null 2>&1; timeout 20 cat /tmp/$lie >&3
         done; echo told",
        many.len()
    ));
    let guest = world.guest("loud", &["bash", "-c", &script]).input([many, far_too_many].concat()).limit(90).spawn();
    guest.wait_for_output("many\n");
    let shown = world.banger(&["vm", "ports", "loud", "--json"]).output().ok().json();
    let shown = shown.as_array().expect("a list").len();
    assert_eq!(shown, MAX_PORTS, "the guest's list was not cut");
    guest.wait_for_output("far-too-many\n");
    let refused = world.banger(&["vm", "ports", "loud"]).output().ends(1);
    guest.wait().ok();
    let why = refused.stderr.lines().find_map(|l| l.trim().strip_prefix("because: ")).unwrap_or("nothing").to_owned();
    format!("{} ports: {shown} shown; 100,000: refused ({why})", 10 * MAX_PORTS)
}

/// An answer with `count` ports to whatever was asked. By hand, because the language's own encoder
/// would refuse it: the list's length and its elements stand at the end.
fn answers(count: usize) -> Vec<u8> {
    let body = |number: u64, ports: Vec<ListeningPort>| {
        let reply = FromGuest::Reply { number, reply: Ok(GuestReply::Ports(ports)) };
        frame::encode(&reply).expect("a short answer")[frame::HEADER..].to_vec()
    };
    let port = ListeningPort { address: String::new(), port: 80, process: None, pid: None };
    let of_number = |number| {
        let empty = body(number, Vec::new());
        let element = body(number, vec![port.clone()])[empty.len()..].to_vec();
        // A varint of 32 bits (bincode's specification, "VarintEncoding").
        let length = [&[252][..], &(count as u32).to_le_bytes()].concat();
        let body = [&empty[..empty.len() - 1], &length, &element.repeat(count)].concat();
        assert!(body.len() < MAX_FRAME, "the length of the frame is not what is tried here");
        [&(body.len() as u32).to_le_bytes(), body.as_slice()].concat()
    };
    (1..=NUMBERS).flat_map(of_number).collect()
}

/// Nobody asked for them.
fn messages(world: &World) -> String {
    const COUNT: usize = 1_000_000;
    let word = frame::encode(&FromGuest::Announce(Announcement::GoingDown)).expect("a word");
    let hello = frame::encode(&GuestHello::ours()).expect("a hello");
    let flood = [&PREAMBLE[..], &hello, &word.repeat(COUNT)].concat();
    // Once nobody listens a port takes no more (virtio_console.c), so the guest would wait for ever.
    let script = take_the_port("cat >/tmp/flood; timeout 20 cat /tmp/flood >&3; echo told");
    let guest = world.guest("babbler", &["bash", "-c", &script]).input(flood).limit(90).spawn();
    guest.wait().ok();
    world.banger(&["vm", "ping", "babbler"]).output().ends(1).refuses(&["without being asked"]);
    "the guest lost its agent link".into()
}
