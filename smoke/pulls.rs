//! Pulls that are interrupted, and how fast one is beside the tools that everybody has.

use std::path::PathBuf;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::base::NAME;
use crate::exec::BOOT;
use crate::registry::{self, CUT, CUTTER, Layout, Packing, REGISTRY, Registry};
use crate::tricky::read_file;
use crate::world::World;

/// Bytes of each of the four layers of the image that is interrupted.
const LAYER: usize = 3 << 20;

/// Bytes that do not compress, the same each time.
fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ state >> 29).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content).expect("an entry");
    tar.into_inner().expect("an archive")
}

/// At every tenth: the connection is cut for good, or the puller killed; the next pull completes.
pub fn survive_cuts_and_kills(world: &World) {
    registry::check(world);
    let registry = Registry::start(world);
    let mut layout = Layout::create(world.folder().join("layout"));
    let layers: Vec<Vec<u8>> = (0..4u64).map(|n| layer(&format!("f{n}"), &noise(LAYER, n + 1))).collect();
    layout.image("noise", &layers, Packing::Gzip, json!({}));
    registry.push(world, &layout, "noise", "noise");
    world.start();
    let total = (4 * LAYER) as u64;
    for tenth in 1..10 {
        let cutter =
            world.tool(std::env::current_exe().expect("this program"), &[CUTTER, &(total * tenth / 10).to_string()]);
        let cutter = cutter.limit(120).spawn();
        cutter.wait_for_output("listening");
        let cut = world.banger(&["image", "pull", &format!("{CUT}/noise:1")]).limit(120).output();
        assert_eq!(cut.code, 1, "{tenth}: {}", cut.stderr);
        cutter.wait();
        nothing_half(world, tenth);
        completes(world, tenth);
    }
    for tenth in 1..10 {
        let pull = world.banger(&["image", "pull", &format!("{REGISTRY}/noise:1")]).limit(120).spawn();
        let deadline = Instant::now() + std::time::Duration::from_secs(60);
        // The parts are seen to grow; a pull that is faster than this look has ended by itself.
        while parts(world) < total * tenth / 10 && Instant::now() < deadline && !is_there(world) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        pull.signal(Signal::KILL);
        pull.wait();
        if !is_there(world) {
            nothing_half(world, tenth);
        }
        completes(world, tenth);
    }
}

/// Bytes of what has come of blobs so far.
fn parts(world: &World) -> u64 {
    let folder = world.home().join("cache/blobs/sha256");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum()
}

fn is_there(world: &World) -> bool {
    image(world).exists()
}

fn image(world: &World) -> PathBuf {
    world.home().join("state/images/box.ext4")
}

fn nothing_half(world: &World, tenth: u64) {
    let listed = world.banger(&["image", "list", "-q"]).output().ok().text();
    assert!(!listed.contains("noise"), "{tenth}: a partial image is listed: {listed}");
}

/// The next pull completes with the right content; then all is forgotten for the next round.
fn completes(world: &World, tenth: u64) {
    world.banger(&["image", "pull", &format!("{REGISTRY}/noise:1"), "--name", "box"]).limit(120).output().ok();
    for n in [0, 3] {
        let found = read_file(world, &image(world), &format!("/f{n}"));
        assert!(found == noise(LAYER, n + 1), "{tenth}: f{n} is another file");
    }
    let names = world.banger(&["image", "list", "-q"]).output().ok().text();
    for name in names.lines().filter(|name| *name != NAME) {
        world.banger(&["image", "delete", name]).output().ok();
    }
    let left: Vec<_> = std::fs::read_dir(world.home().join("state/images")).expect("listed").flatten().collect();
    assert_eq!(left.len(), 1, "{tenth}: {left:?}");
    let freed = world.banger(&["image", "cache", "prune"]).output().ok().text();
    assert!(freed.starts_with("freed "), "{freed}");
    assert_eq!(parts(world), 0, "{tenth}: the cache is not empty");
}

/// Seconds for one way.
const LONG: u64 = 300;

/// An image of about 300 MiB to a bootable disk, three times each in turns; the median counts.
pub fn beside_skopeo_umoci_and_mkfs(world: &World) {
    registry::check(world);
    let registry = Registry::start(world);
    let mut layout = Layout::create(world.folder().join("layout"));
    layout.image("debian", &[debian(world)], Packing::Gzip, json!({"Cmd": ["/bin/true"]}));
    registry.push(world, &layout, "debian", "debian");
    world.start();
    let reference = format!("{REGISTRY}/debian:1");
    let script = format!(
        "set -e; rm -rf o u x.ext4; skopeo copy -q --insecure-policy --src-tls-verify=false docker://{reference} oci:o:x; \
         umoci unpack --image o:x u; truncate -s 1G x.ext4; mkfs.ext4 -q -d u/rootfs x.ext4; rm -rf o u x.ext4"
    );
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut peak = 0;
    for _ in 0..3 {
        let begun = Instant::now();
        world.banger(&["image", "pull", &reference, "--name", "big"]).limit(LONG).output().ok();
        ours.push(begun.elapsed().as_secs_f64());
        peak = peak.max(peak_of_daemon(world));
        world.banger(&["image", "delete", "big"]).output().ok();
        world.banger(&["image", "cache", "prune"]).output().ok();
        let begun = Instant::now();
        world.tool("sh", &["-c", &script]).limit(LONG).output().ok();
        theirs.push(begun.elapsed().as_secs_f64());
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    let mine = client_peak(world, &reference);
    println!(
        "| banger image pull | skopeo copy + umoci unpack + mkfs.ext4 -d | ratio | peak of the daemon | of the client |"
    );
    println!("| {ours:.2} s | {theirs:.2} s | {:.1} | {} MiB | {} MiB |", theirs / ours, peak >> 10, mine >> 10);
    assert!(peak.max(mine) <= 128 << 10, "more than 128 MiB");
    assert!(theirs / ours >= 2.0, "no faster than what everybody has");
    let run = ["vm", "run", "--rm", "--image", &reference, "--", "cat", "/etc/os-release"];
    assert!(world.banger(&run).limit(BOOT).output().ok().text().contains("bookworm"));
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The tree of the base image with a few copies of its libraries: about 300 MiB.
fn debian(world: &World) -> Vec<u8> {
    let image = world.home().join("state/images").join(format!("{NAME}.ext4")).display().to_string();
    let script = "set -e; mkdir tree; debugfs -R 'rdump / tree' \"$0\" 2>/dev/null; rm -rf tree/lost+found; tar -C tree -cf - . ; rm -rf tree";
    world.tool("sh", &["-c", script, &image]).limit(LONG).output().ok().stdout
}

/// `VmHWM` of the daemon, KiB (proc(5)).
fn peak_of_daemon(world: &World) -> u64 {
    let status = world.banger(&["daemon", "status", "--json"]).output().ok().json();
    let pid = status["pid"].as_i64().expect("a pid");
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    field(&text)
}

fn field(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// The most memory that a pulling client is seen to have had, KiB.
fn client_peak(world: &World, reference: &str) -> u64 {
    let pull = world.banger(&["image", "pull", reference]).limit(LONG).spawn();
    let mut peak = 0;
    while let Ok(text) = std::fs::read_to_string(format!("/proc/{}/status", pull.pid())) {
        // A zombie has no memory any more.
        if !text.contains("VmHWM:") {
            break;
        }
        peak = field(&text).max(peak);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    pull.wait().ok();
    peak
}
