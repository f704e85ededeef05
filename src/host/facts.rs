//! What the machine can do.

use std::path::{Path, PathBuf};

use super::firecracker::{Version, version_of};
use crate::model::Mib;

/// What is seen of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// CPUs this process may use.
    pub cpus: u16,
    /// Memory of the host.
    pub memory: Mib,
    /// `/dev/kvm` can be opened for reading and writing.
    pub kvm_opens: bool,
    /// The CPU virtualises: `vmx` or `svm` on x86 (`/dev/kvm` alone proves nothing there).
    pub cpu_virtualises: bool,
    /// QEMU for this architecture.
    pub qemu: Option<PathBuf>,
    /// Whether there is a `/dev/kvm`: the helper opens it for a monitor in a jail.
    pub has_kvm: bool,
    /// Firecracker.
    pub firecracker: Option<Installed>,
    /// Its jailer.
    pub jailer: Option<Installed>,
}

/// A program of a certain version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Where.
    pub path: PathBuf,
    /// Which, if it says so.
    pub version: Option<Version>,
}

/// QEMU's program for this architecture.
pub const QEMU: &str = if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" };

/// Firecracker and its jailer.
pub const FIRECRACKER: &str = "firecracker";
/// Puts Firecracker into a jail.
pub const JAILER: &str = "jailer";

fn installed(name: &str) -> Option<Installed> {
    find_program(name).map(|path| Installed { version: version_of(&path), path })
}

impl Facts {
    /// Looks at this machine.
    pub fn see() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get().min(u16::MAX.into()) as u16),
            memory: host_memory(),
            kvm_opens: std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok(),
            cpu_virtualises: cfg!(target_arch = "aarch64") || virtualises(&cpuinfo),
            qemu: find_program(QEMU),
            has_kvm: std::path::Path::new("/dev/kvm").exists(),
            firecracker: installed(FIRECRACKER),
            jailer: installed(JAILER),
        }
    }
}

/// Memory of the host; little where it cannot be told.
pub fn host_memory() -> Mib {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total_memory(&meminfo).unwrap_or(Mib(1024))
}

/// The program called `name` in the system's own folders; the caller's `PATH` is not asked, since
/// helper and daemon must agree.
pub fn find_program(name: &str) -> Option<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|folder| PathBuf::from(folder).join(name))
        .find(|path| path.is_file())
}

/// `MemTotal` of `/proc/meminfo` (proc(5)), which is in KiB.
fn total_memory(meminfo: &str) -> Option<Mib> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Mib(u32::try_from(kib >> 10).unwrap_or(u32::MAX)))
}

fn virtualises(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("flags"))
        .is_some_and(|flags| flags.split_ascii_whitespace().any(|f| f == "vmx" || f == "svm"))
}

/// The program that systemd-resolved is spoken to with, where that runs: it writes this file when it starts
/// (systemd-resolved.service(8), FILES).
pub fn find_resolvectl() -> Option<PathBuf> {
    find_program("resolvectl").filter(|_| Path::new("/run/systemd/resolve/resolv.conf").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_as_it_is_written() {
        assert_eq!(total_memory("MemTotal:       24682416 kB\nMemFree: 1 kB\n"), Some(Mib(24_103)));
        assert!(virtualises("processor : 0\nflags\t\t: fpu vmx sse\n"));
        assert!(!virtualises("flags\t\t: fpu avmx sse\n"));
    }
}
