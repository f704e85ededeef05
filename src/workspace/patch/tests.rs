use super::*;
use crate::workspace::git::Git;

fn parse(text: &str) -> Result<Vec<Change>, PatchError> {
    read(text.as_bytes())
}

fn paths(changes: &[Change]) -> Vec<(String, String)> {
    let shown = |path: &Option<Vec<u8>>| {
        path.as_ref().map_or_else(|| "-".to_owned(), |p| String::from_utf8_lossy(p).into_owned())
    };
    changes.iter().map(|c| (shown(&c.old), shown(&c.new))).collect()
}

const SMALL: &str = "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -1 +1,2 @@\n-a\n+b\n+c\n\\ No newline at end of file\n";

#[test]
fn what_git_writes_is_understood_whatever_the_names_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let git = Git::at(folder.path());
    git.answer(&["init", "-q"]).expect("made");
    for setting in ["user.name", "user.email"] {
        git.answer(&["config", setting, "x@example.org"]).expect("set");
    }
    let write = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).expect("written");
    for name in ["gone", "same", "moved", "mode", "a b", "tab\tand \"quote\"", "ü\n", "bin"] {
        write(name, format!("one\ntwo\nthree\n{name}\n").repeat(4).as_bytes());
    }
    git.answer(&["add", "."]).expect("added");
    git.answer(&["commit", "-qm", "1"]).expect("committed");
    std::fs::rename(folder.path().join("moved"), folder.path().join("moved to")).expect("moved");
    std::fs::remove_file(folder.path().join("gone")).expect("removed");
    for name in ["a b", "tab\tand \"quote\"", "ü\n", "new b/new"] {
        if let Some((folder_name, _)) = name.split_once('/') {
            std::fs::create_dir(folder.path().join(folder_name)).expect("made");
        }
        write(name, b"one\n2\nthree");
    }
    write("bin", &(0..=255).cycle().take(5000).collect::<Vec<u8>>());
    write("empty", b"");
    std::os::unix::fs::symlink("a b", folder.path().join("link")).expect("made");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder.path().join("mode"), std::fs::Permissions::from_mode(0o755)).expect("set");
    git.answer(&["add", "-A"]).expect("added");
    let patch = git.answer(&["diff", "--cached", "--binary", "--full-index", "-M", "HEAD"]).expect("made");
    let changes = read(&patch[..]).expect("understood");
    let mut found: Vec<String> = changes
        .iter()
        .map(|c| {
            let last = c.new.as_ref().or(c.old.as_ref()).expect("a name");
            String::from_utf8_lossy(last).into_owned()
        })
        .collect();
    found.sort();
    let expected =
        ["a b", "bin", "empty", "gone", "link", "mode", "moved to", "new b/new", "tab\tand \"quote\"", "ü\n"];
    assert_eq!(found, expected);
    let link = changes.iter().find(|c| c.new.as_deref() == Some(b"link")).expect("there");
    assert_eq!((link.mode.as_deref(), link.added.as_slice(), link.is_whole), (Some("120000"), &b"a b\n"[..], true));
    let moved = changes.iter().find(|c| c.new.as_deref() == Some(b"moved to")).expect("there");
    assert_eq!(moved.old.as_deref(), Some(&b"moved"[..]));
}

#[test]
fn a_header_stands_before_it_and_nothing_else() {
    let text = format!("# banger: vm 'box'\n# base: x\n\n{SMALL}{}", SMALL.replace("/x", "/y"));
    assert_eq!(paths(&parse(&text).expect("understood")), [("x".into(), "x".into()), ("y".into(), "y".into())]);
    assert_eq!(parse("# nothing\n").expect("understood"), []);
    assert!(parse(&format!("--- a/z\n+++ b/z\n@@ -0,0 +1 @@\n+z\n{SMALL}")).is_err());
}

#[test]
fn what_git_does_not_write_is_refused() {
    let table = [
        SMALL.replace("--- a/x", "--- a/y"),
        SMALL.replace("+++ b/x", "+++ ../y"),
        SMALL.replace("+++ b/x", "+++ /dev/null"),
        SMALL.replace("a/x b/x", "a/x b/y"),
        SMALL.replace("@@ -1 +1,2 @@", "@@ -1 +1,3 @@"),
        SMALL.replace("@@ -1 +1,2 @@", "@@ -1 +1,1 @@"),
        SMALL.replace("@@ -1 +1,2 @@", "@@ -1 +1,99999999999999999999 @@"),
        SMALL.replace("100644", "1006444"),
        format!("{SMALL}--- a/z\n+++ b/z\n@@ -0,0 +1 @@\n+z\n"),
        format!("{SMALL}Index: z\n"),
        "diff --git a/x b/x\nrename from x\n".to_owned(),
        "diff --git \"a/\\000x\" \"b/\\000x\"\nnew file mode 100644\n".to_owned(),
        "diff --git a/x b/x\nnew file mode 100644\ndeleted file mode 100644\n".to_owned(),
        "diff --git a/x b/x\nindex 1..2\nGIT binary patch\nliteral 3\nz  bad\n\n".to_owned(),
        "diff --git a/x b/x\nindex 1..2\nGIT binary patch\n".to_owned(),
        "diff --git a/x b/x\nindex 1..2\nGIT binary patch\nliteral 3\nKcmZ".to_owned(),
        "diff --cc x\n".to_owned(),
    ];
    for text in table {
        assert!(parse(&text).is_err(), "{text}");
    }
}

#[test]
fn every_truncation_is_refused_or_a_shorter_patch_and_no_byte_makes_it_panic() {
    let whole = format!(
        "{SMALL}diff --git a/b b/b\nindex 1..2 100644\nGIT binary patch\nliteral 3\nKcmZ\n\nliteral 0\nHcmV?d00001\n\n"
    );
    assert_eq!(parse(&whole).expect("understood").len(), 2);
    for length in 0..whole.len() {
        let _ = read(&whole.as_bytes()[..length]);
    }
    for at in 0..whole.len() {
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= flip;
            let _ = read(&bytes[..]);
        }
    }
}

#[test]
fn a_line_without_end_takes_no_memory() {
    use std::io::Read;
    let endless = io::BufReader::new(SMALL.as_bytes().chain(io::repeat(b'x').take(64 << 20)));
    assert!(read(endless).is_err());
}
