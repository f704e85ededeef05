//! The monitor of the tests: plays QEMU and the guest in one process, at once.
//!
//! A real implementation of both languages (QMP on one socket, the agent's on the other), so that
//! daemon and helper are tried against bytes, not against themselves. It boots nothing and
//! changes nothing on the machine it runs on.

/// QEMU's control language.
mod qmp;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;

use super::agent;
use super::agent::mouth::Mouth;
use super::agent::requests::{Facts, Hands, Worker};
use super::agent::serve::serve;
use super::error::{Doing, GuestError};
use super::sys;
use crate::model::launch::FakeFailure;
use crate::protocol::guest::Announcement;

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    qmp: i32,
    agent: i32,
    console: i32,
    fail: Option<FakeFailure>,
}

/// Plays until told to end.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let Some(options) = parse(&arguments) else { return ExitCode::from(2) };
    if options.fail == Some(FakeFailure::AtSpawn) {
        return ExitCode::FAILURE;
    }
    match play(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// `None` when it is not exactly the three descriptors and perhaps a failure.
fn parse(arguments: &[OsString]) -> Option<Options> {
    let words: Vec<&str> = arguments.iter().map(|a| a.to_str()).collect::<Option<_>>()?;
    let (mut qmp, mut agent, mut console, mut fail) = (None, None, None, None);
    for pair in words.chunks(2) {
        let &[flag, value] = pair else { return None };
        match flag {
            "--qmp-fd" => qmp = Some(value.parse().ok()?),
            "--agent-fd" => agent = Some(value.parse().ok()?),
            "--console-fd" => console = Some(value.parse().ok()?),
            "--fail" => fail = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(Options { qmp: qmp?, agent: agent?, console: console?, fail })
}

fn play(options: &Options) -> Result<(), GuestError> {
    let qmp = sys::inherited_listener(options.qmp).doing(|| "take the control socket".into())?;
    let port = sys::inherited_listener(options.agent).doing(|| "take the agent's socket".into())?;
    let mut console = File::from(sys::inherited(options.console).doing(|| "take the console".into())?);
    for line in ["fake monitor starts", "fake guest is up"] {
        // A console that is full or gone is no reason to end.
        let _ = write!(console, "[    0.000] banger: {line}\r\n");
    }
    let fail = options.fail;
    agent::start("port", move || {
        // The listener is gone: the control socket still ends the process.
        let _ = play_guest(&port, fail);
    });
    qmp::serve(&qmp, fail != Some(FakeFailure::IgnoresShutdown)).doing(|| "accept on the control socket".into())
}

/// One host at a time, like a port.
fn play_guest(port: &UnixListener, fail: Option<FakeFailure>) -> std::io::Result<()> {
    let ends = fail != Some(FakeFailure::IgnoresShutdown);
    loop {
        let (mut host, _) = port.accept()?;
        match fail {
            Some(FakeFailure::SilentGuest) => ignore(&mut host),
            Some(FakeFailure::AfterHello) => say_hello_and_die(&mut host),
            Some(FakeFailure::AtSpawn | FakeFailure::IgnoresShutdown) | None => converse(host, Hands::Fake { ends })?,
        }
    }
}

/// Reads until the host is gone, answers nothing.
fn ignore(host: &mut impl std::io::Read) {
    let _ = std::io::copy(host, &mut std::io::sink());
}

fn say_hello_and_die(host: &mut impl Write) {
    let mouth = Mouth::default();
    mouth.greet();
    mouth.announce(Announcement::Trouble { text: "told to die after the hello".into() });
    let _ = host.write_all(&mouth.first_words());
    std::process::exit(1);
}

fn converse(mut host: UnixStream, hands: Hands) -> std::io::Result<()> {
    let mut voice = host.try_clone()?;
    let mouth = Arc::new(Mouth::default());
    mouth.announce(agent::ready(false));
    let worker = Worker::start(mouth.clone(), Facts { ssh: false, troubles: Vec::new() }, hands);
    let speaker = mouth.clone();
    // A host that does not read any more has hung up; the reader sees it too.
    agent::start("port writer", move || drop(speaker.speak(&mut voice)));
    // A host that was reset is a host that is gone.
    let _ = serve(&mut host, &mouth, &worker);
    mouth.close();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Option<Options> {
        parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_three_descriptors_and_perhaps_a_failure() {
        let plain = ["--qmp-fd", "5", "--agent-fd", "6", "--console-fd", "7"];
        assert_eq!(parsed(&plain), Some(Options { qmp: 5, agent: 6, console: 7, fail: None }));
        let failing = [&plain[..], &["--fail", "after-hello"]].concat();
        assert_eq!(parsed(&failing).and_then(|o| o.fail), Some(FakeFailure::AfterHello));
        for bad in [&plain[..4], &plain[..5], &["--fail", "no"], &["x", "y"]] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
