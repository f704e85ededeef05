//! What goes in, and what the second time.

use super::*;

#[test]
fn git_says_the_same_there_as_here() {
    let case = odd();
    let prepared = case.prepare();
    assert!(prepared.workspace.has_history && !prepared.is_update);
    case.assert_same();
    let line =
        |words: &[&str]| String::from_utf8(case.guest().line(words).expect("asked").expect("an answer")).expect("text");
    assert_eq!(line(&["config", "user.name"]), "A \"B\" C");
    assert_eq!(line(&["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    assert_eq!(case.guest().answer(&["fsck", "--full"]).map_err(|e| e.to_string()).map(|_| ()), Ok(()));
}

#[test]
fn untracked_and_included_files_go_in_when_asked_for() {
    let case = odd();
    case.write("untracked", "u\n");
    case.write("some/where/untracked", "u\n");
    case.write("ignored", "i\n");
    case.write("x.o", "o\n");
    case.write("y.o", "o\n");
    case.write(".git/info/exclude", "private\n");
    case.write("private", "p\n");
    let intake = Intake::of(case.top(), &Wishes::default()).expect("looked at");
    assert_eq!(intake.left_out, 2);
    let wishes = Wishes {
        untracked: true,
        include: vec![case.top().join("x.o"), case.top().join("private")],
        ..Wishes::default()
    };
    case.write(".bangerinclude", "/ignored\n");
    case.prepare_with(&wishes, false).expect("brought in");
    fs::remove_file(case.top().join("y.o")).expect("removed");
    case.assert_same();
    let patch = case.export(&From::Prepared);
    assert_eq!(patch::read(&patch[..]).expect("a patch"), [], "what came in is nothing that came of it");
    let changes = patch::read(&case.export(&From::Base)[..]).expect("a patch");
    let names: Vec<_> =
        changes.iter().filter_map(|c| c.new.clone()).map(|n| String::from_utf8_lossy(&n).into_owned()).collect();
    assert!(names.contains(&"untracked".to_owned()) && !names.contains(&"ignored".to_owned()), "{names:?}");
    assert!(!names.contains(&"private".to_owned()), "{names:?}");
}

#[test]
fn what_stays_out_of_a_repository_is_said() {
    let case = odd();
    let refused = |wishes: &Wishes| Intake::of(case.top(), wishes).expect_err("refused").to_string();
    let wishes = |include: &str| Wishes { include: vec![case.top().join(include)], ..Wishes::default() };
    assert!(refused(&wishes("no-such-file")).contains("nothing to include"));
    assert!(refused(&wishes("../x")).contains("not inside"));
    let branch = |branch: Option<&str>, from: Option<&str>| Wishes {
        branch: branch.map(str::to_owned),
        from: from.map(str::to_owned),
        ..Wishes::default()
    };
    assert!(refused(&branch(Some("a..b"), None)).contains("branch"));
    assert!(refused(&branch(Some("-x"), None)).contains("branch"));
    assert!(refused(&branch(Some("x"), Some("no-such"))).contains("no commit"));
    assert!(refused(&branch(Some("x"), Some("--all"))).contains("no commit"));
    let elsewhere = tempfile::tempdir().expect("a folder");
    let refused = |path: &Path| Intake::of(path, &Wishes::default()).expect_err("refused").to_string();
    assert!(refused(elsewhere.path()).contains("no git repository"));
    assert!(refused(&elsewhere.path().join("x")).contains("cannot use"));
    assert!(refused(&case.top().join("same")).contains("no folder"));
    assert!(refused(&case.top().join(".git")).contains("bare"));
    Git::at(elsewhere.path()).answer(&["init", "-q", "--bare", "b"]).expect("made");
    assert!(refused(&elsewhere.path().join("b")).contains("bare"));
}

#[test]
fn a_repository_may_be_empty_unborn_or_detached() {
    let empty = Case::new("empty");
    empty.prepare();
    empty.assert_same();
    let unborn = Case::new("unborn");
    unborn.write("a", "1\n");
    unborn.write("b", "1\n");
    unborn.git.answer(&["add", "a"]).expect("added");
    unborn.write("a", "2\n");
    unborn.prepare_with(&Wishes { untracked: true, ..Wishes::default() }, false).expect("brought in");
    unborn.assert_same();
    write(unborn.guest().folder(), "c", "c\n");
    let changes = patch::read(&unborn.export(&From::Prepared)[..]).expect("a patch");
    assert_eq!(changes.len(), 1);
    let detached = odd();
    detached.git.answer(&["checkout", "-q", "--detach"]).expect("detached");
    detached.prepare();
    detached.assert_same();
    assert_eq!(detached.guest().line(&["symbolic-ref", "-q", "HEAD"]).expect("asked"), None);
}

#[test]
fn conflicts_sparse_trees_worktrees_and_flags_go_in_as_they_are() {
    let case = odd();
    case.git.answer(&["reset", "-q", "--hard"]).expect("reset");
    case.git.answer(&["checkout", "-q", "-b", "other"]).expect("made");
    case.write("same", "theirs\n");
    case.write("edited", "theirs\n");
    case.commit("theirs");
    case.git.answer(&["checkout", "-q", "trunk"]).expect("back");
    case.write("same", "ours\n");
    case.git.answer(&["rm", "-q", "edited"]).expect("removed");
    case.commit("ours");
    assert!(case.git.answer(&["merge", "-q", "other"]).is_err(), "a conflict");
    case.prepare();
    case.assert_same();
    let worktree = odd();
    worktree.git.answer(&["reset", "-q", "--hard"]).expect("reset");
    let second = worktree.folder.path().join("second tree");
    let name = second.to_str().expect("text");
    worktree.git.answer(&["worktree", "add", "-q", "-b", "second", name]).expect("made");
    let second = Case { git: Git::at(&second), ..worktree };
    second.write("same", "edited in the second tree\n");
    second.git.answer(&["sparse-checkout", "set", "--no-cone", "/*", "!/dir/"]).expect("set");
    second.git.answer(&["update-index", "--assume-unchanged", "bin"]).expect("set");
    second.write("bin", "not seen\n");
    second.prepare();
    second.assert_same();
    assert!(!second.guest().folder().join("dir").exists());
}

#[test]
fn a_shallow_clone_stays_one() {
    let case = odd();
    case.git.answer(&["reset", "-q", "--hard"]).expect("reset");
    case.write("same", "second\n");
    case.commit("second");
    let clone = case.folder.path().join("clone");
    let source = format!("file://{}", case.top().display());
    Git::at(case.folder.path()).answer(&["clone", "-q", "--depth=1", &source, "clone"]).expect("cloned");
    let shallow = Case { git: Git::at(&clone), ..case };
    shallow.prepare();
    shallow.assert_same();
    assert_eq!(shallow.guest().answer(&["fsck"]).map_err(|e| e.to_string()).map(|_| ()), Ok(()));
    assert_eq!(shallow.guest().answer(&["rev-list", "--count", "HEAD"]).expect("asked"), b"1\n");
}

#[test]
fn submodules_are_refused_or_left_empty_and_nested_repositories_left_out() {
    let inner = odd();
    inner.git.answer(&["reset", "-q", "--hard"]).expect("reset");
    let case = odd();
    let url = inner.top().to_str().expect("text");
    case.git
        .answer(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "mod/one"])
        .expect("added");
    case.git.answer(&["commit", "-qm", "with a submodule"]).expect("committed");
    let refused = Intake::of(case.top(), &Wishes::default()).expect_err("refused").to_string();
    assert!(refused.contains("submodules (mod/one)"), "{refused}");
    case.prepare_with(&Wishes { no_submodules: true, ..Wishes::default() }, false).expect("brought in");
    assert!(case.guest().folder().join("mod/one").is_dir());
    let status = |git: &Git| git.answer(&["status", "--porcelain", "-z", "--no-renames"]).expect("asked");
    assert_eq!(String::from_utf8_lossy(&status(&case.guest())), String::from_utf8_lossy(&status(&case.git)));
    let nested = odd();
    nested.write("inner/x", "x\n");
    Git::at(&nested.top().join("inner")).answer(&["init", "-q"]).expect("made");
    nested.prepare_with(&Wishes { untracked: true, ..Wishes::default() }, false).expect("brought in");
    assert!(!nested.guest().folder().join("inner").exists());
}

#[test]
fn files_of_a_filter_go_in_with_their_content_and_count_as_unchanged() {
    let case = Case::new("filtered");
    case.git.answer(&["config", "filter.upper.clean", "tr a-z A-Z"]).expect("set");
    case.git.answer(&["config", "filter.upper.smudge", "tr A-Z a-z"]).expect("set");
    case.write(".gitattributes", "*.up filter=upper\n");
    case.write("a.up", "content\n");
    case.write("b.up", "content\n");
    case.write("plain", "content\n");
    case.commit("first");
    let intake = Intake::of(case.top(), &Wishes::default()).expect("looked at");
    assert_eq!(intake.filtered, [b"a.up", b"b.up"]);
    case.prepare();
    assert_eq!(tree(case.guest().folder()), tree(case.top()));
    assert_eq!(case.guest().answer(&["status", "--porcelain"]).expect("asked"), b"");
    write(case.guest().folder(), "plain", "changed\n");
    assert_eq!(patch::read(&case.export(&From::Base)[..]).expect("a patch").len(), 1);
}

#[test]
fn a_branch_begins_where_it_is_told_to() {
    let case = odd();
    case.git.answer(&["reset", "-q", "--hard"]).expect("reset");
    case.git.answer(&["tag", "v1"]).expect("tagged");
    case.write("same", "second\n");
    case.commit("second");
    case.write("same", "edited\n");
    let from = |branch: &str, from: Option<&str>| Wishes {
        branch: Some(branch.to_owned()),
        from: from.map(str::to_owned),
        ..Wishes::default()
    };
    let prepared = case.prepare_with(&from("fix/one", None), false).expect("brought in");
    case.assert_same();
    assert_eq!(prepared.workspace.base, prepared.workspace.head);
    let head = |case: &Case| case.guest().line(&["symbolic-ref", "HEAD"]).expect("asked").expect("a branch");
    assert_eq!(head(&case), b"refs/heads/fix/one");
    let intake = Intake::of(case.top(), &from("two", Some("v1"))).expect("looked at");
    assert!(intake.leaves_edits);
    let prepared = case.prepare_with(&from("two", Some("v1")), false).expect("brought in");
    assert_ne!(prepared.workspace.base, prepared.workspace.head);
    assert_eq!(head(&case), b"refs/heads/two");
    assert_eq!(fs::read(case.guest().folder().join("same")).expect("read"), b"same\nline\n");
    assert_eq!(case.guest().answer(&["status", "--porcelain"]).expect("asked"), b"");
}

#[test]
fn a_second_time_only_the_difference_travels_and_work_is_not_overwritten() {
    let case = odd();
    case.prepare();
    case.git.answer(&["commit", "-qam", "second"]).expect("committed");
    case.write("same", "third\n");
    case.commit("third");
    case.write("edited", "now edited\n");
    case.write("extra", "e\n");
    let untracked = Wishes { untracked: true, ..Wishes::default() };
    let prepared = case.prepare_with(&untracked, false).expect("brought in");
    assert!(prepared.is_update);
    assert_eq!(prepared.carried, 2, "one edited, one untracked");
    case.assert_same();
    assert_eq!(case.guest().answer(&["rev-list", "--count", "HEAD"]).expect("asked"), b"3\n");
    fs::remove_file(case.top().join("extra")).expect("removed");
    case.git.answer(&["reset", "-q", "--hard", "HEAD~1"]).expect("reset");
    case.prepare();
    case.assert_same();
    write(case.guest().folder(), "same", "work\n");
    let refused = case.prepare_with(&Wishes::default(), false).expect_err("refused");
    assert!(matches!(&refused, WorkspaceError::Changed(names) if names == &["same"]), "{refused}");
    case.prepare_with(&Wishes::default(), true).expect("brought in");
    case.assert_same();
    case.guest().answer(&["commit", "-q", "--allow-empty", "-m", "mine"]).expect("committed");
    assert!(matches!(case.prepare_with(&Wishes::default(), false), Err(WorkspaceError::Changed(_))));
    // A history that was written anew.
    case.git.answer(&["commit", "-q", "--amend", "-m", "another"]).expect("amended");
    case.prepare_with(&Wishes::default(), true).expect("brought in");
    case.assert_same();
    assert_eq!(case.guest().answer(&["fsck"]).map_err(|e| e.to_string()).map(|_| ()), Ok(()));
}

#[test]
fn a_preparation_that_did_not_end_is_done_again() {
    let case = odd();
    case.prepare();
    let guest = case.guest();
    write(guest.folder(), ".git/banger/partial", "");
    write(guest.folder(), "same", "half");
    let again = case.prepare_with(&Wishes::default(), false);
    assert!(matches!(again, Err(WorkspaceError::Changed(_))), "there was work before");
    guest.answer(&["update-ref", "-d", "refs/banger/prepared"]).expect("removed");
    case.prepare();
    case.assert_same();
}

#[test]
fn a_branch_of_the_guests_own_is_not_overwritten() {
    let case = odd();
    case.git.answer(&["reset", "-q", "--hard"]).expect("reset");
    case.prepare();
    let guest = case.guest();
    guest.answer(&["switch", "-q", "-c", "feature"]).expect("made");
    guest.answer(&["commit", "-q", "--allow-empty", "-m", "mine"]).expect("committed");
    guest.answer(&["switch", "-q", "trunk"]).expect("back");
    case.prepare();
    case.git.answer(&["switch", "-q", "-c", "feature"]).expect("made");
    let refused = case.prepare_with(&Wishes::default(), false).expect_err("refused").to_string();
    assert!(refused.contains("branch feature"), "{refused}");
}

#[test]
fn files_that_were_left_out_come_back_when_they_are_wanted() {
    let case = odd();
    case.git.answer(&["reset", "-q", "--hard"]).expect("reset");
    case.git.answer(&["sparse-checkout", "set", "--no-cone", "/*", "!/dir/"]).expect("set");
    case.prepare();
    case.assert_same();
    case.git.answer(&["sparse-checkout", "disable"]).expect("set");
    case.prepare();
    case.assert_same();
    assert!(case.guest().folder().join("dir/same").exists());
}

#[test]
fn a_repository_that_claims_other_files_does_not_send_them() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    fs::write(elsewhere.path().join("key"), "secret").expect("written");
    let case = odd();
    case.git.answer(&["reset", "-q", "--hard"]).expect("reset");
    fs::remove_dir_all(case.top().join("dir")).expect("removed");
    symlink(elsewhere.path(), case.top().join("dir")).expect("made");
    case.write("dir-list", "");
    let object = case.git.line(&["rev-parse", "HEAD:same"]).expect("asked").expect("there");
    let entry = format!("100644,{},dir/key", String::from_utf8_lossy(&object));
    fs::rename(case.top().join("dir"), case.top().join("away")).expect("moved");
    case.git.answer(&["update-index", "--add", "--cacheinfo", &entry]).expect("added");
    case.git.answer(&["update-index", "--assume-unchanged", "dir/key"]).expect("set");
    fs::rename(case.top().join("away"), case.top().join("dir")).expect("moved");
    case.prepare();
    let there = fs::read(case.guest().folder().join("dir/key")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&there).contains("secret"));
    case.git.answer(&["config", "core.worktree", elsewhere.path().to_str().expect("text")]).expect("set");
    let refused = Intake::of(case.top(), &Wishes::default()).expect_err("refused").to_string();
    assert!(refused.contains("core.worktree") || refused.contains("bare"), "{refused}");
}

#[test]
fn somebody_elses_folder_is_left_alone() {
    let case = odd();
    write(case.guest().folder(), "x", "mine");
    assert!(matches!(case.prepare_with(&Wishes::default(), false), Err(WorkspaceError::Taken(_))));
}

#[test]
fn a_folder_that_was_cut_short_is_made_anew() {
    let case = odd();
    let folder = case.guest_folder();
    let begun = PathBuf::from(format!("{folder}.banger-new"));
    write(&begun, "x", "left behind");
    fs::create_dir_all(begun.join(".git/objects")).expect("made");
    case.prepare();
    assert!(!begun.exists());
    case.assert_same();
}
