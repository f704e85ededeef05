//! What the API is told before the guest starts, in order (Firecracker's `src/firecracker/swagger/firecracker.yaml`).

use serde_json::{Value, json};

use crate::model::MacAddr;
use crate::model::jail::{INITRAMFS, KERNEL, MODULES_DISK, ROOT_DISK, TAP, VSOCK_SOCKET};
use crate::model::launch::{KernelArgs, RESET_ENDS};
use crate::vmm::{Boot, Call};

/// What the kernel is told always: output on the serial port; a reboot, which ends the monitor, by
/// the keyboard controller that Firecracker has for it, and a panic too; a keyboard controller that
/// is not probed for long; no PCI, which is not there; random numbers of the CPU are trusted, as
/// nothing else is there yet; boot-time self-tests and slow grace periods are skipped.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 reboot=k panic=-1 quiet 8250.nr_uarts=1 i8042.noaux i8042.nomux \
    i8042.dumbkbd pci=off random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1";

/// The guest's number on its vsock: the lowest that is free (vsock(7)). Every monitor has a vsock
/// of its own, so all guests may have the same.
const GUEST_CID: u32 = 3;

/// The calls for one boot; the last starts the guest.
pub(super) fn calls(boot: &Boot<'_>) -> Vec<Call> {
    let mut calls = vec![
        machine(boot.spec.vcpus, boot.spec.memory.0),
        kernel(boot.boot_args),
        // The first drive is the guest's first disk.
        drive("root", ROOT_DISK, false),
    ];
    calls.extend(boot.files.modules.is_some().then(|| drive("modules", MODULES_DISK, true)));
    calls.push(network(boot.mac));
    calls.push(call("vsock", &json!({ "guest_cid": GUEST_CID, "uds_path": inside(VSOCK_SOCKET) })));
    calls.extend(boot.devices.entropy.then(|| call("entropy", &json!({}))));
    calls.extend(boot.devices.balloon.then(balloon));
    calls.push(call("actions", &json!({ "action_type": "InstanceStart" })));
    calls
}

fn call(path: &str, body: &Value) -> Call {
    Call { path: format!("/{path}"), body: body.to_string() }
}

fn inside(name: &str) -> String {
    format!("/{name}")
}

fn machine(vcpus: u8, mib: u32) -> Call {
    call("machine-config", &json!({ "vcpu_count": vcpus, "mem_size_mib": mib }))
}

fn kernel(extra: &KernelArgs) -> Call {
    let space = if extra.as_str().is_empty() { "" } else { " " };
    let arguments = format!("{KERNEL_ARGUMENTS} {RESET_ENDS}{space}{extra}");
    call(
        "boot-source",
        &json!({ "kernel_image_path": inside(KERNEL), "initrd_path": inside(INITRAMFS), "boot_args": arguments }),
    )
}

/// With `Writeback` the guest's flush reaches the host's disk.
fn drive(id: &str, name: &str, read_only: bool) -> Call {
    let cache = if read_only { "Unsafe" } else { "Writeback" };
    call(
        &format!("drives/{id}"),
        &json!({
            "drive_id": id, "path_on_host": inside(name), "is_root_device": false,
            "is_read_only": read_only, "cache_type": cache,
        }),
    )
}

fn network(mac: MacAddr) -> Call {
    call("network-interfaces/net", &json!({ "iface_id": "net", "guest_mac": mac.to_string(), "host_dev_name": TAP }))
}

/// Empty: it only gives back what the guest frees, and all of it when memory runs out there.
fn balloon() -> Call {
    call("balloon", &json!({ "amount_mib": 0, "deflate_on_oom": true }))
}
