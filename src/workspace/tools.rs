//! What a repository wants to be installed: decided from its files, run in the guest. Everything that it names is
//! run there as root, and nowhere else.

use std::path::Path;

use jsonc_parser::ParseOptions;
use serde_json::Value;

use super::intake::{Intake, Listed};
use crate::model::GuestFolder;
use crate::os::files::read_limited;
use crate::shell::Command;

/// Files of mise (mise.jdx.dev, "Configuration").
const MISE_FILES: [&str; 3] = [".mise.toml", "mise.toml", ".tool-versions"];

/// Files of development containers (containers.dev, "Dev Container metadata reference").
const CONTAINER_FILES: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];

/// Most bytes of such a file.
const MAX_FILE: u64 = 1 << 20;

/// Where the guest keeps what the tools said.
pub const LOG: &str = "/var/log/banger-tools.log";

/// What is to be run once the repository is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tools {
    /// Files for `mise install`.
    pub mise: Vec<&'static str>,
    /// Commands of the development container, each a script.
    pub commands: Vec<String>,
    /// Why the development container's file was not understood.
    pub trouble: Option<String>,
}

impl Tools {
    /// What the files of `intake` ask for.
    pub fn of(intake: &Intake) -> Self {
        let listing = intake.listing();
        let mut tools = Self { mise: present(&listing, &MISE_FILES), ..Self::default() };
        if let Some(name) = present(&listing, &CONTAINER_FILES).first() {
            match commands_of(&intake.repository.top().join(name)) {
                Ok(commands) => tools.commands = commands,
                Err(why) => tools.trouble = Some(format!("{name}: {why}")),
            }
        }
        tools
    }

    /// Whether commands are to be run with tools of mise's.
    pub fn has_mise(intake: &Intake) -> bool {
        !present(&intake.listing(), &MISE_FILES).is_empty()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.mise.is_empty() && self.commands.is_empty()
    }

    /// What will be run, for people.
    pub fn in_words(&self) -> String {
        let mise = (!self.mise.is_empty()).then(|| format!("mise install ({})", self.mise.join(", ")));
        let commands = self.commands.iter().map(|command| format!("postCreateCommand: {}", shortened(command)));
        mise.into_iter().chain(commands).collect::<Vec<_>>().join("; ")
    }

    /// The command for the guest; what it says goes to its standard error and into [`LOG`].
    pub fn command(&self, folder: &GuestFolder) -> Command {
        let mut script = String::from(PRELUDE);
        if !self.mise.is_empty() {
            script.push_str(MISE);
        }
        let mut words = vec!["sh".to_owned(), "-c".to_owned(), String::new(), "banger".to_owned(), LOG.to_owned()];
        for command in &self.commands {
            script.push_str("step sh -c \"$1\"\nshift\n");
            words.push(command.clone());
        }
        script.push_str("echo 0 >\"$status\"\n}\n");
        script.push_str(EPILOGUE);
        words[2] = script;
        Command::new(words)
            .in_folder(folder.as_str())
            .with_env("MISE_YES", "1")
            .with_env("MISE_TRUSTED_CONFIG_PATHS", folder.as_str())
    }

    /// `words` as they are run where the repository names tools of mise's, with those that are installed: where it
    /// shall fetch none, nothing may (mise's setting `exec_auto_install`).
    pub fn wrapped(words: Vec<std::ffi::OsString>, folder: &GuestFolder) -> Command {
        let script = "command -v mise >/dev/null 2>&1 && exec mise exec -- \"$@\"; exec \"$@\"";
        let before = ["sh", "-c", script, "banger"].map(std::ffi::OsString::from);
        Command::new(before.into_iter().chain(words))
            .with_env("MISE_YES", "1")
            .with_env("MISE_EXEC_AUTO_INSTALL", "false")
            .with_env("MISE_TRUSTED_CONFIG_PATHS", folder.as_str())
    }
}

