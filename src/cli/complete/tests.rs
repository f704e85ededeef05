use super::offer::Native;
use super::value::{Live, Where, Which};
use super::*;
use crate::system::completions::Shell;

/// What is offered behind `banger WORDS`, the last of them not finished; which names were asked for.
fn offered_by(program: &str, words: &[&str]) -> (Offer, Vec<Live>) {
    let (word, before) = words.split_last().expect("a word");
    let (program, words) = (program.to_owned(), before.iter().map(|word| word.to_string()).collect());
    let request = Request { shell: Shell::Fish, program, words, word: word.to_string(), bash: None };
    let spot = Understood::of(&request).spot;
    let mut asked = Vec::new();
    let mut fetch = |live: &Live| {
        asked.push(*live);
        ["box", "web", "$(evil)"].map(|name| Candidate::new(name, "running")).to_vec()
    };
    let own = Own {
        aliases: vec![Candidate::new("t", "vm run --rm"), Candidate::new("ps", "vm list")],
        sets: vec![Candidate::new("@python", "")],
    };
    let offer = offer::offer(&spot, &request.word, &own, &mut fetch);
    (offer, asked)
}

fn offered(words: &[&str]) -> Vec<String> {
    offered_by("banger", words).0.candidates.into_iter().map(|candidate| candidate.text).collect()
}

fn asked(words: &[&str]) -> Vec<Live> {
    offered_by("banger", words).1
}

fn native(words: &[&str]) -> Option<Native> {
    offered_by("banger", words).0.native
}

#[test]
fn commands_come_with_what_they_do() {
    let all = offered(&["vm", ""]);
    assert!(
        all.contains(&"run".to_owned()) && all.contains(&"workspace".to_owned()) && !all.contains(&"ls".to_owned())
    );
    assert_eq!(offered(&["vm", "workspace", ""]), ["prepare", "export"]);
    assert!(offered(&["vm", "rm"]).contains(&"rm".to_owned()), "another word for a command completes");
    let run = offered_by("banger", &["vm", ""]).0.candidates.into_iter().find(|c| c.text == "run").expect("run");
    assert_eq!(run.about, "create a VM, bring a repository in, run a shell or a command");
    assert!(offered(&["nosuch", ""]).is_empty());
}

#[test]
fn aliases_are_commands_unless_banger_has_one_of_that_name() {
    let all = offered(&[""]);
    assert_eq!(all.iter().filter(|word| *word == "t").count(), 1);
    assert_eq!(all.iter().filter(|word| *word == "ps").count(), 1);
    assert!(all.contains(&"help".to_owned()));
    assert_eq!(offered(&["help", "image", "cache", ""]), ["prune"]);
    assert_eq!(offered(&["schema", "image", "cache", ""]), ["prune"]);
    assert!(offered(&["help", "vm", "run", ""]).is_empty());
}

#[test]
fn what_is_typed_already_is_not_offered_unless_it_repeats() {
    let left = offered(&["vm", "run", "--rm", "-d", "--image", "x", "-p", "1:2", "--memory=1G", "--"]);
    for gone in ["--rm", "--detach", "--image", "--memory"] {
        assert!(!left.contains(&gone.to_owned()), "{gone}");
    }
    for still in ["--publish", "--env", "--kernel", "--"] {
        assert!(left.contains(&still.to_owned()), "{still}");
    }
    assert!(!left.contains(&"--fail".to_owned()), "hidden");
    assert_eq!(offered(&["ps", "-aq", "--"]), ["--no-trunc", "--format", "--help", "--json", "--no-input"]);
    assert_eq!(offered(&["daemon", "stop", "--json", "--"]), ["--help", "--no-input"]);
    assert!(offered(&["vm", "logs", "-f"]).contains(&"-f".to_owned()));
}

#[test]
fn flags_have_values() {
    assert_eq!(offered(&["vm", "run", "--init", ""]), ["image", "minimal"]);
    assert_eq!(offered(&["vm", "set", "box", "--nat", ""]), ["on", "off"]);
    assert_eq!(offered(&["vm", "set", "box", "--idle-stop", ""]), ["off"]);
    assert_eq!(offered(&["image", "pull", "x", "--platform", ""]), ["linux/amd64", "linux/arm64"]);
    assert_eq!(offered(&["vm", "run", "--allow", ""]), ["@python"]);
    assert_eq!(offered(&["completion", ""]), ["bash", "zsh", "fish"]);
    assert_eq!(asked(&["vm", "run", "--image", ""]), [Live::Images(Where::Anywhere)]);
    assert_eq!(asked(&["vm", "create", "--kernel", ""]), [Live::Kernels(Where::Anywhere)]);
    assert_eq!(native(&["vm", "run", "--env-file", ""]), Some(Native::Files));
    assert_eq!(native(&["kernel", "import", "--modules", ""]), Some(Native::Folders));
    assert_eq!(native(&["daemon", "start", "--owner", ""]), Some(Native::Users));
    let (free, asked) = offered_by("banger", &["vm", "run", "--name", ""]);
    assert_eq!((free, asked), (Offer::default(), vec![]));
}

