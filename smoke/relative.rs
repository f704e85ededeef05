//! Paths that somebody types are those of the folder that they are in; the daemon is in another one.

use std::fs;

use crate::base::NAME;
use crate::exec::BOOT;
use crate::world::World;

/// Every flag and argument that is a path, in one folder below the person's.
pub fn paths_are_of_the_callers_folder(world: &World) {
    let folder = world.person().join("here/below");
    fs::create_dir_all(&folder).expect("made");
    for (name, content) in [("env", "FROM_FILE=yes\n"), ("token", "hush\n"), ("note", "kept\n")] {
        fs::write(folder.join(name), content).expect("written");
    }
    let here = |line: &str| {
        let line = format!("cd here/below && {}", line.replace("banger ", &format!("{} ", world.binary().display())));
        world.tool("sh", &["-euc", &line]).limit(BOOT).output()
    };
    let git = "git -c user.name=a -c user.email=a@b -c init.defaultBranch=main";
    here(&format!("mkdir repo && cd repo && {git} init -q && echo 1 >a && {git} add a && {git} commit -qm a")).ok();
    world.start();
    let seen = here(&format!(
        "banger vm run --name box --image {NAME} --memory 512M --init minimal --env-file ./env \
         --secret T=file:token@a.example --result ../result.json --export out.patch repo \
         -- sh -c 'echo 2 >a; echo $FROM_FILE'"
    ));
    assert_eq!(seen.ok().text(), "yes");
    let patch = fs::read_to_string(folder.join("out.patch")).expect("the patch is here");
    assert!(patch.contains("+2"), "{patch}");
    assert!(folder.with_file_name("result.json").exists());
    here("banger vm cp ./note box: && banger vm cp box:note ../back && cmp note ../back").ok();
    here("banger vm workspace export box -o again.patch && test -s again.patch").ok();
    here("banger vm workspace prepare box ./repo --force").ok();
    here("truncate -s 1M disk.ext4 && mke2fs -q -t ext4 disk.ext4 && banger image register --rootfs disk.ext4").ok();
    let shown = world.banger(&["image", "show", "disk", "--json"]).output().ok().json();
    assert_eq!(shown["file"], folder.join("disk.ext4").to_str().expect("plain"));
    here("banger image pull oci-archive:nothing.tar").ends(1).refuses(&["nothing.tar"]);
    here("banger kernel import --vmlinuz ./nothing --name k").ends(1).refuses(&["nothing"]);
    // The daemon that it starts is in another folder, and finds the same home.
    here(
        "mkdir home && chmod 700 home && BANGER_HOME=home banger daemon start && BANGER_HOME=./home banger daemon stop",
    )
    .ok();
    assert!(folder.join("home/state/banger.redb").exists(), "the home is elsewhere");
}
