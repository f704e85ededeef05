//! Kernels and images.

use std::os::unix::fs::MetadataExt;

use crate::base::{NAME, kernel_files};
use crate::exec::BOOT;
use crate::world::World;

/// What the default image must contain.
const PACKAGES: [&str; 10] =
    ["openssh-server", "git", "make", "ca-certificates", "curl", "sudo", "tmux", "iproute2", "procps", "systemd"];

/// One sparse ext4 file with a journal, which fsck finds nothing to say about.
pub fn is_clean_and_journalled(world: &World) {
    let image = world.home().join("state/images").join(format!("{NAME}.ext4"));
    let path = image.display().to_string();
    world.tool("e2fsck", &["-fn", &path]).output().ok();
    let about = world.tool("dumpe2fs", &["-h", &path]).output().ok().text();
    assert!(about.contains("has_journal"), "no journal: {about}");
    let file = std::fs::metadata(&image).expect("the image");
    assert!(file.blocks() * 512 < file.len(), "it is not sparse: {} blocks of {} bytes", file.blocks(), file.len());
    world.start();
    let shown = world.banger(&["image", "show", NAME, "--json"]).output().ok().json();
    assert!(shown.to_string().contains(NAME), "{shown}");
    world.banger(&["image", "show", "no-such-image"]).output().ends(3).refuses(&["no-such-image"]);
    world.banger(&["image", "list"]).output().ok();
    world.banger(&["kernel", "list"]).output().ok();
}

/// A file of somebody's is an image where it is, and then banger's own; a changed one is refused.
pub fn registered_and_promoted(world: &World) {
    let own = world.home().join("state/images").join(format!("{NAME}.ext4"));
    let file = world.person().join("golden.ext4");
    let (from, to) = (own.display().to_string(), file.display().to_string());
    world.tool("cp", &["--sparse=always", &from, &to]).output().ok();
    world.start();
    world.banger(&["image", "register", "--rootfs", "golden.ext4", "--kernel-ref", NAME]).output().ok();
    world.banger(&["image", "register", "--rootfs", "golden.ext4"]).output().ends(4).refuses(&["golden"]);
    world.banger(&["image", "register", "--rootfs", "/etc/passwd"]).output().ends(2).refuses(&["ext4"]);
    let run = ["vm", "run", "--rm", "--image", "golden", "--", "uname", "-s"];
    assert_eq!(world.banger(&run).limit(BOOT).output().ok().text(), "Linux");
    world.tool("touch", &["golden.ext4"]).output().ok();
    world.banger(&run).output().ends(125).refuses(&["changed"]);
    world.banger(&["image", "delete", "golden"]).output().ok();
    assert!(file.exists(), "the file went with its image");
    world.banger(&["image", "register", "--rootfs", "golden.ext4"]).output().ok();
    world.banger(&["image", "promote", "golden"]).output().ok();
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(world.banger(&run).limit(BOOT).output().ok().text(), "Linux");
    world.banger(&["image", "promote", "golden"]).output().ok();
    world.banger(&["image", "delete", "golden"]).output().ok();
}

/// A kernel from files, with arguments of its own; a used one stays.
pub fn kernel_from_files_boots(world: &World) {
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    let mut query = vec!["dpkg", "-s"];
    query.extend(PACKAGES);
    world.guest("box", &query).output().ok();
    let used = world.banger(&["kernel", "rm", NAME]).output().ends(4);
    assert!(used.stderr.contains("box"), "it does not say who uses it: {}", used.stderr);
    world.banger(&["image", "delete", NAME]).output().ends(4).refuses(&["box"]);

    let release = world.guest("box", &["uname", "-r"]).output().ok().text();
    world.banger(&["vm", "delete", "box"]).output().ok();

    let (vmlinux, tree) = kernel_files(world, &release);
    let import = ["kernel", "import", "--name", "mine", "--vmlinuz", &vmlinux, "--modules", &tree];
    world.banger(&[&import[..], &["--boot-args", "smoke.mark=7"]].concat()).limit(120).output().ok();
    let run = ["vm", "run", "--rm", "--kernel", "mine", "--", "cat", "/proc/cmdline"];
    let said = world.banger(&run).limit(BOOT).output().ok();
    assert!(said.text().split(' ').any(|w| w == "smoke.mark=7"), "{}", said.text());
    world.banger(&["kernel", "rm", "mine"]).output().ok();
    assert!(!world.banger(&["kernel", "list", "-q"]).output().ok().text().contains("mine"));
}
