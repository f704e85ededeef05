//! How long a repository of 20,000 files takes to get into a guest, beside the ways that everybody has.

use std::time::{Duration, Instant};

use crate::command::Run;
use crate::exec::BOOT;
use crate::world::World;

/// Text as source code has it: words, some of them again and again.
const MAKE: &str = r#"
use strict; use warnings;
srand 1;
my @words = map { "w$_" } 0 .. 4999;
for my $n (0 .. 19999) {
    my $folder = sprintf 'repo/d%03d/s%02d', $n % 200, int($n / 200) % 10;
    mkdir $_ for 'repo', $folder =~ m{(.*)/}, $folder;
    open my $file, '>', "$folder/f$n.txt" or die $!;
    print $file join(' ', map { $words[rand @words] } 1 .. 8), "\n" for 1 .. (5, 20, 60, 200)[rand 4];
}
"#;

/// Seconds for one way.
const LONG: u64 = 300;

/// Each way twice, in turns; the faster time of each counts.
pub fn beside_rsync_and_tar(world: &World) {
    world.tool("perl", &["-e", MAKE]).limit(LONG).output().ok();
    let commit = "cd repo && git init -q && git config user.name P && git config user.email p@example.org && \
                  git add . && git commit -q -m one && echo edited >> d000/s00/f0.txt";
    world.tool("sh", &["-c", commit]).limit(LONG).output().ok();
    world.start();
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    let guest = Guest::of(world);
    give_rsync(world);
    let mut best: [Option<Duration>; 3] = [None; 3];
    for _ in 0..2 {
        for (number, way) in [Guest::prepare, Guest::tar, Guest::rsync].into_iter().enumerate() {
            guest.run("rm -rf /root/repo /root/tar /root/rsync; sync");
            let begun = Instant::now();
            way(&guest).limit(LONG).output().ok();
            let taken = begun.elapsed();
            best[number] = Some(best[number].map_or(taken, |before| before.min(taken)));
        }
    }
    let [prepare, tar, rsync] = best.map(|time| time.expect("measured").as_secs_f64());
    println!("| vm workspace prepare | tar over ssh | rsync -a | prepare / the faster of both |");
    println!("| {prepare:.1} s | {tar:.1} s | {rsync:.1} s | {:.2} |", prepare / tar.min(rsync));
    assert!(prepare <= tar.min(rsync), "slower than what everybody has");
    comes_out(world, &guest);
}

/// Gives the VM `box` the host's own rsync, which is the same distribution's, with its libraries.
pub fn give_rsync(world: &World) {
    let script = "p=$(command -v rsync); cp -L \"$p\" $(ldd \"$p\" | sed -n 's/.*=> \\(\\/[^ ]*\\).*/\\1/p') given/";
    std::fs::create_dir(world.person().join("given")).expect("made");
    world.tool("sh", &["-c", script]).output().ok();
    world.banger(&["vm", "cp", "given/.", "box:/opt/rsync"]).limit(LONG).output().ok();
    let wrapper = "printf '#!/bin/sh\\nexec /opt/rsync/ld-linux-x86-64.so.2 --library-path /opt/rsync /opt/rsync/rsync \"$@\"\\n' \
                   > /usr/bin/rsync; chmod +x /usr/bin/rsync; cp -L /lib64/ld-linux-x86-64.so.2 /opt/rsync/ 2>/dev/null; rsync --version";
    world.guest("box", &["sh", "-c", wrapper]).limit(LONG).output().ok();
}

/// It is what it is here, and what is done to it comes out.
fn comes_out(world: &World, guest: &Guest<'_>) {
    world.banger(&["vm", "workspace", "prepare", "box", "repo"]).limit(LONG).output().ok();
    let status = |run: Run| run.limit(LONG).output().ok().text();
    let words = ["git", "status", "--porcelain"];
    let there = status(world.banger(&[&["vm", "exec", "box", "--"], &words[..]].concat()));
    let here = status(world.tool("git", &["-C", "repo", "status", "--porcelain"]));
    assert_eq!((there.as_str(), here.as_str()), (" M d000/s00/f0.txt", " M d000/s00/f0.txt"));
    guest.run("cd /root/repo && for d in d1*; do echo more >> $d/s00/new; rm -f $d/s01/*; done");
    world.banger(&["vm", "workspace", "export", "box", "-o", "out.patch"]).limit(LONG).output().ok();
    let hashes = "git add -A && git ls-files -s -z | sha256sum";
    let apply = format!("git clone -q repo clone && cd clone && git apply ../out.patch && {hashes}");
    let here = status(world.tool("sh", &["-c", &apply]));
    let there = status(world.banger(&["vm", "exec", "box", "--", "sh", "-c", hashes]));
    assert_eq!(there, here, "the clone is another");
    println!("| 20,000 files | git status | the same | patch applied to a clone | the same, hash by hash |");
}

struct Guest<'w> {
    world: &'w World,
    address: String,
    ssh: String,
}

impl<'w> Guest<'w> {
    fn of(world: &'w World) -> Self {
        let vm = world.banger(&["vm", "show", "box", "--json"]).output().ok().json();
        let text = |field: &str| vm[field].as_str().expect("text").to_owned();
        let keys = world.home().join("state/vms").join(text("id")).join("id_ed25519");
        let options = "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR";
        Self { world, address: text("address"), ssh: format!("ssh -i {} {options}", keys.display()) }
    }

    fn run(&self, script: &str) {
        self.world.guest("box", &["sh", "-c", script]).limit(LONG).output().ok();
    }

    fn prepare(&self) -> Run {
        self.world.banger(&["vm", "workspace", "prepare", "box", "repo"])
    }

    fn tar(&self) -> Run {
        let script = format!("tar c repo | {} root@{} 'mkdir /root/tar && tar x -C /root/tar'", self.ssh, self.address);
        self.world.tool("sh", &["-c", &script])
    }

    fn rsync(&self) -> Run {
        self.world.tool("rsync", &["-a", "-e", &self.ssh, "repo", &format!("root@{}:/root/rsync/", self.address)])
    }
}
