//! Real Firecracker VMs behind the real jailer.
//!
//! `SMOKE_FIRECRACKER` names a folder with `firecracker`, `jailer` and `vmlinux`, and perhaps `boot-args`
//! for that kernel. The folder is put over `/usr/local/sbin` in a mount namespace of the scenario's own:
//! that is where banger looks.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount};
use rustix::thread::UnshareFlags;

use crate::census::{Census, wait_for_equality};
use crate::command::Output;
use crate::daemons::lose_both;
use crate::internet::{Entry, Internet};
use crate::runner::skip;
use crate::world::World;

/// What the folder must hold.
const NEEDED: [&str; 3] = ["firecracker", "jailer", "vmlinux"];

/// Where banger looks for programs.
const PLACE: &str = "/usr/local/sbin";

/// Seconds for a boot: this project's own machine interprets the guest's kernel.
const BOOT: u64 = 150;

/// What is created without more words; the disk is no larger than the image, so nothing is grown.
const CONFIG: &str = "vmm = \"firecracker\"\ndefault_kernel = \"given\"\n\
    [vm_defaults]\nvcpu = 1\nmemory = 512\ndisk_size = 512\n\
    [network]\ndns = [\"203.0.113.53\"]\n";

/// The folder; the scenario is skipped where there is none.
fn given() -> PathBuf {
    let folder = std::env::var_os("SMOKE_FIRECRACKER").filter(|f| !f.is_empty()).map(PathBuf::from);
    let Some(folder) = folder else { skip("no firecracker: SMOKE_FIRECRACKER names no folder") };
    for name in NEEDED {
        if !folder.join(name).is_file() {
            skip(&format!("no firecracker: {} has no {name}", folder.display()));
        }
    }
    if !Path::new("/dev/kvm").exists() {
        skip("no firecracker: there is no /dev/kvm");
    }
    folder
}

/// A mount namespace for this scenario, so that what it mounts is its own.
fn own_mounts() {
    #[expect(deprecated, reason = "what makes it dangerous is a flag that is not used here")]
    rustix::thread::unshare(UnshareFlags::NEWNS).expect("root can have a mount namespace");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).expect("mounts can be private");
}

/// Daemon and helper with Firecracker and its kernel; what is there before the first VM.
fn begin(world: &World) -> Census {
    let folder = given();
    own_mounts();
    mount_bind(&folder, PLACE).expect("the folder can be put in its place");
    std::fs::write(world.home().join("config.toml"), CONFIG).expect("the configuration is written");
    let before = world.start_and_count();
    let kernel = folder.join("vmlinux").display().to_string();
    let arguments = std::fs::read_to_string(folder.join("boot-args")).unwrap_or_default();
    let import = ["kernel", "import", "--vmlinuz", &kernel, "--name", "given", "--boot-args", arguments.trim()];
    world.banger(&import).output().ok();
    before
}

fn run(world: &World, arguments: &[&str]) -> Output {
    let all = [&["vm", "run", "--init", "minimal"], arguments].concat();
    world.banger(&all).limit(BOOT).output()
}

fn create(world: &World, name: &str) -> Duration {
    let began = Instant::now();
    world.banger(&["vm", "create", "--name", name, "--init", "minimal"]).limit(BOOT).output().ok();
    began.elapsed()
}

/// One command, its exit code, and nothing left.
pub fn main_job(world: &World) {
    let before = begin(world);
    let version = world.tool(Path::new(PLACE).join("firecracker"), &["--version"]).output().ok().text();
    println!("| {}", version.lines().next().unwrap_or_default());
    let began = Instant::now();
    let done = run(world, &["--rm", "--", "sh", "-c", "uname -a; exit 42"]).ends(42);
    println!("| {} ({:.1} s with its boot)", done.text(), began.elapsed().as_secs_f32());
    assert!(done.text().starts_with("Linux "), "{}", done.text());
    assert!(done.stderr.contains("firecracker/kvm"), "{}", done.stderr);
    wait_for_equality(world, &before, Duration::from_secs(20));
}

