//! The guest side: `init`, the agent, and the monitor of the tests that plays both.
//!
//! Runs inside the guest as root, from the initramfs: nothing of banger is ever written to the
//! image but the VM's identity. Names only `model`, `protocol`, `os` and its own `sys`; no
//! executor, no crate but what those need: this code is loaded under software emulation, where
//! each megabyte and each process costs. `HANDOVER.md` beside this file says how the image's own
//! init takes over without noticing, and how a VM ends.

/// The agent: answers the daemon and lets ssh in.
mod agent;
/// Lines on the guest's console.
mod console;
/// Variables that everything run here gets.
mod environment;
/// What goes wrong in the guest.
mod error;
/// The monitor of the tests.
mod fake;
/// Pid 1 of the initramfs.
mod init;
/// How a guest ends.
mod power;
/// Running what the host says.
pub mod shell;
/// An ssh server for images without one.
pub mod ssh;
/// The few calls that no safe crate offers.
#[allow(unsafe_code)]
mod sys;
/// The kernel's word that a device has come.
mod uevent;
/// Connections of the host.
mod vsock;

use std::ffi::OsString;
use std::process::ExitCode;

/// Pid 1 of the initramfs. Does not return in a guest: it becomes the image's init, or stays and
/// in the end powers off.
pub fn run_init() -> ExitCode {
    init::run()
}

/// `banger-agent`, started by `init` and by nobody else.
pub fn run_agent(arguments: Vec<OsString>) -> ExitCode {
    agent::run(&arguments)
}

/// `banger-fake-vmm --qmp-fd N --agent-fd N --console-fd N [--fail HOW]`.
pub fn run_fake_vmm(arguments: Vec<OsString>) -> ExitCode {
    fake::run(arguments)
}
