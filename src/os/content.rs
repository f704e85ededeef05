//! One file's content into another: shared where the filesystem can, else what is no hole copied.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

/// Has `to` share all blocks of `from` (`FICLONE`, ioctl_ficlone(2)); false where that cannot be.
pub fn share(from: &File, to: &File) -> bool {
    ioctl_ficlone(to, from).is_ok()
}

/// Copies what is not a hole (lseek(2), `SEEK_DATA`).
pub fn copy_data(from: &File, to: &File) -> io::Result<()> {
    let mut at = 0;
    loop {
        let begin = match seek(from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // No data behind here.
            Err(Errno::NXIO) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        at = seek(from, SeekFrom::Hole(begin))?;
        copy_range(from, to, begin, at)?;
    }
}

fn copy_range(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut there = at;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX);
        // Both positions move on.
        if copy_file_range(from, Some(&mut at), to, Some(&mut there), most)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter meanwhile"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_stay_holes() {
        let (mut from, mut to) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        from.set_len(64 << 20).expect("grown");
        from.seek(io::SeekFrom::Start(32 << 20)).and_then(|_| from.write_all(b"here")).expect("written");
        copy_data(&from, &to).expect("copied");
        to.set_len(64 << 20).expect("grown");
        assert!(to.metadata().expect("there").blocks() * 512 < 2 << 20);
        let mut found = [0; 4];
        to.seek(io::SeekFrom::Start(32 << 20)).and_then(|_| to.read_exact(&mut found)).expect("read");
        assert_eq!(&found, b"here");
    }
}
