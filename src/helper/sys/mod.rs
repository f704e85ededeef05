//! Raw calls that no crate wraps: the only `unsafe` of the helper. Each is a few lines, says which
//! property it relies on, and decides nothing.

/// Device-mapper's call.
pub mod dm;
/// Loop devices' calls.
pub mod loop_device;

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::FdFlags;
use rustix::thread::UnshareFlags;

/// `struct ifreq` of linux/if.h as TUNSETIFF uses it: the name, then a union of 24 bytes of which
/// the first two are the flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    padding: [u8; 22],
}

/// `_IOW('T', 202, int)`, linux/if_tun.h. The size in the number is that of `int`, though the
/// kernel copies a whole `struct ifreq`.
const TUNSETIFF: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 202);

/// linux/if_tun.h: frames, no packet information before them, and a virtio header before each.
const TAP_FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;

/// Makes `file`, an open `/dev/net/tun`, the tap called `name`.
pub fn attach_tap(file: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = InterfaceRequest { name: [0; 16], flags: TAP_FLAGS, padding: [0; 22] };
    // One byte stays 0: the kernel wants the name terminated.
    let room = request.name.get_mut(..name.len()).filter(|_| name.len() < 16);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq` (drivers/net/tun.c, `tun_chr_ioctl`);
    // `request` has its size and layout and outlives the call.
    unsafe {
        rustix::ioctl::ioctl(file, rustix::ioctl::Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request))?;
    }
    Ok(())
}

/// `_IOW('T', 203, int)` and `_IOW('T', 204, int)`, linux/if_tun.h; both take the number itself.
const TUNSETPERSIST: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 203);
const TUNSETOWNER: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 204);

/// Has the tap of `file` stay when its descriptor is closed, for `uid` and root alone to open.
pub fn give_tap(file: &OwnedFd, uid: u32) -> io::Result<()> {
    // SAFETY: both take their argument by value (drivers/net/tun.c, `__tun_chr_ioctl`): no memory of
    // this process is read or written.
    unsafe {
        rustix::ioctl::ioctl(file, rustix::ioctl::IntegerSetter::<TUNSETOWNER>::new_usize(uid as usize))?;
        rustix::ioctl::ioctl(file, rustix::ioctl::IntegerSetter::<TUNSETPERSIST>::new_usize(1))?;
    }
    Ok(())
}

/// The CPU's time stamp counter; `None` where there is none.
#[cfg(target_arch = "x86_64")]
pub fn time_stamp_counter() -> Option<u64> {
    // SAFETY: every x86-64 CPU has RDTSC; it reads a register and touches no memory.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

/// The CPU's time stamp counter; `None` where there is none.
#[cfg(not(target_arch = "x86_64"))]
pub fn time_stamp_counter() -> Option<u64> {
    None
}

/// Leaves the namespaces named by `flags`.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only `CLONE_FILES` is dangerous (descriptors would differ between threads), and it
    // was refused above.
    unsafe { rustix::thread::unshare_unsafe(flags)? };
    Ok(())
}

/// Whether a filter keeps this process from System V IPC (shmget(2)).
pub fn ipc_is_forbidden() -> bool {
    unsafe extern "C" {
        fn shmget(key: i32, size: usize, flags: i32) -> i32;
    }
    // SAFETY: it takes three numbers and touches no memory of this process; a segment without a size is
    // never made, but refused as invalid where the call is permitted.
    let made = unsafe { shmget(0, 0, 0) };
    made == -1 && io::Error::last_os_error().kind() == io::ErrorKind::PermissionDenied
}

/// Owns descriptor `number`, which a parent passed to this process by number.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    inherit(number, false)?;
    // SAFETY: the call above proved that it is open; the callers own what they were passed and
    // adopt each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether descriptor `number` stays open in the program that this process becomes.
pub fn inherit(number: RawFd, stays: bool) -> io::Result<()> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: borrowed for two fcntl(2) calls only, which answer EBADF when it is not open.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(file)?;
    let flags = if stays { flags.difference(FdFlags::CLOEXEC) } else { flags.union(FdFlags::CLOEXEC) };
    Ok(rustix::io::fcntl_setfd(file, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_kernels_size_and_number() {
        assert_eq!(size_of::<InterfaceRequest>(), 40);
        assert_eq!(TUNSETIFF, 0x4004_54ca);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let file = OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
        let error = attach_tap(&file, "0123456789abcdef").expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(attach_tap(&file, "bng-1").is_err());
    }

    #[test]
    fn ipc_is_permitted_where_no_filter_forbids_it() {
        assert!(!ipc_is_forbidden());
    }

    #[test]
    fn a_closed_descriptor_is_not_adopted() {
        assert!(adopt(60_000).is_err() && adopt(1).is_err() && inherit(-1, true).is_err());
    }
}
