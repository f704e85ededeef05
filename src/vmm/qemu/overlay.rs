//! Reading a qcow2 overlay (QEMU's `docs/interop/qcow2.txt`): what differs from the image under it.
//!
//! A monitor that a guest has taken over may have written anything into it. So it is read as hostile: of what the
//! format can, only what QEMU makes of banger's own overlays is taken, every place is looked at, and however the
//! tables lead, no more is read than the disk has room for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::qcow2::{CLUSTER, CLUSTER_BITS, MAGIC, PER_ENTRY};
use crate::os::files::named;
use crate::vmm::VmmError;
use crate::vmm::flat::Flat;

/// Features that change nothing of what is read here: references are not up to date, and how clusters that are not there
/// would be compressed.
const HARMLESS: u64 = 0b01001;

/// Bytes of the header that are looked at.
const HEADER: usize = 80;

/// Bits of an entry in either table that say where.
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;

/// Bits of an entry in the second table: compressed, and all zero whatever its place says.
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// Lays what the overlay at `path` holds over `flat`.
pub(super) fn lay(path: &Path, flat: &mut Flat) -> Result<(), VmmError> {
    let file = File::open(path).map_err(named("open", path))?;
    let overlay = Overlay { file: &file, length: file.metadata()?.len(), path };
    let first = overlay.first_table(flat.size())?;
    let entries = flat.size().div_ceil(PER_ENTRY);
    let mut begin = 0;
    while begin < entries {
        let count = (entries - begin).min(CLUSTER / 8);
        for (place, number) in overlay.table(first + begin * 8, count)?.into_iter().zip(begin..) {
            if place & PLACE != 0 {
                overlay.lay_second(place & PLACE, number * PER_ENTRY, flat)?;
            }
        }
        begin += count;
    }
    Ok(())
}

struct Overlay<'a> {
    file: &'a File,
    length: u64,
    path: &'a Path,
}