#[test]
fn a_value_may_stand_behind_an_equals_sign() {
    let offer = offered_by("banger", &["vm", "run", "--init=mi"]).0;
    assert_eq!((offer.stem.as_str(), offer.candidates.len()), ("--init=", 2));
    assert_eq!(offered_by("banger", &["vm", "run", "--env-file=/e"]).0.stem, "--env-file=");
    assert!(offered(&["vm", "run", "--rm=x"]).iter().all(|flag| flag.starts_with('-')));
}

#[test]
fn each_command_has_the_vms_that_it_is_for() {
    for (words, which) in [
        (&["vm", "start", ""][..], Which::Startable),
        (&["vm", "stop", ""], Which::Alive),
        (&["vm", "kill", ""], Which::Alive),
        (&["vm", "ssh", ""], Which::Running),
        (&["vm", "exec", ""], Which::Running),
        (&["vm", "workspace", "export", ""], Which::Running),
        (&["vm", "delete", ""], Which::All),
        (&["vm", "rm", ""], Which::All),
        (&["vm", "logs", "-f", ""], Which::All),
        (&["image", "commit", ""], Which::All),
    ] {
        assert_eq!(asked(words), [Live::Vms(which)], "{words:?}");
    }
    assert_eq!(offered(&["vm", "stop", ""]), ["box", "web"], "and nothing that a shell could take for a command");
    assert_eq!(offered(&["vm", "delete", "box", ""]), ["web"]);
    assert!(offered(&["vm", "attach", "box", ""]).is_empty());
    assert!(asked(&["vm", "show", "box", ""]).is_empty());
}

#[test]
fn images_and_kernels_are_here_or_in_the_catalogue() {
    assert_eq!(asked(&["image", "delete", ""]), [Live::Images(Where::Here)]);
    assert_eq!(asked(&["image", "promote", ""]), [Live::Images(Where::Registered)]);
    assert_eq!(asked(&["kernel", "pull", ""]), [Live::Kernels(Where::Elsewhere)]);
    assert_eq!(offered(&["image", "pull", ""]), ["box", "web", "oci-archive:", "docker-archive:"]);
    let archive = offered_by("banger", &["image", "pull", "oci-archive:/t"]).0;
    assert_eq!((archive.stem.as_str(), archive.native), ("oci-archive:", Some(Native::Files)));
    assert!(asked(&["image", "commit", "box", ""]).is_empty());
}

#[test]
fn a_copy_has_one_side_in_a_vm() {
    let (both, asked) = offered_by("banger", &["vm", "cp", ""]);
    assert_eq!((both.native, asked), (Some(Native::Files), vec![Live::Vms(Which::Running)]));
    assert_eq!(offered(&["vm", "cp", ""]), ["box:", "web:"]);
    let from_vm = offered_by("banger", &["vm", "cp", "box:/etc", ""]).0;
    assert_eq!((from_vm.native, from_vm.candidates.len()), (Some(Native::Files), 0));
    let to_vm = offered_by("banger", &["vm", "cp", "./a:b", ""]).0;
    assert_eq!((to_vm.native, to_vm.candidates.len()), (None, 2));
    assert_eq!(offered_by("banger", &["vm", "cp", "box:/e"]).0, Offer::default(), "nobody asks the guest");
    assert_eq!(offered(&["vm", "cp", "-"]), ["box:", "web:"], "a stream");
}

#[test]
fn paths_are_the_shells_own() {
    assert_eq!(native(&["vm", "run", ""]), Some(Native::Folders));
    assert_eq!(native(&["vm", "workspace", "prepare", "box", ""]), Some(Native::Folders));
    assert!(offered(&["vm", "run", "./repo", ""]).contains(&"--rm".to_owned()), "and then flags");
}

