//! What is said of a file, and what is to be changed about it (section 5 of the draft).

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, chmodat, chownat, futimens, utimensat};

use crate::guest::ssh::data::{Reader, Writer};
use crate::guest::ssh::error::SessionError;

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
const MORE: u32 = 1 << 31;

/// Which bits of a mode can be set.
const MODE_BITS: u32 = 0o7777;

/// What a client says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Attributes {
    size: Option<u64>,
    owner: Option<(u32, u32)>,
    /// The mode that a new file gets.
    pub mode: Option<u32>,
    times: Option<(u32, u32)>,
}

impl Attributes {
    /// Reads what a client says.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, SessionError> {
        let flags = reader.number()?;
        let has = |flag: u32| flags & flag != 0;
        let size = if has(SIZE) { Some(reader.long()?) } else { None };
        let owner = if has(OWNER) { Some((reader.number()?, reader.number()?)) } else { None };
        let mode = if has(MODE) { Some(reader.number()? & MODE_BITS) } else { None };
        let times = if has(TIMES) { Some((reader.number()?, reader.number()?)) } else { None };
        if has(MORE) {
            for _ in 0..reader.number()? {
                let _extension = (reader.string()?, reader.string()?);
            }
        }
        Ok(Self { size, owner, mode, times })
    }

    fn timestamps(&self) -> Option<Timestamps> {
        let time = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        self.times.map(|(read, written)| Timestamps { last_access: time(read), last_modification: time(written) })
    }

    /// Changes the file at `path`, or the link itself.
    pub fn change_path(&self, path: &Path, is_link: bool) -> io::Result<()> {
        let flags = if is_link { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
        if let Some(size) = self.size.filter(|_| !is_link) {
            File::options().write(true).open(path)?.set_len(size)?;
        }
        if let Some((uid, gid)) = self.owner {
            chownat(CWD, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)?;
        }
        if let Some(mode) = self.mode.filter(|_| !is_link) {
            // After the owner: that takes setuid off.
            chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        if let Some(times) = self.timestamps() {
            utimensat(CWD, path, &times, flags)?;
        }
        Ok(())
    }

    /// Changes an open file.
    pub fn change_file(&self, file: &File) -> io::Result<()> {
        if let Some(size) = self.size {
            file.set_len(size)?;
        }
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(uid), Some(gid))?;
        }
        if let Some(mode) = self.mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        if let Some(times) = self.timestamps() {
            futimens(file, &times)?;
        }
        Ok(())
    }
}

/// Says all that is known. Times have 32 bits in this version.
pub fn write(writer: Writer, about: &Metadata) -> Writer {
    let seconds = |time: i64| u32::try_from(time).unwrap_or_default();
    let writer = writer.number(SIZE | OWNER | MODE | TIMES).long(about.len());
    let writer = writer.number(about.uid()).number(about.gid()).number(about.mode());
    writer.number(seconds(about.atime())).number(seconds(about.mtime()))
}

/// A line like those of `ls -l`, which clients show as it is.
pub fn line(name: &str, about: &Metadata) -> String {
    let kind = match about.mode() & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let bit = |at: u32, letter| if about.mode() >> at & 1 == 1 { letter } else { '-' };
    let rights: String = (0..9).map(|at| bit(8 - at, ['r', 'w', 'x'][at as usize % 3])).collect();
    let (links, uid, gid, size) = (about.nlink(), about.uid(), about.gid(), about.len());
    format!("{kind}{rights} {links:>4} {uid:<8} {gid:<8} {size:>10} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_changed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "content").expect("written");
        let asked = Writer::default().number(SIZE | MODE | TIMES).long(3).number(0o640).number(5).number(6).done();
        let attributes = Attributes::read(&mut Reader::new(&asked)).expect("read");
        attributes.change_path(&path, false).expect("changed");
        let about = std::fs::metadata(&path).expect("there");
        assert_eq!((about.len(), about.mode() & 0o7777, about.atime(), about.mtime()), (3, 0o640, 5, 6));
        Attributes::default().change_file(&File::open(&path).expect("opened")).expect("nothing");
        assert_eq!(std::fs::metadata(&path).expect("there").mtime(), 6);
        assert!(line("file", &about).starts_with("-rw-r-----    1 "));
    }

    #[test]
    fn a_flood_of_extensions_is_cut_short() {
        let hostile = Writer::default().number(MORE).number(u32::MAX).done();
        assert!(Attributes::read(&mut Reader::new(&hostile)).is_err());
    }
}
