//! newc archives, the form of an initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Read, Write};

use cpio::newc::{Builder, ModeFileType, trailer};

/// Writes entries to `out` and counts the bytes.
pub(super) struct NewcWriter<W> {
    out: Tally<W>,
    next_inode: u32,
}

impl<W: Write> NewcWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out: Tally { out, count: 0 }, next_inode: 1 }
    }

    pub(super) fn folder(&mut self, name: &str, mode: u32) -> io::Result<()> {
        let entry = self.entry(name, mode, ModeFileType::Directory).nlink(2);
        entry.write(&mut self.out, 0).finish().map(drop)
    }

    pub(super) fn character_device(&mut self, name: &str, mode: u32, (major, minor): (u32, u32)) -> io::Result<()> {
        let entry = self.entry(name, mode, ModeFileType::Char).rdev_major(major).rdev_minor(minor);
        entry.write(&mut self.out, 0).finish().map(drop)
    }

    /// A regular file of exactly `size` bytes of `content`.
    pub(super) fn file(&mut self, name: &str, mode: u32, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let length = u32::try_from(size).map_err(|_| io::Error::other(format!("{name}: 4 GiB or more")))?;
        let mut writer = self.entry(name, mode, ModeFileType::Regular).write(&mut self.out, length);
        let copied = io::copy(&mut content.take(size), &mut writer)?;
        if copied != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{name}: {copied} bytes instead of {size}"),
            ));
        }
        writer.finish().map(drop)
    }

    /// Another archive as it is, trailer included.
    pub(super) fn append(&mut self, archive: &mut dyn Read) -> io::Result<()> {
        io::copy(archive, &mut self.out)?;
        self.pad()
    }

    /// Ends the archive and fills it to 4 bytes: between archives the kernel skips zeros only up to the
    /// next header on such a boundary, and without it silently drops the rest.
    pub(super) fn end(&mut self) -> io::Result<()> {
        trailer(&mut self.out)?;
        self.pad()
    }

    /// Bytes written so far.
    pub(super) fn count(&self) -> u64 {
        self.out.count
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.out.count.next_multiple_of(4) - self.out.count;
        self.out.write_all(&[0; 4][..missing as usize])
    }

    fn entry(&mut self, name: &str, mode: u32, kind: ModeFileType) -> Builder {
        let inode = self.next_inode;
        self.next_inode += 1;
        Builder::new(name).ino(inode).mode(mode).set_mode_file_type(kind)
    }
}

struct Tally<W> {
    out: W,
    count: u64,
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.out.write(buffer)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
