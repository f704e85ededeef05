//! Guest commands as seen by a script: exit codes, quoting, three clean streams.

use std::time::Duration;

use banger::host::facts::Facts;

use crate::census::wait_for_equality;
use crate::runner::skip;
use crate::world::World;

/// More than any boot takes in software emulation on a busy machine.
pub const BOOT: u64 = 100;

/// The command that the README begins with.
pub fn main_job(world: &World) {
    let before = world.start_and_count();
    let done = world.banger(&["vm", "run", "--rm", "--", "uname", "-a"]).limit(BOOT).output().ok();
    let text = done.text();
    assert!(text.starts_with("Linux ") && text.lines().count() == 1, "not one line of uname: {text:?}");
    for said in ["spec: ", " vcpu | ", "[vm run] ready in "] {
        assert!(done.stderr.contains(said), "{said:?} is not on standard error:\n{}", done.stderr);
    }
    wait_for_equality(world, &before, Duration::from_secs(5));
}

/// The same on KVM, where the machine has it.
pub fn on_the_cpu_itself(world: &World) {
    let facts = Facts::see();
    if !(facts.kvm_opens && facts.cpu_virtualises) {
        skip("no usable KVM: /dev/kvm does not open, or the CPU shows neither vmx nor svm");
    }
    let world = &world.with("BANGER_ACCEL", "kvm");
    let done = world.banger(&["vm", "run", "--rm", "--", "true"]).output().ok();
    assert!(done.stderr.contains("qemu/kvm"), "{}", done.stderr);
}

/// The guest command's own code, 128+N, 126, 127; 125 when banger itself failed.
pub fn exit_codes(world: &World) {
    world.banger(&["vm", "run", "--name", "box", "--", "sh", "-c", "exit 42"]).limit(BOOT).output().ends(42);
    let ends: [(&[&str], i32); 9] = [
        (&["true"], 0),
        (&["false"], 1),
        (&["sh", "-c", "exit 42"], 42),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["/etc/passwd"], 126),
        (&["no-such-command"], 127),
        (&["sh", "-c", "exit 125"], 125),
    ];
    for (command, code) in ends {
        world.guest("box", command).output().ends(code);
    }
    world.guest("nosuch", &["true"]).output().ends(125).refuses(&["nosuch"]);
    words_arrive_as_they_are(world);
    world.banger(&["vm", "delete", "box"]).output().ok();
    world.guest("box", &["true"]).output().ends(125);
}

fn words_arrive_as_they_are(world: &World) {
    let words = ["a b", "it's", "$HOME", "*", "", "\"q\"", "back\\slash", "new\nline", "-x", "--", "ü", ";&|`"];
    let mut command = vec!["printf", "%s|"];
    command.extend(words);
    let said = world.guest("box", &command).output().ok();
    assert_eq!(String::from_utf8_lossy(&said.stdout), words.map(|w| format!("{w}|")).concat());
}

/// Every byte in, every byte out, standard error apart.
pub fn streams(world: &World) {
    let first = world.banger(&["vm", "run", "--name", "box", "--", "cat"]);
    assert_eq!(first.input(*b"a\0b").limit(BOOT).output().ok().stdout, b"a\0b");
    let every_byte: Vec<u8> = (0..=255).collect();
    assert_eq!(world.guest("box", &["cat"]).input(every_byte.clone()).output().ok().stdout, every_byte);

    let apart = world.guest("box", &["sh", "-c", "echo out; echo err >&2; exit 3"]).output().ends(3);
    assert_eq!((apart.text().as_str(), apart.stderr.trim_end()), ("out", "err"));

    // Input that nobody reads must not hold anything up.
    world.guest("box", &["true"]).input(vec![b'x'; 4 << 20]).output().ok();
    // The end of the input is the end of the guest's input.
    let counted = world.guest("box", &["wc", "-c"]).input(vec![b'x'; 1 << 20]).output().ok();
    assert_eq!(counted.text(), "1048576");

    let much = noise(100 << 20);
    let back = world.guest("box", &["cat"]).input(much.clone()).limit(300).output().ok();
    assert_eq!(back.stdout.len(), much.len());
    assert_eq!(sha256(&back.stdout), sha256(&much), "100 MiB in and back");
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

/// `length` bytes that no stream can compress or guess (xorshift64).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}
