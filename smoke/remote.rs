//! `banger --host ssh://…` against a real sshd in this scenario's namespace: the command line has a `BANGER_HOME` of its
//! own, without a daemon, and everything happens in another one.

use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use banger::protocol::{Hello, frame, relay::PREAMBLE};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::census::{Census, wait_for_equality};
use crate::command::{Run, Running};
use crate::exec::BOOT;
use crate::world::World;

/// Where sshd listens.
const PORT: u16 = 2222;

/// How long cleaning up may take that no command waits for.
const CLEANING: Duration = Duration::from_secs(20);

/// All of it.
pub fn does_what_is_done_here(world: &World) {
    let site = Site::set(world);
    let before = world.start_and_count();
    repository_in_and_out(&site);
    in_a_vm(&site);
    for_a_model(&site);
    about_the_machine(&site);
    what_goes_wrong(&site);
    wait_for_equality(world, &before, CLEANING);
    ends(&site, &before);
    assert!(!site.near.home().join("run").exists(), "a daemon was started here");
}

/// Two machines: this world is the one with the daemon.
struct Site<'w> {
    far: &'w World,
    /// Where the command line is, of which `far` is meant.
    near: World,
    sshd: Child,
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // Gone already when something went wrong.
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

impl<'w> Site<'w> {
    fn set(far: &'w World) -> Self {
        let folder = far.folder().join("near");
        for below in ["home", "person/bin", "ssh/bin"] {
            std::fs::create_dir_all(folder.join(below)).expect("made");
        }
        let near = far.moved_to(folder.clone()).with("BANGER_HOST", "ssh://far");
        let path = format!("{}:{}", near.person().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let near = near.with("PATH", &path);
        let sshd = start_sshd(far, &folder.join("ssh"));
        write_clients(&near, &folder.join("ssh"));
        Self { far, near, sshd }
    }

    fn banger(&self, arguments: &[&str]) -> Run {
        self.near.banger(arguments).limit(BOOT)
    }

    /// The same of another machine.
    fn of(&self, machine: &str, arguments: &[&str]) -> Run {
        let machine = format!("--host=ssh://{machine}");
        self.near.banger(&[&[machine.as_str()], arguments].concat()).limit(BOOT)
    }
}

fn secret(path: &Path, content: &str) {
    std::fs::write(path, content).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("set");
}

/// A server whose sessions find banger and its other home; `old` and `loud` are keys that lead to something else.
fn start_sshd(far: &World, folder: &Path) -> Child {
    // Made by the service elsewhere; sshd refuses to run as root without it.
    let _ = std::fs::create_dir_all("/run/sshd");
    symlink(far.binary(), folder.join("bin/banger")).expect("laid");
    let old = frame::encode(&Hello { protocol: 99, build: "9.9.9 (old)".into() }).expect("encodes");
    std::fs::write(folder.join("greeting"), [PREAMBLE, &old].concat()).expect("written");
    let mut keys = String::new();
    let at = folder.display();
    let forced = [
        ("user", String::new()),
        ("old", format!("command=\"cat {at}/greeting\" ")),
        ("loud", "command=\"echo Welcome; $SSH_ORIGINAL_COMMAND\" ".to_owned()),
        ("bare", "command=\"no-such-program\" ".to_owned()),
    ];
    for (name, options) in forced {
        let pair = banger::ssh::generate().expect("a key");
        secret(&folder.join(name), &pair.private);
        keys.push_str(&format!("{options}{}\n", pair.public));
    }
    let host = banger::ssh::generate().expect("a key");
    secret(&folder.join("host"), &host.private);
    std::fs::write(folder.join("authorized_keys"), keys).expect("written");
    std::fs::write(folder.join("known_hosts"), format!("far {}\n", host.public)).expect("written");
    let config = format!(
        "Port {PORT}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized_keys\nStrictModes no\n\
         UsePAM no\nPidFile none\nPermitRootLogin yes\nSetEnv BANGER_HOME={} PATH={at}/bin:/usr/local/bin:/usr/bin:/bin\n",
        far.home().display()
    );
    std::fs::write(folder.join("config"), config).expect("written");
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let mut command = far.command("/usr/sbin/sshd", &["-D", "-e", "-f"]);
    let child = command.arg(folder.join("config")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    let child = child.expect("sshd starts");
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_err() {
        assert!(Instant::now() < deadline, "sshd does not listen");
        // It tells nobody when it does.
        std::thread::sleep(Duration::from_millis(50));
    }
    // Who asked has left, and sshd's child for that leaves, too: it is nobody's to count.
    let pid = i32::try_from(child.id()).expect("a pid");
    while !children(pid).is_empty() {
        assert!(Instant::now() < deadline, "sshd keeps a connection that is closed");
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

/// The user's own ssh, with a configuration: ssh itself goes by the account's home, which is not the scenario's.
fn write_clients(near: &World, folder: &Path) {
    let at = folder.display();
    let mut config = format!(
        "Host *\n  HostName 127.0.0.1\n  Port {PORT}\n  HostKeyAlias far\n  UserKnownHostsFile {at}/known_hosts\n  \
         IdentitiesOnly yes\n  ForwardAgent no\n  LocalForward 127.0.0.1:2999 127.0.0.1:1\n"
    );
    for (machine, key) in [("far", "user"), ("old", "old"), ("loud", "loud"), ("bare", "bare")] {
        config.push_str(&format!("Host {machine}\n  IdentityFile {at}/{key}\n"));
    }
    secret(&folder.join("client"), &config);
    let ssh = near.person().join("bin/ssh");
    std::fs::write(&ssh, format!("#!/bin/sh\nexec /usr/bin/ssh -F {at}/client \"$@\"\n")).expect("written");
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).expect("set");
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// Files of this side are in the guest, its exit code and its patch come back.
fn repository_in_and_out(site: &Site<'_>) {
    let make = "git init -q repo && cd repo && git config user.name P && git config user.email p@example.org && \
                echo hello > greeting && git add . && git commit -q -m one && echo edited >> greeting";
    site.near.tool("sh", &["-c", make]).output().ok();
    let script = "cat greeting && git log --format=%s && echo new > made && exit 42";
    let words = ["vm", "run", "--rm", "--name", "one", "--export", "out.patch", "--result", "how.json", "./repo", "--"];
    let ran = site.banger(&[&words[..], &["sh", "-c", script]].concat()).output().ends(42);
    assert_eq!(ran.text(), "hello\nedited\none");
    // The edit was there already.
    let applies = "cd repo && git stash -q && git apply --check ../out.patch && git stash pop -q";
    site.near.tool("sh", &["-c", applies]).output().ok();
    let result = std::fs::read(site.near.person().join("how.json")).expect("a result");
    let result: serde_json::Value = serde_json::from_slice(&result).expect("JSON");
    assert_eq!(result["exit_code"], 42);
    let defaults = site.far.banger(&["daemon", "status", "--json"]).output().ok().json();
    assert!(ran.stderr.contains("spec: ") && defaults["pid"].is_number(), "{}", ran.stderr);
    assert_eq!(site.far.banger(&["ps", "-aq"]).output().ok().text(), "", "--rm has left a VM");
}

fn in_a_vm(site: &Site<'_>) {
    site.banger(&["vm", "create", "--name", "box"]).output().ok();
    for world in [site.far, &site.near] {
        assert_eq!(world.banger(&["ps", "-q"]).output().ok().text(), "box");
    }
    let much = noise(4 << 20);
    let back = site.banger(&["vm", "exec", "box", "--", "cat"]).input(much.clone()).output().ok();
    assert!(back.stdout == much, "4 MiB in and back are others: {}", back.stdout.len());
    let apart =
        site.banger(&["vm", "exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]).output().ends(3);
    assert_eq!((apart.text().as_str(), apart.stderr.trim_end()), ("out", "err"));
    site.banger(&["vm", "exec", "box", "--", "true"]).input(vec![b'x'; 4 << 20]).output().ok();
    site.banger(&["vm", "ssh", "box", "--", "sh", "-c", "kill -TERM $$"]).output().ends(143);
    site.banger(&["vm", "exec", "box", "--timeout", "1s", "--", "sleep", "60"]).output().ends(124);
    std::fs::write(site.near.person().join("blob"), &much).expect("written");
    site.banger(&["vm", "cp", "blob", "box:/root/there"]).output().ok();
    site.banger(&["vm", "cp", "box:/root/there", "back"]).output().ok();
    assert!(std::fs::read(site.near.person().join("back")).expect("a copy") == much, "a copy is another");
    on_a_terminal(site);
    site.banger(&["vm", "workspace", "prepare", "box", "repo"]).output().ok();
    let moved = site.banger(&["vm", "exec", "box", "--", "sh", "-c", "cat greeting; echo more > more"]).output().ok();
    assert_eq!(moved.text(), "hello\nedited");
    let patch = site.banger(&["vm", "workspace", "export", "box"]).output().ok().text();
    assert!(patch.contains("+++ b/more"), "{patch}");
    let waiting = site.banger(&["vm", "wait", "box"]).spawn();
    site.banger(&["vm", "delete", "box"]).output().ok();
    assert_eq!(waiting.wait().ok().text(), "box: deleted");
}

/// One call after the other of `banger mcp`: what the first one makes is there for the next.
const MODEL: &str = r#"
import json, subprocess, sys
pipe = subprocess.PIPE
server = subprocess.Popen([sys.argv[1], "--as", "banger", "mcp", *sys.argv[2:]], stdin=pipe, stdout=pipe, text=True)
def ask(number, method, params):
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    print(json.dumps(request), file=server.stdin, flush=True)
    answer = json.loads(server.stdout.readline())
    assert answer["id"] == number and "result" in answer, answer
    return answer["result"]
def call(number, tool, **arguments):
    result = ask(number, "tools/call", {"name": tool, "arguments": arguments})
    assert not result["isError"], result
    return result["structuredContent"]
client = {"name": "test", "version": "1"}
ask(1, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
vm = call(2, "vm_create", memory="256M")["vm"]
assert [there["vm"] for there in call(3, "vm_list")["vms"]] == [vm]
ran = call(4, "vm_run_command", vm=vm, shell="id -un; pwd; exit 3")
assert (ran["exit_code"], ran["stdout"]) == (3, "root\n/root\n"), ran
server.stdin.close()
assert server.wait(60) == 0
print(vm)
"#;

fn for_a_model(site: &Site<'_>) {
    let binary = site.near.binary().to_str().expect("a plain path");
    let driven = |flags: &[&str]| {
        let words = [&["-c", MODEL, binary], flags].concat();
        site.near.tool("/usr/bin/python3", &words).limit(BOOT).output().ok().text()
    };
    driven(&[]);
    assert_eq!(site.far.banger(&["vm", "list", "-q"]).output().ok().text(), "");
    let kept = driven(&["--keep"]);
    assert_eq!(site.far.banger(&["ps", "-q"]).output().ok().text(), kept);
    site.banger(&["vm", "delete", &kept]).output().ok();
}

/// A shell with a terminal there, as there is one here.
fn on_a_terminal(site: &Site<'_>) {
    let command = format!("{} vm ssh box", site.near.binary().display());
    let typed = *b"stty size; [ -t 0 ] && echo terminal-$((6*7)); exit 5\n";
    let said = site.near.tool("script", &["-qec", &command, "/dev/null"]).input(typed).limit(BOOT).output().ends(5);
    assert!(said.text().contains("terminal-42"), "{}", said.text());
}

/// What is about the other machine is that machine's, and what it fetches it fetches itself.
fn about_the_machine(site: &Site<'_>) {
    let socket = site.far.home().join("run/bangerd.sock").display().to_string();
    assert_eq!(site.banger(&["daemon", "socket"]).output().ok().text(), socket);
    assert!(site.banger(&["doctor", "-v"]).output().ok().text().contains("monitor"));
    assert_eq!(site.of("far", &["version"]).output().ok().text(), site.far.banger(&["version"]).output().ok().text());
    site.of("far:1", &["version"]).output().ends(6);
    site.near.with("BANGER_HOST", "ssh://far:1").banger(&["--version"]).output().ok();
    let kernel = site.banger(&["kernel", "list", "-q"]).output().ok().text();
    let file = vmlinux(site.far);
    let import = ["kernel", "import", "--vmlinuz", file.to_str().expect("a plain path"), "--name", "copied"];
    site.banger(&import).output().ok();
    assert_eq!(site.far.banger(&["kernel", "list", "-q"]).output().ok().text(), format!("copied\n{kernel}"));
    site.banger(&["kernel", "delete", "copied"]).output().ok();
    site.banger(&["image", "pull", "no-such-image"]).output().ends(3).refuses(&["no-such-image"]);
    site.banger(&["vm", "run", "--rm", "--image", "no-such-image", "--", "true"]).output().ends(125);
    site.of("far", &["ssh-config"]).output().ends(2).refuses(&["this machine"]);
    assert!(site.banger(&["ssh-config"]).output().ok().text().contains("near/home/run"));
}

fn vmlinux(world: &World) -> PathBuf {
    let kernels = crate::census::files_below(&world.home().join("state/kernels"));
    kernels.into_iter().find(|path| path.ends_with("vmlinux")).expect("a kernel")
}

fn what_goes_wrong(site: &Site<'_>) {
    site.banger(&["vm", "show", "nosuch"]).output().ends(3).refuses(&["nosuch"]);
    let guest: &[&str] = &["vm", "ssh", "box", "--", "true"];
    for (machine, words) in [
        ("far:1", &["ssh does not get to far"][..]),
        ("old", &["9.9.9 (old) (protocol 99)", "this is banger"]),
        ("bare", &["there is no banger on bare"]),
    ] {
        site.of(machine, &["ps"]).output().ends(6).refuses(words);
        site.of(machine, guest).output().ends(125).refuses(words);
    }
    site.of("far:1", &["doctor"]).output().ends(6).refuses(&["ssh does not get to far"]);
    // Its greeting is passed over.
    site.of("loud", &["ps"]).output().ok();
    for wrong in ["-oProxyCommand=true", "a b", "far/path", "$(id)"] {
        site.of(wrong, &["ps"]).output().ends(2).refuses(&["--host"]);
    }
    site.near.with("BANGER_HOST", "http://far").banger(&["ps"]).output().ends(2).refuses(&["BANGER_HOST"]);
}

/// However it ends, nothing is left, and what was cut does not look as if it had gone well.
fn ends(site: &Site<'_>, before: &Census) {
    let running = begun(site);
    // As a terminal does: all that run in its foreground.
    kill_process_group(Pid::from_raw(running.pid()).expect("a pid"), Signal::INT).expect("signalled");
    running.wait().ends(130);
    wait_for_equality(site.far, before, CLEANING);

    let running = begun(site);
    kill_process(Pid::from_raw(ssh_of(&running)).expect("a pid"), Signal::KILL).expect("signalled");
    running.wait().ends(125).refuses(&["connection to far was lost"]);
    wait_for_equality(site.far, before, CLEANING);

    let running = begun(site);
    running.signal(Signal::KILL);
    running.wait().ends(-9);
    wait_for_equality(site.far, before, CLEANING);

    let waiting = begun(site);
    let other = site.banger(&["vm", "wait", "cut"]).spawn();
    let deadline = Instant::now() + Duration::from_secs(10);
    while children(other.pid()).is_empty() && Instant::now() < deadline {
        // Another's child: no event tells.
        std::thread::sleep(Duration::from_millis(20));
    }
    // Once its call has been heard.
    std::thread::sleep(Duration::from_secs(2));
    kill_process(Pid::from_raw(ssh_of(&other)).expect("a pid"), Signal::KILL).expect("signalled");
    other.wait().ends(6).refuses(&["connection to far was lost"]);
    waiting.signal(Signal::TERM);
    waiting.wait().ends(143);
    wait_for_equality(site.far, before, CLEANING);
}

fn begun(site: &Site<'_>) -> Running {
    // A guest's shell that is just starting something may overlook an interrupt: it becomes it instead.
    let command = ["vm", "run", "--rm", "--name", "cut", "--", "sh", "-c", "echo begun; exec sleep 300"];
    let running = site.banger(&command).spawn();
    running.wait_for_output("begun");
    running
}

/// The ssh that `running` has started.
fn ssh_of(running: &Running) -> i32 {
    match children(running.pid()).as_slice() {
        [ssh] => *ssh,
        others => panic!("not one child: {others:?}"),
    }
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
