//! Numbers of the running system, from proc(5).

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::guest::error::{Doing, GuestError};
use crate::os::process;
use crate::protocol::guest::GuestStats;

/// How long systemd may take to say how it is.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(5);

/// The kernel's boot id (random(4)); empty without `/proc`.
pub fn boot_id() -> String {
    first_line("/proc/sys/kernel/random/boot_id")
}

/// What pid 1 is.
pub fn init_name() -> String {
    first_line("/proc/1/comm")
}

/// Whether systemd is pid 1 (sd_booted(3)).
pub fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir() && init_name() == "systemd"
}

/// What systemd says of the system's state; `None` without systemd or without an answer.
pub fn system_state() -> Option<String> {
    if !systemd_runs() {
        return None;
    }
    let child = Command::new("systemctl")
        .arg("is-system-running")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let text = output_within(child.ok()?, SYSTEMCTL_LIMIT)?;
    let word = text.trim();
    let plain = !word.is_empty() && word.len() <= 32 && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    plain.then(|| word.to_owned())
}

/// What a child that says one short line has said; it is killed at the limit.
fn output_within(mut child: Child, limit: Duration) -> Option<String> {
    let ended = process::reference(child.id() as i32)
        .and_then(process::open)
        .ok()
        .flatten()
        .is_none_or(|pidfd| process::wait_for_end(pidfd, limit).unwrap_or(false));
    if !ended {
        // Ended in between: then `wait` below returns all the same.
        let _ = child.kill();
    }
    let output = child.wait_with_output().ok()?;
    ended.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How much is used.
pub fn stats() -> Result<GuestStats, GuestError> {
    let meminfo = read("/proc/meminfo")?;
    let loadavg = read("/proc/loadavg")?;
    let disk = rustix::fs::statvfs("/").doing(|| "measure the root filesystem".into())?;
    Ok(GuestStats {
        memory_total: memory(&meminfo, "MemTotal:"),
        memory_available: memory(&meminfo, "MemAvailable:"),
        disk_total: disk.f_blocks * disk.f_frsize,
        disk_free: disk.f_bavail * disk.f_frsize,
        load1_hundredths: load1(&loadavg),
        processes: processes(),
    })
}

fn read(path: &str) -> Result<String, GuestError> {
    fs::read_to_string(path).doing(|| format!("read {path}"))
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// A line of `/proc/meminfo` in bytes.
fn memory(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(name));
    let kib = line.and_then(|l| l.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// `0.42 …` is 42.
fn load1(loadavg: &str) -> u32 {
    let first = loadavg.split_ascii_whitespace().next().unwrap_or_default();
    let (whole, part) = first.split_once('.').unwrap_or((first, "0"));
    let whole = whole.parse::<u32>().unwrap_or(0);
    whole.saturating_mul(100).saturating_add(part.parse::<u32>().unwrap_or(0).min(99))
}

fn processes() -> u32 {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let numbered = |name: std::ffi::OsString| name.to_str().is_some_and(|n| n.parse::<u32>().is_ok());
    entries.flatten().filter(|e| numbered(e.file_name())).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_meminfo_and_loadavg_and_survives_nonsense() {
        let text = "MemTotal:        1015 kB\nMemFree:  3 kB\nMemAvailable:  7 kB\n";
        assert_eq!((memory(text, "MemTotal:"), memory(text, "MemAvailable:")), (1015 * 1024, 7 * 1024));
        assert_eq!(memory("MemTotal: x", "MemTotal:"), 0);
        assert_eq!((load1("0.42 0.1 0.0 1/2 3"), load1("12.05"), load1(""), load1("x.y")), (42, 1205, 0, 0));
    }

    #[test]
    fn this_machine_has_numbers() {
        let stats = stats().expect("read");
        assert!(stats.memory_total >= stats.memory_available && stats.memory_available > 0);
        assert!(stats.disk_total > 0 && stats.processes > 0);
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed() {
        let spawn =
            |command: &str| Command::new("sh").args(["-c", command]).stdout(Stdio::piped()).spawn().expect("sh starts");
        assert_eq!(output_within(spawn("echo running"), Duration::from_secs(10)), Some("running\n".into()));
        assert_eq!(output_within(spawn("exec sleep 60"), Duration::from_millis(20)), None);
    }
}
