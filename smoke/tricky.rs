//! Images that are hard to get right, each for one reason: their trees in a guest against `umoci unpack`.

use std::path::Path;

use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::exec::BOOT;
use crate::registry::{self, Layout, Packing, REGISTRY, Registry};
use crate::tree;
use crate::world::World;

/// An archive under construction.
struct Layer {
    tar: Builder<Vec<u8>>,
}

/// What an entry is, beside its name.
#[derive(Clone, Copy)]
struct Of<'c> {
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    link: &'c [u8],
    content: &'c [u8],
}

impl<'c> Of<'c> {
    fn file(content: &'c [u8]) -> Self {
        Self { kind: EntryType::Regular, mode: 0o644, owner: (0, 0), link: b"", content }
    }

    fn folder() -> Self {
        Self { kind: EntryType::Directory, mode: 0o755, ..Self::file(b"") }
    }

    fn link(kind: EntryType, link: &'c [u8]) -> Self {
        Self { kind, link, mode: 0o777, ..Self::file(b"") }
    }

    fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    fn owner(self, uid: u64, gid: u64) -> Self {
        Self { owner: (uid, gid), ..self }
    }
}

impl Layer {
    fn new() -> Self {
        Self { tar: Builder::new(Vec::new()) }.add("t", Of::folder())
    }

    fn add(self, name: impl AsRef<[u8]>, of: Of<'_>) -> Self {
        self.with(name, of, &[])
    }

    /// With PAX records; the name and a long link are always in them, for tar's own fields are too short.
    fn with(self, name: impl AsRef<[u8]>, of: Of<'_>, records: &[(&str, &[u8])]) -> Self {
        self.on(name, of, records, (0, 0))
    }

    fn on(mut self, name: impl AsRef<[u8]>, of: Of<'_>, records: &[(&str, &[u8])], (major, minor): (u32, u32)) -> Self {
        let mut all = vec![("path", name.as_ref())];
        if !of.link.is_empty() {
            all.push(("linkpath", of.link));
        }
        all.extend(records);
        self.tar.append_pax_extensions(all).expect("records");
        let mut header = Header::new_ustar();
        header.set_entry_type(of.kind);
        header.set_path("x").expect("a name");
        header.set_mode(of.mode);
        header.set_uid(of.owner.0);
        header.set_gid(of.owner.1);
        header.set_mtime(1_600_000_000);
        header.set_size(of.content.len() as u64);
        header.set_device_major(major).expect("a number");
        header.set_device_minor(minor).expect("a number");
        header.set_cksum();
        self.tar.append(&header, of.content).expect("an entry");
        self
    }

    /// Folders in each other.
    fn below(self, top: &str, names: &[&str]) -> Self {
        let paths = (1..=names.len()).map(|count| format!("{top}{}", names[..count].concat()));
        paths.fold(self, |layer, path| layer.add(path, Of::folder()))
    }

    fn end(self) -> Vec<u8> {
        self.tar.into_inner().expect("an archive")
    }
}

