//! `ssh NAME.vm`, scp, sftp, rsync and what an editor does, by what `banger ssh-config` tells ssh; and the user's files
//! as they were before.
//!
//! ssh goes by the account's home, not by `HOME`: so each command has the scenario's own there, in a mount namespace.

use crate::command::{Output, Run};
use crate::exec::BOOT;
use crate::speed::give_rsync;
use crate::world::World;

/// What a user may have there already: the commands that make it.
const HOMES: [(&str, &str); 8] = [
    ("nothing", "true"),
    ("a folder", "mkdir -m 700 .ssh"),
    ("an empty file", "mkdir -m 700 .ssh; : > .ssh/config"),
    ("a last line without its end", r"mkdir .ssh; printf 'Host other\n  User me' > .ssh/config; chmod 640 .ssh/config"),
    ("lines of another system", r"mkdir .ssh; printf 'Host other\r\n  User me\r\n' > .ssh/config"),
    (
        "a block for all",
        r"mkdir .ssh; printf 'Host *\n  ForwardAgent yes\n  ProxyJump bastion\n  User me\n' > .ssh/config",
    ),
    ("a link", r"mkdir .ssh dots; printf 'Host other\n User me\n' > dots/ssh; ln -s ../dots/ssh .ssh/config"),
    ("a link to nothing", "mkdir .ssh dots; ln -s ../dots/ssh .ssh/config"),
];

/// Everything that is there, by name, kind, mode, owner and content.
const TREE: &str = r#"find . -printf '%P %y %m %U %l\n' | sort; find . -type f -exec sha256sum {} + | sort"#;

/// All of it.
pub fn has_ssh_find_vms(world: &World) {
    as_before_to_the_byte(world);
    at_home(world, "mkdir -m 700 .ssh; printf 'Host *\n  ForwardAgent yes\n' > .ssh/config").output().ok();
    let before = at_home(world, TREE).output().ok().text();
    world.start();
    install(world);
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    commands(world);
    copies(world);
    as_an_editor(world);
    who_it_is(world);
    // Nothing that runs is left, and nothing that was made.
    assert_eq!(world.tool("sh", &["-c", DIALLING]).output().text(), "", "banger-dial is left");
    at_home(world, "rm -rf tree given blob back .ssh/known_hosts; banger ssh-config --uninstall").output().ok();
    assert_eq!(at_home(world, TREE).output().ok().text(), before);
    assert!(!world.home().join("ssh_config").exists() && !world.home().join("cache/ssh").exists());
}

/// Processes of this world that stand between ssh and a VM.
const DIALLING: &str = r#"for p in /proc/[0-9]*; do
    tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -F "banger-dial $BANGER_HOME" || true
done"#;

/// A script of the person whose home this world's is.
fn at_home(world: &World, script: &str) -> Run {
    let folder = world.binary().parent().expect("a folder").display();
    let whole = format!("mount --bind \"$HOME\" /root && cd /root && PATH={folder}:$PATH && {{ {script}\n}}");
    world.tool("unshare", &["--mount", "sh", "-c", &whole])
}

fn install(world: &World) -> Output {
    at_home(world, "banger ssh-config --install").output().ok()
}

fn as_before_to_the_byte(world: &World) {
    for (what, make) in HOMES {
        let made = at_home(world, make).output().ok();
        let before = at_home(world, TREE).output().ok().text();
        let state = at_home(world, "banger doctor -v").output().text();
        assert!(state.contains("ssh-config   not installed"), "{what}: {state}");
        let shown = at_home(world, "banger ssh-config").output().ok().text();
        assert!(shown.contains("Host *.vm") && at_home(world, TREE).output().ok().text() == before, "{what}");
        install(world);
        let installed = at_home(world, TREE).output().ok().text();
        assert!(install(world).stderr.contains("already"), "{what}");
        assert_eq!(at_home(world, TREE).output().ok().text(), installed, "{what}: installed twice");
        let state = at_home(world, "banger doctor -v").output().text();
        assert!(state.contains("ssh-config   installed"), "{what}: {state}");
        for (host, says) in [("some.vm", "banger-dial"), ("some.vm", "forwardagent no"), ("other", "user ")] {
            let seen = at_home(world, &format!("ssh -G {host}")).output().ok().text();
            assert!(seen.contains(says), "{what}: {host}: {seen}");
        }
        at_home(world, "banger ssh-config --uninstall").output().ok();
        assert_eq!(at_home(world, TREE).output().ok().text(), before, "{what}");
        at_home(world, "banger ssh-config --uninstall").output().ok();
        at_home(world, "rm -rf .ssh dots").output().ok();
        println!("| {what}{} | installed and gone again, the same to the byte |", made.text());
    }
}

