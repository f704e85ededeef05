//! An image and what a VM has written over it, as one raw file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use crate::model::Mib;
use crate::os::content;
use crate::os::files::{named, remove_file};

/// How much is moved at once.
const PIECE: u64 = 64 << 10;

/// A file in the making. It has its name once it is finished; dropped before, nothing stays.
pub(super) struct Flat {
    file: File,
    size: u64,
    piece: Vec<u8>,
    part: PathBuf,
    name: PathBuf,
}

impl Flat {
    /// One that holds what `image` does so far, `size` long; for the owner alone.
    pub(super) fn begin(image: &Path, name: &Path, size: Mib) -> io::Result<Self> {
        let part = name.with_extension("flat");
        // On the disk it is once it is finished.
        let begun = content::borrow(image, &part).and_then(|()| {
            let file = OpenOptions::new().write(true).open(&part).map_err(named("open", &part))?;
            file.set_len(size.bytes()).map_err(named("make large enough", &part))?;
            Ok(file)
        });
        let file = begun.inspect_err(|_| drop(remove_file(&part)))?;
        Ok(Self { file, size: size.bytes(), piece: vec![0; PIECE as usize], part, name: name.to_owned() })
    }

    /// Its size, bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Takes `length` bytes at `from` in `source` for what is at `to`; what lies behind the source's end is zero,
    /// and what lies behind this one's is left out.
    pub(super) fn take(&mut self, source: &File, from: u64, to: u64, length: u64) -> io::Result<()> {
        let length = length.min(self.size.saturating_sub(to));
        let mut done = 0;
        while done < length {
            let piece = &mut self.piece[..PIECE.min(length - done) as usize];
            fill(source, piece, from + done)?;
            if piece.iter().all(|byte| *byte == 0) {
                hole(&self.file, to + done, piece.len() as u64)?;
            } else {
                self.file.write_all_at(piece, to + done)?;
            }
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes `length` bytes at `to` zero, and takes no room for them.
    pub(super) fn clear(&mut self, to: u64, length: u64) -> io::Result<()> {
        let length = length.min(self.size.saturating_sub(to));
        if length == 0 { Ok(()) } else { hole(&self.file, to, length) }
    }

    /// Gives it its name; it is on the disk when this returns.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.sync_all().and_then(|()| std::fs::rename(&self.part, &self.name)).map_err(named("finish", &self.name))
    }
}

impl Drop for Flat {
    fn drop(&mut self) {
        // Under its own name it is not found here any more; what cannot be removed is swept at the next start.
        let _ = remove_file(&self.part);
    }
}

fn fill(source: &File, piece: &mut [u8], mut at: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < piece.len() {
        match source.read_at(&mut piece[filled..], at) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                at += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    piece[filled..].fill(0);
    Ok(())
}

fn hole(file: &File, at: u64, length: u64) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, length)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_is_the_image_with_what_was_written_over_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (image, name) = (folder.path().join("image"), folder.path().join("new.ext4"));
        std::fs::write(&image, vec![7; 1 << 20]).expect("written");
        let mut source = vec![9; 100];
        source.resize(200, 0);
        let other = folder.path().join("other");
        std::fs::write(&other, &source).expect("written");
        let other = File::open(&other).expect("opened");
        let mut flat = Flat::begin(&image, &name, Mib(2)).expect("begun");
        flat.take(&other, 0, 10, 300).expect("taken");
        flat.clear(1 << 19, 1 << 18).expect("cleared");
        // Behind its end: left out.
        flat.take(&other, 0, (2 << 20) - 50, 300).expect("taken");
        flat.take(&other, 0, 3 << 20, 300).expect("taken");
        flat.clear(3 << 20, 1).expect("cleared");
        assert!(!name.exists());
        flat.finish().expect("finished");
        let found = std::fs::read(&name).expect("read");
        assert_eq!(found.len(), 2 << 20);
        let mut expected = vec![7; 1 << 20];
        expected[10..110].fill(9);
        expected[110..310].fill(0);
        expected[1 << 19..(1 << 19) + (1 << 18)].fill(0);
        expected.resize(2 << 20, 0);
        expected[(2 << 20) - 50..].fill(9);
        assert!(found == expected);
        assert!(std::fs::metadata(&name).expect("there").blocks() * 512 < 1 << 20);
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 3);
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("image");
        std::fs::write(&image, vec![7; 1 << 20]).expect("written");
        drop(Flat::begin(&image, &folder.path().join("new.ext4"), Mib(2)).expect("begun"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }
}