/// The images: a name, and the layers.
fn images(world: &World) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let file = Of::file;
    let sym = |target| Of::link(EntryType::Symlink, target);
    let hard = |target| Of::link(EntryType::Link, target);
    let long = "n".repeat(255);
    let deep = format!("t/{}", "folder-with-a-name/".repeat(60));
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let many = (0..3000).fold(Layer::new(), |layer, n| layer.add(format!("t/{n}-{}", "x".repeat(n % 70)), file(b"x")));
    vec![
        (
            "owners",
            vec![
                Layer::new()
                    .add("t/a", file(b"a").owner(1000, 2000))
                    .add("t/b", file(b"b").owner(70_000, 2_000_000))
                    .end(),
            ],
        ),
        (
            "modes",
            vec![
                Layer::new()
                    .add("t/suid", file(b"x").mode(0o4755))
                    .add("t/sgid", file(b"x").mode(0o2711))
                    .add("t/none", file(b"x").mode(0))
                    .add("t/sticky", Of::folder().mode(0o1777))
                    .add("t/group", Of::folder().mode(0o2775).owner(0, 50))
                    .end(),
            ],
        ),
        (
            "attributes",
            vec![
                Layer::new()
                    .with("t/ping", file(b"x").mode(0o755), &[("SCHILY.xattr.security.capability", capability)])
                    .with(
                        "t/user",
                        file(b"x"),
                        &[("SCHILY.xattr.user.a", b"b\0c"), ("SCHILY.xattr.user.long", &[7; 2500])],
                    )
                    .with("t/trusted", file(b"x"), &[("SCHILY.xattr.trusted.x", b"one\ntwo=\n")])
                    .with("t/folder", Of::folder(), &[("SCHILY.xattr.user.f", b"1")])
                    .end(),
            ],
        ),
        (
            "hard_links",
            vec![
                Layer::new()
                    .add("t/a", file(b"shared"))
                    .add("t/b", hard(b"t/a"))
                    .add("t/d", Of::folder())
                    .add("t/d/c", hard(b"t/b"))
                    .add("t/s", sym(b"a"))
                    .end(),
            ],
        ),
        (
            "links_across_layers",
            vec![
                Layer::new().add("t/a", file(b"shared")).add("t/gone", file(b"kept by its link")).end(),
                Layer::new().add("t/b", hard(b"t/a")).add("t/left", hard(b"t/gone")).end(),
                Layer::new().add("t/.wh.gone", file(b"")).add("t/c", hard(b"t/b")).end(),
            ],
        ),
        (
            "symlinks",
            vec![
                Layer::new()
                    .add("t/absolute", sym(b"/etc/passwd"))
                    .add("t/up", sym(b"../../../../../etc"))
                    .add("t/dangling", sym(b"nowhere"))
                    .add("t/loop", sym(b"loop"))
                    .add("t/long", sym("p/".repeat(150).as_bytes()))
                    .add("t/59", sym(&[b'x'; 59]))
                    .add("t/60", sym(&[b'x'; 60]))
                    .add("t/real", Of::folder())
                    .add("t/through", sym(b"real"))
                    .add("t/through/in", file(b"in real"))
                    .end(),
            ],
        ),
        (
            "long_names",
            vec![
                Layer::new()
                    .add(format!("t/{long}"), file(b"x"))
                    .add(format!("t/{}", "\u{e9}".repeat(127)), file(b"x"))
                    .below("t/", &["folder-with-a-name/"; 60])
                    .add(format!("{deep}file"), file(b"deep"))
                    .end(),
            ],
        ),
        (
            "odd_names",
            vec![
                Layer::new()
                    .add(b"t/latin-\xe9\xff", file(b"x"))
                    .add("t/new\nline", file(b"x"))
                    .add("t/ blank ", file(b"x"))
                    .add("t/back\\slash\"quote", file(b"x"))
                    .add(b"t/link", sym(b"latin-\xe9\xff"))
                    .end(),
            ],
        ),
        ("sparse_pax", vec![sparse(world, "posix")]),
        ("sparse_gnu", vec![sparse(world, "gnu")]),
        (
            "devices",
            vec![
                Layer::new()
                    .on("t/null", Of::link(EntryType::Char, b"").mode(0o666), &[], (1, 3))
                    .on("t/disk", Of::link(EntryType::Block, b"").mode(0o660), &[], (8, 300))
                    .add("t/fifo", Of::link(EntryType::Fifo, b"").mode(0o620))
                    .end(),
            ],
        ),
        (
            "whiteouts",
            vec![
                Layer::new()
                    .add("t/a", file(b"x"))
                    .add("t/d", Of::folder())
                    .add("t/d/in", file(b"x"))
                    .add("t/kept", file(b"x"))
                    .end(),
                Layer::new().add("t/.wh.a", file(b"")).add("t/.wh.d", file(b"")).add("t/.wh.never", file(b"")).end(),
                Layer::new().add("t/a", file(b"again")).end(),
            ],
        ),
        (
            "opaque",
            vec![
                Layer::new()
                    .add("t/d", Of::folder())
                    .add("t/d/old", file(b"x"))
                    .add("t/d/sub", Of::folder())
                    .add("t/d/sub/old", file(b"x"))
                    .end(),
                Layer::new()
                    .add("t/d", Of::folder().mode(0o700))
                    .add("t/d/.wh..wh..opq", file(b""))
                    .add("t/d/new", file(b"y"))
                    .end(),
            ],
        ),
        (
            "metadata_only",
            vec![
                Layer::new().add("t/d", Of::folder()).add("t/d/in", file(b"stays")).add("t/f", file(b"same")).end(),
                Layer::new()
                    .with("t/d", Of::folder().mode(0o750).owner(5, 6), &[("mtime", b"1500000000.5")])
                    .add("t/f", file(b"same").mode(0o600).owner(7, 8))
                    .end(),
            ],
        ),
        (
            "changed_kinds",
            vec![
                Layer::new()
                    .add("t/a", Of::folder())
                    .add("t/a/in", file(b"x"))
                    .add("t/b", file(b"x"))
                    .add("t/c", sym(b"a"))
                    .add("t/e", sym(b"b"))
                    .end(),
                Layer::new()
                    .add("t/a", file(b"a file"))
                    .add("t/b", Of::folder())
                    .add("t/b/in", file(b"y"))
                    .add("t/c", Of::folder())
                    .add("t/e", file(b"no link"))
                    .end(),
            ],
        ),
        (
            "times",
            vec![
                Layer::new()
                    .with("t/old", file(b"x"), &[("mtime", b"-100.25")])
                    .with("t/fine", file(b"x"), &[("mtime", b"1234567890.123456789")])
                    .with("t/late", file(b"x"), &[("mtime", b"5000000000")])
                    .end(),
            ],
        ),
        ("many_names", vec![many.end(), Vec::new(), vec![0; 1024]]),
    ]
}