fn commands(world: &World) {
    assert_eq!(at_home(world, "ssh box.vm uname -n").output().ok().text(), "box");
    at_home(world, "ssh box.vm 'exit 42'").output().ends(42);
    assert_eq!(at_home(world, "ssh BOX.vm cat").input(*b"a\0b\n\xff").output().ok().stdout, b"a\0b\n\xff");
    // Input that nobody reads and output that nobody reads hold nothing up.
    at_home(world, "head -c 4000000 /dev/zero | ssh box.vm true").output().ok();
    assert_eq!(at_home(world, "ssh box.vm 'head -c 4000000 /dev/zero' | head -c 9 | wc -c").output().ok().text(), "9");
}

fn copies(world: &World) {
    let script = r#"set -e
head -c 3000000 /dev/urandom > blob
scp -q blob box.vm:/root/blob && scp -q box.vm:/root/blob back && cmp blob back && rm back
echo "get /root/blob back" | sftp -q box.vm >/dev/null && cmp blob back
mkdir -p tree/deep && cp blob tree/deep && ln -s deep/blob tree/link"#;
    at_home(world, script).output().ok();
    give_rsync(world);
    let script = r#"set -e
rsync -a -e ssh tree/ box.vm:/srv/tree/ && rsync -a --delete box.vm:/srv/tree/ tree-back/
diff -r tree tree-back && rm -r tree-back"#;
    at_home(world, script).output().ok();
}

/// A shell that reads what to do, a connection that several share, and ports that lead into the guest.
fn as_an_editor(world: &World) {
    let said = at_home(world, "ssh -T box.vm bash").input(*b"echo $((6*7)); uname -n\n").output().ok().text();
    assert_eq!(said, "42\nbox");
    let script = r#"set -e
ssh -fN -o ControlMaster=yes -o ControlPath=/root/.ssh/master -L 127.0.0.1:2299:127.0.0.1:22 box.vm </dev/null >/dev/null 2>&1
ssh -o ControlPath=/root/.ssh/master box.vm uname -n
ssh-keyscan -p 2299 -t ed25519 127.0.0.1 2>/dev/null | cut -d' ' -f2
ssh -o ControlPath=/root/.ssh/master -O exit box.vm 2>/dev/null"#;
    assert_eq!(at_home(world, script).output().ok().text(), "box\nssh-ed25519");
}

/// Another VM of the same name is known at once; an impostor is not, and nothing is started for anybody.
fn who_it_is(world: &World) {
    at_home(world, "ssh nosuch.vm true").output().ends(255).refuses(&["nosuch", "not found"]);
    world.banger(&["vm", "delete", "box"]).output().ok();
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    assert_eq!(at_home(world, "ssh box.vm echo new").output().ok().text(), "new");
    let known = world.home().join("state/known_hosts");
    let text = std::fs::read_to_string(&known).expect("known hosts");
    let other = banger::ssh::generate().expect("a key").public;
    let key = other.split(' ').nth(1).expect("a key");
    let changed: String =
        text.lines().map(|line| format!("{} {key}\n", &line[..line.rfind(' ').expect("three words")])).collect();
    std::fs::write(&known, changed).expect("written");
    at_home(world, "ssh box.vm true").output().ends(255).refuses(&["Host key verification failed"]);
    std::fs::write(&known, text).expect("written");
    world.banger(&["vm", "stop", "box"]).limit(BOOT).output().ok();
    at_home(world, "ssh box.vm true").output().ends(255).refuses(&["not running", "banger vm start box"]);
    world.banger(&["daemon", "stop"]).output().ok();
    at_home(world, "ssh box.vm true").output().ends(255).refuses(&["the daemon does not run"]);
    assert!(!world.banger(&["daemon", "status"]).output().stderr.is_empty(), "the daemon was started");
}
