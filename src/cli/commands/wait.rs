//! `vm wait`: ends when none of the VMs runs any more.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Instant;

use super::super::args::{Usage, VmWait};
use super::super::client::unexpected;
use super::super::report::Failure;
use super::super::{autostart, render};
use super::outcomes::ended;
use crate::host::paths::Paths;
use crate::model::{VmName, VmRecord};
use crate::protocol::owner::{OwnerReply, OwnerRequest};

/// What became of a VM.
#[derive(Debug, serde::Serialize)]
struct EndView {
    name: String,
    state: &'static str,
    reason: Option<String>,
}

/// Exit code when the time is over, as timeout(1) has it.
const OUT_OF_TIME: u8 = 124;

/// Waits for all that were `asked` for at once, so that one which is deleted meanwhile is not missed, and prints each as
/// it ends; as JSON all of them at the end.
pub fn wait(asked: VmWait) -> Result<(), Failure> {
    let VmWait { names, timeout, json } = asked;
    if names.is_empty() {
        return Err(Usage::new("NAME is missing", &["vm", "wait"]).into());
    }
    let deadline = timeout.map(|limit| Instant::now() + limit.duration());
    let ends = wait_for_each(names)?;
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    let is_late = loop {
        match next(&ends, deadline) {
            Ok(Ok(end)) if json => all.push(end),
            Ok(Ok(end)) => render::line(&text(&end))?,
            Ok(Err(failure)) => {
                if !json {
                    failure.say();
                }
                failed.push(failure);
            }
            Err(over) => break over == RecvTimeoutError::Timeout,
        }
    };
    if json {
        render::json(&all)?;
    }
    match timeout.filter(|_| is_late) {
        Some(limit) => {
            render::note(&format!("banger: not ended within {limit}"));
            Err(Failure::Said(OUT_OF_TIME))
        }
        None => ended(&failed),
    }
}

/// The next end; nothing when there is none to wait for any more, or no time.
fn next<T>(ends: &Receiver<T>, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
    match deadline {
        Some(deadline) => ends.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        None => ends.recv().map_err(RecvTimeoutError::from),
    }
}

/// The ends of all, as they come.
fn wait_for_each(names: Vec<VmName>) -> Result<mpsc::Receiver<Result<EndView, Failure>>, Failure> {
    let paths = Paths::current();
    // Started once, if need be, and not by each of them.
    drop(autostart::connect(&paths)?);
    let (sender, ends) = mpsc::channel();
    for name in names {
        let (sender, paths) = (sender.clone(), paths.clone());
        // Its receiver is gone only when the command, and so this process, ends.
        std::thread::spawn(move || drop(sender.send(wait_for(&paths, &name))));
    }
    Ok(ends)
}

fn wait_for(paths: &Paths, name: &VmName) -> Result<EndView, Failure> {
    let mut client = autostart::connect(paths)?;
    match client.ask(OwnerRequest::WaitVm { name: name.clone() })? {
        OwnerReply::Vm(vm) => Ok(view(*vm)),
        OwnerReply::Done => Ok(EndView { name: name.to_string(), state: "deleted", reason: None }),
        other => Err(unexpected(&other)),
    }
}

fn view(vm: VmRecord) -> EndView {
    EndView { name: vm.spec.name.to_string(), state: vm.state.as_str(), reason: vm.reason }
}

fn text(end: &EndView) -> String {
    match &end.reason {
        Some(reason) => format!("{}: {}: {}", end.name, end.state, render::plain_lines(reason, 4)),
        None => format!("{}: {}", end.name, end.state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_taken_until_there_is_none_or_no_time() {
        let (sender, ends) = mpsc::channel();
        sender.send(1).expect("heard");
        let over = Some(Instant::now());
        assert_eq!((next(&ends, over), next(&ends, over)), (Ok(1), Err(RecvTimeoutError::Timeout)));
        drop(sender);
        assert_eq!(next(&ends, None), Err(RecvTimeoutError::Disconnected));
        assert_eq!(next(&ends, over), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn an_end_is_one_line_and_the_console_is_set_off() {
        let end = |reason: Option<&str>| EndView { name: "box".into(), state: "error", reason: reason.map(Into::into) };
        assert_eq!(text(&end(None)), "box: error");
        assert_eq!(
            text(&end(Some("it panicked:\nlast \x1b[2Jwords"))),
            "box: error: it panicked:\n    last \\u{1b}[2Jwords"
        );
    }
}
