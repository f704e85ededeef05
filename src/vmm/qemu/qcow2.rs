//! An empty qcow2 overlay (QEMU's `docs/interop/qcow2.txt`, version 3): what `qemu-img create` makes,
//! without starting a program for it.
//!
//! It names no backing file: the image is attached under it by descriptor at every boot, so no path
//! inside a file that a guest can influence is ever opened. Its length hardly depends on its size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::model::Mib;
use crate::os::files::named;

/// What it begins with: its magic number, then its version.
pub(super) const MAGIC: &[u8] = b"QFI\xfb\0\0\0\x03";

/// 64 KiB, as `qemu-img` chooses.
pub(super) const CLUSTER_BITS: u32 = 16;
pub(super) const CLUSTER: u64 = 1 << CLUSTER_BITS;

/// References are counted in 16 bits each.
const REFCOUNT_ORDER: u32 = 4;

/// Bytes that one entry of the first table stands for: a second table of one cluster.
pub(super) const PER_ENTRY: u64 = CLUSTER / 8 * CLUSTER;

/// Where the parts lie, in clusters; the first table takes the rest of the file.
const REFCOUNT_TABLE: u64 = 1;
const REFCOUNT_BLOCK: u64 = 2;
const FIRST_TABLE: u64 = 3;

/// Makes the overlay of `size` at `path`, for the owner alone, anew if there is one. It is on the disk when this returns.
pub(super) fn create(path: &Path, size: Mib) -> io::Result<()> {
    let entries = size.bytes().div_ceil(PER_ENTRY);
    let clusters = FIRST_TABLE + (entries * 8).div_ceil(CLUSTER);
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&head(size, entries, clusters))?;
        file.set_len(clusters * CLUSTER)?;
        file.sync_all()?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    written().map_err(named("write", path))
}

/// Everything before the first table, which is empty. The most that a [`Mib`] can say, 4 PiB, makes 2^23
/// entries in 1027 clusters: fewer than one block of references counts.
fn head(size: Mib, entries: u64, clusters: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(MAGIC);
    // The backing file's name: offset and length.
    header.extend([0; 12]);
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size.bytes().to_be_bytes());
    // Not encrypted.
    header.extend(0_u32.to_be_bytes());
    header.extend((entries as u32).to_be_bytes());
    header.extend((FIRST_TABLE * CLUSTER).to_be_bytes());
    header.extend((REFCOUNT_TABLE * CLUSTER).to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    // No snapshots: how many, and where; then three sets of features, none used.
    header.extend([0; 4 + 8 + 3 * 8]);
    header.extend(REFCOUNT_ORDER.to_be_bytes());
    // Its own length, with these four bytes. What follows says, being zero, that there are no extensions.
    header.extend((header.len() as u32 + 4).to_be_bytes());

    header.resize((REFCOUNT_TABLE * CLUSTER) as usize, 0);
    header.extend((REFCOUNT_BLOCK * CLUSTER).to_be_bytes());
    header.resize((REFCOUNT_BLOCK * CLUSTER) as usize, 0);
    header.extend((0..clusters).flat_map(|_| 1_u16.to_be_bytes()));
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::find_program;
    use crate::model::VmSpec;
    use crate::os::need::is_met;
    use std::process::Command;

    #[test]
    fn an_overlay_costs_the_same_whatever_its_size_and_names_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        for gib in [1, 50] {
            let path = folder.path().join(format!("{gib}.qcow2"));
            create(&path, Mib(gib << 10)).expect("made");
            let content = std::fs::read(&path).expect("read");
            assert!(content.len() < 1 << 20);
            // Bytes 8..20: offset and length of the backing file's name.
            assert_eq!(content[8..20], [0; 12]);
        }
    }

    #[test]
    fn qemu_finds_no_fault_with_it_at_any_size() {
        let qemu_img = find_program("qemu-img");
        if !is_met("qemu-img", "apt-get install qemu-utils", qemu_img.is_some()) {
            return;
        }
        let qemu_img = qemu_img.expect("it is there");
        let folder = tempfile::tempdir().expect("a folder");
        // One entry, two, several clusters of them, and the largest disk that can be asked for.
        for mib in [1, 512, 513, 8 << 10, 5 << 20, VmSpec::MAX_DISK.0] {
            let path = folder.path().join(format!("{mib}.qcow2"));
            create(&path, Mib(mib)).expect("made");
            let checked = Command::new(&qemu_img).arg("check").arg(&path).output().expect("it starts");
            assert!(checked.status.success(), "{mib}: {}", String::from_utf8_lossy(&checked.stderr));
            let told = Command::new(&qemu_img).args(["info", "--output=json"]).arg(&path).output().expect("it starts");
            let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
            assert_eq!((&told["virtual-size"], &told["format"]), (&(u64::from(mib) << 20).into(), &"qcow2".into()));
        }
    }

    #[test]
    fn a_second_one_takes_the_place_of_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![0xff; 1 << 20]).expect("written");
        create(&path, Mib(1024)).expect("made");
        let content = std::fs::read(&path).expect("read");
        assert!(content.len() == 4 << 16 && content[3 << 16..].iter().all(|b| *b == 0));
    }
}
