//! The initramfs of one VM: banger as `/init`, the modules its devices need, and its identity.

use std::io::{Read, Write};

use crate::model::identity::IDENTITY_PATH;

use super::ImageError;
use super::archive::NewcWriter;

/// Mode, name and numbers of the devices that `init` needs before devtmpfs is mounted
/// (Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u32, (u32, u32)); 2] = [("dev/console", 0o600, (5, 1)), ("dev/null", 0o666, (1, 3))];

/// Writes the initramfs to `out`; its length. `init_binary` gives `init_size` bytes of a static program,
/// `modules_cpio` is what [`super::import_kernel`] made, `identity` the encoded
/// [`crate::model::identity::Identity`].
pub fn write_initramfs(
    out: &mut dyn Write,
    init_binary: &mut dyn Read,
    init_size: u64,
    modules_cpio: Option<&mut dyn Read>,
    identity: &[u8],
) -> Result<u64, ImageError> {
    let mut archive = NewcWriter::new(out);
    write_base(&mut archive, init_binary, init_size)?;
    if let Some(modules) = modules_cpio {
        archive.append(modules)?;
    }
    // Last, so that it is the same few bytes at the end whatever comes before.
    archive.folder("banger", 0o700)?;
    archive.file(IDENTITY_PATH, 0o600, identity.len() as u64, &mut &identity[..])?;
    archive.end()?;
    Ok(archive.count())
}

fn write_base<W: Write>(archive: &mut NewcWriter<W>, init: &mut dyn Read, size: u64) -> std::io::Result<()> {
    for folder in ["dev", "proc", "sys", "newroot"] {
        archive.folder(folder, 0o755)?;
    }
    archive.folder("banger", 0o700)?;
    for (name, mode, numbers) in DEVICES {
        archive.character_device(name, mode, numbers)?;
    }
    archive.file("init", 0o755, size, init)?;
    archive.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, modes and contents of all archives in `bytes`, each found on a boundary of 4 bytes.
    pub(crate) fn entries(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at..at + 4] == [0; 4] {
                at += 4;
                continue;
            }
            assert_eq!(&bytes[at..at + 6], b"070701");
            let mut reader = cpio::newc::Reader::new(&bytes[at..]).expect("an entry");
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = Vec::new();
            reader.read_to_end(&mut content).expect("content");
            let rest = reader.finish().expect("ends").len();
            at = bytes.len() - rest;
            if name != "TRAILER!!!" {
                found.push((name, mode, content));
            }
        }
        found
    }

    #[test]
    fn holds_init_modules_and_identity_in_this_order() {
        let mut modules = Vec::new();
        let mut inner = NewcWriter::new(&mut modules);
        inner.file("modules/a.ko", 0o644, 3, &mut &b"abc"[..]).expect("written");
        inner.end().expect("written");
        // An archive made elsewhere may not be filled up.
        modules.push(0);
        let mut out = Vec::new();
        let length =
            write_initramfs(&mut out, &mut &b"#!init"[..], 6, Some(&mut &modules[..]), b"who").expect("written");
        assert_eq!(length, out.len() as u64);
        assert_eq!(length % 4, 0);
        let entries = entries(&out);
        let names: Vec<&str> = entries.iter().map(|(name, _, _)| name.as_str()).collect();
        let expected = "dev proc sys newroot banger dev/console dev/null init modules/a.ko banger banger/identity";
        assert_eq!(names.join(" "), expected);
        let by_name = |name: &str| entries.iter().find(|e| e.0 == name).expect("there").clone();
        assert_eq!(by_name("dev/console").1, 0o020_600);
        assert_eq!(by_name("init").1, 0o100_755);
        assert_eq!(by_name(IDENTITY_PATH).1, 0o100_600);
        assert_eq!(by_name(IDENTITY_PATH).2, b"who");
    }

    #[test]
    fn a_short_init_is_an_error() {
        assert!(write_initramfs(&mut Vec::new(), &mut &b"abc"[..], 4, None, b"").is_err());
    }
}
