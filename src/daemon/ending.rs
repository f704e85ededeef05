//! State and words for a monitor that ended.

use log::warn;

use super::Daemon;
use super::steps::files_of;
use crate::model::choice::VmmKind;
use crate::model::{OpId, VmRecord, VmState};
use crate::protocol::root::{Farewell, RootReply, RootRequest};
use crate::vmm::EndReason;

/// What a kernel prints when it gives up (kernel/panic.c).
const PANIC: &str = "Kernel panic - not syncing";

/// What a kernel prints before it resets the machine on purpose (kernel/reboot.c).
const RESTARTING: &str = "reboot: ";

/// Most characters shown of what a monitor wrote; the last are the ones that matter.
const SHOWN: usize = 400;

/// Of `vm`, whose monitor's process has ended.
pub(super) async fn why_it_ended(daemon: &Daemon, vm: &VmRecord) -> (VmState, String) {
    let said = match daemon.machine(&vm.id).live() {
        Some(live) => live.last_words().await,
        None => None,
    };
    let farewell = if said.is_none() { farewell(daemon, vm).await } else { None };
    explain(vm.vmm, said, farewell.as_ref(), &files_of(daemon, &vm.id).console_tail())
}

/// How the helper saw it end; it is the monitor's parent, unless it was restarted meanwhile.
async fn farewell(daemon: &Daemon, vm: &VmRecord) -> Option<Farewell> {
    match daemon.helper.call_again(OpId::BACKGROUND, RootRequest::Farewell { id: vm.id.clone() }).await {
        Ok((RootReply::Farewell(farewell), _)) => farewell,
        Ok((other, _)) => {
            warn!("VM {}: asked for its farewell, the helper answered {other:?}", vm.id);
            None
        }
        Err(fault) => {
            warn!("VM {}: it is not known how its monitor ended: {fault}", vm.id);
            None
        }
    }
}

fn explain(
    kind: VmmKind,
    said: Option<EndReason>,
    farewell: Option<&Farewell>,
    console: &[String],
) -> (VmState, String) {
    let tail = || match console {
        [] => String::new(),
        lines => format!("; its console ends with:\n{}", lines.join("\n")),
    };
    let prints = |what: &str| console.iter().any(|line| line.contains(what));
    // It knows one end of a guest, a reset, and its exit status says nothing: it was seen to be 0 after
    // an error of KVM too.
    let reset =
        kind == VmmKind::Firecracker && farewell.is_none_or(|f| matches!((f.status, f.signal), (Some(0) | None, None)));
    match said {
        Some(EndReason::GuestShutdown) => (VmState::Stopped, "the guest shut itself down".to_owned()),
        Some(EndReason::GuestReset) => (VmState::Stopped, format!("the guest restarted itself{}", tail())),
        Some(EndReason::HostRequest) => (VmState::Stopped, "the monitor was told to end".to_owned()),
        Some(EndReason::GuestPanic) => (VmState::Error, format!("the guest's kernel panicked{}", tail())),
        None if reset && prints(PANIC) => (VmState::Error, format!("the guest's kernel panicked{}", tail())),
        None if reset && prints(RESTARTING) => (VmState::Stopped, "the guest shut itself down".to_owned()),
        None if reset && farewell.is_some_and(|f| f.status.is_some()) => {
            (VmState::Error, format!("the guest ended without shutting down{}{}", quoted(farewell), tail()))
        }
        None => (VmState::Error, format!("{}{}{}", how(farewell), quoted(farewell), tail())),
    }
}

fn how(farewell: Option<&Farewell>) -> String {
    match farewell.map(|f| (f.status, f.signal)) {
        Some((Some(status), _)) => format!("the monitor ended with status {status}"),
        Some((None, Some(signal))) => format!("the monitor was killed by signal {signal}"),
        Some((None, None)) => "the monitor ended".to_owned(),
        None => "the monitor ended without a word".to_owned(),
    }
}

/// The last of what the monitor wrote.
fn quoted(farewell: Option<&Farewell>) -> String {
    let said = farewell.map(|f| f.said.trim()).unwrap_or_default();
    let surplus = said.chars().count().saturating_sub(SHOWN);
    match said.chars().skip(surplus).collect::<String>() {
        last if last.is_empty() => last,
        last if surplus > 0 => format!(": …{last}"),
        last => format!(": {last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: Option<i32>, signal: Option<i32>, said: &str) -> Farewell {
        Farewell { status, signal, said: said.into() }
    }

    fn firecracker(farewell: &Farewell, console: &[&str]) -> (VmState, String) {
        let console: Vec<String> = console.iter().map(|line| (*line).to_owned()).collect();
        explain(VmmKind::Firecracker, None, Some(farewell), &console)
    }

    #[test]
    fn a_guest_that_ended_itself_is_stopped_and_one_that_panicked_or_died_is_not_fine() {
        let shut_down = ["powering off", "reboot: Restarting system"];
        assert_eq!(firecracker(&of(Some(0), None, ""), &shut_down).0, VmState::Stopped);
        assert_eq!(firecracker(&of(None, None, ""), &shut_down).0, VmState::Stopped);
        let (state, reason) = firecracker(&of(Some(0), None, ""), &["Kernel panic - not syncing: no init"]);
        assert!(state == VmState::Error && reason.contains("panicked") && reason.contains("no init"), "{reason}");
        let (state, reason) = firecracker(&of(Some(0), None, "Received KVM_EXIT_INTERNAL_ERROR signal"), &["loading"]);
        assert_eq!(state, VmState::Error);
        for part in ["without shutting down", "KVM_EXIT_INTERNAL_ERROR", "loading"] {
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn a_monitor_that_failed_is_quoted_with_the_consoles_last_lines() {
        let (state, reason) = firecracker(&of(Some(1), None, "Internal error"), &["reboot: no", "last line"]);
        assert_eq!(state, VmState::Error);
        for part in ["status 1", "Internal error", "last line"] {
            assert!(reason.contains(part), "{reason}");
        }
        assert!(firecracker(&of(None, Some(9), ""), &[]).1.contains("killed by signal 9"));
        assert_eq!(explain(VmmKind::Qemu, None, None, &[]).1, "the monitor ended without a word");
        let long = explain(VmmKind::Qemu, None, Some(&of(Some(1), None, &"x".repeat(9000))), &[]).1;
        assert!(long.chars().count() < SHOWN + 60, "{long}");
    }
}
