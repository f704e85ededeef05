//! A command on the other machine, with its output here and its exit code.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use super::super::manner;
use super::super::report::Failure;
use super::machine::Machine;
use super::ssh;
use crate::protocol::{Fault, FaultKind};
use crate::ssh::quote_argv;
use std::os::fd::AsFd;

/// Runs `banger WORDS` on `machine`, with a terminal where there is one here; its exit code.
pub fn run(machine: &Machine, words: &[String]) -> Result<u8, Failure> {
    use crate::os::tty::is_terminal;
    let terminal = is_terminal(std::io::stdin().as_fd()) && is_terminal(std::io::stdout().as_fd());
    let mut command = command(machine, words, terminal)?;
    of_status(machine, command.status().map_err(|e| not_started(&e))?)
}

/// Runs it for what it does there: its output goes nowhere, what it says of its progress is shown.
pub fn errand(machine: &Machine, words: &[String]) -> Result<(), Failure> {
    let mut command = command(machine, words, false)?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(|e| not_started(&e))?;
    match of_status(machine, status)? {
        0 => Ok(()),
        // It has said why.
        code => Err(Failure::Said(code)),
    }
}

fn command(machine: &Machine, words: &[String], terminal: bool) -> Result<Command, Failure> {
    let mut command = Command::new(ssh::program()?);
    command.args(ssh::arguments(machine, terminal, &line(words)?));
    Ok(command)
}

/// Whatever that machine's own environment says, it is meant itself.
fn line(words: &[String]) -> Result<String, Failure> {
    let manner = manner::current().words().filter(|word| !words.iter().any(|known| known == word)).map(str::to_owned);
    let words: Vec<String> = manner.chain(words.iter().cloned()).collect();
    let quoted = quote_argv(&words).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    Ok(format!("env BANGER_HOST= banger {quoted}"))
}

fn not_started(error: &std::io::Error) -> Failure {
    Fault::failed("cannot start ssh", error).into()
}

fn of_status(machine: &Machine, status: ExitStatus) -> Result<u8, Failure> {
    let unavailable = |message: String| Fault::new(FaultKind::Unavailable, message);
    match status.code() {
        // No command that runs there ends so by itself.
        Some(ssh::OWN_FAILURE) => Err(unavailable(format!("ssh does not get to {machine}, or lost it")).into()),
        Some(ssh::NO_PROGRAM) => {
            let fault = unavailable(format!("there is no banger on {machine}"));
            Err(fault.hint(machine.copying()).into())
        }
        Some(code) => Ok(u8::try_from(code).unwrap_or(FaultKind::OperationFailed.exit_code())),
        None => Err(Failure::Signalled(status.signal().unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_are() {
        let words = ["image", "pull", "a b", "$(id)", "it's"].map(str::to_owned);
        assert_eq!(line(&words).expect("a line"), r"env BANGER_HOST= banger image pull 'a b' '$(id)' 'it'\''s'");
    }

    #[test]
    fn the_end_of_ssh_is_told_from_that_of_the_command() {
        let machine: Machine = "ssh://box".parse().expect("a machine");
        let ended = |code: i32| of_status(&machine, ExitStatus::from_raw(code << 8));
        assert_eq!((ended(0), ended(6)), (Ok(0), Ok(6)));
        for code in [255, 127] {
            assert_eq!(ended(code).expect_err("failed").exit_code(false), 6);
        }
        assert_eq!(of_status(&machine, ExitStatus::from_raw(2)), Err(Failure::Signalled(2)));
    }
}
