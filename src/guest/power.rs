//! How a guest ends: both ways of ending it by itself, and what works on QEMU's microvm.
//!
//! `PowerOff` writes the sleep control register that microvm's ACPI tables name (hardware-reduced
//! ACPI, section 4.8.3.7): QEMU exits at once. On a kernel without ACPI, or under a monitor
//! without it, that call returns or halts; then `Restart` with `reboot=t` on the command line
//! makes a triple fault, which `-no-reboot` (and Firecracker always) turns into an exit.

use rustix::system::{RebootCommand, reboot};

/// Writes everything to the disks and ends the machine; for pid 1 alone. Returns only when the
/// kernel refuses both.
pub fn power_off() {
    if std::process::id() != 1 {
        return;
    }
    rustix::fs::sync();
    for command in commands(acpi()) {
        // Refused or not supported: the next one is tried.
        let _ = reboot(command);
    }
}

/// Without ACPI the kernel has no `pm_power_off`: `PowerOff` would halt (kernel/reboot.c turns it
/// into `Halt`) and never return, so it must not be tried.
fn commands(acpi: bool) -> Vec<RebootCommand> {
    if acpi { vec![RebootCommand::PowerOff, RebootCommand::Restart] } else { vec![RebootCommand::Restart] }
}

fn acpi() -> bool {
    std::path::Path::new("/sys/firmware/acpi").exists()
}
