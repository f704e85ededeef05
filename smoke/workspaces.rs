//! Repositories of every kind go into a guest and come out as a patch.

use std::path::{Path, PathBuf};

use crate::command::{Output, Run};
use crate::exec::BOOT;
use crate::world::World;

/// Makes the repositories.
const REPOSITORIES: &str = include_str!("repositories.sh");

/// What is done to each of them in the guest.
const WORK: &str = include_str!("work.sh");

/// Seconds for what moves much.
const LONG: u64 = 400;

/// Repositories that go in, and how.
const CASES: [(&str, &[&str]); 12] = [
    ("edited", &["--include-untracked"]),
    ("names", &[]),
    ("empty", &[]),
    ("unborn", &["--include-untracked"]),
    ("detached", &[]),
    ("worktree", &[]),
    ("conflict", &[]),
    ("nested", &["--include-untracked", "--include", "nested/.env"]),
    ("filtered", &[]),
    ("pointers", &[]),
    ("shallow", &[]),
    ("large", &[]),
];

/// Each of them goes in, is worked on, and comes out.
pub fn go_in_and_come_out(world: &World) {
    let folder = make(world);
    world.start();
    refused(world);
    world.banger(&["vm", "create", "--name", "box", "--memory", "2G"]).limit(BOOT).output().ok();
    println!("| repository | git status | git diff | staged | files | patch, bytes | applied to a clone |");
    for (name, flags) in CASES {
        let prepare = [&["vm", "workspace", "prepare", "box", name], flags].concat();
        let folder_there = world.banger(&prepare).limit(LONG).output().ok().text();
        assert_eq!(folder_there, format!("/root/{name}"));
        same_there(world, name);
        inside(world, &["sh", "-c", WORK]).output().ok();
        let (bytes, applied) = comes_out(world, &folder, name);
        println!("| {name} | the same | the same | the same | the same | {bytes} | {applied} |");
    }
    nested_is_as_asked(world);
    let shown = world.banger(&["vm", "show", "box", "--json"]).output().ok().json();
    assert_eq!(shown["workspace"]["folder"], "/root/nested");
    one_command(world);
}

fn make(world: &World) -> PathBuf {
    let folder = world.person();
    world.tool("sh", &["-c", REPOSITORIES, "sh", "."]).limit(LONG).output().ok();
    folder
}

/// What cannot go in is refused before there is a VM.
fn refused(world: &World) {
    for (path, flags, words) in [
        ("with-submodule", &[][..], &["submodules (mod)", "--no-submodules"][..]),
        ("edited/.git", &[], &["bare"]),
        ("no-such", &[], &["cannot use no-such"]),
        (".", &[], &["is no git repository"]),
        ("edited/same", &[], &["no folder"]),
        ("edited", &["--from", "trunk"], &["--branch"]),
        ("edited", &["--branch", "a..b"], &["branch"]),
        ("edited", &["--branch", "x", "--from", "no-such"], &["no commit"]),
        ("edited", &["--include", "no-such"], &["not inside"]),
        ("edited", &["--include", "edited/no-such"], &["nothing to include"]),
    ] {
        let command = [&["vm", "run", "--rm", path], flags, &["--", "true"]].concat();
        world.banger(&command).output().ends(125).refuses(words);
    }
    for command in [&["vm", "run", "-d", "--rm"][..], &["vm", "run", "-d", "--", "true"], &["vm", "run", "--dry-run"]] {
        world.banger(command).output().refuses(&["hint: banger"]);
    }
    assert_eq!(world.banger(&["vm", "list", "-q"]).output().ok().text(), "", "a VM was made");
}

fn inside(world: &World, command: &[&str]) -> Run {
    world.banger(&[&["vm", "exec", "box", "--"], command].concat()).limit(LONG)
}

/// The repository on the host that goes by this name.
fn here(world: &World, name: &str, words: &[&str]) -> Output {
    world.tool("git", &[&["-C", name], words].concat()).limit(LONG).output()
}

