//! The rest of a VM's life: restarted, changed, waited for, measured, limited, outlived, cleared away.

use std::time::{Duration, Instant};

use banger::model::{Mib, VmRecord};
use banger::protocol::FaultKind;
use banger::protocol::owner::OwnerRequest;
use rustix::process::Signal;

use crate::base;
use crate::census::wait_for_equality;
use crate::command::Output;
use crate::daemons::end;
use crate::exec::BOOT;
use crate::fake::on_the_fake_monitor;
use crate::guests::boot_id;
use crate::world::World;

const LIMITS: &str = "[limits]\nvms = 4\nmemory = \"3G\"\ndisk = \"40G\"\n";

/// Everything but a real guest.
pub fn walk(world: &World) {
    let world = &on_the_fake_monitor(world);
    std::fs::write(world.home().join("config.toml"), LIMITS).expect("the settings can be written");
    let before = world.start_and_count();
    let chapters: [fn(&World); 7] = [restarted, changed, waited_for, measured, pruned, limited, outlived];
    for chapter in chapters {
        chapter(world);
        for vm in world.owner().vms() {
            world.banger(&["vm", "delete", vm.spec.name.as_str()]).limit(90).output().ok();
        }
    }
    wait_for_equality(world, &before, Duration::from_secs(10));
}

#[track_caller]
fn create(world: &World, name: &str, flags: &[&str]) -> Output {
    let command = ["vm", "create", "--name", name, "--memory", "512M", "--disk-size", "8G"];
    world.banger(&[&command, flags].concat()).limit(60).output()
}

