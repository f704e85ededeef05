//! What is printed: for programs, held against `banger schema` by a validator that is not ours; for people, as it looks on
//! terminals of two widths, in pipes, with colour and without.

use std::path::Path;

use serde_json::{Value, json};

use crate::base::kernel_files;
use crate::command::{Output, Run};
use crate::exec::BOOT;
use crate::world::World;

/// Debian's python3-jsonschema: each output against the form of its command.
const VALIDATE: &str = r##"
import json, sys
from jsonschema import Draft202012Validator
document = json.load(open(sys.argv[1]))
whole = document["schema"]
Draft202012Validator.check_schema(whole)
wrong = 0
for command, form, output in document["outputs"]:
    schema = dict(whole["commands"][form]) if form else {"$ref": "#/$defs/Failure"}
    for error in Draft202012Validator({**schema, "$defs": whole["$defs"]}).iter_errors(output):
        print(command, error.json_path, error.message, file=sys.stderr)
        wrong += 1
print(len(document["outputs"]))
sys.exit(wrong > 0)
"##;

/// A repository for a VM.
const REPOSITORY: &str =
    "git init -q -b trunk repo && cd repo && git config user.name P && git config user.email p@e.org
    echo a >a && git add a && git commit -q -m one && echo untracked >b";

/// Each command that prints data prints what the schema says, and nothing else; each that fails says why in one line.
pub fn json_is_as_its_schema_says(world: &World) {
    world.tool("sh", &["-ec", REPOSITORY]).output().ok();
    let mut outputs = Outputs::default();
    outputs.add(world, "daemon status", &[], 6);
    world.start();
    for (form, more) in [
        ("version", &[][..]),
        ("daemon status", &[]),
        ("daemon socket", &[]),
        ("vm create", &["--name", "box"]),
        ("vm create", &["--name", "idle", "--no-start", "--ttl", "1h", "--allow", "example.org"]),
        ("ps", &[]),
        ("vm list", &[]),
        ("vm workspace prepare --dry-run", &["box", "repo", "--include-untracked"]),
        ("vm run --dry-run", &["repo"]),
        ("vm workspace prepare", &["box", "repo"]),
    ] {
        outputs.add(world, form, more, 0);
    }
    world.banger(&["vm", "exec", "box", "--", "sh", "-c", "echo b >>a; echo c >c"]).output().ok();
    let (vmlinux, modules) = kernel_files(world, &world.guest("box", &["uname", "-r"]).output().ok().text());
    let result = world.person().join("result.json");
    let run = ["vm", "run", "--rm", "--result", "result.json", "repo", "--", "sh", "-c", "kill -9 $$"];
    world.banger(&run).limit(BOOT).output().ends(137);
    outputs.push("vm run --result", serde_json::from_slice(&std::fs::read(result).expect("there")).expect("JSON"));
    for (form, more) in [
        ("vm workspace export --stat", &["box"][..]),
        ("vm workspace export --apply", &["box"]),
        ("vm show", &["box"]),
        ("vm ping", &["box"]),
        ("vm health", &["box"]),
        ("vm ports", &["box"]),
        ("vm egress", &["box"]),
        ("vm stats", &[]),
        ("vm hosts", &[]),
        ("vm exec --detach", &["box", "--", "sleep", "1000"]),
        ("vm set", &["box", "--allow", "example.org:443"]),
        ("image commit", &["box", "made"]),
        ("vm restart", &["box"]),
        ("vm stop", &["box"]),
        ("vm wait", &["box", "idle"]),
        ("vm start", &["idle"]),
        ("vm kill", &["idle"]),
        ("vm prune", &["-f"]),
        ("image list", &[]),
        ("image list --available", &[]),
        ("image show", &["debian-bookworm"]),
        ("image cache prune", &["--dry-run"]),
        ("kernel list", &[]),
        ("kernel list --available", &[]),
        ("kernel show", &["debian-bookworm"]),
        ("kernel pull", &["debian-bookworm"]),
        ("image pull", &["debian-bookworm"]),
    ] {
        outputs.add(world, form, more, 0);
    }
    let golden = world.home().join("state/images/debian-bookworm.ext4").display().to_string();
    let import = ["--name", "mine", "--vmlinuz", &vmlinux, "--modules", &modules];
    for (form, more) in [
        ("image register", &["--rootfs", &golden, "--name", "golden"][..]),
        ("image promote", &["golden"]),
        ("image delete", &["golden", "made"]),
        ("kernel import", &import),
        ("kernel delete", &["mine"]),
    ] {
        outputs.add(world, form, more, 0);
    }
    outputs.add(world, "doctor", &[], world.banger(&["doctor"]).output().code);
    failures(world, &mut outputs);
    outputs.all_are_seen(world);
    outputs.validate(world);
}