/// Commands over the vsock, stop, start, restart, kill; the jail as it looks from outside.
pub fn life(world: &World) {
    let before = begin(world);
    println!("| created in {:.1} s", create(world, "box").as_secs_f32());
    the_jail_is_as_it_shall_be(world);
    let exec = |words: &[&str]| world.banger(&[&["vm", "exec", "box", "--"], words].concat()).limit(60).output();
    exec(&["sh", "-c", "echo kept >/root/file; exit 7"]).ends(7);
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n * 7) as u8).collect();
    let through = world.banger(&["vm", "exec", "box", "--", "cat"]).input(bytes.clone()).limit(60).output().ok();
    assert!(through.stdout == bytes, "a stream was changed on its way");
    let stats = world.banger(&["vm", "stats", "box", "--json"]).output().ok().json();
    assert!(stats[0]["guest"]["memory_total"].as_u64().is_some_and(|n| n > 0), "{stats}");
    assert!(stats[0]["host"]["memory"].as_u64().is_some_and(|n| n > 0), "{stats}");
    // Its agent shuts the guest down; the monitor ends by itself.
    world.banger(&["vm", "stop", "box"]).limit(60).output().ok();
    assert!(!world.report().contains("killed"), "a graceful stop killed");
    world.banger(&["vm", "set", "box", "--disk-size", "768", "--memory", "640"]).output().ok();
    world.banger(&["vm", "start", "box"]).limit(BOOT).output().ok();
    assert_eq!(exec(&["cat", "/root/file"]).ok().text(), "kept");
    let size = exec(&["sh", "-c", "df --output=size -BM / | tail -n 1; grep MemTotal /proc/meminfo"]).ok().text();
    println!("| after `vm set`: {}", size.replace('\n', ", "));
    world.banger(&["vm", "restart", "box"]).limit(BOOT).output().ok();
    world.banger(&["vm", "kill", "box"]).output().ok();
    assert_eq!(world.owner().vm("box").state.as_str(), "stopped");
    world.banger(&["vm", "delete", "box"]).output().ok();
    wait_for_equality(world, &before, Duration::from_secs(20));
}

/// A guest in a jail, with a network of its own, goes where it is let and is reached at its port.
pub fn network(world: &World) {
    let address = |address: &'static [&'static str]| Entry::Addresses(address, 300);
    let names = [("web.example", address(&["203.0.113.80"])), ("other.example", address(&["203.0.113.81"]))];
    let _internet = Internet::connect(world, &names);
    let before = begin(world);
    let create = ["vm", "create", "--name", "box", "--init", "minimal", "--allow", "web.example:80", "-p", "8080:22"];
    world.banger(&create).limit(BOOT).output().ok();
    let tries = "for place in web.example/80 203.0.113.80/443 other.example/80 203.0.113.81/80; do
        exec 3<>/dev/tcp/$place && head -n 1 <&3 || echo no; done 2>/dev/null";
    let came = world.banger(&["vm", "exec", "box", "--", "bash", "-c", tries]).limit(60).output().text();
    println!("| what a jailed guest reaches: {}", came.replace('\n', ", "));
    assert_eq!(came, "I am 203.0.113.80:80, you are 203.0.113.1\nno\nno\nno");
    let mut greeting = [0; 4];
    let mut stream = std::net::TcpStream::connect("127.0.0.1:8080").expect("its port is published");
    std::io::Read::read_exact(&mut stream, &mut greeting).expect("ssh answers");
    assert_eq!(&greeting, b"SSH-");
    world.banger(&["vm", "delete", "box"]).limit(60).output().ok();
    wait_for_equality(world, &before, Duration::from_secs(20));
}

/// Owners, modes and kinds of everything in the jail, and who the monitor is in it.
fn the_jail_is_as_it_shall_be(world: &World) {
    let pid = world.owner().vm("box").process.expect("it runs").pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).expect("a field").trim().to_owned();
    let uid: u32 = field("Uid:").split_whitespace().next().expect("a number").parse().expect("a number");
    assert!(uid > 1_900_000_000, "uid {uid}");
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(name), "0000000000000000", "{name}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Groups:")), ("1".into(), String::new()));
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).expect("a thread");
        assert!(status.contains("Seccomp:\t2"), "a thread without a filter of system calls:\n{status}");
    }
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let mut seen = BTreeMap::new();
    list(&root, &root, &mut seen);
    for (name, line) in &seen {
        println!("| {line} {name}");
    }
    let own = format!("{uid}:{uid}");
    for (name, line) in [
        ("/kernel", "-r--r--r-- 0:0".to_owned()),
        ("/initramfs", "-r--r--r-- 0:0".to_owned()),
        ("/root.disk", format!("brw------- {own}")),
        ("/firecracker", format!("-rwx------ {own}")),
        ("/dev/kvm", format!("crw------- {own}")),
        ("/dev/net/tun", format!("crw------- {own}")),
    ] {
        assert_eq!(seen.get(name), Some(&line), "{name}");
    }
    let links = world.tool("nsenter", &["-t", &pid.to_string(), "-n", "ip", "-br", "link"]).output().ok().text();
    let names: Vec<&str> = links.lines().filter_map(|l| l.split_whitespace().next()).collect();
    println!("| its network: {}", names.join(" "));
    assert!(!links.contains("br-banger"), "it sees the host's network:\n{links}");
    let taps =
        world.tool("nsenter", &["-t", &pid.to_string(), "-n", "ip", "-d", "link", "show", "tap0"]).output().ok().text();
    assert!(taps.contains(&format!("user {uid}")), "the tap is not the monitor's alone: {taps}");
}