/// Waits until `reached` holds of all VMs.
#[track_caller]
fn until(world: &World, what: &str, reached: impl Fn(&[VmRecord]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let vms = world.owner().vms();
        if reached(&vms) {
            return;
        }
        assert!(Instant::now() < deadline, "never {what}: {vms:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One request: whoever asked for it may die, the VM runs again.
fn restarted(world: &World) {
    let made = create(world, "box", &["--fail", "ignores-shutdown"]).ok();
    assert!(made.stderr.contains("[vm create] ready in "), "{}", made.stderr);
    let process = |world: &World| world.owner().vm("box").process;
    let first = process(world);
    let asking = world.banger(&["vm", "restart", "box"]).spawn();
    asking.wait_for_lines(1);
    asking.signal(Signal::KILL);
    asking.wait().ends(-9);
    until(world, "running again", |vms| vms[0].state.as_str() == "running" && vms[0].process != first);
    let second = process(world);
    world.banger(&["vm", "kill", "box"]).output().ok();
    let started = world.banger(&["vm", "restart", "box"]).output().ok();
    assert_eq!(started.text(), "box");
    assert!(started.stderr.contains("[vm restart] ready in "), "{}", started.stderr);
    assert!(process(world).is_some() && process(world) != second);
    world.banger(&["vm", "restart"]).output().ends(2).refuses(&["NAME is missing", "banger ps"]);
    world.banger(&["vm", "restart", "nosuch"]).output().ends(3);
}

fn changed(world: &World) {
    create(world, "box", &[]).ok();
    let set = |flags: &[&str]| world.banger(&[&["vm", "set", "box"], flags].concat()).output();
    set(&["--memory", "1G"]).ends(4).refuses(&["it is running", "banger vm stop box"]);
    set(&[]).ends(2).refuses(&["nothing to change", "banger vm set --help"]);
    world.banger(&["vm", "stop", "box"]).output().ok();
    assert_eq!(set(&["--vcpu", "2", "--memory", "1G", "--disk-size", "10G"]).ok().text(), "box");
    set(&["--disk-size", "9G"]).ends(2).refuses(&["disk of 9 GiB: it has 10 GiB, and a disk only grows"]);
    set(&["--vcpu", "0"]).ends(2);
    set(&["--memory", "1M"]).ends(2).refuses(&["is possible"]);
    set(&["--memory", "1T"]).ends(5).refuses(&["memory of 1 TiB: this host has "]);
    set(&["--disk-size", "41G"]).ends(5).refuses(&["disk of 41 GiB", "40 GiB that [limits] disk allows"]);
    let spec = world.owner().vm("box").spec;
    assert_eq!((spec.vcpus, spec.memory, spec.disk), (2, Mib(1024), Mib(10 << 10)));
    world.banger(&["vm", "set", "nosuch", "--vcpu", "1"]).output().ends(3);
}

/// A VM that dies by itself ends the wait, and says why on lines that can be read.
fn waited_for(world: &World) {
    create(world, "box", &[]).ok();
    world.banger(&["vm", "wait", "box", "--timeout", "1s"]).output().ends(124).refuses(&["not ended within 1s"]);
    let waiting = world.banger(&["vm", "wait", "box"]).spawn();
    end(world.owner().vm("box").process.expect("it runs").pid);
    let waited = waiting.wait().ok();
    let reason = "the monitor was killed by signal 9; its console ends with:\n";
    assert!(waited.text().starts_with(&format!("box: error: {reason}    ")), "{}", waited.text());
    let shown = world.banger(&["vm", "show", "box"]).output().ok().text();
    let expected = format!("{reason}         [    0.000] banger: fake monitor starts\n");
    assert!(shown.contains(&expected) && !shown.contains('\r'), "{shown}");
    let again = world.banger(&["vm", "wait", "box", "--json"]).output().ok().json();
    assert_eq!((&again[0]["name"], &again[0]["state"]), (&"box".into(), &"error".into()));
    world.banger(&["vm", "wait", "nosuch"]).output().ends(3);
    world.banger(&["vm", "wait"]).output().ends(2);
}

/// A guest that says nothing has the host's numbers all the same.
fn measured(world: &World) {
    create(world, "box", &[]).ok();
    create(world, "silent", &["--fail", "silent-guest"]).ends(1);
    let stats = |name: &str| world.banger(&["vm", "stats", name, "--json"]).output().ok().json()[0].clone();
    // The guest of the tests answers, but has no /proc to look into.
    for (name, why) in [("box", "/proc/meminfo"), ("silent", "no answer within")] {
        let stats = stats(name);
        assert!(stats["host"]["memory"].as_u64() > Some(0) && stats["host"]["cpu_us"].is_u64(), "{stats}");
        let said = stats["guest_error"].as_str().is_some_and(|error| error.contains(why));
        assert!(stats["guest"].is_null() && said, "{stats}");
    }
    let table = world.banger(&["vm", "stats"]).output().ok().text();
    assert!(table.starts_with("NAME ") && table.lines().nth(1).is_some_and(|l| l.starts_with("box ")), "{table}");
    world.banger(&["vm", "kill", "box"]).output().ok();
    world.banger(&["vm", "stats", "box"]).output().ends(4).refuses(&["not running"]);
    world.banger(&["vm", "stats", "nosuch"]).output().ends(3);
}

fn pruned(world: &World) {
    create(world, "idle", &["--no-start"]).ok();
    create(world, "busy", &[]).ok();
    let names = || world.banger(&["vm", "list", "-q"]).output().ok().text();
    world.banger(&["vm", "prune"]).output().ends(2).refuses(&["without a terminal", "banger vm prune -f"]);
    assert_eq!(names(), "busy\nidle", "something was deleted without being asked for");
    let request = OwnerRequest::DeleteIdleVm { name: "busy".parse().expect("a name") };
    assert_eq!(world.owner().ask(request).expect_err("it runs").kind, FaultKind::InUse);
    assert_eq!(world.banger(&["vm", "prune", "-f"]).output().ok().text(), "idle");
    assert_eq!(names(), "busy");
    assert_eq!(world.banger(&["vm", "prune", "-f"]).output().ok().text(), "");
}

/// Refused with the numbers, and nothing made.
fn limited(world: &World) {
    create(world, "one", &[]).ok();
    let rows = || world.owner().vms().len();
    let flags = |memory: &'static str| ["vm", "create", "--name", "large", "--disk-size", "8G", "--memory", memory];
    let said = "memory of 3 GiB: 512 MiB of the 3 GiB that [limits] memory allows is in use by 1 VM";
    world.banger(&flags("3G")).output().ends(5).refuses(&[said, "banger ps"]);
    create(world, "large", &["--no-start", "--vcpu", "1"]).ok();
    world.banger(&["vm", "set", "large", "--memory", "3G"]).output().ok();
    world.banger(&["vm", "start", "large"]).output().ends(5).refuses(&[said]);
    assert_eq!(world.owner().vm("large").state.as_str(), "created", "a refused start has changed it");
    let disk = ["vm", "create", "--no-start", "--name", "wide", "--memory", "512M", "--disk-size", "25G"];
    world
        .banger(&disk)
        .output()
        .ends(5)
        .refuses(&["16 GiB of the 40 GiB that [limits] disk allows are in use by 2 VMs"]);
    world.banger(&["vm", "delete", "large"]).output().ok();
    for name in ["two", "three", "four"] {
        create(world, name, &["--no-start"]).ok();
        world.banger(&["vm", "set", name, "--memory", "2G"]).output().ok();
    }
    create(world, "five", &["--no-start"]).ends(5).refuses(&["there are 4 of the 4", "banger vm prune"]);
    assert_eq!(rows(), 4);
    // 2.5 GiB are left for two that want 2 GiB each.
    let starting = ["two", "three"].map(|name| world.banger(&["vm", "start", name]).spawn());
    let mut codes = starting.map(|start| start.wait().code);
    codes.sort_unstable();
    assert_eq!(codes, [0, 5], "two at once");
}

/// A lifetime ends as it was said, daemon or not.
fn outlived(world: &World) {
    let expires = |name: &str| world.banger(&["vm", "show", name, "--json"]).output().ok().json()["expires_at"].clone();
    create(world, "idle", &["--no-start", "--ttl", "2s"]).ok();
    create(world, "kept", &["--no-start", "--ttl", "3s"]).ok();
    assert!(expires("kept").is_string());
    world.banger(&["vm", "set", "kept", "--ttl", "none"]).output().ok();
    assert!(expires("kept").is_null());
    create(world, "busy", &[]).ok();
    world.banger(&["vm", "set", "busy", "--ttl", "4s"]).output().ok();
    world.banger(&["daemon", "stop"]).output().ok();
    world.start();
    until(world, "over", |vms| vms.iter().map(|vm| vm.spec.name.as_str()).eq(["kept"]));
    for bad in ["0", "1w", "-1s"] {
        create(world, "never", &["--ttl", bad]).ends(2).refuses(&["--ttl"]);
    }
    let page = |words: &[&str]| world.banger(words).output().ok().text();
    assert_eq!(page(&["help", "vm", "set"]), page(&["vm", "set", "--help"]));
    assert!(page(&["help", "vm", "create"]).contains("Limits:\n  4 VMs; 3 GiB memory of those that run; 40 GiB disk"));
}

/// On a filesystem that is nearly full no VM is made.
pub fn without_room(world: &World) {
    let world = &on_the_fake_monitor(world);
    // The daemon's own view of the files, so that nobody has to take the small filesystem away.
    let small = "mount -t tmpfs -o size=64M small \"$BANGER_HOME/state\" && exec \"$0\" daemon start";
    let binary = world.binary().to_str().expect("a plain path").to_owned();
    world.tool("unshare", &["--mount", "sh", "-c", small, &binary]).output().ok();
    let spec = base::spec("box", Mib(256));
    let request =
        OwnerRequest::CreateVm { spec, start: false, ephemeral: false, ttl: None, values: vec![], fail: None };
    let fault = world.owner().ask(request).expect_err("there is no room");
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert!(fault.message.contains("with less than 512 MiB no VM is made"), "{fault}");
    assert!(world.owner().vms().is_empty());
}

/// Changed sizes are those that the guest sees; what is measured is plausible.
pub fn grows_for_real(world: &World) {
    world.start();
    let made = ["vm", "create", "--name", "box", "--vcpu", "1", "--memory", "768M", "--disk-size", "8G"];
    world.banger(&made).limit(BOOT).output().ok();
    let (cpus, memory, disk) = sizes(world);
    assert!(cpus == 1 && memory < 768 && (7..=8).contains(&disk), "{cpus} {memory} {disk}");
    let first = boot_id(world, "box");
    world.guest("box", &["sh", "-c", "echo kept >/root/file; sync"]).output().ok();
    world.banger(&["vm", "stop", "box"]).output().ok();
    let set = ["vm", "set", "box", "--vcpu", "2", "--memory", "1536M", "--disk-size", "12G"];
    world.banger(&set).output().ok();
    let started = world.banger(&["vm", "restart", "box"]).limit(BOOT).output().ok();
    assert!(started.stderr.contains("[vm restart] ready in "), "{}", started.stderr);
    let (cpus, memory, disk) = sizes(world);
    assert!(cpus == 2 && (1200..1536).contains(&memory) && (11..=12).contains(&disk), "{cpus} {memory} {disk}");
    assert_ne!(boot_id(world, "box"), first);
    assert_eq!(world.guest("box", &["cat", "/root/file"]).output().ok().text(), "kept");
    is_plausible(&world.banger(&["vm", "stats", "box", "--json"]).output().ok().json()[0]);
    let second = boot_id(world, "box");
    world.banger(&["vm", "restart", "box"]).limit(BOOT).output().ok();
    assert_ne!(boot_id(world, "box"), second);
    let waiting = world.banger(&["vm", "wait", "box"]).limit(BOOT).spawn();
    // By the kernel itself: systemd, asked while it still starts, may refuse. The guest is gone before it
    // can answer, so the code says nothing.
    world.guest("box", &["systemctl", "poweroff", "--force", "--force"]).limit(BOOT).output();
    assert_eq!(waiting.wait().ok().text(), "box: stopped: the guest shut itself down");
}

/// CPUs, memory in MiB and root file system in GiB, as the guest sees them.
fn sizes(world: &World) -> (u64, u64, u64) {
    let look = "nproc; awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo; df --output=size -BG / | tail -n 1";
    let said = world.guest("box", &["sh", "-c", look]).output().ok().text();
    let digits = |line: &str| line.chars().filter(char::is_ascii_digit).collect::<String>();
    let numbers: Vec<u64> = said.lines().map(|line| digits(line).parse().expect("a number")).collect();
    <[u64; 3]>::try_from(numbers).map(|[cpus, memory, disk]| (cpus, memory, disk)).expect("three numbers")
}

fn is_plausible(stats: &serde_json::Value) {
    const MIB: u64 = 1 << 20;
    let number = |room: &str, name: &str| stats[room][name].as_u64().unwrap_or_else(|| panic!("no {name}: {stats}"));
    let memory = number("host", "memory");
    assert!((100 * MIB..2048 * MIB).contains(&memory), "{stats}");
    assert!((1_000_000..1_000_000_000).contains(&number("host", "cpu_us")), "{stats}");
    if stats["host"]["source"] == "cgroup" {
        assert_eq!(number("host", "memory_limit"), (1536 + 512) * MIB, "{stats}");
    }
    assert!((1200 * MIB..1536 * MIB).contains(&number("guest", "memory_total")), "{stats}");
    assert!(number("guest", "disk_total") > 11 << 30 && number("guest", "processes") > 5, "{stats}");
}
