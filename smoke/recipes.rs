//! What `release/kernel` and `release/image` make: a kernel that starts fast, an image with docker.
//!
//! Both take minutes to make, so they are played with what lies beside the tested binary.

use std::path::PathBuf;

use crate::base::NAME;
use crate::exec::BOOT;
use crate::runner::{skip, tested_binary};
use crate::world::World;

/// What our kernel is called here.
const OURS: &str = "banger-6.1";
/// Starts of each kernel; the medians are compared.
const ROUNDS: usize = 5;

/// Until the distribution has started. At first there is nobody yet whom `systemctl` could ask to wait.
const SETTLED: &str = "for _ in $(seq 120); do
        state=$(systemctl is-system-running 2>/dev/null)
        case $state in running|degraded) break ;; esac
        sleep 1
    done
    systemctl --failed --no-legend --plain; echo $state";

/// An image of one static program, as `docker save` would write it, loaded and run.
const CONTAINER: &str = r#"set -e
mkdir -p /tmp/c/l/bin && cd /tmp/c && cp /root/busybox l/bin/ && ln -sf busybox l/bin/sh && ln -sf busybox l/bin/cat
tar -C l -cf layer.tar . && digest=$(sha256sum layer.tar | cut -d ' ' -f 1)
printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$digest" >config.json
printf '[{"Config":"config.json","RepoTags":["box:1"],"Layers":["layer.tar"]}]' >manifest.json
tar -cf box.tar manifest.json config.json layer.tar
docker info >/dev/null
docker load -q -i box.tar
docker run --rm -p 8080:80 --memory 64m --pids-limit 20 box:1 sh -c 'echo from a container; cat /sys/fs/cgroup/memory.max'"#;

/// Twice as fast to init as the distribution's, and nothing of the distribution misses anything.
pub fn kernel(world: &World) {
    import(world);
    let (ours, theirs) = (OURS, NAME);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (taken, kernel) in times.iter_mut().zip([ours, theirs]) {
            taken.push(milliseconds_to_init(world, kernel));
        }
    }
    let [ours, theirs] = times.map(median);
    println!("| ms to init, median of {ROUNDS} | banger's kernel | the distribution's | ratio |");
    println!("| from the first tick | {ours} | {theirs} | {:.2} |", ours as f64 / theirs as f64);
    assert!(ours * 2 <= theirs, "it takes more than half as long");
    has_all_that_a_distribution_needs(world);
}

/// Docker in the image, on both kernels.
pub fn image(world: &World) {
    let archive = made("debian-bookworm-dev.oci.tar", "release/image");
    import(world);
    let source = format!("oci-archive:{}", archive.display());
    world.banger(&["image", "pull", &source, "--name", "dev"]).limit(600).output().ok();
    let busybox = PathBuf::from("/bin/busybox");
    for kernel in [OURS, NAME] {
        let flags = ["--name", "dev", "--image", "dev", "--kernel", kernel, "--memory", "3G"];
        world.banger(&[&["vm", "create"][..], &flags].concat()).limit(BOOT).output().ok();
        settle(world, "dev");
        let version = world.guest("dev", &["mise", "--version"]).output().ok();
        assert!(version.text().contains("linux-x64"), "{}", version.text());
        world.banger(&["vm", "cp", &busybox.display().to_string(), "dev:/root/busybox"]).limit(BOOT).output().ok();
        let ran = world.guest("dev", &["sh", "-c", CONTAINER]).limit(3 * BOOT).output().ok();
        assert!(ran.text().ends_with("from a container\n67108864"), "{}", ran.text());
        world.banger(&["vm", "delete", "dev"]).output().ok();
    }
    println!("| docker load and run in the image for developers | on both kernels | as it should |");
}

/// What a recipe has made beside the tested binary; without it this scenario is not played.
fn made(name: &str, recipe: &str) -> PathBuf {
    let path = tested_binary().with_file_name(name);
    if path.exists() { path } else { skip(&format!("{recipe} has not run")) }
}

fn import(world: &World) {
    let file = made("vmlinuz", "release/kernel").display().to_string();
    world.start();
    world.banger(&["kernel", "import", "--vmlinuz", &file, "--name", OURS]).limit(60).output().ok();
    let shown = world.banger(&["kernel", "list"]).output().ok().text();
    assert!(shown.contains("-banger"), "its release is not listed: {shown}");
}

/// From the kernel's first tick to the first line of init.
fn milliseconds_to_init(world: &World, kernel: &str) -> u64 {
    world.banger(&["vm", "create", "--name", "timed", "--kernel", kernel]).limit(BOOT).output().ok();
    let log = world.banger(&["vm", "logs", "timed"]).output().ok().text();
    world.banger(&["vm", "delete", "timed"]).output().ok();
    let line = log.lines().find(|line| line.contains("init starts")).expect("init says that it starts");
    let digits: String = line.chars().take_while(|c| *c != ']').filter(char::is_ascii_digit).collect();
    digits.parse().expect("a time in milliseconds")
}

/// Waits for the distribution; all its units must have started.
fn settle(world: &World, name: &str) {
    assert_eq!(world.guest(name, &["sh", "-c", SETTLED]).limit(2 * BOOT).output().ok().text(), "running");
}

fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

fn has_all_that_a_distribution_needs(world: &World) {
    world.banger(&["vm", "create", "--name", "box", "--kernel", OURS]).limit(BOOT).output().ok();
    settle(world, "box");
    assert_eq!(world.guest("box", &["cat", "/proc/modules"]).output().ok().text(), "", "it has modules");
    world.banger(&["vm", "stop", "box"]).limit(BOOT).output().ok();
    let log = world.banger(&["vm", "logs", "box"]).output().ok().text();
    assert!(log.contains("Power down"), "it did not power off by itself");
    world.banger(&["vm", "delete", "box"]).output().ok();
}