#[test]
fn the_guests_command_is_not_bangers() {
    let place = |program: &str, words: &[&str]| {
        let (word, before) = words.split_last().expect("a word");
        let (program, words) = (program.to_owned(), before.iter().map(|word| word.to_string()).collect());
        Understood::of(&Request { shell: Shell::Zsh, program, words, word: word.to_string(), bash: None }).guest_at
    };
    assert_eq!(place("banger", &["vm", "run", "--rm", "--", ""]), Some(5));
    assert_eq!(place("banger", &["vm", "exec", "box", "--", "ls", "--color"]), Some(5));
    assert_eq!(place("banger-vm-exec", &["box", "--", "ls", ""]), Some(3));
    assert_eq!(place("banger", &["vm", "delete", "--", ""]), None);
    assert_eq!(asked(&["vm", "delete", "--", ""]), [Live::Vms(Which::All)]);
    assert_eq!(as_typed(4, Some(Inserted { at: 0, count: 4, removed: 1 })), Some(1));
    assert_eq!(as_typed(3, Some(Inserted { at: 0, count: 4, removed: 1 })), None);
}

#[test]
fn a_name_that_is_a_command_completes_as_one() {
    assert_eq!(offered_by("banger-vm", &["workspace", ""]).0.candidates.len(), 2);
    assert_eq!(offered_by("banger-vm-stop", &["box", ""]).1, [Live::Vms(Which::Alive)]);
    assert_eq!(offered_by("banger-image-cache", &[""]).0.candidates[0].text, "prune");
    assert!(offered_by("banger-x86_64", &["vm", "workspace", ""]).0.candidates.len() == 2);
}

#[test]
fn another_machines_names_are_not_known() {
    let request = |words: &[&str]| Request {
        shell: Shell::Fish,
        program: "banger".into(),
        words: words.iter().map(|word| word.to_string()).collect(),
        word: String::new(),
        bash: None,
    };
    for words in [&["--host", "ssh://box", "vm", "stop"][..], &["--host=ssh://box", "vm", "stop"]] {
        assert!(Understood::of(&request(words)).spot.is_far, "{words:?}");
    }
    assert!(!Understood::of(&request(&["vm", "stop"])).spot.is_far);
    assert_eq!(offered(&["--host", ""]), ["ssh://"]);
}

fn told(arguments: &[&str]) -> String {
    answer(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
}

#[test]
fn each_shell_is_told_in_its_form() {
    assert_eq!(told(&["bash", "banger vm run --init mi", "mi", "9", "80"]), "\nminimal\n");
    assert_eq!(told(&["bash", "banger vm run --init=mi", "mi", "9", "80"]), "\nminimal\n");
    assert_eq!(told(&["bash", "banger vm run --init=", "=", "9", "80"]), "\nimage\nminimal\n");
    assert_eq!(told(&["bash", "banger --host ", "", "9", "80"]), "nospace\nssh://\n");
    assert_eq!(told(&["bash", "banger vm run --env-file=/e", "/e", "9", "80"]), "files\n");
    assert_eq!(told(&["bash", "banger vm run --env=a=b -- ", "", "9", "80"]), "command 27\n");
    assert_eq!(told(&["zsh", "banger", "image", "pull", "x", "--platform", "li"]), "\nlinux/amd64:\nlinux/arm64:\n");
    assert_eq!(told(&["zsh", "banger", "--host="]), "7\n+ssh\\://:another machine, by your ssh\n");
    assert_eq!(told(&["fish", "banger", "vm", "run", "--init="]), "\n--init=image\t\n--init=minimal\t\n");
    assert_eq!(told(&["fish", "banger", "vm", "run", "--init", "IL"]), "\nminimal\t\n", "by fish's own rule");
    assert_eq!(told(&["fish", "banger", "vm", "workspace", "repository"]), "\n", "and not by what it does");
    assert_eq!(told(&["fish", "banger", "vm", "run", "--", ""]), "command 4\n");
    for nothing in [&[][..], &["bash"], &["tcsh", "banger", ""]] {
        assert_eq!(told(nothing), "");
    }
}

#[test]
fn bash_shows_what_candidates_are_once_it_only_lists_them() {
    let listed = told(&["bash", "banger vm workspace ", "", "63", "40"]);
    assert_eq!(listed, "\nprepare  (bring a repository into a...)\nexport   (what became of a reposito...)\n");
    assert!(listed.lines().all(|line| line.len() < 40));
}

proptest::proptest! {
    #[test]
    fn whatever_is_typed_has_an_answer(line: String, word: String) {
        told(&["bash", &format!("banger {line}"), &word, "9", "80"]);
        told(&["zsh", "banger", "vm", &line, &word]);
        told(&["fish", "banger", &line, &word]);
    }
}
