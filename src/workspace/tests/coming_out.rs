//! What came of it, as a patch.

use super::*;

/// Changes everything that can be changed in a guest.
fn work(guest: &Git) {
    let top = guest.folder();
    write(top, "same", "work\n");
    guest.answer(&["commit", "-q", "-am", "in the guest"]).expect("committed");
    write(top, "committed-new", "c\n");
    guest.answer(&["add", "committed-new"]).expect("added");
    guest.answer(&["commit", "-q", "-m", "another"]).expect("committed");
    write(top, "untracked/deep/x", "u\n");
    write(top, OsStr::from_bytes(b"untracked \xf0\n"), "u");
    write(top, "bin", (0..=255u8).rev().cycle().take(90_000).collect::<Vec<_>>());
    write(top, "crlf", "one\r\n2\r\n");
    write(top, "eol/x.txt", "one\r\n2\r\n");
    write(top, "ignored", "not wanted");
    fs::rename(top.join("dir/same"), top.join("moved")).expect("moved");
    fs::remove_file(top.join("a b")).expect("removed");
    make_executable(&top.join("intended-not"));
    symlink("same", top.join("new-link")).expect("made");
    guest.answer(&["add", "moved"]).expect("added");
    write(top, "moved", "staged and edited\n");
}

/// Hashes of everything that git would commit, which says the same as the files do.
fn hashes(git: &Git) -> String {
    git.answer(&["add", "-A"]).expect("added");
    String::from_utf8_lossy(&git.answer(&["ls-files", "--stage", "-z"]).expect("listed")).into_owned()
}

#[test]
fn what_came_of_it_comes_out_and_nothing_in_the_guest_changes() {
    let case = odd();
    case.prepare();
    work(&case.guest());
    let look = |words: &[&str]| String::from_utf8_lossy(&case.guest().answer(words).expect("asked")).into_owned();
    let state = || {
        let all = [
            look(&["status", "--porcelain", "-z"]),
            look(&["for-each-ref"]),
            look(&["ls-files", "--stage", "-z"]),
            look(&["count-objects", "-v"]),
        ];
        (all, fs::read(case.guest().folder().join(".git/index")).expect("read"))
    };
    // git refreshes the index by itself when it is asked for the status.
    let before = (state(), state()).1;
    let patch = case.export(&From::Base);
    assert!(before == state(), "the guest's repository is another");
    assert!(patch.starts_with(b"# base: "));

    let clone = case.folder.path().join("clone");
    let source = case.top().to_str().expect("text");
    Git::at(case.folder.path()).answer(&["clone", "-q", source, clone.to_str().expect("text")]).expect("cloned");
    let file = case.folder.path().join("out.patch");
    fs::write(&file, &patch).expect("written");
    let clone = Git::at(&clone);
    clone.answer(&["apply", "--whitespace=nowarn", file.to_str().expect("text")]).expect("applies");
    assert_eq!(hashes(&clone), hashes(&case.guest()));
}

#[test]
fn what_the_guest_did_is_applied_on_top_of_edits_here() {
    let case = odd();
    case.prepare();
    work(&case.guest());
    let file = case.folder.path().join("out.patch");
    fs::write(&file, case.export(&From::Prepared)).expect("written");
    let changed = apply(case.top(), &file, false).expect("applies");
    assert!(changed >= 10, "{changed}");
    let mut there = tree(case.guest().folder());
    there.remove(Path::new("ignored"));
    assert_eq!(tree(case.top()), there);
}

#[test]
fn an_edit_of_the_same_second_and_size_is_seen() {
    for _ in 0..5 {
        let case = Case::new("racy");
        case.write("a", "one\n");
        case.commit("first");
        case.write("a", "two\n");
        case.prepare();
        write(case.guest().folder(), "a", "six\n");
        let patch = case.export(&From::Prepared);
        assert!(patch.windows(10).any(|w| w == b"-two\n+six\n"), "{}", String::from_utf8_lossy(&patch));
    }
}
