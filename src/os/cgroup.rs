//! Control groups as anybody may look at them: which hierarchies there are, and what a process in a
//! cgroup of its own uses (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::process;
use crate::model::ProcessRef;
use crate::model::usage::{HostUsage, UsageSource};

/// A legacy hierarchy says of a cgroup without limit the largest number of pages.
const UNLIMITED: u64 = 1 << 62;

/// One mounted hierarchy that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Its version.
    pub kind: Kind,
}

/// The version of a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Version 2.
    Unified,
    /// Version 1, with the controllers that are mounted there.
    Legacy(Vec<String>),
}

/// The hierarchies of this host.
pub fn see() -> io::Result<Vec<Hierarchy>> {
    Ok(hierarchies(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// What `process` uses, by its cgroup if that is called `group`, else by itself; `None` when it has
/// ended.
pub fn usage_of(process: ProcessRef, group: &str) -> io::Result<Option<HostUsage>> {
    let numbers = measure(process.pid, group);
    // The numbers are those of this process only if it lived until here.
    if process::open(process)?.is_none() {
        return Ok(None);
    }
    numbers.map(Some)
}

fn measure(pid: i32, group: &str) -> io::Result<HostUsage> {
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mut usage =
        HostUsage { source: UsageSource::Cgroup, memory: None, memory_peak: None, memory_limit: None, cpu_us: None };
    for hierarchy in see()? {
        if let Some(folder) = own_folder(&hierarchy, &memberships, group) {
            hierarchy.kind.add(&folder, &mut usage);
        }
    }
    if usage.memory.is_none() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        usage.source = UsageSource::Process;
        usage.memory = status_bytes(&status, "VmRSS:");
        usage.memory_peak = status_bytes(&status, "VmHWM:");
    }
    if usage.cpu_us.is_none() {
        usage.cpu_us = cpu_of(&fs::read_to_string(format!("/proc/{pid}/stat"))?);
    }
    Ok(usage)
}

/// The folder of a process's cgroup in `hierarchy`, if it is one called `group`; `memberships` is
/// `/proc/PID/cgroup` (cgroups(7)).
fn own_folder(hierarchy: &Hierarchy, memberships: &str, group: &str) -> Option<PathBuf> {
    let fields = |line: &'_ str| -> Option<(String, String)> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some((controllers.to_owned(), path.to_owned()))
    };
    let here = |controllers: &str| match &hierarchy.kind {
        Kind::Unified => controllers.is_empty(),
        Kind::Legacy(mounted) => controllers.split(',').any(|c| mounted.iter().any(|m| m == c)),
    };
    let (_, path) = memberships.lines().filter_map(fields).find(|(controllers, _)| here(controllers))?;
    let path = Path::new(path.strip_prefix('/')?);
    is_called(path, group).then(|| hierarchy.root.join(path))
}

/// Whether a cgroup is called `group`, or is a scope that systemd made for it, `banger-…-GROUP.scope`.
fn is_called(path: &Path, group: &str) -> bool {
    let is_scope = |name: &str| {
        let rest = name.strip_prefix("banger-").and_then(|rest| rest.strip_suffix(".scope"));
        rest.and_then(|rest| rest.strip_suffix(group)).is_some_and(|rest| rest.ends_with('-'))
    };
    path.ends_with(group) || path.file_name().and_then(|name| name.to_str()).is_some_and(is_scope)
}

/// Whether the process `pid` is in a cgroup called `name`, in any hierarchy.
pub fn is_in(pid: i32, name: &str) -> io::Result<bool> {
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(memberships.lines().any(|line| line.split_once('/').is_some_and(|(_, path)| Path::new(path).ends_with(name))))
}

impl Kind {
    /// Adds what the cgroup `folder` says and nobody has said yet.
    fn add(&self, folder: &Path, usage: &mut HostUsage) {
        let number = |file: &str| -> Option<u64> { fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok() };
        let (memory, peak, limit, cpu) = match self {
            Self::Unified => (
                number("memory.current"),
                number("memory.peak"),
                number("memory.max"),
                fs::read_to_string(folder.join("cpu.stat")).ok().as_deref().and_then(usage_usec),
            ),
            Self::Legacy(_) => (
                number("memory.usage_in_bytes"),
                number("memory.max_usage_in_bytes"),
                number("memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED),
                number("cpuacct.usage").map(|nanoseconds| nanoseconds / 1000),
            ),
        };
        usage.memory = usage.memory.or(memory);
        usage.memory_peak = usage.memory_peak.or(peak);
        usage.memory_limit = usage.memory_limit.or(limit);
        usage.cpu_us = usage.cpu_us.or(cpu);
    }
}

fn usage_usec(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()
}

/// A line of `/proc/PID/status` (proc(5)), which is in KiB.
fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)) are clock ticks in user and kernel mode.
fn cpu_of(stat: &str) -> Option<u64> {
    // The command name stands in parentheses and may itself hold any character.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    ticks.checked_mul(1_000_000)?.checked_div(rustix::param::clock_ticks_per_second())
}

