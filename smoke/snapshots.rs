//! Device-mapper snapshots for real: banger in a guest of banger's own, whose kernel has dm-snapshot, with
//! the same static binary as daemon and helper there, and the monitor of the tests in real jails.
//!
//! The guest gets the store of this host with an empty image and kernel of the right names: what runs
//! there boots nothing, but its disks are real.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::census::wait_for_equality;
use crate::command::Output;
use crate::world::World;

/// The guest.
const HOST: &str = "inner";

/// Snapshots at the same time.
const COUNT: usize = 50;

/// What every script in the guest begins with. `left` prints what is not gone, and nothing else.
const PRELUDE: &str = "set -eu
export BANGER_HOME=/root/h HOME=/root BANGER_VMM=fake BANGER_FAKE_VMM=1 BANGER_ACCEL=kvm PATH=$PATH:/usr/sbin:/sbin
b=/root/banger
image=/root/h/state/images/debian-bookworm.ext4
mapped() { cat /sys/block/dm-*/dm/name 2>/dev/null || true; }
looped() { cat /sys/block/loop*/loop/backing_file 2>/dev/null || true; }
left() {
    mapped; looped
    grep -e firecracker -e banger /proc/self/mountinfo || true
    find /sys/fs/cgroup -path '*banger*' -name cgroup.procs -exec cat {} + 2>/dev/null || true
    find /root/h/root-state /root/h/root-run/vms -mindepth 1
    ip -o link | grep bng- || true
    pgrep -l -f '^banger-(stage|console|fake)' || true
}
";

/// Everything about the disks, in one guest: it takes a while to make.
pub fn in_a_guest(world: &World) {
    let before = world.start_and_count();
    let create = ["vm", "create", "--name", HOST, "--vcpu", "2", "--memory", "3G", "--disk-size", "6G"];
    world.banger(&create).limit(120).output().ok();
    furnish(world);
    println!("| {}", inside(world, "modprobe dm-snapshot; uname -r; $b doctor -v | grep snapshots").text());
    fifty_are_apart(world);
    a_stop_keeps_the_disk_and_it_grows(world);
    size_costs_no_time(world);
    a_full_filesystem_is_told(world);
    kills_leave_nothing(world);
    world.banger(&["vm", "delete", HOST]).output().ok();
    wait_for_equality(world, &before, Duration::from_secs(20));
}

fn inside(world: &World, script: &str) -> Output {
    let script = format!("{PRELUDE}{script}");
    world.banger(&["vm", "exec", HOST, "--", "sh", "-c", &script]).limit(900).output().ok()
}

/// The binary, the store, and `nft` with its libraries, which the image does not have.
fn furnish(world: &World) {
    let state = world.home().join("state");
    for (from, to) in [
        (world.binary().to_owned(), "/root/banger"),
        (state.join("banger.redb"), "/root/banger.redb"),
        (state.join("schema.json"), "/root/schema.json"),
    ] {
        let from = from.display().to_string();
        world.banger(&["vm", "cp", &from, &format!("{HOST}:{to}")]).limit(120).output().ok();
    }
    let tar = Command::new("tar").args(["-chf", "-", "-C", "/"]).args(nft_and_libraries()).output().expect("tar runs");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let unpack =
        ["vm", "exec", HOST, "--", "tar", "-xf", "-", "-C", "/", "--keep-directory-symlink", "--skip-old-files"];
    world.banger(&unpack).input(tar.stdout).limit(120).output().ok();
    inside(
        world,
        "umask 077; kernels=/root/h/state/kernels/debian-bookworm
        mkdir -p /root/h/state/images $kernels; mv /root/banger.redb /root/schema.json /root/h/state/
        truncate -s 512M $image; for f in vmlinux modules.cpio modules.ext4; do head -c 65536 /dev/zero >$kernels/$f; done
        printf image | dd of=$image conv=notrunc status=none; chmod 755 $b
        # The VMs of this store are the outer host's.
        $b daemon start 2>&1; for vm in $($b ps -a -q); do $b vm delete $vm 2>&1; done; left",
    );
}

