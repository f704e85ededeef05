//! `vm_run_command`: one command, its end, and what it said.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::commands::{session, toolbox};
use super::super::report::Failure;
use super::carry::{Carry, beside, joined};
use super::output::Kept;
use super::tools::{Bench, HOME};
use super::trouble::wrong;
use crate::mcp::{Arguments, Call};
use crate::model::secret::VariableName;
use crate::os::memfd;
use crate::protocol::Fault;
use crate::shell::{Command, Outcome};

/// Seconds where nothing else is asked for.
const USUAL_TIME: u64 = 600;

/// Exit code of a command whose time was over, as timeout(1) has it.
const OUT_OF_TIME: u8 = 124;

/// Does it; how the command ended.
pub fn run(bench: &Bench, arguments: &Arguments, call: &Call) -> Result<Value, Failure> {
    let words = words(arguments)?;
    let carriers = session::carriers(&bench.paths, Some(&words))?;
    let mut client = bench.client(call)?;
    let vm = bench.vm(&mut client, arguments)?;
    let command = match &vm.workspace {
        Some(workspace) => toolbox::command_in(workspace, words),
        None => Command::new(words).in_folder(HOME),
    };
    let command = with_surroundings(command, arguments)?;
    let stdin =
        input(arguments.text("stdin").unwrap_or_default()).map_err(|e| Fault::failed("cannot keep stdin", &e))?;
    let limit = Duration::from_secs(arguments.integer("timeout_seconds").unwrap_or(USUAL_TIME));
    let begun = Instant::now();
    let mut carry = match Carry::open(&mut client, &vm.spec.name, carriers, call, limit) {
        // The way into the VM has taken all of the time.
        Err(_) if begun.elapsed() >= limit && !call.cancellation.is_asked() => {
            let nothing = Kept::default();
            return Ok(told(&Outcome::Exited(OUT_OF_TIME), true, begun.elapsed(), &nothing, &nothing));
        }
        opened => opened?,
    };
    drop(client);
    let (stdout, hearing) = beside(Kept::read)?;
    let (stderr, hearing_errors) = beside(Kept::read)?;
    let ended = carry.run(&command, &stdin, &stdout, &stderr);
    drop((stdout, stderr));
    let (out, errors) = (joined(hearing)?, joined(hearing_errors)?);
    Ok(told(&ended?, carry.is_late(), begun.elapsed(), &out, &errors))
}

fn words(arguments: &Arguments) -> Result<Vec<OsString>, Failure> {
    let words: Vec<OsString> = arguments.words("command").map(OsString::from).collect();
    match (words.is_empty(), arguments.text("shell")) {
        (false, None) => Ok(words),
        (true, Some(line)) => Ok(["sh", "-c", line].map(OsString::from).to_vec()),
        (true, None) => Err(wrong("vm_run_command needs command or shell")),
        (false, Some(_)) => Err(wrong("give command or shell, not both")),
    }
}

fn with_surroundings(mut command: Command, arguments: &Arguments) -> Result<Command, Failure> {
    if let Some(folder) = arguments.text("cwd") {
        command = command.in_folder(folder);
    }
    for (name, value) in arguments.named("env") {
        let name: VariableName = name.parse().map_err(|e| wrong(format!("env: {e}")))?;
        command = command.with_env(name.as_str(), value);
    }
    Ok(command)
}

fn input(text: &str) -> std::io::Result<File> {
    let mut file = memfd::create("banger-stdin")?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn told(ended: &Outcome, is_late: bool, took: Duration, out: &Kept, errors: &Kept) -> Value {
    let signal = match ended {
        Outcome::Signaled { name, .. } => Some(name),
        Outcome::Exited(_) => None,
    };
    json!({
        "exit_code": if is_late { OUT_OF_TIME } else { ended.exit_code() },
        "signal": signal,
        "timed_out": is_late,
        "seconds": (took.as_secs_f64() * 100.0).round() / 100.0,
        "stdout": out.text(),
        "stdout_bytes": out.total(),
        "stdout_truncated": out.left_out() > 0,
        "stderr": errors.text(),
        "stderr_bytes": errors.total(),
        "stderr_truncated": errors.left_out() > 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::mcp::tools::TOOLS;

    fn arguments(given: Value) -> Arguments {
        let tool = TOOLS.iter().find(|tool| tool.name == "vm_run_command").expect("there");
        let mut given = given;
        given["vm"] = "mcp-x".into();
        Arguments::check(tool, given).expect("fits")
    }

    #[test]
    fn a_command_is_words_or_a_line_for_a_shell() {
        assert_eq!(words(&arguments(json!({"command": ["a", "b c"]}))).expect("words"), ["a", "b c"]);
        assert_eq!(words(&arguments(json!({"shell": "a | b"}))).expect("a line"), ["sh", "-c", "a | b"]);
        for bad in [json!({}), json!({"command": ["a"], "shell": "a"})] {
            assert!(words(&arguments(bad)).is_err());
        }
    }

    #[test]
    fn names_of_variables_are_checked() {
        let surrounded = |given| with_surroundings(Command::new(["x"]), &arguments(given));
        let command = surrounded(json!({"command": ["x"], "cwd": "/srv", "env": {"A": "1\n2"}})).expect("fine");
        assert_eq!(
            (command.cwd.as_deref(), command.env.as_slice()),
            (Some("/srv"), &[("A".into(), "1\n2".into())][..])
        );
        assert!(surrounded(json!({"command": ["x"], "env": {"A B": "1"}})).is_err());
    }
}