/// What GNU tar makes of a file with holes.
fn sparse(world: &World, format: &str) -> Vec<u8> {
    let script = "set -e; mkdir -p s/t; truncate -s 700M s/t/big; printf a | dd of=s/t/big conv=notrunc 2>/dev/null; \
                  printf b | dd of=s/t/big bs=1M seek=650 conv=notrunc 2>/dev/null; truncate -s 5M s/t/hole; \
                  touch -d @1600000000 s/t/big s/t/hole s/t; tar -C s --sparse --sort=name --owner=0 --group=0";
    let script = format!("{script} --format={format} -cf - t");
    world.tool("sh", &["-c", &script]).limit(300).output().ok().stdout
}

/// Each image in the registry, pulled by its reference, and its tree in a guest.
pub fn are_as_umoci_unpacks_them(world: &World) {
    registry::check(world);
    let registry = Registry::start(world);
    let mut layout = Layout::create(world.folder().join("layout"));
    let images = images(world);
    world.start();
    let lister = std::env::current_exe().expect("this program").display().to_string();
    let mut wrong = Vec::new();
    for (name, layers) in &images {
        layout.image(name, layers, Packing::Gzip, json!({}));
        registry.push(world, &layout, name, name);
        // umoci knows nothing of GNU's older kind: it is the same file as that of the newer.
        let twin = if *name == "sparse_gnu" { "sparse_pax" } else { name };
        let expected = registry::unpack(world, &layout, twin, &world.folder().join(format!("unpacked-{name}")));
        let expected = tree::list(&expected.join("t"));
        let found = in_guest(world, name, &lister);
        let difference = difference(&expected, &found);
        println!(
            "{name}: {} names, difference: {}",
            expected.lines().count(),
            if difference.is_empty() { "none" } else { &difference }
        );
        if !difference.is_empty() {
            wrong.push(*name);
        }
        std::fs::remove_dir_all(world.folder().join(format!("unpacked-{name}"))).expect("removed");
    }
    assert!(wrong.is_empty(), "not as umoci unpacks them: {wrong:?}");
    other_packings(world, &registry, &mut layout);
}

fn in_guest(world: &World, name: &str, lister: &str) -> String {
    let image = format!("{REGISTRY}/{name}:1");
    let create = ["vm", "create", "--name", "box", "--memory", "256M", "--disk-size", "1G", "--image", &image];
    world.banger(&create).limit(BOOT).output().ok();
    world.banger(&["vm", "cp", lister, "box:/lister"]).limit(300).output().ok();
    let list = ["vm", "exec", "box", "--", "/lister", tree::FLAG, "/t"];
    let found = world.banger(&list).limit(400).output().ok();
    world.banger(&["vm", "delete", "box"]).output().ok();
    String::from_utf8(found.stdout).expect("text")
}

/// The lines that are in one of both alone.
fn difference(expected: &str, found: &str) -> String {
    let only = |mark: &str, these: &str, those: &str| {
        let others: std::collections::HashSet<&str> = those.lines().collect();
        these.lines().filter(|line| !others.contains(line)).map(|line| format!("\n  {mark} {line}")).collect::<String>()
    };
    only("-", expected, found) + &only("+", found, expected)
}

/// The same layers packed otherwise are the same image, and so is an archive of it.
fn other_packings(world: &World, registry: &Registry, layout: &mut Layout) {
    let layers = [Layer::new().add("t/a", Of::file(&[7; 100_000])).end()];
    for (packing, tag) in [(Packing::Gzip, "gzip"), (Packing::Zstd, "zstd"), (Packing::None, "plain")] {
        layout.image(tag, &layers, packing, json!({"Env": ["A=b"]}));
        registry.push(world, layout, tag, &format!("packed-{tag}"));
        let reference = format!("{REGISTRY}/packed-{tag}:1");
        world.banger(&["image", "pull", &reference, "--name", tag]).output().ok();
        assert_eq!(content(world, tag), [7; 100_000], "{tag}");
    }
    let archive = world.folder().join("image.tar").display().to_string();
    let from = format!("oci:{}:gzip", layout.folder.display());
    for (form, to) in [("oci-archive", "one"), ("docker-archive", "two")] {
        let target = format!("{form}:{archive}:x/{to}:1");
        world.tool("skopeo", &["copy", "-q", "--insecure-policy", &from, &target]).output().ok();
        world.banger(&["image", "pull", &format!("{form}:{archive}"), "--name", to]).output().ok();
        assert_eq!(content(world, to), [7; 100_000], "{to}");
        if form == "docker-archive" {
            let file = std::fs::File::open(&archive).expect("the archive");
            world.banger(&["image", "pull", "-", "--name", "three"]).with_stdin(file).output().ok();
            assert_eq!(content(world, "three"), [7; 100_000]);
        }
        std::fs::remove_file(&archive).expect("removed");
    }
    let shown = world.banger(&["image", "show", "three", "--json"]).output().ok().json();
    assert_eq!(shown["env"], json!(["A=b"]));
}

fn content(world: &World, image: &str) -> Vec<u8> {
    let file = world.home().join("state/images").join(format!("{image}.ext4"));
    read_file(world, &file, "/t/a")
}

/// A file of an image.
pub fn read_file(world: &World, image: &Path, path: &str) -> Vec<u8> {
    world.tool("debugfs", &["-R", &format!("cat {path}"), &image.display().to_string()]).output().ok().stdout
}
