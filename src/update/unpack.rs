//! The one file that a release's archive is for. Entries are read, none is unpacked: no name in the archive becomes a
//! name on this machine. Its digest was found right before; everything is bounded all the same.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;

use super::digest::{Digest, Hasher};

/// The file that is taken.
const BINARY: &str = "banger";
/// Most bytes of it.
pub const MOST_BINARY: u64 = 64 << 20;
/// Most bytes of all that is in the archive.
const MOST_CONTENT: u64 = MOST_BINARY + (8 << 20);
/// Most files in it.
const MOST_ENTRIES: usize = 64;

/// Where the machine is in an ELF file, and its number (elf(5), `e_machine`).
const MACHINE_AT: usize = 18;
const MACHINES: [(&str, u16); 2] = [("x86_64", 62), ("aarch64", 183)];

/// Why an archive is of no use.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It cannot be read.
    #[error("cannot read the archive of the release")]
    Archive(#[source] io::Error),
    /// It is not as releases are.
    #[error("the archive of the release {0}: not used")]
    Content(&'static str),
    /// The file could not be written; the message says what was.
    #[error(transparent)]
    File(io::Error),
}

/// Writes the binary in `archive` to `out`; its digest.
pub fn unpack(archive: impl Read, out: &mut impl Write, arch: &str) -> Result<Digest, UnpackError> {
    let content = Bounded { inner: MultiGzDecoder::new(archive), left: MOST_CONTENT };
    let mut archive = tar::Archive::new(content);
    let mut found = None;
    for (count, entry) in archive.entries().map_err(UnpackError::Archive)?.enumerate() {
        let mut entry = entry.map_err(UnpackError::Archive)?;
        if count >= MOST_ENTRIES {
            return Err(UnpackError::Content("holds too many files"));
        }
        let is_binary = {
            let path = entry.path_bytes();
            path.strip_prefix(b"./").unwrap_or(&path) == BINARY.as_bytes()
        };
        if !is_binary {
            continue;
        }
        if found.is_some() {
            return Err(UnpackError::Content("holds two files of the name `banger`"));
        }
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(UnpackError::Content("holds a `banger` that is no file"));
        }
        found = Some(copy(&mut entry, out, arch)?);
    }
    found.ok_or(UnpackError::Content("holds no file `banger`"))
}

fn copy(entry: &mut impl Read, out: &mut impl Write, arch: &str) -> Result<Digest, UnpackError> {
    let (mut hasher, mut total, mut piece) = (Hasher::default(), 0, vec![0; 64 << 10]);
    let mut head = Vec::new();
    loop {
        let count = match entry.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(UnpackError::Archive(e)),
        };
        total += count as u64;
        if total > MOST_BINARY {
            return Err(UnpackError::Content("holds a binary of more than 64 MiB"));
        }
        if head.len() < MACHINE_AT + 2 {
            head.extend_from_slice(&piece[..count]);
        }
        hasher.update(&piece[..count]);
        out.write_all(&piece[..count]).map_err(UnpackError::File)?;
    }
    if !is_for(arch, &head) {
        return Err(UnpackError::Content("holds a binary that is not for this machine"));
    }
    Ok(hasher.finish())
}

/// Whether a program that begins with `head` is for `arch`: 64 bits, little endian (elf(5)).
fn is_for(arch: &str, head: &[u8]) -> bool {
    let machine = head.get(MACHINE_AT..MACHINE_AT + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let wanted = MACHINES.iter().find(|(name, _)| *name == arch).map(|(_, number)| *number);
    head.starts_with(b"\x7fELF\x02\x01") && wanted.is_some() && machine == wanted
}

/// A stream that fails when there is more of it, instead of ending.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other("it holds too much"))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::tests::releases::{elf, gzip, tar};
    use tar::EntryType;

    fn unpacked(archive: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        unpack(archive, &mut out, "x86_64").map_err(|e| e.to_string()).map(|digest| {
            assert_eq!(digest, Digest::of(&out));
            out
        })
    }

    #[test]
    fn the_binary_is_taken_and_nothing_else() {
        let program = elf(b"program");
        let files = [("LICENSE", &b"text"[..]), ("banger", &program), ("README.md", b"")];
        assert_eq!(unpacked(&gzip(&tar(&files))), Ok(program.clone()));
        assert_eq!(unpacked(&gzip(&tar(&[("./banger", &program)]))), Ok(program.clone()));
        for name in ["bin/banger", "banger/banger", "bangerd", "Banger"] {
            assert!(unpacked(&gzip(&tar(&[(name, &program)]))).expect_err(name).contains("no file"), "{name}");
        }
        // Two members of gzip, as `cat` makes them of two archives.
        let whole = tar(&files);
        assert_eq!(unpacked(&[gzip(&whole[..700]), gzip(&whole[700..])].concat()), Ok(program));
    }

    #[test]
    fn what_is_not_as_releases_are_is_refused() {
        let program = elf(b"program");
        let two = [("banger", &program[..]), ("./banger", &program)];
        assert!(unpacked(&gzip(&tar(&two))).expect_err("two").contains("two files"));
        assert!(unpacked(&gzip(&tar(&[("x", &b""[..]); 65]))).expect_err("many").contains("too many"));
        assert!(
            unpacked(&gzip(&tar(&[("banger", b"#!/bin/sh\n")]))).expect_err("script").contains("not for this machine")
        );
        let mut foreign = program.clone();
        foreign[MACHINE_AT] = 183;
        assert!(unpacked(&gzip(&tar(&[("banger", &foreign)]))).expect_err("aarch64").contains("not for this machine"));
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Directory, EntryType::Char, EntryType::Fifo] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            let mut builder = tar::Builder::new(Vec::new());
            match kind {
                EntryType::Symlink | EntryType::Link => {
                    builder.append_link(&mut header, "banger", "/etc/shadow").expect("added");
                }
                _ => builder.append_data(&mut header, "banger", &b""[..]).expect("added"),
            }
            let archive = gzip(&builder.into_inner().expect("made"));
            assert!(unpacked(&archive).expect_err("no file").contains("is no file"), "{kind:?}");
        }
    }

    #[test]
    fn what_unfolds_without_end_is_refused_soon() {
        let zeros = vec![0; (MOST_BINARY + 1) as usize];
        assert!(unpacked(&gzip(&tar(&[("banger", &zeros)]))).expect_err("large").contains("64 MiB"));
        let aside = gzip(&tar(&[("big", &zeros[..40 << 20]), ("bigger", &zeros[..40 << 20])]));
        assert!(unpack(&aside[..], &mut Vec::new(), "x86_64").is_err());
    }

    #[test]
    fn a_cut_or_changed_archive_gives_nothing_else() {
        let program = elf(&[7; 3000]);
        let archive = gzip(&tar(&[("banger", &program)]));
        for cut in 0..archive.len() {
            // Its digest tells that it was cut; here it must only end.
            let _ = unpacked(&archive[..cut]);
        }
        for at in 0..archive.len() {
            let mut changed = archive.clone();
            changed[at] ^= 0x10;
            let _ = unpacked(&changed);
        }
    }
}
