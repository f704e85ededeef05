//! tar streams → ext4 file, in one pass, without root.
//!
//! The result appears under its name only when it is whole and on the disk. Sockets and entries of unknown
//! kind are left out and counted.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::ext4::{Content, Ext4, Form, Unwritable};
use super::layers::LayerReader;
use super::meter::Meter;
use super::tar_entries::{End, Limits, Tally, add_entries, meta};
use super::tar_name::{link_target, parts, refused};
use super::tar_reader::TarEntry;
use super::tar_sparse::map_of;
use super::tree::{Kind, Tree};
use super::{ImageError, Progress};
use crate::model::Mib;
use crate::os::files::named;

/// Before a name that a layer takes away from those below it (OCI image spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// In a folder of which nothing from below is to be seen.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Before names of a union filesystem's own files, which are no whiteouts.
const UNION_OWN: &[u8] = b".wh..wh.";

/// How the filesystem is made.
#[derive(Debug, Clone)]
pub struct Ext4Options {
    /// Its size; `None`: the content, a quarter, and some room.
    pub size: Option<Mib>,
    /// The least size where `size` is `None`.
    pub min: Mib,
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// Whether it gets a journal; what is only ever read needs none.
    pub journal: bool,
    /// Most bytes of content.
    pub max_bytes: u64,
    /// Most entries.
    pub max_entries: u64,
}

impl Ext4Options {
    /// For an image that VMs boot from.
    pub fn root(size: Option<Mib>) -> Self {
        Self { size, min: Mib(512), label: "root".into(), journal: true, max_bytes: 64 << 30, max_entries: 2_000_000 }
    }

    /// For a drive that is only read.
    pub fn read_only(label: &str) -> Self {
        Self { size: None, min: Mib(0), label: label.into(), journal: false, max_bytes: 4 << 30, max_entries: 200_000 }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { bytes: self.max_bytes, entries: self.max_entries }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Size of the filesystem.
    pub size: Mib,
    /// Bytes it takes on the host's disk; the file is sparse.
    pub used_bytes: u64,
    /// `sha256:` and 64 hexadecimal digits of the stream as it was read; empty for layers, which
    /// have digests of their own.
    pub digest: String,
    /// Sockets and entries of unknown kind that were left out.
    pub skipped: u64,
    /// Whether its `/sbin/init` is systemd.
    pub has_systemd: bool,
}

/// Writes the tree in `stream` as an ext4 filesystem into the new file `target`.
pub fn tar_to_ext4(
    stream: &mut dyn Read,
    target: &Path,
    options: &Ext4Options,
    progress: Progress,
) -> Result<Written, ImageError> {
    let meter = Meter::new(stream, progress);
    let mut filesystem = Filesystem::create(target, options)?;
    let mut tally = Tally::default();
    add_entries(&meter, options.limits(), &mut tally, End::Marked, |entry, kept| {
        filesystem.add(entry, kept, &mut io::sink())
    })?;
    let has_systemd = filesystem.has_systemd();
    let (size, used_bytes) = filesystem.finish(options)?;
    Ok(Written { size, used_bytes, digest: meter.digest(), skipped: tally.skipped, has_systemd })
}

/// Writes the layers in `stream`, as [`super::LayerWriter`] writes them, the lowest first, as one ext4
/// filesystem into the new file `target`.
pub fn layers_to_ext4(
    stream: &mut dyn Read,
    target: &Path,
    options: &Ext4Options,
    progress: Progress,
) -> Result<Written, ImageError> {
    let mut filesystem = Filesystem::create(target, options)?;
    let mut tally = Tally::default();
    let mut layers = LayerReader::new(stream);
    let mut before = 0;
    while layers.next_layer().map_err(ImageError::Stream)? {
        let mut told = |bytes: u64| progress(before + bytes);
        let meter = Meter::unhashed(&mut layers, &mut told);
        filesystem.tree.begin_layer();
        add_entries(&meter, options.limits(), &mut tally, End::OfStream, |entry, kept| {
            filesystem.add_layered(entry, kept)
        })?;
        before += meter.total();
    }
    let has_systemd = filesystem.has_systemd();
    let (size, used_bytes) = filesystem.finish(options)?;
    Ok(Written { size, used_bytes, digest: String::new(), skipped: tally.skipped, has_systemd })
}

/// A filesystem under construction, beside its final name.
pub(super) struct Filesystem {
    tree: Tree,
    ext4: Ext4,
    partial: Partial,
}

impl Filesystem {
    pub(super) fn create(target: &Path, options: &Ext4Options) -> Result<Self, ImageError> {
        let partial = Partial::beside(target);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial.path)
            .map_err(named("create", &partial.path))?;
        Ok(Self { tree: Tree::new(), ext4: Ext4::new(file, options.size), partial })
    }

