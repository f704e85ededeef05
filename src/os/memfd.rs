//! Memory that is a file (memfd_create(2)): what a monitor reads without a path.

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

/// An empty file in memory. Seal it with [`seal`] before it is handed on.
pub fn create(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

/// How often a busy file is sealed. Each attempt waits by itself for the kernel's own users of the
/// pages (`memfd_wait_for_pins` in mm/memfd.c, some 75 ms): reclaim and compaction come and go.
const ATTEMPTS: u32 = 40;

/// Makes the content final: nobody, the creator included, can write, grow or shrink it any more.
pub fn seal(file: &File) -> io::Result<()> {
    let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    for _ in 1..ATTEMPTS {
        match fcntl_add_seals(file, all) {
            Err(Errno::BUSY) => {}
            other => return Ok(other?),
        }
    }
    Ok(fcntl_add_seals(file, all)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_sealed_file_is_final() {
        let mut file = create("test").expect("made");
        file.write_all(b"content").expect("written");
        seal(&file).expect("sealed");
        assert!(file.write_all(b"more").is_err());
    }
}
