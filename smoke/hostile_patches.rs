//! A guest that answers an export with what harms whoever takes it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::{Output, Run};
use crate::exec::BOOT;
use crate::world::World;

/// In the guest, before git itself: the patch is whatever root there says.
const LIAR: &str = r#"#!/bin/sh
case " $* " in
*" diff-tree "*) . /root/answer ;;
*" rev-parse "*) [ ! -e /root/chatters ] || exec yes ;;
esac
exec /usr/bin/git "$@"
"#;

/// Most memory, KiB, that the command line may take for an answer of any length.
const MEMORY: &str = "300000";

fn file(path: &str, mode: &str, content: &str) -> String {
    let lines = content.lines().count();
    let added: String = content.lines().map(|line| format!("+{line}\n")).collect();
    format!(
        "diff --git a/{path} b/{path}\nnew file mode {mode}\nindex 0000000..1111111\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{lines} @@\n{added}"
    )
}

fn link(path: &str, target: &str) -> String {
    file(path, "120000", target) + "\\ No newline at end of file\n"
}

/// Patches, and what is said of them.
fn patches() -> Vec<(&'static str, String, &'static str)> {
    let hook = "#!/bin/sh\ntouch ../sprung";
    vec![
        ("above the tree", file("../../x", "100644", "x"), "not below"),
        ("an absolute path", file("/etc/x", "100644", "x"), "not below"),
        ("up in the middle", file("a/../../x", "100644", "x"), "not below"),
        ("a hook", file(".git/hooks/post-checkout", "100755", hook), "git's own"),
        ("git's configuration in capitals", file("sub/.GIT/config", "100644", "x"), "git's own"),
        ("a link and a file through it", link("l", "dir") + &file("l/x", "100644", "x"), "through the link"),
        ("a file through a link and then the link", file("l/x", "100644", "x") + &link("l", "dir"), "through the link"),
        ("a file through a link that is there", file("out/x", "100644", "x"), "through the link"),
        ("a link out of the tree", link("l", "../../secret"), "a link to"),
        ("a link into .git", link("l", ".git/hooks"), "a link to"),
        ("a submodule", file("m", "160000", "x"), "mode 160000"),
        ("set-id", file("m", "104755", "x"), "mode 104755"),
        ("a filter", file(".gitattributes", "100644", "* filter=evil"), "can have git run programs"),
        ("a hook manager's hook", file(".husky/pre-commit", "100755", hook), "can have git run programs"),
        (
            "one name above and another below",
            file("a", "100644", "x").replace("+++ b/a", "+++ b/../../x"),
            "is not what git writes",
        ),
        (
            "an old-fashioned patch behind a new one",
            file("new", "100644", "x") + "--- /dev/null\n+++ b/../../x\n@@ -0,0 +1 @@\n+x\n",
            "is not what git writes",
        ),
        (
            "escaped letters",
            file("x", "100644", "x").replace("a/x b/x", r#""a/\056\056/x" "b/\056\056/x""#),
            "is not what git writes",
        ),
        ("half a patch", file("x", "100644", "1\n2\n3").replace("+3\n", ""), "ends in the middle"),
        ("no patch", "Traceback (most recent call last):\n".to_owned(), "is not what git writes"),
        ("what does not fit", file("dir/a", "100644", "x"), "does not fit"),
    ]
}

/// Each of them is refused, and nothing changes; the last is good, and is applied.
pub fn are_refused(world: &World) {
    let make = r#"set -e
echo keep >secret
git init -q -b trunk repo && cd repo
git config user.name P && git config user.email p@example.org
mkdir dir ../../elsewhere && echo a >dir/a && ln -s ../../elsewhere out && git add . && git commit -q -m one"#;
    world.tool("sh", &["-c", make]).output().ok();
    world.start();
    world.banger(&["vm", "create", "--name", "box"]).limit(BOOT).output().ok();
    world.banger(&["vm", "workspace", "prepare", "box", "repo"]).limit(BOOT).output().ok();
    put(world, "/usr/local/bin/git", LIAR);
    put(world, "/root/answer", "cat /root/evil; exit\n");
    world.banger(&["vm", "exec", "box", "--", "chmod", "755", "/usr/local/bin/git"]).limit(BOOT).output().ok();
    let (before, around) = (files(&world.person()), beside(world));
    println!("| patch | refused with |");
    for (what, patch, word) in patches() {
        put(world, "/root/evil", &patch);
        let refused = apply(world, &[]).output();
        refused.refuses(&[word, "the patch is saved in", "git apply --stat"]);
        println!("| {what} | {word} |");
        assert!(files(&world.person()) == before, "{what}: something changed");
        assert!(beside(world) == around, "{what}: something changed beside it");
    }
    put(world, "/root/evil", &file(".husky/pre-commit", "100644", "permitted"));
    assert!(apply(world, &["--allow-git-config"]).output().ok().text().ends_with("1 file changed"));
    put(world, "/root/evil", &file("good", "100644", "good"));
    assert!(apply(world, &[]).output().ok().text().ends_with("1 file changed"));
    assert_eq!(std::fs::read_to_string(world.person().join("repo/good")).expect("applied"), "good\n");
    endless(world);
}

/// What lies beside the person's folder, and where the repository's link leads to.
fn beside(world: &World) -> [Vec<PathBuf>; 2] {
    let names = |folder: PathBuf| {
        let mut names: Vec<_> = std::fs::read_dir(folder).expect("read").map(|e| e.expect("read").path()).collect();
        names.sort();
        names
    };
    [names(world.folder().to_owned()), names(world.folder().join("elsewhere"))]
}

fn apply(world: &World, more: &[&str]) -> Run {
    world.banger(&[&["vm", "workspace", "export", "box", "--apply"], more].concat()).limit(BOOT)
}

/// Answers without end, or without a word: bounded memory, bounded time, a clear error, no file.
fn endless(world: &World) {
    println!("| answer | said | seconds |");
    for (what, answer, flags, word) in [
        ("10 GiB", "head -c 10737418240 /dev/zero; exit", &["--max-size", "48M"][..], "larger than 48 MiB"),
        ("zeros for ever", "exec cat /dev/zero", &["--max-size", "48M"], "larger than 48 MiB"),
        ("a line for ever", "exec tr '\\0' x </dev/zero", &["--max-size", "48M", "--apply"], "larger than 48 MiB"),
        (
            "a line a second",
            "while :; do echo; sleep 1; done",
            &["--timeout", "4s"],
            "has not made the patch within 4s",
        ),
        ("silence", "exec sleep 1000", &["--timeout", "4s"], "has not made the patch within 4s"),
        (
            "deaf silence",
            "trap '' TERM HUP INT; while :; do sleep 1; done",
            &["--timeout", "4s"],
            "has not made the patch within 4s",
        ),
    ] {
        put(world, "/root/answer", &format!("{answer}\n"));
        let begun = Instant::now();
        let ended = bounded(world, &[&["vm", "workspace", "export", "box", "-o", "out.patch"], flags].concat());
        ended.refuses(&[word]);
        println!("| {what} | {word} | {:.1} |", begun.elapsed().as_secs_f64());
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {:?}", begun.elapsed());
        let left = std::fs::read_dir(world.person()).expect("read").filter_map(Result::ok);
        let left: Vec<_> = left.map(|e| e.file_name()).filter(|n| n.to_string_lossy().contains("out.patch")).collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }
    put(world, "/root/chatters", "");
    let command = ["vm", "workspace", "prepare", "box", "repo", "--timeout", "4s"];
    bounded(world, &command).refuses(&["has not taken the repository in within 4s"]);
}

/// banger with little memory to have.
fn bounded(world: &World, arguments: &[&str]) -> Output {
    let script = format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\"");
    let binary = world.binary().to_str().expect("text").to_owned();
    world.tool("sh", &[&["-c", &script, &binary], arguments].concat()).limit(BOOT).output()
}

fn put(world: &World, path: &str, content: &str) {
    let script = format!("cat > {path}");
    world.banger(&["vm", "exec", "box", "--", "sh", "-c", &script]).input(content).limit(BOOT).output().ok();
}

/// All files below, but the patches that are saved, with what can be seen of each.
fn files(top: &Path) -> BTreeMap<PathBuf, (u32, u64, Vec<u8>)> {
    let saved = top.join("repo/.git/banger");
    let files = crate::census::files_below(top).into_iter().filter(|path| !path.starts_with(&saved));
    files
        .map(|path| {
            let about = path.symlink_metadata().expect("looked at");
            let content = std::fs::read(&path).unwrap_or_default();
            (path, (about.mode(), about.len(), content))
        })
        .collect()
}
