//! The few calls that no safe crate offers, each with the reason why it is sound.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::ioctl::{Getter, Setter, ioctl, opcode};
use rustix::process::{Pid, Signal, kill_process};

/// `BLKGETSIZE64` (linux/fs.h): bytes of a block device. Declared with `size_t`, filled with u64.
const BLKGETSIZE64: rustix::ioctl::Opcode = opcode::read::<u64>(0x12, 114);

/// `EXT4_IOC_RESIZE_FS` (fs/ext4/ext4.h): the new number of blocks.
const EXT4_IOC_RESIZE_FS: rustix::ioctl::Opcode = opcode::write::<u64>(b'f', 16);

/// `SIGRTMIN+4` as glibc and so systemd counts it: 34 + 4. musl, which this binary is linked
/// with, counts from 35, so the number is spelled out.
const SIGNAL_POWEROFF: i32 = 38;

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

/// Tells systemd, pid 1, to start `poweroff.target` (systemd(1), signals).
pub fn tell_systemd_to_power_off() -> io::Result<()> {
    // SAFETY: the number is a real-time signal that is only *sent*, to another process; none of
    // this process's handlers or masks, nor those that its libc reserves (32, 33, 34), is touched.
    let signal = unsafe { Signal::from_raw_unchecked(SIGNAL_POWEROFF) };
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
