//! `vm list`, `ps`, `vm show`.

use super::super::args::{ListFlags, VmQuestion};
use super::super::client::unexpected;
use super::super::report::Failure;
use super::super::resolve::{in_words, secrets_in_words};
use super::super::table::Table;
use super::super::views::VmView;
use super::super::{autostart, manner, render};
use crate::host::paths::Paths;
use crate::model::size::human;
use crate::model::{ObjectId, VmRecord, Workspace};
use crate::os::clock::unix_seconds;
use crate::os::logger::timestamp;
use crate::protocol::owner::{OwnerReply, OwnerRequest};

/// Which of them is in colour.
const STATE: usize = 1;

const HEADERS: [&str; 9] = ["NAME", "STATE", "IMAGE", "IP", "VCPU", "MEM", "DISK", "WORKSPACE", "AGE"];

/// The VMs that `request` asks for, by name.
fn fetch(request: OwnerRequest) -> Result<Vec<VmRecord>, Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let mut vms = match client.ask(request)? {
        OwnerReply::Vms(vms) => vms,
        other => return Err(unexpected(&other)),
    };
    vms.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(vms)
}

/// Prints a line of hosts(5) for each VM that runs.
pub fn hosts() -> Result<(), Failure> {
    let host = |vm: &VmRecord| vm.present_address().map(|address| (address, format!("{}.vm", vm.spec.name)));
    let hosts: Vec<_> = fetch(OwnerRequest::ListRunning)?.iter().filter_map(host).collect();
    if manner::current().json {
        let view = |(address, name): &(_, String)| serde_json::json!({ "address": address, "name": name });
        return render::json(&hosts.iter().map(view).collect::<Vec<_>>());
    }
    render::text(&hosts.iter().map(|(address, name)| format!("{address} {name}\n")).collect::<String>())
}

/// Prints VMs: running ones, or all.
pub fn list(flags: &ListFlags) -> Result<(), Failure> {
    let vms = fetch(if flags.all { OwnerRequest::ListVms } else { OwnerRequest::ListRunning })?;
    let now = unix_seconds();
    flags.form.print(&vms, VmView::from, |vm| vm.spec.name.to_string(), |whole| table(&vms, now).text(whole))
}

fn table(vms: &[VmRecord], now: u64) -> Table<'static> {
    Table::new(&HEADERS, vms.iter().map(|vm| row(vm, now))).paint(STATE, |style, state| match state {
        "running" => style.well(state),
        "error" => style.failed(state),
        "stopped" | "created" => style.dim(state),
        _ => style.warned(state),
    })
}

fn row(vm: &VmRecord, now: u64) -> Vec<String> {
    vec![
        vm.spec.name.to_string(),
        vm.state.to_string(),
        vm.spec.image.to_string(),
        vm.present_address().map_or_else(|| "-".to_owned(), |a| a.to_string()),
        vm.spec.vcpus.to_string(),
        human(vm.spec.memory.bytes()),
        human(vm.spec.disk.bytes()),
        vm.workspace.as_ref().map_or_else(|| "-".to_owned(), |w| w.folder.to_string()),
        render::age(now, vm.created_at),
    ]
}

/// Prints all of one VM.
pub fn show(question: &VmQuestion) -> Result<(), Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let vm = match client.ask(OwnerRequest::ShowVm { name: question.name.clone() })? {
        OwnerReply::Vm(vm) => vm,
        other => return Err(unexpected(&other)),
    };
    if question.json { render::json(&VmView::from(&*vm)) } else { render::text(&facts(&vm)) }
}

fn workspace_in_words(workspace: &Workspace) -> String {
    let at = workspace.head.as_ref().map_or("before its first commit", ObjectId::short);
    let source = String::from_utf8_lossy(&workspace.source);
    format!("{}, from {source} at {at}, {}", workspace.folder, timestamp(workspace.prepared_at))
}

