//! What comes along with a repository: tools, variables, files of the home; and a repository that moves on.

use crate::command::Run;
use crate::exec::BOOT;
use crate::world::World;

/// In the place of mise, which no package of the distribution brings: says what it was asked, and runs what `exec`
/// is to run with a tool in front of the path.
const MISE: &str = r#"#!/bin/sh
echo "mise $*" >>/root/asked
case $1 in
install) [ ! -e broken ] || { echo "no such tool" >&2; exit 3; }; mkdir -p /root/tools; printf '#!/bin/sh\necho from a tool\n' >/root/tools/tool; chmod +x /root/tools/tool ;;
exec) shift 2; PATH=/root/tools:$PATH exec "$@" ;;
esac
"#;

const MAKE: &str = r#"set -e
git init -q -b trunk repo && cd repo
git config user.name P && git config user.email p@example.org
printf '[tools]\nnode = "20"\n' >mise.toml
mkdir .devcontainer
printf '{\n // made after creation\n "postCreateCommand": "echo created > made; echo said",\n}' >.devcontainer/devcontainer.json
git add . && git commit -q -m one"#;

/// Tools are installed or refused, variables and files are there, and what has moved on is brought in.
pub fn come_along(world: &World) {
    world.tool("sh", &["-c", MAKE]).output().ok();
    let sync = "[[file_sync]]\nfrom = \"~/settings\"\nto = \"~/.config/app/settings\"\nmode = \"0640\"\n[[file_sync]]\nfrom = \"no-such\"\nto = \"/x\"\n";
    std::fs::write(world.home().join("config.toml"), sync).expect("written");
    std::fs::write(world.person().join("settings"), "of mine\n").expect("written");
    std::fs::write(world.person().join("env"), "# a file\nFROM_FILE=two words # and more\n").expect("written");
    world.start();

    let run = ["vm", "run", "--rm", "repo", "--", "true"];
    world.banger(&run).output().ends(125).refuses(&["mise.toml names tools", "--nat", "--no-bootstrap"]);
    assert_eq!(world.banger(&["vm", "list", "-q"]).output().ok().text(), "", "a VM was made");

    let flags = ["--env", "QUOTED=it's \"quoted\" #1", "--env-file", "env", "--no-bootstrap"];
    let detached =
        world.banger(&[&["vm", "run", "-d", "--name", "box", "repo"], &flags[..]].concat()).limit(BOOT).output().ok();
    assert!(detached.stderr.contains("no-such is not there: left out"), "{}", detached.stderr);
    let said =
        r#"printf '%s|%s|' "$QUOTED" "$FROM_FILE"; cat ~/.config/app/settings; stat -c %a ~/.config/app/settings"#;
    let expected = "it's \"quoted\" #1|two words # and more|of mine\n640";
    assert_eq!(exec(world, &["sh", "-c", said]).output().ok().text(), expected);
    assert_eq!(world.guest("box", &["sh", "-c", said]).limit(BOOT).output().ok().text(), expected, "over ssh");
    println!("| variables and files of the home | by the agent and by ssh | as asked for |");

    let put = "cat > /usr/local/bin/mise; chmod +x /usr/local/bin/mise";
    world.guest("box", &["sh", "-c", put]).input(MISE).limit(BOOT).output().ok();
    moves_on(world);
    with_tools(world);
}

fn exec(world: &World, command: &[&str]) -> Run {
    world.banger(&[&["vm", "exec", "box", "--"], command].concat()).limit(BOOT)
}

fn moves_on(world: &World) {
    let commit = "cd repo && echo new > new && git add new && git commit -q -m two";
    world.tool("sh", &["-c", commit]).output().ok();
    let before = exec(world, &["ls", "new"]).output();
    assert!(before.code != 0 && before.stderr.contains("has moved on"), "{}", before.stderr);
    let command = ["vm", "exec", "box", "--auto-prepare", "--", "git", "log", "--format=%s"];
    assert_eq!(world.banger(&command).limit(BOOT).output().ok().text(), "two\none");
    assert!(!exec(world, &["cat", "new"]).output().ok().stderr.contains("moved on"));
    exec(world, &["sh", "-c", "echo mine >> new"]).output().ok();
    let refused = world.banger(&command).limit(BOOT).output().ends(125);
    refused.refuses(&["has changed what was brought in", "new", "export box", "--force"]);
    println!(
        "| a repository that moves on | said, brought in by --auto-prepare | not over what the guest has changed |"
    );
}

/// Before a command they are waited for; what they say is no output of the command.
fn with_tools(world: &World) {
    world.banger(&["vm", "workspace", "prepare", "box", "repo", "--force"]).limit(BOOT).output().ok();
    exec(world, &["true"]).output().ok();
    assert!(world.guest("box", &["cat", "/root/asked"]).limit(BOOT).output().ok().text().contains("mise exec -- true"));
    let made = ["vm", "run", "--rm", "--nat", "repo", "--", "sh", "-c", "cat made"];
    let ran = world.banger(&made).limit(BOOT).output().ok();
    assert_eq!(ran.text(), "created");
    for words in [
        "tools: mise install (mise.toml); postCreateCommand: echo created > made",
        "there is no mise in this image",
        "said",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let broken =
        "cd repo && printf '{\"postCreateCommand\": [\"sh\", \"-c\", \"exit 9\"]}' > .devcontainer/devcontainer.json";
    world.tool("sh", &["-c", broken]).output().ok();
    let failed = world.banger(&made).limit(BOOT).output().ends(125);
    failed.refuses(&["could not be installed", "exit code 9", "--no-bootstrap"]);
    println!("| tools | before a command, announced, apart from its output | a failure is 125 |");
}