/// Forms that scenarios with systemd show: [`are_as_the_schema_says`].
const ELSEWHERE: [&str; 3] = ["system status", "update --check", "update --dry-run"];

/// What other scenarios have seen, by form.
pub fn are_as_the_schema_says(world: &World, seen: [(&str, Value); 3]) {
    assert_eq!(seen.each_ref().map(|(form, _)| *form), ELSEWHERE);
    let mut outputs = Outputs::default();
    seen.into_iter().for_each(|(form, output)| outputs.push(form, output));
    outputs.validate(world);
}

/// Every exit code that stands for a kind of failure.
fn failures(world: &World, outputs: &mut Outputs) {
    world.banger(&["vm", "create", "--name", "one", "--no-start"]).output().ok();
    outputs.add(world, "vm delete", &["one", "nowhere"], 3);
    let cases: [(&[&str], i32, &str); 8] = [
        (&["vm", "rnu"], 2, "usage"),
        (&["vm", "create", "--vcpu", "0"], 2, "usage"),
        (&["vm", "show", "nowhere"], 3, "not_found"),
        (&["image", "delete", "debian-bookworm", "nowhere"], 1, "operation_failed"),
        (&["vm", "prune", "--no-input"], 2, "usage"),
        (&["vm", "exec", "nowhere", "--", "true"], 125, "not_found"),
        (&["vm", "run", "--rm", "-d"], 2, "usage"),
        (&["vm", "list", "--format", "{{.nothing}}"], 2, "usage"),
    ];
    world.banger(&["vm", "create", "--name", "user", "--no-start"]).output().ok();
    for (words, code, kind) in cases {
        let own = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let with_json = [&words[..own], &["--json"], &words[own..]].concat();
        outputs.failure(&world.banger(&with_json).output(), code, kind);
    }
    world.banger(&["daemon", "stop"]).output().ok();
    let unreachable = world.with("BANGER_HOME", "/proc/nowhere");
    outputs.failure(&unreachable.banger(&["--json", "ps"]).output(), unreachable.banger(&["ps"]).output().code, "");
}

/// What was printed, by the form that it should have.
#[derive(Default)]
struct Outputs(Vec<Value>);

impl Outputs {
    /// Runs `form` with `--json` and `more` behind it.
    fn add(&mut self, world: &World, form: &str, more: &[&str], code: i32) {
        let (words, flags): (Vec<&str>, Vec<&str>) = form.split(' ').partition(|word| !word.starts_with("--"));
        let output = world.banger(&[words, vec!["--json"], flags, more.to_vec()].concat()).limit(BOOT).output();
        let output = output.ends(code);
        if code == 0 {
            let lines = output.stderr.lines().map(|line| serde_json::from_str::<Value>(line).expect("lines of JSON"));
            assert!(lines.into_iter().all(|line| line["note"].is_string()), "{form}: {}", output.stderr);
        }
        self.push(form, output.json());
    }

    fn push(&mut self, form: &str, output: Value) {
        self.0.push(json!([form, form, output]));
    }

    /// One object on standard error is the failure, and nothing is on standard output but what came of each name.
    fn failure(&mut self, output: &Output, code: i32, kind: &str) {
        assert_eq!(output.code, code, "{}", output.stderr);
        let objects: Vec<Value> = output.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let errors: Vec<&Value> = objects.iter().filter_map(|object| object.get("error")).collect();
        let [error] = errors.as_slice() else { panic!("one error: {}", output.stderr) };
        assert_eq!(error["exit_code"], code, "{error}");
        assert!(kind.is_empty() || error["code"] == kind, "{kind}: {error}");
        assert!(error["hints"].as_array().is_some_and(|hints| !hints.is_empty()) || code == 1, "{error}");
        println!(
            "| {} | {code} | {} |",
            error["code"].as_str().expect("text"),
            error["message"].as_str().expect("text")
        );
        self.0.push(json!([kind, null, error]));
    }

    /// No form is left out.
    fn all_are_seen(&self, world: &World) {
        let schema = world.banger(&["schema"]).output().ok().json();
        let commands = schema["commands"].as_object().expect("commands").keys();
        let is_seen = |command: &&String| self.0.iter().any(|seen| seen[0] == **command);
        let unseen: Vec<&String> = commands.filter(|command| !is_seen(command)).collect();
        assert_eq!(unseen, ELSEWHERE, "the schema has commands that are played nowhere");
    }