/// Those of `names` that are listed.
fn present(listing: &[Listed], names: &[&'static str]) -> Vec<&'static str> {
    names.iter().filter(|name| listing.iter().any(|listed| listed.path == name.as_bytes())).copied().collect()
}

/// `$1` is the log, the rest are scripts. The status goes by way of a file: a pipeline's is that of its last
/// command.
const PRELUDE: &str = r#"log=$1
shift
status=$(mktemp)
step() {
    echo "+ $*"
    "$@" || { code=$?; echo "banger: failed with exit code $code: $*"; echo $code >"$status"; exit $code; }
}
run() {
"#;

const MISE: &str = r#"if command -v mise >/dev/null 2>&1; then
    step mise install
else
    echo "banger: there is no mise in this image: its tools are not installed"
fi
"#;

const EPILOGUE: &str = r#"run "$@" </dev/null 2>&1 | tee "$log" >&2
code=$(cat "$status")
rm -f "$status"
exit "${code:-1}"
"#;

fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 60 { line } else { format!("{}…", line.chars().take(60).collect::<String>()) }
}

/// `postCreateCommand`: a script, the words of a command, or several of both by name.
fn commands_of(file: &Path) -> Result<Vec<String>, String> {
    let bytes = read_limited(file, MAX_FILE).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
    let value: Value =
        jsonc_parser::parse_to_serde_value(&text, &ParseOptions::default()).map_err(|e| e.to_string())?;
    match value.get("postCreateCommand") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(named)) => named.values().map(script_of).collect(),
        Some(other) => Ok(vec![script_of(other)?]),
    }
}

fn script_of(value: &Value) -> Result<String, String> {
    let wrong = || "postCreateCommand is neither a script nor the words of a command".to_owned();
    match value {
        Value::String(script) => Ok(script.clone()),
        Value::Array(words) => {
            let quoted = |word: &Value| Some(format!("'{}'", word.as_str()?.replace('\'', r"'\''")));
            words.iter().map(quoted).collect::<Option<Vec<_>>>().map(|w| w.join(" ")).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("devcontainer.json");
        std::fs::write(&file, text).expect("written");
        commands_of(&file)
    }

    #[test]
    fn a_command_after_creation_is_a_script_words_or_several() {
        let text = "{\n // a comment\n \"postCreateCommand\": \"make deps && ./x\",\n}";
        assert_eq!(commands(text), Ok(vec!["make deps && ./x".to_owned()]));
        assert_eq!(commands(r#"{"postCreateCommand": ["a b", "it's"]}"#), Ok(vec![r"'a b' 'it'\''s'".to_owned()]));
        let several = commands(r#"{"postCreateCommand": {"a": "one", "b": ["two"]}}"#).expect("understood");
        assert_eq!(several, ["one", "'two'"]);
        for nothing in ["{}", r#"{"postCreateCommand": null}"#, "[]"] {
            assert_eq!(commands(nothing), Ok(Vec::new()), "{nothing}");
        }
        for bad in ["{", r#"{"postCreateCommand": 3}"#, r#"{"postCreateCommand": [1]}"#, &"[".repeat(100_000)] {
            assert!(commands(bad).is_err());
        }
    }

    #[test]
    fn the_exit_code_is_that_of_what_failed() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log").display().to_string();
        let run = |commands: &[&str]| {
            let tools = Tools { commands: commands.iter().map(|c| (*c).to_owned()).collect(), ..Tools::default() };
            let place = folder.path().to_str().expect("text").parse().expect("a folder");
            let crate::shell::Program::Argv(words) = tools.command(&place).program else { panic!("words") };
            let words: Vec<String> = words.iter().map(|w| w.to_string_lossy().replace(LOG, &log)).collect();
            let output = std::process::Command::new(&words[0]).args(&words[1..]).output().expect("runs");
            (output.status.code(), output.stdout, String::from_utf8(output.stderr).expect("text"))
        };
        let (code, stdout, stderr) = run(&["echo one", "echo two >&2"]);
        assert_eq!((code, stdout.as_slice()), (Some(0), &b""[..]));
        assert!(stderr.contains("one\n") && stderr.contains("two\n"), "{stderr}");
        assert_eq!(std::fs::read_to_string(&log).expect("a log"), stderr);
        let (code, _, stderr) = run(&["exit 7", "echo never"]);
        assert_eq!(code, Some(7));
        assert!(!stderr.contains("never\n+") && stderr.contains("exit code 7"), "{stderr}");
    }
}
