//! Commands over both carriers, jobs that need nobody, and copies.

use std::time::{Duration, Instant};

use crate::command::Run;
use crate::daemons::{end, pids};
use crate::exec::BOOT;
use crate::world::World;

/// What a command does, and how it ends for whoever asked.
const ENDS: [(&[&str], i32); 10] = [
    (&["true"], 0),
    (&["false"], 1),
    (&["sh", "-c", "exit 2"], 2),
    (&["sh", "-c", "exit 42"], 42),
    (&["sh", "-c", "exit 125"], 125),
    (&["/etc/passwd"], 126),
    (&["no-such-command"], 127),
    (&["sh", "-c", "kill -INT $$"], 130),
    (&["sh", "-c", "kill -KILL $$"], 137),
    (&["sh", "-c", "kill -TERM $$"], 143),
];

/// A way to run a command in `box`: its name, what chooses the carrier, and the words before `--`.
type Way = (&'static str, &'static str, &'static [&'static str]);

const RUNNING: [Way; 3] = [
    ("vm exec, agent", "agent", &["vm", "exec", "box"]),
    ("vm exec, ssh", "ssh", &["vm", "exec", "box"]),
    ("vm ssh", "auto", &["vm", "ssh", "box"]),
];

const NEW: [Way; 2] =
    [("vm run, agent", "agent", &["vm", "run", "--rm"]), ("vm run, ssh", "ssh", &["vm", "run", "--rm"])];

fn by(world: &World, (_, carrier, words): Way, more: &[&str], command: &[&str]) -> Run {
    let all = [words, more, &["--"], command].concat();
    world.with("BANGER_EXEC", carrier).banger(&all).limit(BOOT)
}

/// The table of the contract: each way × each end.
pub fn exit_codes(world: &World) {
    world.start();
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    for way in RUNNING {
        for (command, code) in ENDS {
            by(world, way, &[], command).output().ends(code);
        }
        println!("{}: {} ends are as they should be", way.0, ENDS.len());
    }
    for way in &RUNNING[..2] {
        let began = Instant::now();
        by(world, *way, &["--timeout", "2s"], &["sleep", "60"]).output().ends(124).refuses(&["not done within 2s"]);
        assert!(began.elapsed() < Duration::from_secs(20), "{}: {:?}", way.0, began.elapsed());
        by(world, *way, &["--timeout", "60s"], &["true"]).output().ok();
    }
    for (_, carrier, words) in RUNNING {
        let nosuch = [&words[..2], &["nosuch"]].concat();
        let run = world.with("BANGER_EXEC", carrier).banger(&[&nosuch[..], &["--", "true"]].concat());
        run.output().ends(125).refuses(&["nosuch"]);
    }
    new_vms(world);
}

/// A VM for each end is dear in software: all of them over the agent, those that could differ over ssh.
fn new_vms(world: &World) {
    let some: Vec<_> = ENDS.into_iter().filter(|(_, code)| [42, 127, 137].contains(code)).collect();
    for (way, ends) in NEW.into_iter().zip([&ENDS[..], &some]) {
        for (command, code) in ends {
            by(world, way, &[], command).output().ends(*code);
        }
        by(world, way, &["--timeout", "1s"], &["sleep", "60"]).output().ends(124);
        by(world, way, &["--vcpu", "0"], &["true"]).output().ends(125);
        println!("{}: {} ends are as they should be", way.0, ends.len() + 2);
    }
    let left = world.owner().vms();
    assert_eq!(left.len(), 1, "only the box is left: {left:?}");
}

fn exec(world: &World, command: &[&str]) -> Run {
    by(world, RUNNING[0], &[], command)
}

/// Several at once, with binary streams and a signal, through the end of daemon and helper; and a
/// command whose VM dies is no success.
pub fn agent(world: &World) {
    world.start();
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    let every_byte: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    assert_eq!(exec(world, &["cat"]).input(every_byte.clone()).limit(200).output().ok().stdout, every_byte);
    channels(world);
    survival(world);
    let running = exec(world, &["sh", "-c", "echo begun; sleep 60"]).spawn();
    running.wait_for_output("begun");
    running.signal(rustix::process::Signal::TERM);
    running.wait().ends(143);
    let running = exec(world, &["sh", "-c", "echo begun; sleep 60"]).spawn();
    running.wait_for_output("begun");
    world.banger(&["vm", "kill", "box"]).output().ok();
    running.wait().ends(125).refuses(&["was lost"]);
}

/// Eight commands have eight channels; the ninth goes over ssh, or is refused where that is not wanted.
fn channels(world: &World) {
    let command = ["sh", "-c", "echo begun; read -r line; exit $line"];
    let mut gates = Vec::new();
    for number in 0..8 {
        let gate = world.folder().join(format!("gate{number}"));
        rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("a fifo");
        let open = std::fs::File::options().read(true).write(true).open(&gate).expect("the gate opens");
        let running = exec(world, &command).with_stdin(open.try_clone().expect("a copy")).spawn();
        running.wait_for_output("begun");
        gates.push((running, open));
    }
    exec(world, &["true"]).output().ends(125).refuses(&["all 8 channels are in use"]);
    by(world, ("", "auto", &["vm", "exec", "box"]), &[], &["sh", "-c", "exit 9"]).output().ends(9);
    for (number, (running, mut gate)) in gates.into_iter().enumerate() {
        std::io::Write::write_all(&mut gate, format!("{number}\n").as_bytes()).expect("the gate is written to");
        running.wait().ends(number as i32);
    }
    exec(world, &["true"]).output().ok();
}

