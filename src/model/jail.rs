//! What a monitor in a jail finds there, by name: the helper puts it there, the daemon tells the
//! monitor of it. All names are in the jail's root, short enough for a socket's address.

/// Kernel, read only.
pub const KERNEL: &str = "kernel";
/// Initramfs with the identity, read only.
pub const INITRAMFS: &str = "initramfs";
/// Block device of the root disk.
pub const ROOT_DISK: &str = "root.disk";
/// Block device of the modules drive, read only.
pub const MODULES_DISK: &str = "modules.disk";
/// Pipe that takes what the monitor logs.
pub const LOG: &str = "log.fifo";
/// Where the monitor listens for its API.
pub const API_SOCKET: &str = "api.sock";
/// Where the monitor listens for connections to the guest's vsock.
pub const VSOCK_SOCKET: &str = "v.sock";
/// The tap, in the monitor's network namespace.
pub const TAP: &str = "tap0";

/// Where a connection that the guest makes to vsock port `port` of its host arrives
/// (Firecracker, docs/vsock.md).
pub fn bell_socket(port: u32) -> String {
    format!("{VSOCK_SOCKET}_{port}")
}
