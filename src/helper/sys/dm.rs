//! The one call of device-mapper (linux/dm-ioctl.h). What is in a message is `disk/mapper.rs`'s.

use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};

/// `sizeof(struct dm_ioctl)`.
pub const HEADER: usize = 312;

/// Where `data_size` lies in it.
const DATA_SIZE: std::ops::Range<usize> = 12..16;

/// The commands of linux/dm-ioctl.h that are used here, with their numbers there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// `DM_VERSION`.
    Version = 0,
    /// `DM_LIST_DEVICES`.
    ListDevices = 2,
    /// `DM_DEV_CREATE`.
    Create = 3,
    /// `DM_DEV_REMOVE`.
    Remove = 4,
    /// `DM_DEV_SUSPEND`, which without its flag resumes.
    Resume = 6,
    /// `DM_TABLE_LOAD`.
    Load = 9,
    /// `DM_TABLE_STATUS`.
    Status = 12,
    /// `DM_GET_TARGET_VERSION`, which loads the target's module.
    TargetVersion = 17,
}

/// `_IOWR(0xfd, N, struct dm_ioctl)`.
const fn number(command: Command) -> Opcode {
    opcode::read_write::<[u8; HEADER]>(0xfd, command as u8)
}

struct Call<'b> {
    command: Command,
    message: &'b mut [u8],
}

// SAFETY: the opcode is one of device-mapper's and the pointer is to a live, exclusively borrowed
// buffer, of whose length `call` has told the kernel; nothing is read from the result but the error.
unsafe impl Ioctl for Call<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;
    fn opcode(&self) -> Opcode {
        number(self.command)
    }
    fn as_ptr(&mut self) -> *mut c_void {
        self.message.as_mut_ptr().cast()
    }
    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// Sends `message`, which begins with a `struct dm_ioctl`, to an open `/dev/mapper/control`; the
/// answer replaces it.
pub fn call(control: &OwnedFd, command: Command, message: &mut [u8]) -> io::Result<()> {
    let size = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let field = message.get_mut(DATA_SIZE).filter(|_| size as usize >= HEADER);
    field.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(&size.to_ne_bytes());
    // SAFETY: the kernel copies in and out at most `data_size` bytes (drivers/md/dm-ioctl.c,
    // `copy_params` and `ctl_ioctl`), which was set to the buffer's length above.
    unsafe { rustix::ioctl::ioctl(control, Call { command, message })? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_kernels() {
        assert_eq!(number(Command::Version), 0xc138_fd00);
        assert_eq!(number(Command::TargetVersion), 0xc138_fd11);
    }

    #[test]
    fn a_message_without_room_for_its_header_is_refused() {
        let file = OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
        assert_eq!(
            call(&file, Command::Version, &mut [0; HEADER - 1]).expect_err("refused").kind(),
            io::ErrorKind::InvalidInput
        );
        assert!(call(&file, Command::Version, &mut [0; HEADER]).is_err());
    }
}
