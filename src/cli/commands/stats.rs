//! `vm stats`: what VMs use of the host, and what their guests say of themselves.

use serde::Serialize;

use super::super::client::unexpected;
use super::super::report::Failure;
use super::super::table::Table;
use super::super::{autostart, render};
use crate::host::paths::Paths;
use crate::model::VmName;
use crate::model::size::human;
use crate::model::usage::UsageSource;
use crate::protocol::guest::GuestStats;
use crate::protocol::owner::{OwnerReply, OwnerRequest, VmStats};

const HEADERS: [&str; 9] = ["NAME", "CPU TIME", "MEM", "PEAK", "LIMIT", "GUEST MEM", "GUEST DISK", "LOAD", "PROCS"];

#[derive(Debug, Serialize)]
struct StatsView<'a> {
    name: &'a str,
    vcpus: u8,
    host: HostView,
    guest: Option<&'a GuestStats>,
    guest_error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct HostView {
    source: UsageSource,
    memory: Option<u64>,
    memory_peak: Option<u64>,
    memory_limit: Option<u64>,
    cpu_us: Option<u64>,
}

impl<'a> From<&'a VmStats> for StatsView<'a> {
    fn from(vm: &'a VmStats) -> Self {
        let h = &vm.host;
        Self {
            name: vm.name.as_str(),
            vcpus: vm.vcpus,
            host: HostView {
                source: h.source,
                memory: h.memory,
                memory_peak: h.memory_peak,
                memory_limit: h.memory_limit,
                cpu_us: h.cpu_us,
            },
            guest: vm.guest.as_ref().ok(),
            guest_error: vm.guest.as_ref().err().map(String::as_str),
        }
    }
}

/// Of `names`, or of all that run.
pub fn stats(names: Vec<VmName>, json: bool) -> Result<(), Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let all = match client.ask(OwnerRequest::Stats { names })? {
        OwnerReply::Stats(all) => all,
        other => return Err(unexpected(&other)),
    };
    if json {
        return render::json(&all.iter().map(StatsView::from).collect::<Vec<_>>());
    }
    render::text(&Table::new(&HEADERS, all.iter().map(row)).text(false))?;
    all.iter().flat_map(remarks).for_each(|remark| render::note(&remark));
    Ok(())
}

fn row(vm: &VmStats) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let bytes = |n: Option<u64>| or_dash(n.map(human));
    let guest = vm.guest.as_ref().ok();
    let of_guest = |show: fn(&GuestStats) -> String| or_dash(guest.map(show));
    vec![
        vm.name.to_string(),
        or_dash(vm.host.cpu_us.map(cpu_time)),
        bytes(vm.host.memory),
        bytes(vm.host.memory_peak),
        bytes(vm.host.memory_limit),
        of_guest(|g| used(g.memory_total, g.memory_available)),
        of_guest(|g| used(g.disk_total, g.disk_free)),
        of_guest(|g| format!("{}.{:02}", g.load1_hundredths / 100, g.load1_hundredths % 100)),
        of_guest(|g| g.processes.to_string()),
    ]
}

fn used(total: u64, free: u64) -> String {
    format!("{} / {}", human(total.saturating_sub(free)), human(total))
}

fn cpu_time(microseconds: u64) -> String {
    match microseconds / 1_000_000 {
        0..60 => format!("{}.{}s", microseconds / 1_000_000, microseconds / 100_000 % 10),
        seconds @ 60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// What a number, or its absence, does not say.
fn remarks(vm: &VmStats) -> Vec<String> {
    let mut remarks = Vec::new();
    if vm.host.source == UsageSource::Process {
        remarks.push(format!("vm '{}' has no cgroup of its own: the numbers are its monitor's process's", vm.name));
    }
    remarks.extend(vm.guest.as_ref().err().map(|why| format!("vm '{}': {}", vm.name, render::plain(why))));
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::usage::HostUsage;

    fn silent() -> VmStats {
        VmStats {
            name: "box".parse().expect("a name"),
            vcpus: 2,
            host: HostUsage {
                source: UsageSource::Process,
                memory: Some(300 << 20),
                memory_peak: None,
                memory_limit: Some(1 << 30),
                cpu_us: Some(62_000_000),
            },
            guest: Err("the guest's agent does not answer\x1b[2J".into()),
        }
    }

    #[test]
    fn a_silent_guest_still_has_the_hosts_numbers() {
        assert_eq!(row(&silent()), ["box", "1m2s", "300 MiB", "-", "1 GiB", "-", "-", "-", "-"]);
        let remarks = remarks(&silent());
        assert!(remarks[0].contains("no cgroup of its own") && remarks[1].contains("does not answer"));
        assert!(!remarks[1].contains('\x1b'), "a guest drives the terminal");
        let json = serde_json::to_value(StatsView::from(&silent())).expect("serializes");
        assert_eq!((&json["host"]["source"], &json["guest"]), (&"process".into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_guests_nonsense_is_survived() {
        let nonsense = GuestStats {
            memory_total: 0,
            memory_available: u64::MAX,
            disk_total: 1 << 30,
            disk_free: 0,
            load1_hundredths: 105,
            processes: 3,
        };
        let row = row(&VmStats { guest: Ok(nonsense), ..silent() });
        assert_eq!(row[5..], ["0 B / 0 B", "1 GiB / 1 GiB", "1.05", "3"]);
    }
}
