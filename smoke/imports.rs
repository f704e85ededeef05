//! The arrows between the rooms, held against the sources: who may name whom.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::world::World;

/// Each room and the rooms that it may name beside itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("protocol", &["model"]),
    ("os", &["model"]),
    ("host", &["model", "os"]),
    ("store", &["model", "os", "host"]),
    ("shell", &["model", "protocol", "os"]),
    ("ssh", &["model", "protocol", "os", "host", "shell"]),
    ("relay", &["model", "protocol", "os"]),
    ("mcp", &[]),
    ("net", &["model", "os", "host"]),
    ("image", &["model", "os", "host"]),
    ("vmm", &["model", "os", "host"]),
    ("workspace", &["model", "protocol", "os", "host", "shell"]),
    ("system", &["model", "os", "host"]),
    ("update", &["model", "os", "host"]),
    ("helper", &["model", "protocol", "os", "host", "net"]),
    ("guest", &["model", "protocol", "os"]),
    ("daemon", &["model", "protocol", "os", "host", "store", "shell", "ssh", "net", "image", "vmm"]),
    (
        "cli",
        &["model", "protocol", "os", "host", "shell", "ssh", "relay", "mcp", "image", "workspace", "system", "update"],
    ),
    ("carriers", &["protocol", "os", "guest", "shell", "ssh"]),
    ("personality", &["cli", "daemon", "helper", "guest"]),
    ("main", &[]),
    ("lib", &[]),
];

/// Rooms that run without an executor.
const BLOCKING: [&str; 2] = ["helper", "guest"];

/// The only folders that may hold `unsafe`.
const UNSAFE: [&str; 2] = ["helper/sys", "guest/sys"];

/// Reads every source file and compares what it names with the table.
pub fn arrows_point_one_way(_: &World) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&sources) {
        let inside = file.strip_prefix(&sources).expect("below src");
        let text = std::fs::read_to_string(&file).expect("a source file can be read");
        seen.insert(room_of(inside));
        wrong.extend(faults(inside, &text));
    }
    let missing: Vec<_> = ARROWS.iter().filter(|(room, _)| !seen.contains(*room)).collect();
    assert!(missing.is_empty(), "the table has rooms that are not there: {missing:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    the_check_itself_sees();
}

/// A table that nothing can break proves nothing.
fn the_check_itself_sees() {
    let caught = |path: &str, text: &str| !faults(Path::new(path), text).is_empty();
    assert!(caught("net/plan.rs", "use crate::protocol::Fault;"));
    assert!(caught("cli/run.rs", "    let x = crate::store::open();"));
    assert!(caught("model/id.rs", "use crate::{\n    model::VmId,\n    os::files,\n};"));
    assert!(caught("cli/mod.rs", "use super::daemon::run;"));
    assert!(caught("helper/mod.rs", "use smol::future;"));
    assert!(caught("cli/mod.rs", "unsafe { f() }"));
    assert!(!caught("cli/mod.rs", "// unsafe, and crate::store is not for us\nuse crate::ssh::Session;"));
    assert!(!caught("helper/sys/mod.rs", "unsafe { f() }"));
}

fn faults(file: &Path, text: &str) -> Vec<String> {
    let room = room_of(file);
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: room `{room}` is not in the table of smoke/imports.rs", file.display())];
    };
    let code = without_comments(text);
    let mut found = Vec::new();
    for named in rooms_named(&code, file) {
        if named != room && !allowed.contains(&named.as_str()) {
            found.push(format!("{}: `{room}` may not name `{named}`", file.display()));
        }
    }
    if BLOCKING.contains(&room.as_str()) && words(&code).any(|w| w == "smol" || w == "async") {
        found.push(format!("{}: `{room}` is blocking and names something asynchronous", file.display()));
    }
    if !UNSAFE.iter().any(|folder| file.starts_with(folder)) && has_unsafe_code(&code) {
        found.push(format!("{}: `unsafe` outside of {}", file.display(), UNSAFE.join(" and ")));
    }
    found
}

/// The first folder below `src`, or the file's own name.
fn room_of(file: &Path) -> String {
    let first = file.components().next().expect("not empty").as_os_str();
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// All rooms after `crate::`, groups in braces included; after `super::` where that is the crate.
fn rooms_named(code: &str, file: &Path) -> BTreeSet<String> {
    let mut roots = vec!["crate::"];
    if file.components().count() == 2 && file.ends_with("mod.rs") {
        roots.push("super::");
    }
    let mut named = BTreeSet::new();
    for root in roots {
        for (at, _) in code.match_indices(root) {
            let inside_a_name = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            if !inside_a_name {
                named.extend(first_names(&code[at + root.len()..]));
            }
        }
    }
    // `super::` in an inline module is this room itself: only rooms of the table count.
    named.retain(|n| ARROWS.iter().any(|(room, _)| room == n));
    named
}

fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                return names;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

/// `unsafe` as a keyword; in a string it is only a word.
fn has_unsafe_code(code: &str) -> bool {
    let follows =
        |rest: &str| ["{", "fn ", "impl ", "extern ", "trait "].iter().any(|k| rest.trim_start().starts_with(k));
    code.match_indices("unsafe").any(|(at, word)| follows(&code[at + word.len()..])) || code.contains("#[unsafe(")
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Comments say what they like. A `//` in a string cuts its line short: good enough, for names
/// stand before strings.
fn without_comments(text: &str) -> String {
    text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = crate::census::files_below(folder);
    files.retain(|f| f.extension().is_some_and(|e| e == "rs"));
    files
}
