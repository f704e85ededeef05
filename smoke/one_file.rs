//! The one static file.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::world::World;

/// Most bytes of the binary.
const LIMIT: u64 = 8 << 20;

/// `PT_INTERP` (elf(5)): the program header that names a dynamic loader.
const PT_INTERP: u32 = 3;

/// No loader, no library, small enough.
pub fn is_static_and_small(world: &World) {
    let path = world.binary();
    let size = std::fs::metadata(path).expect("the binary").len();
    if std::env::var_os("BANGER_BIN").is_some() {
        assert!(size <= LIMIT, "the binary has {size} bytes");
    }
    let listed = world.tool("ldd", &[&path.display().to_string()]).output();
    let said = listed.text() + &listed.stderr;
    let plain = said.contains("not a dynamic executable") || said.contains("statically linked");
    assert!(plain, "ldd: {said}");
    let kinds = program_headers(&std::fs::read(path).expect("the binary"));
    assert!(!kinds.is_empty() && !kinds.contains(&PT_INTERP), "it asks for a loader: {kinds:?}");
}

/// The types of all program headers of a 64-bit little-endian ELF file.
fn program_headers(elf: &[u8]) -> Vec<u32> {
    let number = |at: usize, length: usize| {
        elf[at..at + length].iter().rev().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte))
    };
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "not such a file");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).map(|i| number(table + i * size, 4) as u32).collect()
}

/// The one file under other names, elsewhere, is each personality.
pub fn starts_under_each_name(world: &World) {
    let folder = world.folder().join("elsewhere");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::copy(world.binary(), folder.join("banger")).expect("a copy");
    for name in ["bangerd", "bangerd-root", "banger-agent", "banger-vm-run", "init"] {
        symlink("banger", folder.join(name)).expect("a symlink");
    }
    let call = |name: &str, arguments: &[&str]| world.tool(folder.join(name), arguments).output();
    assert!(call("banger", &["--version"]).ok().text().starts_with("banger v"));
    assert!(call("bangerd", &["--version"]).ok().text().starts_with("bangerd "));
    call("bangerd", &["--check-migrations"]).ok();
    call("bangerd-root", &[]).refuses(&["bangerd-root: usage: "]);
    let page = call("banger-vm-run", &["--help"]).ok().text();
    assert!(page.contains("--rm"), "not the page of vm run: {page}");
    // Whoever calls it and is not the kernel is refused: it would mount and power off.
    call("init", &[]).ends(70);
    the_agent_refuses(world, &folder.join("banger-agent"));
    assert!(call("banger", &["--as", "bangerd", "--version"]).ok().text().starts_with("bangerd "));
}

/// It has no business outside a guest, least of all as root: one line says so, and nothing was begun.
fn the_agent_refuses(world: &World, path: &Path) {
    let refused = world.tool(path, &[]).limit(5).output().ends(70);
    assert_eq!(refused.stderr.lines().count(), 1, "not one line: {}", refused.stderr);
    assert!(refused.stderr.contains("guest"), "it does not say why: {}", refused.stderr);
    assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 22)).is_ok(), "port 22 is taken");
}
