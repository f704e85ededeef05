//! Images with next to nothing in them: no init, no sshd, no shell, no folder.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::base::NAME;
use crate::exec::BOOT;
use crate::runner::skip;
use crate::world::World;

/// Where distributions keep a busybox that needs no library.
const BUSYBOXES: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// Commands of busybox that a guest is asked for.
const APPLETS: [&str; 12] =
    ["sh", "cat", "ls", "kill", "sleep", "stty", "head", "sha256sum", "tar", "env", "printf", "true"];

fn busybox() -> PathBuf {
    let found = BUSYBOXES.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| skip("busybox is missing: apt-get install busybox-static"))
}

/// Puts an image of `tree` in the place of the world's, whose file is shared with other worlds.
fn replace_image(world: &World, tree: &Path) {
    let image = world.home().join("state/images").join(format!("{NAME}.ext4"));
    let size = std::fs::metadata(&image).expect("the image").len();
    std::fs::remove_file(&image).expect("the image can be replaced");
    std::fs::File::create(&image).and_then(|file| file.set_len(size)).expect("a sparse file");
    let (tree, image) = (tree.display().to_string(), image.display().to_string());
    world.tool("mkfs.ext4", &["-q", "-F", "-d", &tree, &image]).output().ok();
}

fn boot(world: &World) {
    world.start();
    world.banger(&["vm", "create", "--name", "box", "--init", "minimal"]).limit(BOOT).output().ok();
    let log = world.banger(&["vm", "logs", "box"]).output().ok().text();
    assert!(log.contains("banger's own server"), "{log}");
    assert!(!log.contains("trouble"), "{log}");
}

/// There and back, and the same bytes.
fn copies_come_back(world: &World, far: &str) {
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    let (near, back) = (world.folder().join("near"), world.folder().join("back"));
    std::fs::write(&near, &bytes).expect("written");
    let there = format!("box:{far}");
    world.banger(&["vm", "cp", &near.display().to_string(), &there]).output().ok();
    world.banger(&["vm", "cp", &there, &back.display().to_string()]).output().ok();
    assert_eq!(std::fs::read(&back).expect("there"), bytes);
}

fn stops_cleanly(world: &World) {
    world.banger(&["vm", "stop", "box"]).output().ok();
    let log = world.banger(&["vm", "logs", "box"]).output().ok().text();
    assert!(log.contains("root disk is read only; powering off"), "{log}");
    world.banger(&["vm", "delete", "box"]).output().ok();
}

/// busybox and its links, as in alpine: a shell, over the agent and over ssh.
pub fn busybox_only(world: &World) {
    let tree = world.folder().join("tree");
    std::fs::create_dir_all(tree.join("bin")).expect("a folder");
    std::fs::copy(busybox(), tree.join("bin/busybox")).expect("copied");
    for applet in APPLETS {
        symlink("busybox", tree.join("bin").join(applet)).expect("a link");
    }
    replace_image(world, &tree);
    boot(world);
    for way in ["exec", "ssh"] {
        let run = |command: &[&str]| world.banger(&[&["vm", way, "box", "--"], command].concat()).limit(60);
        run(&["sh", "-c", "exit 42"]).output().ends(42);
        run(&["no-such-program"]).output().ends(127);
        run(&["sh", "-c", "kill -TERM $$"]).output().ends(143);
        assert_eq!(run(&["printf", "%s|", "a b", "c'd"]).output().ok().text(), "a b|c'd|", "{way}");
        let bytes = vec![7; 3 << 20];
        assert_eq!(run(&["cat"]).input(bytes.clone()).output().ok().stdout, bytes, "{way}");
    }
    let said = world.banger(&["vm", "ssh", "box"]).input("echo in $HOME; echo >/dev/stderr err\n").output().ok();
    assert_eq!((said.text().as_str(), said.stderr.contains("err")), ("in /root", true));
    copies_come_back(world, "/tmp/file");
    let listed = world.banger(&["vm", "exec", "box", "--", "ls", "/etc/ssh", "/root"]).output();
    assert!(!listed.text().contains("ssh_host") && !listed.text().contains(".ssh"), "keys are in the image");
    stops_cleanly(world);
}

/// One static program and not even a folder for it; busybox does what its first word says.
pub fn one_program_only(world: &World) {
    let tree = world.folder().join("tree");
    std::fs::create_dir(&tree).expect("a folder");
    std::fs::copy(busybox(), tree.join("busybox")).expect("copied");
    replace_image(world, &tree);
    boot(world);
    for way in ["exec", "ssh"] {
        let run = |command: &[&str]| world.banger(&[&["vm", way, "box", "--"], command].concat()).limit(60);
        run(&["/busybox", "true"]).output().ok();
        run(&["/busybox", "sh", "-c", "exit 42"]).output().ends(42);
        run(&["/no-such-program"]).output().ends(127);
        assert_eq!(run(&["/busybox", "printf", "%s|", "a b", "c'd"]).output().ok().text(), "a b|c'd|", "{way}");
        assert_eq!(run(&["/busybox", "cat"]).input("in").output().ok().text(), "in", "{way}");
    }
    let refused = world.banger(&["vm", "ssh", "box"]).limit(60).output().ends(127);
    assert!(refused.stderr.contains("no shell") && refused.stderr.contains("vm exec"), "{}", refused.stderr);
    copies_come_back(world, "/tmp/file");
    stops_cleanly(world);
}