/// git says the same here and there.
fn same_there(world: &World, name: &str) {
    let status: &[&str] = &["status", "--porcelain", "-z", "--no-renames"];
    // git takes there for unchanged what a filter has made here.
    let list: &[&str] = if name == "filtered" { &["ls-files", "-z", "-s"] } else { &["ls-files", "-z", "-v", "-s"] };
    for words in [status, &["diff", "--binary"], &["diff", "--cached", "--binary"], list] {
        let there = inside(world, &[&["git"], words].concat()).output();
        // What is untracked, nested and a repository of its own does not travel.
        let here = here(world, name, words);
        let own = |text: &[u8]| {
            text.split(|b| *b == 0).filter(|l| *l != b"?? inner/").map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert!(
            own(&there.stdout) == own(&here.stdout) && there.code == here.code,
            "{name}: git {words:?}\nthere: {}\nhere: {}",
            String::from_utf8_lossy(&there.stdout[..there.stdout.len().min(2000)]),
            String::from_utf8_lossy(&here.stdout[..here.stdout.len().min(2000)])
        );
    }
    let each = r#"for f; do if [ -L "$f" ]; then readlink "$f"; elif [ -f "$f" ]; then stat -c %A "$f"; sha256sum <"$f"; fi; done"#;
    let list = format!(
        "git ls-files -z -c -o --exclude-standard | grep -zv '/$' | sort -zu | xargs -0r sh -c '{each}' sh | cut -c1-4,11-"
    );
    let there = inside(world, &["sh", "-c", &list]).output().ok().text();
    let here = world.tool("sh", &["-c", &format!("cd {name} && {list}")]).limit(LONG).output().ok().text();
    assert_eq!(there, here, "{name}: the files are others");
}

/// The patch, applied to a clone, makes of it what is in the guest; how large it is.
fn comes_out(world: &World, folder: &Path, name: &str) -> (u64, &'static str) {
    let patch = format!("{name}.patch");
    let before = inside(world, &["sh", "-c", STATE]).output().ok().text();
    world.banger(&["vm", "workspace", "export", "box", "-o", &patch]).limit(LONG).output().ok();
    assert_eq!(
        inside(world, &["sh", "-c", STATE]).output().ok().text(),
        before,
        "{name}: the guest's repository changed"
    );
    let text = std::fs::read(folder.join(&patch)).expect("a patch");
    let head = String::from_utf8_lossy(&text[..text.len().min(2000)]).into_owned();
    for words in ["# banger: what became of ", "# image: debian-bookworm@sha256:", "# exit code of the last command: 0"]
    {
        assert!(head.contains(words), "{name}: {head}");
    }
    let base = head.lines().find_map(|line| line.strip_prefix("# base: ")).expect("a base");
    let clone = format!("clone-of-{name}");
    let script = r#"set -e
git clone -q --no-checkout "$1" "$2" 2>/dev/null
cd "$2"
git config user.name c && git config user.email c@example.org
if git cat-file -e "$3^{commit}" 2>/dev/null; then git checkout -q --detach "$3"; fi
git apply --whitespace=nowarn "../$4"
git add -A && git ls-files -s -z"#;
    let here = world.tool("sh", &["-c", script, "sh", name, &clone, base, &patch]).limit(LONG).output().ok().stdout;
    let script = "cp .git/index /tmp/index; export GIT_INDEX_FILE=/tmp/index; git add -A 2>/dev/null; git ls-files -s -z; rm /tmp/index";
    let there = inside(world, &["sh", "-c", script]).output().ok().stdout;
    let same = here == there;
    assert!(
        same,
        "{name}: the clone is another\nhere: {}\nthere: {}",
        String::from_utf8_lossy(&here).replace('\0', "\n"),
        String::from_utf8_lossy(&there).replace('\0', "\n")
    );
    let _ = std::fs::remove_dir_all(folder.join(&clone));
    (text.len() as u64, "the same, hash by hash")
}

/// Index, branches, files and objects of the guest's repository.
const STATE: &str = "git status --porcelain -z | sha256sum; git for-each-ref; git ls-files -s -z | sha256sum; \
                     sha256sum .git/index .git/HEAD; git count-objects -v";

fn nested_is_as_asked(world: &World) {
    world.banger(&["vm", "workspace", "prepare", "box", "nested", "--force"]).limit(LONG).output().ok();
    let there = |path: &str| inside(world, &["test", "-e", path]).output().code == 0;
    // What was once named stays where git ignores it.
    assert!(there("build/cache") && there(".env") && !there("build/other") && !there("inner"));
    let listed = world.banger(&["vm", "run", "nested", "--dry-run", "--include", "nested/.env"]).output().ok();
    let expected =
        "100644 .bangerinclude\n100644 .env  (included)\n100644 .gitignore\n100644 a\n100644 build/cache  (included)";
    assert_eq!(listed.text(), expected);
}

/// The whole of it in one command, and what programs read of it.
fn one_command(world: &World) {
    let command = [
        "vm",
        "run",
        "--rm",
        "--name",
        "one",
        "--env",
        "WHO=me",
        "--result",
        "result.json",
        "--export",
        "one.patch",
        "edited/dir",
        "--",
        "sh",
        "-c",
        "pwd; echo $WHO; git config remote.origin.url; echo x > new-in-guest; exit 3",
    ];
    let ran = world.banger(&command).limit(BOOT).output().ends(3);
    assert_eq!(ran.text(), "/root/edited/dir\nme\nhttps://example.org/a/b.git");
    assert!(ran.stderr.contains("1 untracked file stays here"), "{}", ran.stderr);
    let result = std::fs::read(world.person().join("result.json")).expect("a result");
    let result: serde_json::Value = serde_json::from_slice(&result).expect("JSON");
    assert_eq!((&result["exit_code"], &result["vm"]["name"]), (&3.into(), &"one".into()));
    let phases: Vec<&str> =
        result["phases"].as_array().expect("a list").iter().filter_map(|p| p["phase"].as_str()).collect();
    assert_eq!(phases, ["ready", "workspace", "command", "export"]);
    let patch = std::fs::read_to_string(world.person().join("one.patch")).expect("a patch");
    assert!(
        patch.contains("# exit code of the last command: 3\n") && patch.contains("+++ b/dir/new-in-guest\n"),
        "{patch}"
    );
    println!("| vm run edited/dir --export --result -- … exit 3 | {} |", result["phases"]);
}
