//! What `release/package` makes of the tested binary, and what stands beside it: pages and completions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::census::files_below;
use crate::runner::skip;
use crate::world::World;

/// The same in both places, without a complaint of lintian, and with the very bytes of the binary.
pub fn are_made(world: &World) {
    let papers = papers();
    let (here, there) = (world.folder().join("here"), world.folder().join("somewhere/else"));
    let built = built(world);
    for checkout in [&here, &there] {
        check_out(world, checkout);
    }
    let plain = world.with("BANGER_PAPERS", &text(&papers));
    let script = |checkout: &Path| text(&checkout.join("release/package"));
    let arguments = |out: &Path| ["--built".into(), text(&built), "--out".into(), text(out)];
    let (one, other) = (world.folder().join("one"), world.folder().join("other"));
    run(&plain, &script(&here), &arguments(&one));
    // Whoever makes them: another time zone, another language, others' files closed to all.
    let shell = format!("umask 077; exec {} \"$@\"", script(&there));
    let strange = plain.with("TZ", "Asia/Tokyo").with("LC_ALL", "C");
    run(&strange, "sh", &[&["-c".into(), shell, "sh".into()][..], &arguments(&other)].concat());
    are_equal(&one, &other);

    let version = env!("CARGO_PKG_VERSION");
    let deb = text(&one.join(format!("banger_{version}-1_amd64.deb")));
    let said = world.tool("lintian", &["--allow-root", "--fail-on", "error,warning", &deb]).limit(180).output().ok();
    assert_eq!(said.text(), "", "lintian complains");
    let binary = std::fs::read(built.join("x86_64/banger")).expect("the binary");
    let tarball = text(&one.join(format!("banger-v{version}-x86_64.tar.gz")));
    let rpm = text(&one.join(format!("banger-{version}-1.x86_64.rpm")));
    for unpack in [
        format!("tar -xzOf {tarball} banger"),
        format!("dpkg-deb --fsys-tarfile {deb} | tar -xOf - ./usr/bin/banger"),
        format!("rpm2cpio {rpm} | cpio --extract --quiet --to-stdout ./usr/bin/banger"),
    ] {
        assert!(world.tool("sh", &["-c", &unpack]).output().ok().stdout == binary, "other bytes: {unpack}");
    }
    bill_is_complete(&binary, &papers.join("bill-x86_64.json"));
}

/// Man pages without a warning, and scripts of completion that three shells understand.
pub fn papers_are_right(world: &World) {
    let papers = papers();
    let pages: Vec<PathBuf> = ["man1", "man8"].iter().flat_map(|section| files_below(&papers.join(section))).collect();
    assert!(pages.len() > 40, "{} pages", pages.len());
    for page in pages {
        let quiet = world.with("MANROFFOPT", "-ww").with("MANPAGER", "cat");
        let shown = quiet.tool("man", &["--warnings", "--local-file", &text(&page)]).output().ok();
        assert_eq!(shown.stderr, "", "{}", page.display());
        assert!(shown.text().contains("SYNOPSIS"), "{}", page.display());
    }
    // What they do in a shell is another scenario's.
    for (shell, script) in [("bash", "bash/banger"), ("zsh", "zsh/_banger"), ("fish", "fish/banger.fish")] {
        let script = text(&papers.join(script));
        assert_eq!(world.tool(shell, &["-n", &script]).output().ok().stderr, "", "{script}");
        let asked = world.tool("grep", &["-c", "command banger --as banger-complete", &script]).output().ok();
        assert_eq!(asked.text(), "2", "{script}");
    }
}

/// Where `release/documents` has written.
pub fn papers() -> PathBuf {
    match std::env::var_os("BANGER_PAPERS") {
        Some(folder) => folder.into(),
        None => skip("release/documents has not run; smoke/run does it, and names its folder in BANGER_PAPERS"),
    }
}

