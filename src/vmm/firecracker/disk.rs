//! The root disk where the kernel makes no snapshots: a file of the owner's with the image's
//! content. Shares its blocks with the image where the filesystem can (`FICLONE`, ioctl_ficlone(2));
//! else what the image holds is copied, its holes are not, and somebody is told how much that is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::model::Mib;
use crate::model::size::human;
use crate::os::content;
use crate::os::files::named;

/// Copies below this are not worth a line.
const WORTH_TELLING: u64 = 64 << 20;

/// Makes the disk of `size` at `path` with what `image` holds, for the owner alone. It is complete
/// when it has its name.
pub(super) fn copy(image: &Path, path: &Path, size: Mib, tell: &dyn Fn(String)) -> io::Result<()> {
    content::replicate(image, path, Some(size.bytes()), &|from| tell_of_copy(from, tell))
}

fn tell_of_copy(from: &File, tell: &dyn Fn(String)) -> io::Result<()> {
    // `st_blocks` counts 512 bytes each, whatever the filesystem's blocks are (stat(3type)).
    let bytes = from.metadata()?.blocks() * 512;
    if bytes >= WORTH_TELLING {
        tell(format!("this kernel makes no disk snapshots: the image's {} are copied", human(bytes)));
    }
    Ok(())
}

/// Makes the disk at `path` larger, never smaller.
pub(super) fn grow(path: &Path, size: Mib) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path).map_err(named("open", path))?;
    if file.metadata()?.len() > size.bytes() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is larger than that", path.display())));
    }
    file.set_len(size.bytes()).and_then(|()| file.sync_all()).map_err(named("grow", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_copy_has_the_images_content_its_holes_and_its_own_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let (image, path) = (folder.path().join("image"), folder.path().join("root.disk"));
        let file = File::create(&image).expect("made");
        file.set_len(512 << 20).expect("sparse");
        file.write_all_at(b"begin", 0).expect("written");
        file.write_all_at(&[7; 100_000], 300 << 20).expect("written");
        let told = std::cell::RefCell::new(Vec::new());
        copy(&image, &path, Mib(1024), &|line| told.borrow_mut().push(line)).expect("copied");
        let seen = std::fs::metadata(&path).expect("there");
        assert_eq!((seen.len(), seen.mode() & 0o777), (1 << 30, 0o600));
        assert!(seen.blocks() * 512 < 1 << 20, "holes were filled");
        let copy = File::open(&path).expect("opens");
        let mut bytes = [0; 5];
        copy.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"begin");
        copy.read_exact_at(&mut bytes, (300 << 20) + 99_995).expect("read");
        assert_eq!(bytes, [7; 5]);
        assert!(told.borrow().is_empty(), "a small copy was announced");
        grow(&path, Mib(2048)).expect("grown");
        assert!(grow(&path, Mib(64)).is_err(), "a disk shrank");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 2 << 30);
    }

    #[test]
    fn a_large_copy_is_announced() {
        let file = tempfile::tempfile().expect("a file");
        for at in 0..65 {
            file.write_all_at(&vec![1; 1 << 20], at << 20).expect("written");
        }
        let told = std::cell::RefCell::new(Vec::new());
        tell_of_copy(&file, &|line| told.borrow_mut().push(line)).expect("looked");
        assert!(told.borrow().first().is_some_and(|line| line.contains("copied")));
    }
}
