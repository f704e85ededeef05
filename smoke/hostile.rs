//! What hostile and mistaken callers are told: in the command line, and past it by frames.

use banger::model::{Mib, VmSpec};
use banger::protocol::hello::PROTOCOL;
use banger::protocol::owner::{AgentQuestion, OwnerRequest};
use banger::protocol::{Hello, frame};

use crate::base::{self, NAME};
use crate::direct::{Wire, call, forge};
use crate::world::World;

const LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Names that are no DNS labels.
const BAD_NAMES: [&str; 12] = ["Box", "-a", "a-", LONG, "a/../b", "..", "a\nb", "böx", "a b", "", "a.b", "a;reboot"];

/// A name that is fine, and found again in a frame.
const FINE: &str = "a-fine-name";

/// Refused, and no row.
pub fn bad_input_leaves_no_row(world: &World) {
    world.start();
    let cases: [&[&str]; 8] = [
        &["--vcpu", "0"],
        &["--vcpu", "65"],
        &["--vcpu", "-1"],
        &["--memory", "1G", "--disk-size", "1M"],
        &["--memory", "1M"],
        &["--memory", "lots"],
        &["--image", "no-such-image"],
        &["--kernel", "no-such-kernel"],
    ];
    for case in cases {
        refuses(world, case);
    }
    for name in BAD_NAMES {
        refuses(world, &["--name", name]);
    }
    world.banger(&["vm", "run", "--no-such-flag"]).output().ends(2);
    world.banger(&["no-such-command"]).output().ends(2);
    assert!(world.owner().vms().is_empty(), "a row was left: {:?}", world.owner().vms());
}

fn refuses(world: &World, flags: &[&str]) {
    for command in [&["vm", "run", "--rm"][..], &["vm", "create"][..]] {
        let tail: &[&str] = if command.contains(&"run") { &["--", "true"] } else { &[] };
        let said = world.banger(&[command, flags, tail].concat()).output();
        let usual = [2, 3, 125].contains(&said.code);
        assert!(usual && !said.stderr.is_empty(), "{command:?} {flags:?}: {} {}", said.code, said.stderr);
        assert!(said.stderr.lines().count() < 12, "{flags:?} is answered with a wall of text:\n{}", said.stderr);
    }
}

/// The daemon refuses by itself what the command line would not have sent, and goes on.
pub fn bad_frames_are_refused(world: &World) {
    world.start();
    let pid = world.owner().pid();
    let specs = [
        VmSpec { vcpus: 0, ..spec() },
        VmSpec { vcpus: 255, ..spec() },
        VmSpec { memory: Mib(1), ..spec() },
        VmSpec { disk: Mib(1), ..spec() },
        VmSpec { disk: Mib(u32::MAX), ..spec() },
        VmSpec { image: "no-such-image".parse().expect("a name"), ..spec() },
        VmSpec { kernel: "no-such-kernel".parse().expect("a name"), ..spec() },
    ];
    for bad in specs {
        refused(world, &call(create(bad)));
    }
    let good = call(create(spec()));
    for name in BAD_NAMES {
        refused(world, &forge(&good, FINE, name.as_bytes()));
    }
    refused(world, &forge(&good, NAME, b"../../etc/passwd"));
    refused(world, &forge(&good, FINE, b"\xff\xfe"));
    refused(world, &lengthened(&good));
    // A descriptor was announced by the request's kind, and none travels.
    refused(world, &call(import()));
    refused(world, &call(OwnerRequest::AskAgent { name: fine(), question: AgentQuestion::Ping }));
    strangers_are_hung_up_on(world);
    assert_eq!(world.owner().pid(), pid, "the daemon did not survive");
    assert!(world.owner().vms().is_empty(), "a row was left");
}

fn fine() -> banger::model::VmName {
    FINE.parse().expect("a name")
}

fn spec() -> VmSpec {
    base::spec(FINE, Mib(512))
}

fn create(spec: VmSpec) -> OwnerRequest {
    OwnerRequest::CreateVm { spec, start: true, ephemeral: false, ttl: None, values: vec![], fail: None }
}

fn import() -> OwnerRequest {
    let name = "hostile".parse().expect("a name");
    let init = banger::model::InitMode::Image;
    OwnerRequest::ImportImage { name, size: None, init, source: "nowhere".into() }
}

/// A frame whose body has a byte after its value.
fn lengthened(good: &[u8]) -> Vec<u8> {
    let body = [&good[frame::HEADER..], &[0]].concat();
    [&(body.len() as u32).to_le_bytes(), body.as_slice()].concat()
}

/// Answered with a fault or hung up on, and nothing was made.
fn refused(world: &World, bytes: &[u8]) {
    let mut wire = world.owner();
    if let Some(answer) = wire.ask_raw(bytes) {
        assert!(answer.is_err(), "{bytes:?} was answered with {answer:?}");
    }
    assert!(world.owner().vms().is_empty(), "{bytes:?} left a row");
}

/// Bytes that are no conversation at all.
fn strangers_are_hung_up_on(world: &World) {
    let socket = world.home().join("run/bangerd.sock");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64][..], &[0, 0, 0, 0][..]] {
        let mut wire = Wire::connect(&socket);
        wire.send(bytes);
        while wire.receive().is_some() {}
    }
    let mut wire = Wire::connect(&socket);
    let older = Hello { protocol: PROTOCOL + 1, build: "another".into() };
    wire.send(&frame::encode(&older).expect("a hello"));
    wire.send(&call(OwnerRequest::ListVms));
    let mut answers = Vec::new();
    while let Some(body) = wire.receive() {
        answers.push(body);
        if answers.len() == 2 {
            break;
        }
    }
    let told = answers.iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect::<String>();
    assert!(told.contains("another"), "another build is not told so: {told}");
}