fn list(root: &Path, folder: &Path, seen: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("the jail can be listed").flatten() {
        let about = std::fs::symlink_metadata(entry.path()).expect("it can be looked at");
        let kind = match about.file_type() {
            t if t.is_dir() => 'd',
            t if t.is_block_device() => 'b',
            t if t.is_char_device() => 'c',
            t if t.is_fifo() => 'p',
            t if t.is_socket() => 's',
            t if t.is_symlink() => 'l',
            _ => '-',
        };
        let bits = (0..9).rev().map(|bit| if about.mode() >> bit & 1 == 1 { ["x", "w", "r"][bit % 3] } else { "-" });
        let line = format!("{kind}{} {}:{}", bits.collect::<String>(), about.uid(), about.gid());
        let name = entry.path().strip_prefix(root).expect("below the root").display().to_string();
        seen.insert(format!("/{name}"), line);
        if about.is_dir() {
            list(root, &entry.path(), seen);
        }
    }
}

/// VM, command and jail go on when daemon and helper are killed, and are found again.
pub fn survives(world: &World) {
    let before = begin(world);
    create(world, "box");
    let process = world.owner().vm("box").process;
    let command = ["vm", "exec", "box", "--", "sh", "-c", "echo begun; sleep 5; echo alive; exit 9"];
    let running = world.banger(&command).limit(60).spawn();
    running.wait_for_output("begun");
    lose_both(world);
    assert_eq!(world.owner().vm("box").process, process);
    assert_eq!(running.wait().ends(9).text(), "begun\nalive");
    let again = world.banger(&["vm", "exec", "box", "--", "echo", "again"]).limit(60).output().ok();
    assert_eq!(again.text(), "again");
    world.banger(&["vm", "ping", "box"]).output().ok();
    world.banger(&["vm", "stop", "box"]).limit(60).output().ok();
    world.banger(&["vm", "delete", "box"]).output().ok();
    wait_for_equality(world, &before, Duration::from_secs(20));
}

/// Where the CPU does not really virtualise, a distribution's kernel dies in the monitor after a while:
/// said as what it is, with the console's last lines, and nothing is left.
pub fn death_is_told(world: &World) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").expect("the CPU");
    if cpu.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        skip("this CPU virtualises: a distribution's kernel does not die on it");
    }
    let before = begin(world);
    let kernel = ["vm", "create", "--name", "doomed", "--init", "minimal", "--kernel", crate::base::NAME];
    let began = Instant::now();
    let failed = world.banger(&kernel).limit(240).output().ends(1);
    println!("| after {:.0} s: {}", began.elapsed().as_secs_f32(), failed.stderr.lines().collect::<Vec<_>>().join(" "));
    for part in ["ended", "KVM_EXIT_INTERNAL_ERROR", "vm logs doomed"] {
        assert!(failed.stderr.contains(part), "{part} is not in: {}", failed.stderr);
    }
    let vm = world.owner().vm("doomed");
    assert_eq!((vm.state.as_str(), vm.process), ("error", None));
    world.banger(&["vm", "delete", "doomed"]).output().ok();
    wait_for_equality(world, &before, Duration::from_secs(20));
}

/// What was seen to go wrong with the jailer, as attacks and mistakes.
pub fn traps(world: &World) {
    let before = begin(world);
    a_planted_link_is_not_followed(world);
    an_id_is_used_again_at_once(world);
    a_failed_exec_is_told(world);
    programs_that_cannot_be_used_are_refused(world);
    wait_for_equality(world, &before, Duration::from_secs(20));
}

