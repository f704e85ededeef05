//! What an update needs of this host, as a system install has it: the record, the daemon's socket, and each binary's own
//! commands for its own units and services. Whatever runs is bounded in time, without this process's environment, and in
//! a process group of its own, so that Ctrl-C does not tear it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::super::client::{Channel, Client, unexpected};
use crate::host::install::InstallRecord;
use crate::host::paths::Paths;
use crate::os::accounts::{self, Account};
use crate::os::child::{self, Bounds, Credentials, Ended};
use crate::protocol::owner::{OwnerReply, OwnerRequest};
use crate::system::install::system_paths;
use crate::update::{Host, Installed, Trouble, Version};

/// Writes files, and has systemd read them.
const REFRESH: Duration = Duration::from_secs(60);
/// systemd waits for each of two services for 90 s at most (systemd-system.conf(5), `DefaultTimeoutStartSec=`), and for
/// its end as long.
const RESTART: Duration = Duration::from_secs(400);
/// Looks at much, and asks the daemon.
const DOCTOR: Duration = Duration::from_secs(120);
/// Renames two files.
const RESTORE: Duration = Duration::from_secs(60);

/// Most bytes that a command may say.
const MOST_WORDS: usize = 1 << 20;

/// Lines of it that are passed on.
const MOST_LINES: usize = 4;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// This host.
pub struct SystemHost {
    paths: Paths,
}

impl SystemHost {
    /// As a system install has it.
    pub fn new() -> Self {
        Self { paths: system_paths() }
    }
}

impl Host for SystemHost {
    fn installed(&self) -> Result<Option<Installed>, Trouble> {
        let record = InstallRecord::of_this_host().map_err(|e| Trouble(e.to_string()))?;
        let Some(record) = record else { return Ok(None) };
        let version = record.version.parse().map_err(|e: crate::update::NoVersion| Trouble(e.to_string()))?;
        Ok(Some(Installed { binary: record.binary, version, owner: record.uid }))
    }

    fn running_operations(&self) -> Result<u32, Trouble> {
        let failed = |failure: super::super::report::Failure| {
            Trouble(format!("cannot tell whether operations are under way: {}", failure.line()))
        };
        let Some(mut client) = Client::connect(&self.paths.socket()).map_err(failed)? else { return Ok(0) };
        match client.ask(OwnerRequest::Overview).map_err(failed)? {
            OwnerReply::Overview(overview) => Ok(overview.operations),
            other => Err(failed(unexpected(&other))),
        }
    }

    fn refresh_units(&self, binary: &Path) -> Result<(), Trouble> {
        succeeds(binary, &["system", "refresh"], REFRESH)
    }

    fn restart(&self, binary: &Path, version: Version) -> Result<(), Trouble> {
        succeeds(binary, &["system", "restart"], RESTART)?;
        self.answers(version)
    }

    /// Whatever they speak.
    fn answers(&self, version: Version) -> Result<(), Trouble> {
        for (socket, peer) in [(self.paths.socket(), "daemon"), (self.paths.root_socket(), "helper")] {
            let silent = || Trouble(format!("the {peer} does not answer"));
            let met = Channel::connect(&socket, peer).and_then(|channel| channel.map(|mut c| c.meet()).transpose());
            let build = met.map_err(|failure| Trouble(failure.line()))?.ok_or_else(silent)?.build;
            if !build.starts_with(&format!("{version} (")) {
                return Err(Trouble(format!("the {peer} answers as banger {build}, not v{version}")));
            }
        }
        Ok(())
    }

    fn failed_checks(&self, binary: &Path) -> Result<Vec<String>, Trouble> {
        let words = ["doctor", "--json"];
        let ended = run(binary, &words, None, DOCTOR)?;
        // 1: something failed, which is what is asked for.
        match ended.status.code() {
            Some(0 | 1) => failed_rows(&ended.output).ok_or_else(|| Trouble("its doctor says something else".into())),
            _ => Err(failure(binary, &words, &ended)),
        }
    }

