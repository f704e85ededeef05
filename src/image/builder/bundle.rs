//! Kernels that were downloaded: a tar as [`crate::image::import_kernel`] takes it, or the kernel alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::ImageError;
use super::kernels::{KernelBuild, release_at, stream};
use super::stream::Build;

/// Where a header's magic is (POSIX.1-2017, pax, "ustar Interchange Format"); GNU's differs after it.
const MAGIC: (u64, &[u8; 5]) = (257, b"ustar");
/// Where the content of an archive's first entry begins.
const FIRST_CONTENT: u64 = 512;

/// The kernel in `file`, which is at its beginning. Its release is `release`, or else what a bzImage says of itself that is
/// the file or an archive's first entry.
pub fn kernel_bundle(mut file: File, release: Option<&str>) -> Result<KernelBuild, ImageError> {
    let is_archive = is_archive(&file)?;
    let release = match release {
        Some(release) => release.to_owned(),
        None => release_at(&file, if is_archive { FIRST_CONTENT } else { 0 })?.unwrap_or_default(),
    };
    if !is_archive {
        return stream(file, None, release, None);
    }
    let build = Build::of_thread("kernel bundle", move |mut out| Ok(io::copy(&mut file, &mut out).map(drop)?))?;
    Ok(KernelBuild { build, release })
}

fn is_archive(file: &File) -> io::Result<bool> {
    let mut magic = [0; MAGIC.1.len()];
    let length = file.read_at(&mut magic, MAGIC.0)?;
    Ok(magic[..length] == MAGIC.1[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        file.rewind().expect("rewound");
        file
    }

    fn bzimage() -> Vec<u8> {
        let mut image = vec![0; 0x1000];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        image[0x500..0x507].copy_from_slice(b"6.1.0-x");
        image
    }

    fn archive(kernel: &[u8]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(kernel.len() as u64);
        archive.append_data(&mut header, "vmlinuz", kernel).expect("appended");
        archive.into_inner().expect("finished")
    }

    fn built(content: &[u8], release: Option<&str>) -> (Vec<u8>, String) {
        let mut kernel = kernel_bundle(file(content), release).expect("starts");
        let mut bytes = Vec::new();
        kernel.build.read_to_end(&mut bytes).expect("read");
        kernel.build.finish().expect("finished");
        (bytes, kernel.release)
    }

    #[test]
    fn an_archive_is_passed_on_as_it_is() {
        let archive = archive(&bzimage());
        assert_eq!(built(&archive, None), (archive.clone(), "6.1.0-x".to_owned()));
        assert_eq!(built(&archive, Some("7.0")), (archive.clone(), "7.0".to_owned()));
    }

    #[test]
    fn a_kernel_alone_becomes_an_archive() {
        let (bytes, release) = built(&bzimage(), None);
        assert_eq!(release, "6.1.0-x");
        let mut found = tar::Archive::new(&bytes[..]);
        let mut entry = found.entries().expect("an archive").next().expect("an entry").expect("whole");
        let mut kernel = Vec::new();
        entry.read_to_end(&mut kernel).expect("read");
        assert_eq!((entry.path_bytes().as_ref(), kernel), (&b"vmlinuz"[..], bzimage()));
        assert_eq!(built(b"short", None).1, "");
    }
}
