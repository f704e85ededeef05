//! A person's session: commands in one `sh`, as they are typed one after the other, and what each said.
//!
//! The session has a mount namespace of its own, where the world's person is the account's home (ssh goes by that one),
//! /srv is a folder of the person's and /etc/hosts a copy. Its programs are the tested banger and what
//! `person.sh` makes.

use std::path::Path;

use crate::world::World;

/// What stands in front of a command's exit code, on a line of its own.
const MARK: &str = "--- end of a command of the session:";

/// Something to type.
pub struct Step {
    /// One command, or a whole block.
    pub text: String,
    /// The first command of it that fails ends the session, as `set -e` has it.
    pub strict: bool,
}

/// What came of a step.
pub struct Said {
    /// Standard output and standard error, in the order in which they were written.
    pub output: String,
    /// Its exit code.
    pub code: i32,
}

/// Makes the things that the pages speak of, in a home that has none of them yet.
pub fn furnish(world: &World) {
    world.tool("sh", &["-c", include_str!("person.sh")]).output().ok();
}

/// Types `steps`; what each said. Where the session has ended early, the last one is the step that ended it.
pub fn play(world: &World, steps: &[Step], limit: u64) -> Vec<Said> {
    let script = world.folder().join("session.sh");
    std::fs::write(&script, steps.iter().map(typed).collect::<String>()).expect("written");
    let output = world.tool("unshare", &["--mount", "sh", "-c", &inside(world, &script)]).limit(limit).output();
    split(&String::from_utf8_lossy(&output.stdout), &output.stderr, output.code, steps.len())
}

fn typed(step: &Step) -> String {
    let text = &step.text;
    match step.strict {
        true => format!("set -e\n{text}\nset +e\nprintf '\\n{MARK} 0\\n'\n"),
        false => format!("{text}\nprintf '\\n{MARK} %s\\n' $?\n"),
    }
}

fn inside(world: &World, script: &Path) -> String {
    let programs = world.binary().parent().expect("a folder").display();
    format!(
        "set -e; cp /etc/hosts ../hosts; mount --bind ../srv /srv; mount --bind ../hosts /etc/hosts
        mount --bind \"$HOME\" /root; cd /root; export HOME=/root USER=root TERM=dumb
        PATH=\"$PWD/.local/bin:{programs}:$PATH\" exec sh {} 2>&1",
        script.display()
    )
}

fn split(output: &str, stderr: &str, code: i32, steps: usize) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let mut rest = output;
    while let Some((one, after)) = rest.split_once(&format!("\n{MARK} ")) {
        let (code, after) = after.split_once('\n').expect("a line ends");
        said.push(Said { output: one.to_owned(), code: code.parse().expect("an exit code") });
        rest = after;
    }
    if said.len() < steps {
        said.push(Said { output: format!("{rest}{stderr}"), code });
    }
    said
}
