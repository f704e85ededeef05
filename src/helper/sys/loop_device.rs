//! The calls of loop devices (linux/loop.h).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::ioctl::{Getter, NoArg, Opcode, Setter};

const LOOP_CLR_FD: Opcode = 0x4c01;
const LOOP_GET_STATUS64: Opcode = 0x4c05;
const LOOP_CONFIGURE: Opcode = 0x4c0a;
const LOOP_CTL_GET_FREE: Opcode = 0x4c82;

const LO_FLAGS_READ_ONLY: u32 = 1;

/// `LO_NAME_SIZE`.
const NAME: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; NAME],
    crypt_name: [u8; NAME],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// What a loop is to be.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'n> {
    /// Kept by the kernel for whoever asks, 63 bytes at most.
    pub name: &'n str,
    /// Bytes of the file to show at most; beyond its end there is none.
    pub size_limit: u64,
    /// Whether nothing can be written.
    pub read_only: bool,
}

/// The number of a loop device that was free a moment ago; the kernel makes one where there is none.
pub fn find_free(control: &OwnedFd) -> io::Result<u32> {
    struct GetFree;
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and answers with a number.
    unsafe impl rustix::ioctl::Ioctl for GetFree {
        type Output = i32;
        const IS_MUTATING: bool = false;
        fn opcode(&self) -> Opcode {
            LOOP_CTL_GET_FREE
        }
        fn as_ptr(&mut self) -> *mut std::ffi::c_void {
            std::ptr::null_mut()
        }
        unsafe fn output_from_ptr(
            out: rustix::ioctl::IoctlOutput,
            _: *mut std::ffi::c_void,
        ) -> rustix::io::Result<i32> {
            Ok(out)
        }
    }
    // SAFETY: as above; nothing of this process is read or written.
    let number = unsafe { rustix::ioctl::ioctl(control, GetFree)? };
    u32::try_from(number).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Makes `device` show `file`, in blocks of 512 bytes and without a scan for partitions.
pub fn configure(device: &OwnedFd, file: &OwnedFd, setting: Setting<'_>) -> io::Result<()> {
    let mut file_name = [0; NAME];
    // One byte stays 0: the kernel terminates it there.
    let room = file_name.get_mut(..setting.name.len()).filter(|_| setting.name.len() < NAME);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(setting.name.as_bytes());
    let flags = if setting.read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let fd = u32::try_from(file.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let info = Info { file_name, flags, size_limit: setting.size_limit, ..EMPTY };
    let config = Config { fd, block_size: 512, info, reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config` (drivers/block/loop.c, `lo_ioctl`); the
    // kernel takes a reference of its own to the file.
    unsafe { rustix::ioctl::ioctl(device, Setter::<LOOP_CONFIGURE, Config>::new(config))? };
    Ok(())
}

/// The name that `device` was given; `None` when it shows no file.
pub fn name(device: &OwnedFd) -> io::Result<Option<String>> {
    // SAFETY: LOOP_GET_STATUS64 writes one `struct loop_info64`, all of it, when it succeeds.
    let info = match unsafe { rustix::ioctl::ioctl(device, Getter::<LOOP_GET_STATUS64, Info>::new()) } {
        Ok(info) => info,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let end = info.file_name.iter().position(|b| *b == 0).unwrap_or(NAME);
    Ok(Some(String::from_utf8_lossy(&info.file_name[..end]).into_owned()))
}

/// Lets go of the file: when the last who has `device` open closes it, this process included.
pub fn clear(device: &OwnedFd) -> io::Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    match unsafe { rustix::ioctl::ioctl(device, NoArg::<LOOP_CLR_FD>::new()) } {
        Ok(()) | Err(rustix::io::Errno::NXIO) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; NAME],
    crypt_name: [0; NAME],
    encrypt_key: [0; 32],
    init: [0; 2],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Info>(), size_of::<Config>()), (232, 304));
        assert_eq!(std::mem::offset_of!(Info, file_name), 56);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let file = OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
        let long = "x".repeat(NAME);
        let setting = Setting { name: &long, size_limit: 0, read_only: true };
        assert_eq!(configure(&file, &file, setting).expect_err("refused").kind(), io::ErrorKind::InvalidInput);
    }
}
