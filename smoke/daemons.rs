//! Starting, finding and losing daemon and helper.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use banger::os::{accounts, process};
use banger::protocol::{Hello, frame};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::census::{self, Inhabitant};
use crate::command::Run;
use crate::direct::{Wire, helper_pid};
use crate::exec::BOOT;
use crate::guests::boot_id;
use crate::world::World;

/// The uid of the ordinary user.
const ORDINARY: u32 = 1000;

/// The uid of somebody else.
const STRANGER: u32 = 65534;

/// Ten commands at once find neither daemon nor helper; one of each is there afterwards.
pub fn ten_starters_make_one_pair(world: &World) {
    let starters: Vec<_> = (0..10).map(|_| world.banger(&["vm", "list", "--json"]).spawn()).collect();
    for starter in starters {
        assert_eq!(starter.wait().ok().json(), serde_json::json!([]));
    }
    assert_eq!(living(world).len(), 2, "not one daemon and one helper: {:?}", descriptions(world));
    let (daemon, helper) = pids(world);
    assert_ne!(daemon, helper);
}

/// Start is idempotent, status tells, stop ends both.
pub fn stop_and_start(world: &World) {
    world.banger(&["daemon", "status"]).output().ends(6);
    assert!(living(world).is_empty(), "asking for the status started something");
    world.start();
    let first = pids(world);
    world.start();
    assert_eq!(pids(world), first, "a second start started something");
    let status = world.banger(&["daemon", "status", "--json"]).output().ok().json();
    assert!(status.is_object(), "{status}");
    let socket = world.banger(&["daemon", "socket"]).output().ok().text();
    assert_eq!(socket, world.home().join("run/bangerd.sock").display().to_string());
    world.banger(&["daemon", "stop"]).output().ok();
    assert!(living(world).is_empty(), "left: {:?}", descriptions(world));
    world.banger(&["daemon", "status"]).output().ends(6);
    world.banger(&["daemon", "stop"]).output().ok();
}

/// VMs and their commands go on when daemon and helper are killed, and are found again.
pub fn vms_survive_a_killed_daemon(world: &World) {
    world.start();
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    let before = (boot_id(world, "box"), world.owner().vm("box").process);
    let command = ["sh", "-c", "echo begun; sleep 6; echo alive; exit 7"];
    let running = world.guest("box", &command).spawn();
    running.wait_for_output("begun");
    lose_both(world);
    assert_eq!((boot_id(world, "box"), world.owner().vm("box").process), before);
    assert_eq!(running.wait().ends(7).text(), "begun\nalive");
    world.banger(&["vm", "delete", "box"]).output().ok();
    assert_eq!(living(world).len(), 2, "left: {:?}", descriptions(world));
}

/// Kills daemon and helper; the next command starts both again, and they find what runs.
pub fn lose_both(world: &World) {
    let (daemon, helper) = pids(world);
    for pid in [daemon, helper] {
        end(pid);
    }
    let listed = world.banger(&["vm", "list", "--json"]).output().ok();
    assert!(listed.text().contains("running"), "{}", listed.text());
    assert_ne!(pids(world).0, daemon);
}

/// Daemon and command line run as an ordinary user, the helper as root.
pub fn owner_is_an_ordinary_user(world: &World) {
    let folder = world.folder().join("ordinary");
    let theirs = world.moved_to(folder.clone());
    std::fs::create_dir(&folder).expect("the user's folder");
    for path in [theirs.person(), theirs.home()] {
        std::fs::create_dir(&path).expect("the user's folder");
        std::os::unix::fs::chown(&path, Some(ORDINARY), Some(ORDINARY)).expect("the folder is given away");
    }
    crate::base::clone_for(&theirs.home().join("state"), ORDINARY, ORDINARY).expect("kernel and image are copied");
    as_owner_of(&theirs, &["daemon", "start", "--owner"]).output().ok();
    let banger = |arguments: &[&str]| ordinary(&theirs, arguments);
    let done = banger(&["vm", "run", "--rm", "--", "id", "-u"]).limit(BOOT).output().ok();
    assert_eq!(done.text(), "0", "in the guest it is root");
    let (daemon, helper) = pids(&theirs);
    assert_eq!((uid_of(daemon), uid_of(helper)), (ORDINARY, 0));
    assert_eq!(banger(&["vm", "list", "-a", "--json"]).output().ok().json(), serde_json::json!([]));
    nobody_else_may_speak(&theirs);
}

