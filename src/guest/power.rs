//! How a guest ends: both ways of ending it by itself, and what works on QEMU's microvm.
//!
//! `PowerOff` writes the sleep control register that microvm's ACPI tables name (hardware-reduced
//! ACPI, section 4.8.3.7): QEMU exits at once. On a kernel without ACPI, or under a monitor
//! without it, that call returns or halts; then `Restart` with `reboot=t` on the command line
//! makes a triple fault, which `-no-reboot` turns into an exit. Firecracker knows no power-off at all,
//! whatever its ACPI tables say: a reset ends it (docs/FAQ.md), and the command line says so.

use rustix::system::{RebootCommand, reboot};

use crate::model::launch::RESET_ENDS;

/// Writes everything to the disks and ends the machine; for pid 1 alone. Returns only when the
/// kernel refuses both.
pub fn power_off() {
    if std::process::id() != 1 {
        return;
    }
    rustix::fs::sync();
    for command in commands(acpi() && !by_reset()) {
        // Refused or not supported: the next one is tried.
        let _ = reboot(command);
    }
}

/// Without ACPI the kernel has no `pm_power_off`: `PowerOff` would halt (kernel/reboot.c turns it
/// into `Halt`) and never return, so it must not be tried.
fn commands(acpi: bool) -> Vec<RebootCommand> {
    if acpi { vec![RebootCommand::PowerOff, RebootCommand::Restart] } else { vec![RebootCommand::Restart] }
}

/// Whether a reset is what ends this monitor, and nothing else.
pub fn by_reset() -> bool {
    // Without /proc nothing is known, and the usual way is tried.
    let arguments = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    arguments.split_ascii_whitespace().any(|word| word == RESET_ENDS)
}

fn acpi() -> bool {
    std::path::Path::new("/sys/firmware/acpi").exists()
}