impl Overlay<'_> {
    /// Where the first table begins, of a disk with `size` bytes.
    fn first_table(&self, size: u64) -> Result<u64, VmmError> {
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, 0).map_err(named("read", self.path))?;
        let long = |at: usize| header[at..at + 8].iter().fold(0, |n: u64, byte| n << 8 | u64::from(*byte));
        let short = |at: usize| (long(at) >> 32) as u32;
        let defect = if !header.starts_with(MAGIC) {
            "it is not qcow2 of version 3"
        } else if long(8) != 0 {
            "it names a file under it"
        } else if short(20) != CLUSTER_BITS || short(32) != 0 || long(72) & !HARMLESS != 0 {
            "it has features that no disk of banger has"
        } else if long(24) != size {
            "it has another size"
        } else if u64::from(short(36)) < size.div_ceil(PER_ENTRY) {
            "its first table is too short"
        } else {
            return Ok(long(40));
        };
        Err(self.foreign(defect))
    }

    /// `at` stands for the part of the disk that begins at `to`.
    fn lay_second(&self, at: u64, to: u64, flat: &mut Flat) -> Result<(), VmmError> {
        let taken = |e: io::Error| VmmError::File(named("copy from", self.path)(e));
        for (entry, to) in self.table(at, CLUSTER / 8)?.into_iter().zip((to..).step_by(CLUSTER as usize)) {
            match (entry & COMPRESSED, entry & ZERO, entry & PLACE) {
                (COMPRESSED, ..) => return Err(self.foreign("a cluster is compressed")),
                (_, ZERO, _) => flat.clear(to, CLUSTER).map_err(taken)?,
                (_, _, 0) => {}
                (_, _, place) => flat.take(self.file, self.checked(place)?, to, CLUSTER).map_err(taken)?,
            }
        }
        Ok(())
    }

    /// `count` entries at `at`.
    fn table(&self, at: u64, count: u64) -> Result<Vec<u64>, VmmError> {
        let mut bytes = vec![0; (count * 8) as usize];
        self.file.read_exact_at(&mut bytes, self.checked(at)?).map_err(named("read", self.path))?;
        Ok(bytes.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
    }

    /// `at`, where something may begin. The last cluster of a file may be cut short: it reads as zeros.
    fn checked(&self, at: u64) -> Result<u64, VmmError> {
        let is_there = at >= CLUSTER && at.is_multiple_of(8) && at < self.length;
        if is_there { Ok(at) } else { Err(self.foreign("something is where nothing can be")) }
    }

    fn foreign(&self, why: &'static str) -> VmmError {
        VmmError::ForeignDisk { path: self.path.to_owned(), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::find_program;
    use crate::model::Mib;
    use crate::os::need::is_met;
    use crate::vmm::qemu::qcow2;
    use std::path::PathBuf;
    use std::process::Command;

    const SIZE: Mib = Mib(1536);

    /// An image of ones and an empty overlay over it.
    fn disk(folder: &Path) -> (PathBuf, PathBuf) {
        let (image, overlay) = (folder.join("image"), folder.join("root.disk"));
        std::fs::write(&image, vec![1; 4 << 20]).expect("written");
        qcow2::create(&overlay, SIZE).expect("made");
        (image, overlay)
    }

    fn flattened(folder: &Path, image: &Path, overlay: &Path) -> Result<PathBuf, VmmError> {
        let name = folder.join("flat.ext4");
        let mut flat = Flat::begin(image, &name, SIZE)?;
        lay(overlay, &mut flat)?;
        flat.finish()?;
        Ok(name)
    }

    #[test]
    fn an_empty_overlay_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (image, overlay) = disk(folder.path());
        let flat = std::fs::read(flattened(folder.path(), &image, &overlay).expect("flattened")).expect("read");
        assert_eq!(flat.len() as u64, SIZE.bytes());
        assert!(flat[..4 << 20].iter().all(|b| *b == 1) && flat[4 << 20..].iter().all(|b| *b == 0));
    }

    #[test]
    fn what_qemu_has_written_zeroed_and_discarded_is_what_qemu_reads() {
        let programs = find_program("qemu-io").zip(find_program("qemu-img"));
        if !is_met("qemu-io", "apt-get install qemu-utils", programs.is_some()) {
            return;
        }
        let (qemu_io, qemu_img) = programs.expect("they are there");
        let folder = tempfile::tempdir().expect("a folder");
        let (image, overlay) = disk(folder.path());
        let as_json = |path: &Path, format: &str| serde_json::json!({ "driver": format, "discard": "unmap", "file": { "driver": "file", "filename": path } });
        let mut whole = as_json(&overlay, "qcow2");
        whole["backing"] = as_json(&image, "raw");
        let whole = format!("json:{whole}");
        let commands = [
            "write -P 7 0 4k",
            "write -P 8 100k 200k",
            "write -P 9 600M 1M",
            "write -P 3 1535M 1M",
            "write -z 1M 64k",
            "write -z -u 1216k 128k",
            "write -P 5 2M 512k",
            "discard 2M 256k",
        ];
        let arguments = commands.iter().flat_map(|command| ["-c", command]);
        let written = Command::new(qemu_io).args(arguments).arg(&whole).output().expect("it starts");
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        let expected = folder.path().join("expected");
        let converted = Command::new(qemu_img).args(["convert", "-O", "raw", &whole]).arg(&expected).output();
        assert!(converted.expect("it starts").status.success());
        let flat = flattened(folder.path(), &image, &overlay).expect("flattened");
        assert!(std::fs::read(flat).expect("read") == std::fs::read(expected).expect("read"));
    }

    #[test]
    fn a_hostile_overlay_is_refused_or_read_within_its_bounds() {
        let folder = tempfile::tempdir().expect("a folder");
        let (image, overlay) = disk(folder.path());
        let fine = std::fs::read(&overlay).expect("read");
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = fine.clone();
            change(&mut bytes);
            std::fs::write(&overlay, bytes).expect("written");
            flattened(folder.path(), &image, &overlay)
        };
        let at = |at: usize, value: u64| move |b: &mut Vec<u8>| b[at..at + 8].copy_from_slice(&value.to_be_bytes());
        let (first, second) = (3_usize << 16, 4_u64 << 16);
        // A name under it; another size; no first table, or one behind the end; features; a second table nowhere.
        for (place, value) in
            [(8, 1), (24, 1 << 20), (40, 1 << 40), (40, 1), (72, 2), (72, 4), (72, 16), (first, 1 << 50)]
        {
            assert!(refused(&at(place, value)).is_err(), "{place}: {value}");
        }
        assert!(refused(&|b| b.truncate(100)).is_err());
        assert!(refused(&|b| b.clear()).is_err());
        let with_second = |entry: u64| {
            move |b: &mut Vec<u8>| {
                at(first, second)(b);
                b.extend(entry.to_be_bytes());
                b.resize(6 << 16, 0);
            }
        };
        assert!(refused(&with_second(COMPRESSED | 5 << 16)).is_err());
        assert!(refused(&with_second(1 << 40)).is_err());
        assert!(refused(&with_second(512)).is_err());
        refused(&with_second(5 << 16)).expect("an ordinary one is read");
        // The tables lead to themselves: no more than the disk is read.
        refused(&|b| (0..3).for_each(|n| at(first + n * 8, first as u64)(b))).expect("read");
    }
}