/// The folders keep a stranger away; where they are open, daemon and helper do.
fn nobody_else_may_speak(world: &World) {
    let binary = world.binary().display().to_string();
    let stranger = ["--reuid", "65534", "--regid", "65534", "--clear-groups", &binary, "vm", "list"];
    let refused = world.tool("setpriv", &stranger).output();
    assert!([5, 6].contains(&refused.code), "a stranger got {}: {}", refused.code, refused.stderr);
    let sockets = [world.home().join("run/bangerd.sock"), world.home().join("root-run/bangerd-root.sock")];
    for socket in sockets {
        open_to_all(world, &socket);
        assert!(hears_a_hello(&socket, ORDINARY), "{} does not answer its owner", socket.display());
        assert!(!hears_a_hello(&socket, STRANGER), "{} answers a stranger", socket.display());
    }
}

/// Nothing but the other side's own look at who asks is left to refuse anybody.
fn open_to_all(world: &World, socket: &Path) {
    let opened = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    opened(socket, 0o666).expect("the socket is opened");
    for folder in socket.ancestors().skip(1).take_while(|f| f.starts_with(world.folder())) {
        opened(folder, 0o755).expect("the folder is opened");
    }
}

/// Whether who listens at `path` says hello to `uid`; connecting succeeds in any case.
fn hears_a_hello(path: &Path, uid: u32) -> bool {
    let asked = || {
        // Credentials are the thread's, and it is these that the socket tells (unix(7)).
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        set_thread_groups(&[]).expect("root may");
        set_thread_res_gid(group, group, group).expect("root may");
        set_thread_res_uid(user, user, user).expect("root may");
        let mut wire = Wire::connect(path);
        wire.send(&frame::encode(&Hello::ours()).expect("a hello"));
        wire.receive().is_some()
    };
    std::thread::scope(|scope| scope.spawn(asked).join().expect("the stranger connects"))
}

/// `banger ARGUMENTS` as the ordinary user.
fn ordinary(world: &World, arguments: &[&str]) -> Run {
    let (id, binary) = (ORDINARY.to_string(), world.binary().display().to_string());
    let mut all = vec!["--reuid", &id, "--regid", &id, "--clear-groups", &binary];
    all.extend(arguments);
    world.tool("setpriv", &all)
}

/// `banger ARGUMENTS ACCOUNT`; where no account has the uid, a passwd with one lies over the
/// machine's in a mount namespace of this command.
fn as_owner_of(world: &World, arguments: &[&str]) -> Run {
    if let Some(account) = accounts::of_uid(ORDINARY) {
        let mut all = arguments.to_vec();
        all.push(&account.name);
        return world.banger(&all);
    }
    let passwd = world.folder().join("passwd");
    let machine = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = format!("smoke:x:{ORDINARY}:{ORDINARY}::{}:/bin/sh\n", world.person().display());
    std::fs::write(&passwd, machine + &line).expect("a passwd");
    let script = "mount --bind \"$1\" /etc/passwd; shift; exec \"$@\" smoke";
    let (passwd, binary) = (passwd.display().to_string(), world.binary().display().to_string());
    let mut all = vec!["--mount", "sh", "-ec", script, "sh", &passwd, &binary];
    all.extend(arguments);
    world.tool("unshare", &all)
}

fn living(world: &World) -> Vec<Inhabitant> {
    let namespace = std::fs::metadata(format!("/run/netns/{}", world.netns())).expect("the namespace");
    census::inhabitants(world.folder(), Some(&namespace))
}

fn descriptions(world: &World) -> BTreeSet<String> {
    living(world).iter().map(|i| format!("{} {}", i.pid(), i.description())).collect()
}

/// The pids of daemon and helper.
pub fn pids(world: &World) -> (i32, i32) {
    (world.owner().pid(), helper_pid(&world.home().join("root-run/bangerd-root.sock")))
}

fn uid_of(pid: i32) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}")).expect("it lives").uid()
}

/// Kills a daemon and waits for its end.
pub fn end(pid: i32) {
    let reference = process::reference(pid).expect("it lives");
    let pidfd = process::open(reference).expect("it can be opened").expect("it lives");
    process::kill(&pidfd).expect("it can be killed");
    assert!(process::wait_for_end(&pidfd, Duration::from_secs(5)).expect("it can be waited for"));
}