    fn validate(self, world: &World) {
        let schema = world.banger(&["schema"]).output().ok().json();
        let (file, count) = (world.folder().join("outputs.json"), self.0.len());
        std::fs::write(&file, json!({ "schema": schema, "outputs": self.0 }).to_string()).expect("written");
        let run = world.tool("/usr/bin/python3", &["-c", VALIDATE, file.to_str().expect("plain")]).output().ok();
        assert_eq!(run.text(), count.to_string());
        println!("| schema | {count} outputs are as it says |");
    }
}

/// What people see, as it was when somebody last agreed to it: `SMOKE_BLESS=1 smoke/run looks` writes it anew.
const AGREED: &str = include_str!("looks.txt");

/// Tables, errors and help on a terminal and in a pipe.
pub fn looks_as_agreed(world: &World) {
    world.tool("sh", &["-ec", REPOSITORY]).output().ok();
    let long = "a-repository-whose-name-is-longer-than-most-tables-are-wide-and-then-some";
    world.tool("mv", &["repo", long]).output().ok();
    world.start();
    // What a host gives by itself differs from host to host.
    let sizes = ["--vcpu", "1", "--memory", "512M", "--disk-size", "8G"];
    world.banger(&[&["vm", "create", "--name", "box"][..], &sizes].concat()).limit(BOOT).output().ok();
    world.banger(&[&["vm", "create", "--name", "idle", "--no-start"][..], &sizes].concat()).output().ok();
    world.banger(&["vm", "workspace", "prepare", "box", long]).limit(BOOT).output().ok();
    let mut seen = String::new();
    for command in [
        "ps",
        "vm list --no-trunc",
        "vm list -q",
        "vm list --format 'table {{.Name}}\\t{{.State}}\\t{{.Workspace.Folder}}'",
        "image list --format '{{.name}}: {{.init}}'",
        "vm show nowhere",
        "vm show nowhere --json",
        "vm rnu",
        "vm delete nowhere nobody",
        "vm prune --no-input",
        "vm list --help",
        "help vm ping",
    ] {
        for (what, columns, variables) in [
            ("terminal, 80 columns", Some(80), ""),
            ("terminal, 120 columns", Some(120), ""),
            ("terminal, 80 columns, NO_COLOR", Some(80), "NO_COLOR=1 "),
            ("pipe", None, ""),
            ("pipe, CLICOLOR_FORCE", None, "CLICOLOR_FORCE=1 "),
        ] {
            let line = format!("{variables}{} {command}", world.binary().display());
            let output = match columns {
                Some(columns) => on_terminal(world, columns, &line),
                None => world.tool("sh", &["-c", &format!("{{ {line}; }} 2>&1")]),
            };
            let text = settled(&String::from_utf8_lossy(&output.output().stdout));
            seen.push_str(&format!("== {command}   ({what})\n{text}"));
        }
    }
    if std::env::var_os("SMOKE_BLESS").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("smoke/looks.txt"), &seen).expect("written");
        return;
    }
    let differs = seen.lines().zip(AGREED.lines()).find(|(seen, agreed)| seen != agreed);
    assert!(differs.is_none() && seen.len() == AGREED.len(), "otherwise than agreed: {differs:?}\n{seen}");
    println!("| looks | {} lines as agreed |", seen.lines().count());
}

/// `line` by a shell whose standard streams are a terminal (script(1)).
fn on_terminal(world: &World, columns: u16, line: &str) -> Run {
    let line = format!("stty cols {columns} rows 40; TERM=xterm-256color {line}");
    world.tool("script", &["--quiet", "--return", "--command", &line, "/dev/null"])
}

/// Without what differs from run to run; escapes as text.
fn settled(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\x1b', "\\e");
    let lines = text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n");
    lines.collect()
}

fn word(word: &str) -> String {
    let is_age = word.strip_suffix(['s', 'm']).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let bare = word.trim_matches(['(', ')']).replace("\\e[2m(", "").replace(")\\e[0m", "");
    let is_op = bare.len() == 12 && bare.bytes().all(|b| b.is_ascii_hexdigit());
    match (is_age, is_op) {
        (true, _) => "AGE".to_owned(),
        (_, true) => word.replace(&bare, "OP"),
        _ => json_op(word),
    }
}

/// In JSON the operation stands between quotes.
fn json_op(word: &str) -> String {
    match word.split_once("\"op\":\"") {
        Some((before, after)) => format!("{before}\"op\":\"OP{}", after.get(12..).unwrap_or_default()),
        None => word.to_owned(),
    }
}