    /// Adds an entry of a layer, which may take something away instead.
    fn add_layered(&mut self, entry: &mut TarEntry, kept: &[Vec<u8>]) -> Result<bool, ImageError> {
        let Some((name, above)) = kept.split_last() else { return self.add(entry, kept, &mut io::sink()) };
        if name == OPAQUE {
            self.tree.make_opaque(above)?;
        } else if name.starts_with(UNION_OWN) {
            return Ok(false);
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            // `.wh...` would be the folder above.
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(refused(name, "it hides no name"));
            }
            self.tree.whiteout(&[above, &[hidden.to_vec()]].concat())?;
        } else {
            return self.add(entry, kept, &mut io::sink());
        }
        Ok(true)
    }

    /// Adds one entry under the name `kept`, the bytes of a file also going to `copy`; false when it is
    /// of a kind that is left out.
    pub(super) fn add(
        &mut self,
        entry: &mut TarEntry,
        kept: &[Vec<u8>],
        copy: &mut dyn Write,
    ) -> Result<bool, ImageError> {
        let name = entry.name().to_vec();
        let kind = match entry.kind() {
            EntryType::Directory => return self.tree.put_folder(kept, meta(entry)?).map(|()| true),
            // Before POSIX, a folder was a file whose name ends in a slash.
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => {
                return self.tree.put_folder(kept, meta(entry)?).map(|()| true);
            }
            EntryType::Link => {
                let target = parts(entry.link())?;
                return self.tree.put_link(kept, &target).map(|()| true);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.add_file(entry, &name, kept, copy).map(|()| true);
            }
            EntryType::Symlink => Kind::Symlink(link_target(&name, entry.link())?),
            EntryType::Block => {
                let (major, minor) = device(entry, &name)?;
                Kind::BlockDevice { major, minor }
            }
            EntryType::Char => {
                let (major, minor) = device(entry, &name)?;
                Kind::CharacterDevice { major, minor }
            }
            EntryType::Fifo => Kind::Fifo,
            _ => return Ok(false),
        };
        let place = self.tree.clear(kept)?;
        self.tree.put(place, meta(entry)?, kind);
        Ok(true)
    }

    fn add_file(
        &mut self,
        entry: &mut TarEntry,
        name: &[u8],
        kept: &[Vec<u8>],
        copy: &mut dyn Write,
    ) -> Result<(), ImageError> {
        let meta = meta(entry)?;
        let place = self.tree.clear(kept)?;
        let content = match map_of(entry)? {
            None => self.store(entry, name, copy)?,
            Some(map) => {
                let mut writer = self.ext4.content();
                let mut at = 0;
                for (offset, length) in map.parts {
                    writer.skip(offset - at).map_err(ImageError::File)?;
                    pass(entry, name, length, &mut |bytes| Ok(writer.write(bytes)?))?;
                    at = offset + length;
                }
                writer.skip(map.size - at)?;
                writer.finish()?
            }
        };
        self.tree.put(place, meta, Kind::File(content));
        Ok(())
    }

    fn store(&mut self, entry: &mut TarEntry, name: &[u8], copy: &mut dyn Write) -> Result<Content, ImageError> {
        let mut writer = self.ext4.content();
        let expected = entry.size();
        pass(entry, name, expected, &mut |bytes| {
            copy.write_all(bytes)?;
            Ok(writer.write(bytes)?)
        })?;
        Ok(writer.finish()?)
    }

    /// An image that only happens to have systemd's files, as a package that others need, has another init.
    fn has_systemd(&self) -> bool {
        let init = [b"sbin".to_vec(), b"init".to_vec()];
        self.tree.program(&init).is_some_and(|name| name == b"systemd")
    }

    /// Makes it whole and gives it its name; its size and the bytes it takes.
    pub(super) fn finish(self, options: &Ext4Options) -> Result<(Mib, u64), ImageError> {
        let Self { tree, ext4, mut partial } = self;
        let form = Form { size: options.size, least: options.min, label: &options.label, journal: options.journal };
        let (file, size) = ext4.finish(&tree, &form).map_err(|e| unwritable(e, options.size))?;
        drop(tree);
        let used_bytes = partial.keep(&file)?;
        Ok((size, used_bytes))
    }
}

