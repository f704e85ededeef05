use super::*;

fn parse_words(words: &[&str]) -> Result<Parsed, Usage> {
    parse("banger", words.iter().map(OsString::from).collect())
}

fn done(words: &[&str]) -> Invocation {
    match parse_words(words) {
        Ok(Parsed::Do(invocation, _)) => *invocation,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn refused(words: &[&str]) -> Usage {
    parse_words(words).expect_err(&format!("{words:?}"))
}

fn run_flags(words: &[&str]) -> (VmFlags, bool, Option<Vec<OsString>>) {
    let invocation = done(words);
    match invocation.command {
        Command::Vm(VmGroup { command: VmCommand::Run(run) }) => (run.flags(), run.rm, invocation.guest_command),
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_may_be_written_with_an_equals_sign() {
    let (apart, ..) = run_flags(&["vm", "run", "--name", "box", "--memory", "1G"]);
    let (joined, ..) = run_flags(&["vm", "run", "--name=box", "--memory=1G"]);
    assert_eq!(apart, joined);
    assert_eq!(joined.name.expect("a name").as_str(), "box");
}

#[test]
fn what_stands_behind_two_dashes_is_for_the_guest_as_it_is() {
    for command in [&["-x"][..], &["help"], &["--help"], &["a=b", "--", "--rm"], &["", " "]] {
        let words = [&["vm", "run", "--rm", "--"], command].concat();
        let (flags, rm, guest) = run_flags(&words);
        assert_eq!(guest, Some(command.iter().map(OsString::from).collect()), "{command:?}");
        assert!(rm && flags == VmFlags::default());
    }
    assert_eq!(run_flags(&["vm", "run"]).2, None);
}

#[test]
fn a_guest_command_need_not_be_text() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = OsString::from_vec(vec![0xff, b'a']);
    let words = ["vm", "run", "--"].iter().map(OsString::from).chain([bytes.clone()]).collect();
    match parse("banger", words) {
        Ok(Parsed::Do(invocation, _)) => assert_eq!(invocation.guest_command, Some(vec![bytes.clone()])),
        other => panic!("{other:?}"),
    }
    assert!(parse("banger", vec!["vm".into(), bytes]).is_err());
}

#[test]
fn bad_names_are_refused_here() {
    let long = "a".repeat(64);
    for name in ["Box", "-a", &long, "a/../b", "a\nb", "bøx", "", "a.b", "a-"] {
        let usage = refused(&["vm", "run", "--name", name]);
        assert!(usage.message.starts_with("--name: VM name"), "{name:?}: {}", usage.message);
        assert!(!usage.message.contains('\n'), "{name:?}");
        let usage = refused(&["vm", "run", &format!("--name={name}")]);
        assert!(usage.message.starts_with("--name: VM name"), "{name:?}: {}", usage.message);
    }
    for name in ["Box", &long, "a/../b", "a\nb", "bøx"] {
        assert!(refused(&["vm", "ssh", name]).message.starts_with("NAME: VM name"), "{name:?}");
    }
}

#[test]
fn bad_numbers_and_sizes_are_refused_here() {
    for value in ["0", "65", "-1", "300", "two", ""] {
        assert!(refused(&["vm", "run", "--vcpu", value]).message.starts_with("--vcpu: "), "{value}");
    }
    for value in ["1.5G", "lots", "", "-1"] {
        assert!(refused(&["vm", "run", "--memory", value]).message.starts_with("--memory: "), "{value}");
    }
    assert!(refused(&["vm", "run", "--init", "systemd"]).message.contains("image or minimal"));
}

#[test]
fn aliases_are_the_same_commands() {
    assert_eq!(done(&["vm", "ls", "-q"]), done(&["vm", "list", "--quiet"]));
    assert_eq!(done(&["vm", "rm", "a", "b"]), done(&["vm", "delete", "a", "b"]));
    assert_eq!(done(&["kernel", "rm", "a"]), done(&["kernel", "delete", "a"]));
    assert_eq!(done(&["ps", "-aq"]), done(&["ps", "-a", "-q"]));
    assert_eq!(done(&["--version"]), done(&["version"]));
}

#[test]
fn the_programs_name_is_a_command_too() {
    let parsed = parse("banger-vm-run", vec!["--rm".into()]).expect("parses");
    assert_eq!(parsed, parse_words(&["vm", "run", "--rm"]).expect("parses"));
    assert_eq!(parse("banger", vec!["ps".into()]), parse("banger-ps", vec![]));
}

#[test]
fn a_name_that_is_no_command_is_plain_banger() {
    for name in ["banger-x86_64", "banger-0.1.0", "banger-", "banger-old-vm", "other"] {
        assert_eq!(parse(name, vec!["ps".into()]), parse("banger", vec!["ps".into()]), "{name}");
    }
}

#[test]
fn a_slip_is_answered_with_the_nearest_word() {
    for (words, meant) in [
        (&["vm", "lst"][..], "`list`"),
        (&["vm", "rnu"], "`run`"),
        (&["vm", "shh"], "`ssh`"),
        (&["vm", "pull"], "`image pull`"),
        (&["vm", "workspace", "exprot"], "`export`"),
        (&["image", "cache", "prnue"], "`prune`"),
        (&["help", "doctro"], "`doctor`"),
        (&["kernel", "import", "--hsot"], "`--host`"),
        (&["ps", "--josn"], "`--json`"),
        (&["vn", "run"], "`vm`"),
        (&["vm", "run", "--nmae", "x"], "`--name`"),
        (&["vm", "run", "--disk", "1G"], "`--disk-size`"),
        (&["image", "pul", "x"], "`pull`"),
    ] {
        let usage = refused(words);
        assert!(usage.message.contains(meant), "{}", usage.message);
    }
    assert!(!refused(&["vm", "frobnicate"]).message.contains("did you mean"));
}

#[test]
fn what_a_command_does_not_take_is_refused() {
    for words in [
        &["vm", "run", "--rm=yes"][..],
        &["vm", "run", "--name"],
        &["vm", "run", "--name", "a", "--name", "b"],
        &["vm", "run", "--fast"],
        &["vm", "run", "--"],
        &["vm", "ssh"],
        &["vm", "show", "a", "b"],
        &["vm"],
        &[],
        &["image"],
        &["vm", "list", "help"],
        &["vm", "delete", "--", "-x"],
    ] {
        let usage = refused(words);
        assert!(usage.hint.starts_with("banger") && usage.hint.ends_with("--help"), "{words:?}");
    }
    assert_eq!(refused(&["vm", "ssh"]).message, "NAME is missing");
    assert_eq!(refused(&["vm", "create", "./repo"]).hint, "banger vm create --help");
    assert_eq!(refused(&["vm", "run", "./repo", "make"]).message, "`banger vm run` does not take \"make\"");
    assert!(refused(&["vm", "run", "repo", "--naem", "x"]).message.contains("--naem"));
    assert_eq!(refused(&["vm", "run", "--name", "a", "--name", "b"]).message, "--name: given twice");
}

#[test]
fn a_command_of_a_group_is_found_without_its_group() {
    for (word, meant) in [("run", "`vm run`"), ("ssh", "`vm ssh`"), ("pull", "`image pull`"), ("ls", "`vm list`")] {
        let usage = refused(&[word]);
        assert!(usage.message.contains(meant), "{}", usage.message);
    }
}

#[test]
fn a_forgotten_double_dash_is_put_where_it_belongs() {
    for (words, meant) in [
        (&["vm", "ssh", "box", "echo", "a b"][..], "banger vm ssh box -- echo 'a b' "),
        (&["vm", "ssh", "box", "echo a; exit 4"], "banger vm ssh box -- sh -c 'echo a; exit 4' "),
        (&["vm", "ssh", "box", "ls", "-la"], "banger vm ssh box -- ls -la "),
        (&["vm", "run", "--rm", "--name", "x", "uname", "-a"], "banger vm run --rm --name x -- uname -a "),
        (&["vm", "run", "cat", "/etc/hosts"], "banger vm run -- cat /etc/hosts "),
        (&["vm", "run", "./repo", "make", "test"], "banger vm run ./repo -- make test "),
    ] {
        let usage = refused(words);
        assert!(usage.hint.starts_with(meant), "{words:?}: {}", usage.hint);
    }
    assert!(refused(&["vm", "show", "a", "b"]).hint.ends_with("--help"));
    assert!(refused(&["vm", "run", "--rm", "debian", "uname"]).hint.ends_with("an image behind --image)"));
}

#[test]
fn words_of_other_tools_are_known() {
    for (words, meant) in [
        (&["vm", "top", "box"][..], "`stats`"),
        (&["vm", "inspect", "box"], "`show`"),
        (&["image", "info", "x"], "`show`"),
        (&["shell", "box"], "`vm ssh`"),
    ] {
        assert!(refused(words).message.contains(meant), "{words:?}: {}", refused(words).message);
    }
}

#[test]
fn help_before_a_command_is_its_page() {
    for Page { path, .. } in pages() {
        let page = parse_words(&[path.as_slice(), &["--help"]].concat()).expect("a page");
        assert_eq!(parse_words(&[&["help"], path.as_slice()].concat()).expect("a page"), page, "{path:?}");
        let Some((own, group)) = path.split_last() else { continue };
        assert_eq!(parse_words(&[group, &["help", *own]].concat()).expect("a page"), page, "{path:?}");
    }
    assert!(refused(&["help", "vm", "lst"]).message.contains("`list`"));
}

fn with_aliases(name: &str, words: &[&str], aliases: Result<&[(&str, &str)], &str>) -> Result<Parsed, Usage> {
    let one = |(name, text): &(&str, &str)| {
        (name.to_string().try_into().expect("a name"), text.to_string().try_into().expect("an alias"))
    };
    let known = aliases.map(|all| all.iter().map(one).collect::<Aliases>()).map_err(str::to_owned);
    Typed::read(name, words.iter().map(OsString::from).collect(), || known).parse()
}

#[test]
fn an_alias_is_what_it_stands_for() {
    let known = Ok(&[("t", "vm run --rm"), ("ps", "vm delete"), ("stat", "vm stats")][..]);
    let plain = parse_words(&["vm", "run", "--rm", "--", "true"]);
    assert_eq!(with_aliases("banger", &["t", "--", "true"], known), plain);
    assert_eq!(with_aliases("t", &["--", "true"], known), plain);
    assert_eq!(with_aliases("banger", &["ps"], known), parse_words(&["ps"]));
    assert_eq!(with_aliases("banger", &["help", "t"], known), parse_words(&["vm", "run", "--help"]));
    assert!(with_aliases("banger", &["stta"], known).expect_err("unknown").message.contains("did you mean `stat`"));
}

#[test]
fn a_wrong_configuration_is_in_nobodys_way_but_an_aliass() {
    let broken = Err("config.toml:1: no");
    for words in [&["ps"][..], &["--help"], &["--version"], &["vm", "run", "--", "t"]] {
        assert_eq!(with_aliases("banger", words, broken), parse_words(words), "{words:?}");
        assert_eq!(with_aliases("banger-x86_64", words, broken), parse_words(words), "{words:?}");
    }
    let refused = with_aliases("banger", &["t", "--", "true"], broken).expect_err("unknown");
    assert_eq!((refused.message.as_str(), refused.guest_command), ("config.toml:1: no", true));
}

#[test]
fn help_is_a_name_like_any_other() {
    match done(&["vm", "ssh", "help"]).command {
        Command::Vm(VmGroup { command: VmCommand::Ssh(ssh) }) => assert_eq!(ssh.name.as_str(), "help"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_line_before_a_guest_command_says_so() {
    assert!(refused(&["vm", "run", "--vcpu", "0", "--", "true"]).guest_command);
    assert!(refused(&["vm", "run", "--bogus", "--", "true"]).guest_command);
    assert!(refused(&["vm", "ssh", "Box", "--", "true"]).guest_command);
    assert!(!refused(&["vm", "run", "--vcpu", "0"]).guest_command);
    assert!(!refused(&["vm", "delete", "Box", "--", "x"]).guest_command);
}

#[test]
fn every_page_of_help_fits_and_has_an_example() {
    let found = pages();
    assert!(found.len() > 30);
    for Page { path, help, .. } in found {
        assert!(help.contains("Examples:"), "{path:?}");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{path:?}: {line}");
        }
    }
}

#[test]
fn the_code_of_a_failure_is_promised_for_a_command_only() {
    for command in ["run", "ssh"] {
        match parse_words(&["vm", command, "--help"]).expect("a page") {
            Parsed::Help { text, .. } => assert!(text.contains("with CMD 125; with a shell"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn help_is_shown_wherever_it_is_asked_for() {
    let page = parse_words(&["vm", "run", "--help"]).expect("a page");
    for words in [
        &["vm", "run", "-h"][..],
        &["--help", "vm", "run"],
        &["vm", "--help", "run"],
        &["vm", "run", "--rm", "--help", "--name", "x"],
        &["vm", "run", "--help", "--", "x"],
    ] {
        assert_eq!(parse_words(words).expect("a page"), page, "{words:?}");
    }
}

#[test]
fn a_lone_dash_is_a_place_to_copy_from_or_to() {
    for words in [["-", "box:/srv"], ["box:/srv", "-"]] {
        match done(&[&["vm", "cp"][..], &words].concat()).command {
            Command::Vm(VmGroup { command: VmCommand::Cp(cp) }) => assert_eq!([cp.src, cp.dst], words),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_lone_dash_stands_before_and_behind_flags() {
    for words in [["-", "--name", "mine"], ["--name", "mine", "-"], ["--name=mine", "--", "-"]] {
        let words: Vec<&str> = words.into_iter().collect();
        match done(&[&["image", "pull"][..], &words].concat()).command {
            Command::Image(ImageGroup { command: ImageCommand::Pull(pull) }) => {
                assert_eq!(pull.source, PullSource::DockerArchive(None));
                assert_eq!(pull.name.expect("a name").as_str(), "mine");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_command_for_a_running_vm_stands_behind_two_dashes() {
    let invocation = done(&["vm", "exec", "box", "-d", "--", "make", "-j2"]);
    assert_eq!(invocation.guest_command, Some(vec!["make".into(), "-j2".into()]));
    let limited = done(&["vm", "exec", "box", "--timeout", "1m30s", "--", "true"]);
    match limited.command {
        Command::Vm(VmGroup { command: VmCommand::Exec(exec) }) => {
            assert_eq!(exec.timeout.map(crate::model::TimeSpan::seconds), Some(90));
        }
        other => panic!("{other:?}"),
    }
}

fn asked_of(words: &[&str]) -> (Option<String>, Vec<String>) {
    match parse_words(words) {
        Ok(Parsed::Do(invocation, words)) => (invocation.host.map(|host| host.to_string()), words),
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn another_machine_stands_before_the_command_and_is_none_of_its_words() {
    for words in [["--host", "ssh://me@box:22", "vm", "ls", "-q"], ["--host", "ssh://me@box", "vm", "list", "-q"]] {
        let (host, words) = asked_of(&words);
        assert_eq!((host.as_deref(), words), (Some("me@box"), ["vm", "list", "-q"].map(str::to_owned).to_vec()));
    }
    assert_eq!(asked_of(&["--host=ssh://vm", "doctor"]), (Some("vm".into()), vec!["doctor".into()]));
    assert_eq!(asked_of(&["--host=ssh://box", "--version"]), (Some("box".into()), vec!["version".into()]));
    assert_eq!(asked_of(&["ps"]).0, None);
    assert!(refused(&["--host", "box", "ps"]).message.starts_with("--host: a machine is named by ssh://"));
    assert!(refused(&["--host=ssh://-oX=y", "ps"]).message.starts_with("--host: "));
    assert!(refused(&["ps", "--host", "ssh://box"]).message.contains("has no option"));
    assert!(refused(&["--host=box", "vm", "run", "--", "true"]).guest_command);
}