    fn restore_store(&self, binary: &Path) -> Result<(), Trouble> {
        let words = ["--as", "bangerd", "--restore-store", "--system"];
        let owner = self.installed()?.ok_or_else(|| Trouble("the record of the install is gone".into()))?.owner;
        let ended = run(binary, &words, Some(&Credentials::of(&account(owner))), RESTORE)?;
        // 0 and 1: it can use what is there.
        if matches!(ended.status.code(), Some(0 | 1)) { Ok(()) } else { Err(failure(binary, &words, &ended)) }
    }
}

/// Where no file knows the owner, the number is enough for the owner's files.
fn account(uid: u32) -> Account {
    let unknown = || Account { name: uid.to_string(), uid, gid: uid, home: "/".into(), shell: "/bin/sh".into() };
    accounts::of_uid(uid).unwrap_or_else(unknown)
}

fn succeeds(binary: &Path, words: &[&str], time: Duration) -> Result<(), Trouble> {
    let ended = run(binary, words, None, time)?;
    if ended.status.success() { Ok(()) } else { Err(failure(binary, words, &ended)) }
}

fn run(binary: &Path, words: &[&str], credentials: Option<&Credentials>, time: Duration) -> Result<Ended, Trouble> {
    let mut command = Command::new(binary);
    command.args(words).env_clear().env("PATH", PATH).current_dir("/");
    let bounds = Bounds { time, output: MOST_WORDS };
    child::run(&mut command, credentials, b"", bounds).map_err(|e| Trouble(format!("{}: {e}", shown(binary, words))))
}

/// What it said, without its own prefixes and hints, which are for another command line.
fn failure(binary: &Path, words: &[&str], ended: &Ended) -> Trouble {
    let said = String::from_utf8_lossy(&ended.errors);
    let own = said.lines().filter(|line| !line.starts_with("hint: ")).take(MOST_LINES);
    let own = own.map(|line| line.trim_start_matches("banger: ").trim_start_matches("  because: "));
    let said = own.collect::<Vec<_>>().join("\n");
    let said = if said.is_empty() { ended.status.to_string() } else { said };
    Trouble(format!("{}: {said}", shown(binary, words)))
}

fn shown(binary: &Path, words: &[&str]) -> String {
    format!("`{} {}`", binary.display(), words.join(" "))
}

/// The names of the failed checks in what `doctor --json` says.
fn failed_rows(json: &[u8]) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Row {
        check: String,
        verdict: String,
    }
    let rows: Vec<Row> = serde_json::from_slice(json).ok()?;
    Some(rows.into_iter().filter(|row| row.verdict == "failed").map(|row| row.check).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_checks_are_those_of_doctor() {
        let rows = [("helper", "failed"), ("git", "warning"), ("monitor", "ok")];
        let rows: Vec<_> = rows
            .iter()
            .map(|(check, verdict)| serde_json::json!({"check": check, "verdict": verdict, "seen": "x"}))
            .collect();
        let json = serde_json::to_vec(&rows).expect("JSON");
        assert_eq!(failed_rows(&json), Some(vec!["helper".to_owned()]));
        assert_eq!(failed_rows(b"[]"), Some(vec![]));
        assert_eq!(failed_rows(b"healthy"), None);
        // As this build writes it.
        let own = serde_json::to_value(crate::system::doctor::Verdict::Failed).expect("JSON");
        assert_eq!(own, "failed");
    }

    #[test]
    fn what_a_command_said_is_told_with_the_command() {
        let error =
            succeeds(Path::new("/bin/sh"), &["-c", "echo banger: no >&2; echo '  because: x' >&2; exit 1"], REFRESH);
        let Err(Trouble(text)) = error else { panic!("it failed") };
        assert!(text.starts_with("`/bin/sh -c") && text.ends_with("`: no\nx"), "{text}");
        let missing = succeeds(Path::new("/not/there"), &["system"], REFRESH).expect_err("not there");
        assert!(missing.to_string().starts_with("`/not/there system`: "), "{missing}");
    }
}