/// Passes `length` bytes of an entry's content on.
fn pass(
    entry: &mut TarEntry,
    name: &[u8],
    length: u64,
    write: &mut dyn FnMut(&[u8]) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut buffer = [0; 64 << 10];
    let mut left = length;
    while left > 0 {
        let room = left.min(buffer.len() as u64) as usize;
        match entry.read(&mut buffer[..room]) {
            Ok(0) => return Err(refused(name, format!("cut off after {} of {length} bytes", length - left))),
            Ok(count) => {
                write(&buffer[..count])?;
                left -= count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ImageError::Stream(e)),
        }
    }
    Ok(())
}

/// A device's numbers, which Linux has 12 and 20 bits for.
fn device(entry: &TarEntry, name: &[u8]) -> Result<(u32, u32), ImageError> {
    let number = |value: io::Result<Option<u32>>, most: u32| value.ok().flatten().filter(|number| *number <= most);
    let (major, minor) = (entry.header().device_major(), entry.header().device_minor());
    number(major, 0xfff)
        .zip(number(minor, 0xf_ffff))
        .ok_or_else(|| refused(name, "its device has no numbers that Linux could have"))
}

fn unwritable(error: Unwritable, asked: Option<Mib>) -> ImageError {
    match (error, asked) {
        (Unwritable::Size(needs), Some(size)) => ImageError::TooSmall { size, needs },
        (Unwritable::Size(needs), None) => ImageError::TooSmall { size: Mib(0), needs },
        (Unwritable::Folder(name), _) => refused(&name, "it has more names than a folder of ext4 can have"),
        (Unwritable::Attributes(name), _) => refused(&name, "its extended attributes need more than 4 KiB"),
        (Unwritable::File(error), _) => ImageError::File(error),
    }
}

/// A file beside its final name; removed when dropped before it was kept.
struct Partial {
    path: PathBuf,
    target: PathBuf,
    is_kept: bool,
}

impl Partial {
    fn beside(target: &Path) -> Self {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.{:x}", crate::os::random::number()));
        Self { path, target: target.to_owned(), is_kept: false }
    }

    /// Bytes that it takes, once it has its name.
    fn keep(&mut self, file: &File) -> Result<u64, ImageError> {
        file.sync_all().map_err(named("sync", &self.path))?;
        let metadata = file.metadata().map_err(named("look at", &self.path))?;
        fs::rename(&self.path, &self.target).map_err(named("rename to", &self.target))?;
        self.is_kept = true;
        let folder = self.target.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(named("sync", folder))?;
        Ok(metadata.blocks() * 512)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_kept {
            // The error that led here matters more.
            let _ = fs::remove_file(&self.path);
        }
    }
}