/// The jailer follows a link in place of its root and gives away what it points at.
fn a_planted_link_is_not_followed(world: &World) {
    let treasure = world.person().join("treasure");
    std::fs::create_dir(&treasure).expect("made");
    std::fs::set_permissions(&treasure, Permissions::from_mode(0o755)).expect("set");
    mount("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), None).expect("a /tmp of this scenario's own");
    for planted in ["/tmp/firecracker", "/tmp/root"] {
        symlink(&treasure, planted).expect("planted");
    }
    world.banger(&["daemon", "stop"]).output().ok();
    world.start();
    create(world, "box");
    let seen = std::fs::metadata(&treasure).expect("there");
    assert_eq!((seen.uid(), seen.mode() & 0o777), (0, 0o755), "the jailer gave away what a link points at");
    assert_eq!(std::fs::read_dir(&treasure).expect("listed").count(), 0, "a jail was made behind a link");
}

/// The jailer fails on what an earlier boot of the same id has left.
fn an_id_is_used_again_at_once(world: &World) {
    let id = world.owner().vm("box").id;
    for _ in 0..2 {
        world.banger(&["vm", "kill", "box"]).output().ok();
        world.banger(&["vm", "start", "box"]).limit(BOOT).output().ok();
    }
    assert_eq!(world.owner().vm("box").id, id);
    world.banger(&["vm", "delete", "box"]).output().ok();
}

/// What is said when a VM is run with other programs in the place of the given ones.
fn refused_with(world: &World, name: &str, programs: &[(&str, &[u8])], mode: u32) -> String {
    let folder = world.folder().join(name);
    std::fs::create_dir(&folder).expect("made");
    for program in ["firecracker", "jailer"] {
        std::fs::copy(given().join(program), folder.join(program)).expect("copied");
    }
    for (program, content) in programs {
        std::fs::write(folder.join(program), content).expect("written");
        std::fs::set_permissions(folder.join(program), Permissions::from_mode(0o755)).expect("set");
    }
    std::fs::set_permissions(folder.join("jailer"), Permissions::from_mode(mode)).expect("set");
    // Daemon and helper are started anew, so that no file of theirs lies where it is mounted.
    world.banger(&["daemon", "stop"]).output().ok();
    mount_bind(&folder, PLACE).expect("put in place");
    world.start();
    let failed = run(world, &["--rm", "--", "true"]);
    world.banger(&["daemon", "stop"]).output().ok();
    unmount(PLACE, UnmountFlags::DETACH).expect("taken away");
    world.start();
    assert_eq!(failed.code, 125, "{}", failed.stderr);
    failed.stderr
}

/// The jailer's `--daemonize` hides that the monitor could not be run: banger does not use it.
fn a_failed_exec_is_told(world: &World) {
    let real = given().join("jailer").display().to_string();
    let broken = world.folder().join("broken");
    std::fs::create_dir(&broken).expect("made");
    std::fs::write(broken.join("firecracker"), "this is no program").expect("written");
    std::fs::set_permissions(broken.join("firecracker"), Permissions::from_mode(0o755)).expect("set");
    // The real jailer, told to run what cannot be run.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {real} --version\n\
         exec {real} --id \"$2\" --exec-file {} --uid \"$6\" --gid \"$8\" --chroot-base-dir \"${{10}}\"\n",
        broken.join("firecracker").display()
    );
    let said = refused_with(world, "exec", &[("jailer", script.as_bytes())], 0o755);
    println!("| a monitor that cannot be run: {}", said.lines().last().unwrap_or_default());
    assert!(said.contains("ended at once"), "{said}");
}

fn programs_that_cannot_be_used_are_refused(world: &World) {
    let dynamic = std::fs::read("/bin/true").expect("read");
    let version = b"#!/bin/sh\necho Firecracker v0.25.0\n";
    let other = b"#!/bin/sh\necho Jailer v1.9.0\n";
    for (name, programs, wanted) in [
        ("old", vec![("firecracker", &version[..])], "from 1.7.0 on"),
        ("apart", vec![("jailer", &other[..])], "both of one release"),
        ("dynamic", vec![("firecracker", &dynamic[..])], "does not say its version"),
    ] {
        let said = refused_with(world, name, &programs, 0o755);
        assert!(said.contains(wanted), "{name}: {said}");
    }
    // One that says the right version and needs libraries all the same: a script does, and so does whatever
    // its interpreter needs.
    let script = b"#!/bin/sh\necho Firecracker v1.17.0\n";
    let both: [(&str, &[u8]); 2] = [("firecracker", script), ("jailer", b"#!/bin/sh\necho Jailer v1.17.0\n")];
    let said = refused_with(world, "script", &both, 0o755);
    assert!(said.contains("ELF"), "{said}");
    // And one that others can write is not run as root.
    let said = refused_with(world, "writable", &[], 0o777);
    assert!(said.contains("can be written by others"), "{said}");
    assert_eq!(world.banger(&["vm", "list", "-a", "--json"]).output().ok().json(), serde_json::json!([]));
}
