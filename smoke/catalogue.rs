//! What can be pulled by name, from sources that fail and the one that does not.

use std::path::Path;

use serde_json::json;

use crate::base::NAME;
use crate::exec::BOOT;
use crate::registry::{Layout, Packing, wait_until_answered};
use crate::world::World;

/// Where files are served, in the scenario's own network namespace.
const SERVER: &str = "127.0.0.1:8088";

/// A host's own catalogue: an image is pulled by `vm run` itself, from the third of its sources.
pub fn sources_are_tried_in_order(world: &World) {
    let served = world.folder().join("served");
    std::fs::create_dir(&served).expect("made");
    let server = world.tool("busybox", &["httpd", "-f", "-p", SERVER, "-h", &served.display().to_string()]);
    let _server = server.limit(300).spawn();
    let bundle = image_bundle(world, &served);
    let kernel = world.home().join("state/kernels").join(NAME).join("vmlinux");
    std::fs::copy(kernel, served.join("vmlinux")).expect("copied");
    let kernel = described(world, &served.join("vmlinux"));
    let wrong = format!("sha256 = \"{}\"", "0".repeat(64));
    let catalogue = format!(
        "version = 1
        [[image]]
        name = \"tiny\"
        description = \"one program\"
        approximate_bytes = 2_000_000
        [[image.sources]]
        bundle = \"http://{SERVER}/not-there.tar\"
        {bundle}
        [[image.sources]]
        oci = \"127.0.0.1:1/tiny:1\"
        [[image.sources]]
        bundle = \"http://{SERVER}/tiny.tar\"
        {bundle}
        [[image]]
        name = \"swapped\"
        description = \"other bytes than were promised\"
        approximate_bytes = 2_000_000
        [[image.sources]]
        bundle = \"http://{SERVER}/tiny.tar\"
        {wrong}
        bytes = {}
        [[kernel]]
        name = \"fetched\"
        description = \"a kernel alone\"
        approximate_bytes = 50_000_000
        [[kernel.sources]]
        bundle = \"http://{SERVER}/vmlinux\"
        {kernel}
        ",
        length(&served.join("tiny.tar"))
    );
    std::fs::write(world.home().join("catalogue.toml"), catalogue).expect("written");
    wait_until_answered(SERVER);
    world.start();

    let listed = world.banger(&["image", "list", "--available"]).output().ok().text();
    assert!(listed.contains("tiny") && listed.contains("swapped"), "{listed}");
    let run = ["vm", "run", "--rm", "--image", "tiny", "--", "/bin/busybox", "echo", "fetched"];
    let ran = world.banger(&run).limit(BOOT).output().ok();
    assert_eq!(ran.text(), "fetched");
    let warnings = ran.stderr.lines().filter(|line| line.contains("trying the next source")).count();
    assert_eq!(warnings, 2, "{}", ran.stderr);

    world.banger(&["image", "pull", "swapped"]).limit(60).output().ends(1).refuses(&["sha256:"]);
    let images = world.banger(&["image", "list", "-q"]).output().ok().text();
    assert!(images.contains("tiny") && !images.contains("swapped"), "{images}");

    world.banger(&["kernel", "pull", "fetched"]).limit(60).output().ok();
    let kernels = world.banger(&["kernel", "list", "-q"]).output().ok().text();
    assert!(kernels.contains("fetched"), "{kernels}");

    std::fs::write(world.home().join("catalogue.toml"), "version = 2\n").expect("written");
    world.banger(&["image", "pull", "swapped"]).output().ends(2).refuses(&["catalogue.toml", "version"]);
    let again = ["vm", "run", "--rm", "--image", "tiny", "--", "/bin/busybox", "true"];
    world.banger(&again).limit(BOOT).output().ok();
}

/// An image of busybox alone in `served`; what a catalogue says of its file.
fn image_bundle(world: &World, served: &Path) -> String {
    let tree = world.folder().join("tiny");
    std::fs::create_dir_all(tree.join("bin")).expect("made");
    std::fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("busybox is installed");
    let packed = world.tool("tar", &["-C", &tree.display().to_string(), "-cf", "-", "."]).output().ok();
    let mut layout = Layout::create(world.folder().join("layout"));
    layout.image("tiny", &[packed.stdout], Packing::Gzip, json!({}));
    let (from, to) = (format!("oci:{}:tiny", layout.folder.display()), served.join("tiny.tar"));
    let to = format!("oci-archive:{}", to.display());
    world.tool("skopeo", &["copy", "-q", "--insecure-policy", &from, &to]).limit(60).output().ok();
    described(world, &served.join("tiny.tar"))
}

fn described(world: &World, file: &Path) -> String {
    let digest = world.tool("sha256sum", &[&file.display().to_string()]).output().ok().text();
    let digest = digest.split(' ').next().expect("a digest").to_owned();
    format!("sha256 = \"{digest}\"\n        bytes = {}", length(file))
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).expect("it is there").len()
}