/// The tested binary as a release has it: where it was built with symbols, without them.
pub fn built(world: &World) -> PathBuf {
    let folder = world.folder().join("built");
    std::fs::create_dir_all(folder.join("x86_64")).expect("a folder");
    let binary = text(&folder.join("x86_64/banger"));
    std::fs::copy(world.binary(), &binary).expect("a copy");
    if !world.tool("nm", &[&binary]).output().text().is_empty() {
        world.tool("strip", &[&binary]).output().ok();
    }
    folder
}

/// The sources as they are here, committed as the release that their version says.
pub fn check_out(world: &World, folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    let copy = "git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
        xargs -0 cp --parents --no-dereference --target-directory \"$1\"";
    let (sources, target) = (env!("CARGO_MANIFEST_DIR"), text(folder));
    let from_there = format!("cd {sources} && {copy}");
    world.tool("sh", &["-c", &from_there, "sh", &target]).output().ok();
    let changes = folder.join("CHANGELOG.md");
    let heading = format!("## {} (2026-01-02)", env!("CARGO_PKG_VERSION"));
    let told = std::fs::read_to_string(&changes).expect("CHANGELOG.md");
    std::fs::write(&changes, told.replacen("## Unreleased", &heading, 1)).expect("CHANGELOG.md can be written");
    git(world, folder, &["init", "--quiet"]);
    commit(world, folder, &format!("v{}", env!("CARGO_PKG_VERSION")));
}

/// Commits all of it, and tags it.
pub fn commit(world: &World, folder: &Path, tag: &str) {
    git(world, folder, &["add", "--all"]);
    git(world, folder, &["commit", "--quiet", "--message", "a release"]);
    git(world, folder, &["tag", "--force", tag]);
}

/// git, as somebody, at some time.
pub fn git(world: &World, folder: &Path, arguments: &[&str]) {
    let date = "2026-01-02T03:04:05Z";
    let dated = world.with("GIT_AUTHOR_DATE", date).with("GIT_COMMITTER_DATE", date);
    let somebody = ["-C", &text(folder), "-c", "user.name=S", "-c", "user.email=s@s.example", "-c", "gc.auto=0"];
    dated.tool("git", &[&somebody, arguments].concat()).output().ok();
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}

pub fn run(world: &World, program: &str, arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    world.tool(program, &arguments).limit(240).output().ok();
}

fn are_equal(one: &Path, other: &Path) {
    let names = |folder: &Path| -> Vec<String> {
        files_below(folder).iter().map(|f| text(f.strip_prefix(folder).expect("below it"))).collect()
    };
    assert_eq!(names(one), names(other));
    assert_eq!(names(one).len(), 5, "{:?}", names(one));
    for name in names(one) {
        let read = |folder: &Path| std::fs::read(folder.join(&name)).expect("a file");
        assert!(read(one) == read(other), "{name} differs from checkout to checkout");
    }
}

/// Each crate that a path in the binary names, in a panic's place, is in the bill.
fn bill_is_complete(binary: &[u8], bill: &Path) {
    let bill: serde_json::Value = serde_json::from_slice(&std::fs::read(bill).expect("the bill")).expect("JSON");
    let listed: BTreeSet<String> = bill["components"]
        .as_array()
        .expect("components")
        .iter()
        .map(|c| format!("{}-{}", c["name"].as_str().unwrap_or_default(), c["version"].as_str().unwrap_or_default()))
        .collect();
    let haystack = String::from_utf8_lossy(binary);
    let named: BTreeSet<&str> =
        haystack.split("crates/").skip(1).filter_map(|rest| rest.split('/').next()).filter(is_crate).collect();
    assert!(named.len() > 30, "too few to tell: {named:?}");
    let missing: Vec<_> = named.iter().filter(|crate_| !listed.contains(**crate_)).collect();
    assert!(missing.is_empty(), "in the binary, and not in its bill: {missing:?}");
    for library in ["libssh2", "openssl", "musl", "rust-std"] {
        assert!(listed.iter().any(|l| l.starts_with(&format!("{library}-"))), "{library} is not in the bill");
    }
}

/// A name and a version; the standard library has a folder `crates`, too.
fn is_crate(name: &&str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()))
}