fn survival(world: &World) {
    let running = exec(world, &["sh", "-c", "echo begun; sleep 5; echo alive; exit 7"]).spawn();
    running.wait_for_output("begun");
    let (daemon, helper) = pids(world);
    [daemon, helper].into_iter().for_each(end);
    assert_eq!(exec(world, &["echo", "again"]).output().ok().text(), "again");
    assert_eq!(running.wait().ends(7).text(), "begun\nalive");
}

/// A command that goes on by itself, seen from its start, from a byte, and to its end.
pub fn jobs(world: &World) {
    world.start();
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    let detach = |command: &[&str]| {
        let all = [&["vm", "exec", "-d", "box", "--"], command].concat();
        world.banger(&all).output().ok().text()
    };
    let first = detach(&["sh", "-c", "echo one; echo two >&2; sleep 3; echo three; exit 5"]);
    assert_eq!(first, "1");
    let attach = |words: &[&str]| world.banger(&[&["vm", "attach", "box"], words].concat());
    let looking = attach(&["1"]).spawn();
    looking.wait_for_output("one");
    let (daemon, helper) = pids(world);
    [daemon, helper].into_iter().for_each(end);
    let seen = looking.wait().ends(5);
    assert_eq!((seen.text().as_str(), seen.stderr.trim_end()), ("one\nthree", "two"));
    let from = attach(&["1", "--from", "8"]).output().ends(5);
    assert_eq!((from.text().as_str(), from.stderr.as_str()), ("three", ""));
    let second = detach(&["sh", "-c", "echo begun; exec sleep 600"]);
    let looking = attach(&[&second]).spawn();
    looking.wait_for_output("begun");
    looking.signal(rustix::process::Signal::INT);
    looking.wait().ends(130);
    assert_eq!(attach(&[&second, "--no-follow"]).output().ok().text(), "begun");
    let listed = attach(&[]).output().ok().text();
    assert!(listed.contains("1\texited 5\tsh -c") && listed.contains("2\trunning\tsh -c"), "{listed}");
    attach(&["99"]).output().ends(125).refuses(&["no job 99"]);
    endless_output(world, &detach(&["yes"]));
}

/// A job that never stops talking keeps its last words, and neither guest nor host fills up.
fn endless_output(world: &World, job: &str) {
    let kept = ["sh", "-c", "sleep 5; du -sk /run/banger/jobs | cut -f1; pkill -x yes"];
    let kilobytes: u64 = exec(world, &kept).output().ok().text().parse().expect("a number");
    assert!(kilobytes < 8 << 10, "{kilobytes} KiB are kept of one job");
    let seen = world.banger(&["vm", "attach", "box", job]).output().ends(143);
    assert!(seen.stderr.contains("no longer kept") && seen.stdout.len() > 1 << 20, "{} bytes", seen.stdout.len());
}

/// Files and folders both ways, over both carriers.
pub fn copies(world: &World) {
    world.start();
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    for carrier in ["agent", "ssh"] {
        copy(&world.with("BANGER_EXEC", carrier), carrier);
    }
    for bad in [["/etc/hosts", "/tmp/x"], ["box:/a", "box:/b"]] {
        world.banger(&["vm", "cp", bad[0], bad[1]]).output().ends(2);
    }
}

fn copy(world: &World, carrier: &str) {
    let here = world.folder().join(carrier);
    let tree = here.join("tree");
    std::fs::create_dir_all(tree.join("deep")).expect("a tree");
    let content: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    std::fs::write(tree.join("deep/file"), &content).expect("a file");
    std::os::unix::fs::symlink("deep/file", tree.join("link")).expect("a link");
    let cp = |src: &str, dst: &str| world.banger(&["vm", "cp", src, dst]).limit(120);
    let (text, there) = (tree.display().to_string(), format!("box:/srv/{carrier}"));
    cp(&text, &there).output().ok();
    world
        .guest("box", &["sh", "-c", &format!("cd /srv/{carrier} && cmp link deep/file && test -L link")])
        .output()
        .ok();
    cp(&format!("{there}/deep/file"), &here.join("back").display().to_string()).output().ok();
    assert_eq!(std::fs::read(here.join("back")).expect("the file is back"), content);
    cp(&there, &here.display().to_string()).output().ok();
    assert_eq!(std::fs::read(here.join(carrier).join("link")).expect("the tree is back"), content);
    cp("box:/etc/os-release", &here.join("release").display().to_string()).output().ok();
    let release = std::fs::symlink_metadata(here.join("release")).expect("the file that the link means");
    assert!(release.is_file());
    let tar = cp(&format!("{there}/deep/."), "-").output().ok().stdout;
    cp("-", "box:/mnt").input(tar).output().ok();
    world.guest("box", &["cmp", "/mnt/file", &format!("/srv/{carrier}/deep/file")]).output().ok();
    cp("box:/no/such", &here.display().to_string()).output().ends(3).refuses(&["/no/such"]);
    cp(&text, "box:/etc/hostname").output().ends(2).refuses(&["no folder"]);
    cp("/no/such", "box:/srv").output().ends(3);
}
