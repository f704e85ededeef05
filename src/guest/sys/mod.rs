//! The few calls that no safe crate offers, each with the reason why it is sound.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::ioctl::{Getter, Setter, Updater, ioctl, opcode};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::process::{Pid, Signal, kill_process};

/// `BLKGETSIZE64` (linux/fs.h): bytes of a block device. Declared with `size_t`, filled with u64.
const BLKGETSIZE64: rustix::ioctl::Opcode = opcode::read::<u64>(0x12, 114);

/// `EXT4_IOC_RESIZE_FS` (fs/ext4/ext4.h): the new number of blocks.
const EXT4_IOC_RESIZE_FS: rustix::ioctl::Opcode = opcode::write::<u64>(b'f', 16);

/// `FITRIM` (linux/fs.h), with `struct fstrim_range`: from where, how much, how much at least; the second is answered
/// with how much it was. Bytes.
const FITRIM: rustix::ioctl::Opcode = opcode::read_write::<[u64; 3]>(b'X', 121);

/// `SIGRTMIN+4` and `SIGRTMIN+5` as glibc and so systemd counts them: 34 + 4. musl, which this
/// binary is linked with, counts from 35, so the numbers are spelled out.
const SIGNAL_POWEROFF: i32 = 38;
const SIGNAL_REBOOT: i32 = 39;

/// `VMADDR_CID_ANY` and `VMADDR_CID_HOST` (linux/vm_sockets.h).
const CID_ANY: u32 = u32::MAX;
const CID_HOST: u32 = 2;

/// `struct sockaddr_vm` (linux/vm_sockets.h).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct VsockAddress {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: u8,
    zero: [u8; 3],
}

impl VsockAddress {
    /// `port` of this machine, whatever its number is.
    pub fn any(port: u32) -> Self {
        Self::new(CID_ANY, port)
    }

    /// `port` of the host.
    pub fn host(port: u32) -> Self {
        Self::new(CID_HOST, port)
    }

    fn new(cid: u32, port: u32) -> Self {
        let family = rustix::net::AddressFamily::VSOCK.as_raw();
        Self { family, reserved: 0, port, cid, flags: 0, zero: [0; 3] }
    }
}

// SAFETY: the pointer is to a whole `struct sockaddr_vm`, of its size and layout (a test holds the
// size), which lives until the closure has returned.
unsafe impl SocketAddrArg for VsockAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

/// Whether the other side of a connected vsock is the host.
pub fn is_peer_host(socket: impl AsFd) -> io::Result<bool> {
    let Some(peer) = rustix::net::getpeername(socket)? else { return Ok(false) };
    let read = |address: *const SocketAddrOpaque, length: SocketAddrLen| {
        let is_whole = length as usize >= size_of::<VsockAddress>();
        // SAFETY: `with_sockaddr` gives a pointer that is readable for `length` bytes, which was just
        // compared; a `VsockAddress` is plain numbers, valid whatever they are; alignment is not relied on.
        is_whole.then(|| unsafe { address.cast::<VsockAddress>().read_unaligned() })
    };
    // SAFETY: the closure reads within the given length only, and keeps nothing of it.
    let address = unsafe { peer.with_sockaddr(read) };
    let is_vsock = |a: &VsockAddress| a.family == rustix::net::AddressFamily::VSOCK.as_raw();
    Ok(address.filter(is_vsock).is_some_and(|a| a.cid == CID_HOST))
}

/// Bytes of a block device.
pub fn block_device_size(device: impl AsFd) -> io::Result<u64> {
    // SAFETY: BLKGETSIZE64 writes exactly one u64 through its argument (block/ioctl.c), which is
    // what `Getter` provides room for.
    let size = unsafe { ioctl(device, Getter::<BLKGETSIZE64, u64>::new()) }?;
    Ok(size)
}

/// Grows the mounted ext4 that `root` lies on to `blocks` blocks; nothing happens when it is that
/// large (fs/ext4/resize.c, `ext4_resize_fs`).
pub fn resize_ext4(root: impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads exactly one u64 through its argument (fs/ext4/ioctl.c),
    // and touches no other memory of this process.
    unsafe { ioctl(root, Setter::<EXT4_IOC_RESIZE_FS, u64>::new(blocks)) }?;
    Ok(())
}

/// Tells the disk below the filesystem that `root` lies on which of its blocks nobody uses; how many bytes these are.
pub fn trim(root: impl AsFd) -> io::Result<u64> {
    let mut range = [0, u64::MAX, 0];
    // SAFETY: FITRIM reads and writes exactly one `struct fstrim_range` (fs/ext4/ioctl.c), three u64, which is what
    // `Updater` is given, and touches no other memory of this process.
    unsafe { ioctl(root, Updater::<FITRIM, [u64; 3]>::new(&mut range)) }?;
    Ok(range[1])
}

/// Tells systemd, pid 1, to start `poweroff.target` or `reboot.target` (systemd(1), signals).
pub fn tell_systemd_to_end(by_reset: bool) -> io::Result<()> {
    let number = if by_reset { SIGNAL_REBOOT } else { SIGNAL_POWEROFF };
    // SAFETY: the number is a real-time signal that is only *sent*, to another process; none of
    // this process's handlers or masks, nor those that its libc reserves (32, 33, 34), is touched.
    let signal = unsafe { Signal::from_raw_unchecked(number) };
    Ok(kill_process(Pid::INIT, signal)?)
}

/// Starts `command` as the leader of a session of its own, whose terminal its standard input is.
pub fn spawn_on_terminal(command: &mut Command) -> io::Result<Child> {
    let lead = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe functions may run: `lead` makes two system
    // calls and allocates nothing, and its errors are plain numbers.
    unsafe { command.pre_exec(lead) };
    command.spawn()
}

/// Takes over a descriptor that was inherited by number. Call once per number, before any other
/// descriptor is opened.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {number} is a standard stream")));
    }
    if !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("descriptor {number} is not open")));
    }
    // SAFETY: the descriptor is open (just looked at), was inherited and is owned by nothing else
    // in this process: the caller names each number once, and before it opens anything.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A listening unix socket that was inherited by number.
pub fn inherited_listener(number: RawFd) -> io::Result<UnixListener> {
    Ok(UnixListener::from(inherited(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_kernels_size() {
        assert_eq!(size_of::<VsockAddress>(), 16);
    }

    #[test]
    fn standard_streams_and_closed_numbers_are_not_inherited() {
        assert!(inherited(1).is_err());
        assert!(inherited(987_654).is_err());
    }

    #[test]
    fn a_file_is_neither_a_block_device_nor_ext4_to_grow() {
        let file = std::fs::File::open("/dev/null").expect("opens");
        assert!(block_device_size(&file).is_err());
        assert!(resize_ext4(&file, 0).is_err());
    }
}