fn facts(vm: &VmRecord) -> String {
    let mut facts =
        vec![("name", vm.spec.name.to_string()), ("id", vm.id.to_string()), ("state", vm.state.to_string())];
    let reason = vm.reason.iter().flat_map(|r| r.lines()).enumerate();
    facts.extend(reason.map(|(i, line)| (if i == 0 { "reason" } else { "" }, line.to_owned())));
    let ports: Vec<String> = vm.spec.ports.iter().map(ToString::to_string).collect();
    facts.extend([
        ("image", vm.spec.image.to_string()),
        ("kernel", vm.spec.kernel.to_string()),
        ("vcpus", vm.spec.vcpus.to_string()),
        ("memory", human(vm.spec.memory.bytes())),
        ("disk", human(vm.spec.disk.bytes())),
        ("monitor", format!("{}/{}", vm.vmm.as_str(), vm.accel.as_str())),
        ("network", in_words(&vm.spec.egress)),
        ("ports", if vm.spec.ports.is_empty() { "none".to_owned() } else { ports.join(" ") }),
    ]);
    let variables: Vec<&str> = vm.spec.environment.iter().map(|v| v.name().as_str()).collect();
    facts.extend((!variables.is_empty()).then(|| ("environment", variables.join(" "))));
    facts.extend(vm.workspace.as_ref().map(|w| ("workspace", workspace_in_words(w))));
    facts.extend((!vm.spec.secrets.is_empty()).then(|| ("secrets", secrets_in_words(&vm.spec))));
    facts.extend(vm.present_address().map(|a| ("address", a.to_string())));
    facts.extend(vm.process.map(|p| ("process", p.to_string())));
    facts.extend(vm.keeper.map(|p| ("deleted with", p.to_string())));
    facts.push(("created", timestamp(vm.created_at)));
    facts.extend(vm.started_at.map(|t| ("started", timestamp(t))));
    facts.extend(vm.spec.idle_stop.map(|span| ("stopped when", format!("idle for {span}"))));
    facts.extend(vm.expires_at.map(|t| ("deleted at", timestamp(t))));
    render::facts(&facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::choice::{Accel, VmmKind};
    use crate::model::{Mib, Slot, VmId, VmSpec, VmState};

    fn record() -> VmRecord {
        let spec = VmSpec {
            name: "box".parse().expect("a name"),
            image: "debian-bookworm".parse().expect("a name"),
            kernel: "debian-bookworm".parse().expect("a name"),
            vcpus: 2,
            memory: Mib(2048),
            disk: Mib(8192),
            init: None,
            egress: Default::default(),
            ports: Vec::new(),
            secrets: Vec::new(),
            environment: Vec::new(),
            idle_stop: None,
        };
        VmRecord {
            slot: Slot::new(1),
            address: Some([172, 30, 7, 2].into()),
            state: VmState::Running,
            reason: Some("qemu exited\x1b[2J".into()),
            ..VmRecord::asked_for(VmId::from_random(1), spec, VmmKind::Qemu, Accel::Tcg, 1_000_000)
        }
    }

    #[test]
    fn the_table_has_the_documented_columns() {
        let text = table(&[record()], 1_000_060).text(true);
        let expected = "NAME  STATE    IMAGE            IP          VCPU  MEM    DISK   WORKSPACE  AGE\n\
                        box   running  debian-bookworm  172.30.7.2  2     2 GiB  8 GiB  -          1m\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_has_the_documented_fields() {
        let json = serde_json::to_value(VmView::from(&record())).expect("serializes");
        for (field, value) in [("name", "box"), ("state", "running"), ("address", "172.30.7.2"), ("vmm", "qemu")] {
            assert_eq!(json[field], value);
        }
        assert_eq!((&json["memory_mib"], &json["started_at"]), (&2048.into(), &serde_json::Value::Null));
        assert_eq!(json["created_at"], "1970-01-12T13:46:40Z");
    }

    #[test]
    fn a_vm_that_does_not_run_has_no_address() {
        let stopped = VmRecord { state: VmState::Stopped, ..record() };
        assert_eq!(row(&stopped, 1_000_060)[3], "-");
        assert!(serde_json::to_value(VmView::from(&stopped)).expect("serializes")["address"].is_null());
    }

    #[test]
    fn the_end_of_a_console_is_shown_line_by_line() {
        let reason = Some("it panicked; its console ends with:\none\ntwo\x07".to_owned());
        let text = facts(&VmRecord { reason, ..record() });
        let expected = "reason:  it panicked; its console ends with:\n         one\n         two\\u{7}\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_reason_cannot_drive_the_terminal() {
        assert!(facts(&record()).contains("reason:  qemu exited\\u{1b}[2J\n"), "{}", facts(&record()));
    }
}