/// The hierarchies that matter, of `/proc/self/mountinfo` (proc(5)): fields 5 (mount point), and
/// behind the lone `-` the type, the source, and the options, among which v1 names its controllers.
fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for hierarchy in mounts.lines().filter_map(hierarchy) {
        let same = |h: &Hierarchy| h.root == hierarchy.root || h.kind == hierarchy.kind;
        if !found.iter().any(same) {
            found.push(hierarchy);
        }
    }
    found
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let root = PathBuf::from(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    match right.next()? {
        "cgroup2" => Some(Hierarchy { root, kind: Kind::Unified }),
        "cgroup" => {
            let wanted = ["memory", "pids", "cpu", "cpuacct", "name=systemd"];
            let options = right.nth(1)?.split(',').filter(|o| wanted.contains(o));
            let controllers: Vec<String> = options.map(str::to_owned).collect();
            (!controllers.is_empty()).then_some(Hierarchy { root, kind: Kind::Legacy(controllers) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unified_host_has_one_hierarchy() {
        let mounts = "25 1 0:23 / /sys rw - sysfs sysfs rw\n\
            30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let expected = Hierarchy { root: "/sys/fs/cgroup".into(), kind: Kind::Unified };
        assert_eq!(hierarchies(mounts), [expected]);
    }

    #[test]
    fn a_mixed_host_has_those_that_matter_once_each() {
        let mounts = "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            35 30 0:30 / /elsewhere/memory rw - cgroup cgroup rw,memory\n\
            36 30 0:31 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n";
        let found: Vec<_> = hierarchies(mounts).into_iter().map(|h| h.root).collect();
        let expected = ["unified", "systemd", "cpu,cpuacct", "memory"].map(|n| Path::new("/sys/fs/cgroup").join(n));
        assert_eq!(found, expected);
    }

    #[test]
    fn only_a_cgroup_of_its_own_is_counted() {
        let unified = Hierarchy { root: "/cg".into(), kind: Kind::Unified };
        let legacy = Hierarchy { root: "/cg/memory".into(), kind: Kind::Legacy(vec!["memory".into()]) };
        let memberships = "8:pids:/\n4:cpu,memory:/banger/0123456789ab\n0::/user.slice/banger/0123456789ab\n";
        let own = |hierarchy, group| own_folder(hierarchy, memberships, group);
        assert_eq!(own(&unified, "0123456789ab"), Some("/cg/user.slice/banger/0123456789ab".into()));
        assert_eq!(own(&legacy, "0123456789ab"), Some("/cg/memory/banger/0123456789ab".into()));
        assert_eq!((own(&unified, "ab"), own(&legacy, "fedcba987654")), (None, None));
        assert_eq!(own_folder(&unified, "rubbish\n0:\n", "x"), None);
        let scope = "0::/machine.slice/banger-00000000000000aa-0123456789ab.scope\n";
        let path = "/cg/machine.slice/banger-00000000000000aa-0123456789ab.scope";
        assert_eq!(own_folder(&unified, scope, "0123456789ab"), Some(path.into()));
        assert_eq!((own_folder(&unified, scope, "3456789ab"), own_folder(&unified, scope, "aa")), (None, None));
    }

    #[test]
    fn both_versions_files_are_read_and_what_is_not_limited_has_no_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let nothing = measure(std::process::id() as i32, "nowhere").expect("measured");
        let empty = HostUsage { memory: None, memory_peak: None, memory_limit: None, cpu_us: None, ..nothing };
        let read = |kind: &Kind, files: &[(&str, &str)]| {
            files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).expect("written"));
            let mut usage = empty;
            kind.add(folder.path(), &mut usage);
            (usage.memory, usage.memory_peak, usage.memory_limit, usage.cpu_us)
        };
        let stat = ("cpu.stat", "usage_usec 77\nuser_usec 1\n");
        let unified = [("memory.current", "5\n"), ("memory.peak", "9\n"), ("memory.max", "max\n"), stat];
        assert_eq!(read(&Kind::Unified, &unified), (Some(5), Some(9), None, Some(77)));
        let legacy = [
            ("memory.usage_in_bytes", "6\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpuacct.usage", "8000\n"),
        ];
        assert_eq!(read(&Kind::Legacy(vec![]), &legacy), (Some(6), None, None, Some(8)));
    }

    #[test]
    fn without_a_cgroup_of_its_own_a_process_is_measured_itself() {
        let own = process::reference(std::process::id() as i32).expect("this process");
        let usage = usage_of(own, "nowhere").expect("measured").expect("alive");
        assert_eq!(usage.source, UsageSource::Process);
        assert!(usage.memory > Some(1 << 20) && usage.memory_peak >= usage.memory && usage.cpu_us.is_some());
        let gone = ProcessRef { start_time: own.start_time + 1, ..own };
        assert_eq!(usage_of(gone, "nowhere").expect("looked"), None);
    }
}