fn nft_and_libraries() -> Vec<String> {
    let nft = ["/usr/sbin/nft", "/sbin/nft"].into_iter().find(|p| Path::new(p).exists()).expect("nft is installed");
    let listed = Command::new("ldd").arg(nft).output().expect("ldd runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    libraries.chain([nft]).map(|path| path.trim_start_matches('/').to_owned()).collect()
}

fn fifty_are_apart(world: &World) {
    let script = format!(
        "before=$(sha256sum <$image); begin=$(date +%s%N)
        for n in $(seq {COUNT}); do $b vm create --name s$n 2>/dev/null >&2; done; end=$(date +%s%N)
        echo \"{COUNT} VMs in $(( (end - begin) / 1000000 )) ms, $(mapped | grep -c -- -root$) snapshots, $(looped | wc -l) loops\"
        # Each disk shows the image, takes what is written, and shows that alone.
        for d in /sys/block/dm-*; do
            case $(cat $d/dm/name) in *-root) ;; *) continue ;; esac
            n=${{d##*/}}; [ \"$(head -c 5 /dev/$n)\" = image ] || echo \"$n shows another image\"
            echo \"disk $n\" | dd of=/dev/$n bs=4096 seek=100 conv=notrunc,fsync status=none
        done
        for d in /sys/block/dm-*; do
            case $(cat $d/dm/name) in *-root) ;; *) continue ;; esac
            n=${{d##*/}}; [ \"$(dd if=/dev/$n bs=4096 skip=100 count=1 status=none | head -n 1)\" = \"disk $n\" ] || echo \"$n lost its data\"
        done
        [ \"$before\" = \"$(sha256sum <$image)\" ] || echo 'the image was changed'
        for n in $(seq {COUNT}); do $b vm delete s$n >/dev/null 2>&1; done; left"
    );
    let said = inside(world, &script).text();
    println!("| {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&format!("{COUNT} snapshots, {} loops", 3 * COUNT)), "{said}");
}

fn a_stop_keeps_the_disk_and_it_grows(world: &World) {
    let said = inside(
        world,
        "disk() { for d in /sys/block/dm-*; do case $(cat $d/dm/name) in *-root) echo ${d##*/} ;; esac; done; }
        $b vm create --name k --disk-size 600M >/dev/null 2>&1
        echo kept | dd of=/dev/$(disk) bs=4096 seek=7 conv=notrunc,fsync status=none
        $b vm stop k >/dev/null 2>&1; echo \"stopped: $(mapped | wc -l) $(looped | wc -l)\"
        $b vm set k --disk-size 900M >/dev/null; $b vm start k >/dev/null 2>&1
        echo \"$(dd if=/dev/$(disk) bs=4096 skip=7 count=1 status=none | head -n 1) $(($(cat /sys/block/$(disk)/size) / 2048)) MiB\"
        $b doctor -v | grep -c 'has changed'
        $b vm delete k >/dev/null 2>&1; left",
    );
    assert_eq!(said.text(), "stopped: 0 0\nkept 900 MiB\n1");
}

/// The same disk over an image of 1 GiB and of 20 GiB, in turn; the least of each counts, since all else
/// is what disturbed it.
fn size_costs_no_time(world: &World) {
    let said = inside(
        world,
        "small=999999; large=999999
        for round in $(seq 8); do for size in 1 20; do
            truncate -s ${size}G $image; $b vm create --no-start --name t --disk-size 20G >/dev/null 2>&1
            begin=$(date +%s%N); $b vm start t >/dev/null 2>&1; took=$(( ($(date +%s%N) - begin) / 1000000 ))
            $b vm delete t >/dev/null 2>&1
            if [ $size = 1 ]; then [ $took -gt $small ] || small=$took; else [ $took -gt $large ] || large=$took; fi
        done; done
        truncate -s 512M $image; left; echo $small $large",
    );
    let times: Vec<u32> = said.text().split_whitespace().map(|n| n.parse().expect("milliseconds")).collect();
    println!("| a start over an image of 1 GiB: {} ms, of 20 GiB: {} ms", times[0], times[1]);
    // Software emulation on shared CPUs is no stopwatch; what grew with the size would be twenty times as slow.
    assert!(times[1] < 2 * times[0], "{times:?}");
}

fn a_full_filesystem_is_told(world: &World) {
    let said = inside(
        world,
        "$b daemon stop >/dev/null 2>&1; mount -t tmpfs -o size=8m,mode=700 tmpfs /root/h/root-state
        $b daemon start 2>/dev/null; $b vm create --name f >/dev/null 2>&1
        for d in /sys/block/dm-*; do case $(cat $d/dm/name) in *-root) disk=${d##*/} ;; esac; done
        dd if=/dev/urandom of=/dev/$disk bs=1M count=16 conv=notrunc,fsync status=none 2>/dev/null && echo 'it fitted' || true
        $b doctor | grep -o \"the disk of VM 'f' is lost\" || true
        $b vm stop f >/dev/null 2>&1; $b vm start f 2>&1 | grep -o -m 1 'lost' || true
        $b vm delete f >/dev/null 2>&1; $b daemon stop >/dev/null 2>&1; umount /root/h/root-state; $b daemon start 2>/dev/null; left",
    );
    assert_eq!(said.text(), "the disk of VM 'f' is lost\nlost");
}

/// Daemon and helper die at random moments of a life.
fn kills_leave_nothing(world: &World) {
    let said = inside(
        world,
        "kills=0
        for round in $(seq 30); do
            ($b vm create --name r$round; $b vm stop r$round; $b vm start r$round; $b vm delete r$round) >/dev/null 2>&1 &
            work=$!
            sleep 0.$(($(od -An -N1 -tu1 /dev/urandom) % 10))$(($(od -An -N1 -tu1 /dev/urandom) % 10))
            case $((round % 3)) in 0) victims='^bangerd-root' ;; 1) victims='^bangerd$' ;; 2) victims='^bangerd' ;; esac
            pkill -KILL -f $victims && kills=$((kills + 1)) || true
            wait $work || true
            $b daemon start >/dev/null 2>&1 || true
        done
        for vm in $($b ps -a -q); do $b vm delete $vm >/dev/null 2>&1; done
        for attempt in $(seq 50); do [ -n \"$(left)\" ] || break; sleep 0.2; done
        left; echo $kills kills",
    );
    println!("| {}", said.text());
    assert!(said.text().lines().count() == 1 && said.text().ends_with(" kills"), "left: {}", said.text());
}
