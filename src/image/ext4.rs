//! tar stream → ext4 file, in one pass, without root.
//!
//! The result appears under its name only when it is whole, clean and on the disk. Device nodes and
//! fifos are left out (the formatter has none; a guest's devtmpfs makes what it needs) and counted.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tar::EntryType;

use crate::model::Mib;
use crate::os::files::named;

use super::e2fs::{self, Tools};
use super::meter::Meter;
use super::tar_entries::{Limits, TarEntry, add_entries, meta};
use super::tar_name::{link_target, parts, refused};
use super::tar_tree::Tree;
use super::{ImageError, Progress};

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
        Self { size, min: Mib(512), label: "root".into(), journal: true, max_bytes: 64 << 30, max_entries: 4_000_000 }
    }

    /// For a drive that is only read.
    pub fn read_only(label: &str) -> Self {
        Self { size: None, min: Mib(0), label: label.into(), journal: false, max_bytes: 4 << 30, max_entries: 200_000 }
    }
}

impl Ext4Options {
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
    /// `sha256:` and 64 hexadecimal digits of the stream as it was read.
    pub digest: String,
    /// Device nodes, fifos and entries of unknown kind that were left out.
    pub skipped: u64,
}

/// Writes the tree in `stream` as an ext4 filesystem into the new file `target`.
pub fn tar_to_ext4(
    stream: &mut dyn Read,
    target: &Path,
    options: &Ext4Options,
    progress: Progress,
) -> Result<Written, ImageError> {
    let tools = Tools::find()?;
    let meter = Meter::new(stream, progress);
    let mut filesystem = Filesystem::create(target, options)?;
    let skipped = add_entries(&meter, options.limits(), |entry, kept| filesystem.add(entry, kept, &mut io::sink()))?;
    let (size, used_bytes) = filesystem.finish(&tools, options)?;
    Ok(Written { size, used_bytes, digest: meter.digest(), skipped })
}

/// A filesystem under construction, beside its final name.
pub(super) struct Filesystem {
    tree: Tree,
    partial: Partial,
}

impl Filesystem {
    pub(super) fn create(target: &Path, options: &Ext4Options) -> Result<Self, ImageError> {
        let partial = Partial::beside(target);
        Ok(Self { tree: Tree::create(&partial.path, &options.label)?, partial })
    }

    /// Adds one entry under the name `kept`, the bytes of a file also going to `copy`; false when it is
    /// of a kind that is left out.
    pub(super) fn add(
        &mut self,
        entry: &mut TarEntry,
        kept: &[String],
        copy: &mut dyn Write,
    ) -> Result<bool, ImageError> {
        let name = entry.path_bytes().into_owned();
        match entry.header().entry_type() {
            EntryType::Directory => self.tree.put_folder(kept, &meta(entry)?)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.add_file(entry, &name, kept, copy)?;
            }
            EntryType::Symlink => {
                let target = link_target(&name, &entry.link_name_bytes().unwrap_or_default())?;
                self.tree.put_symlink(kept, &meta(entry)?, &target)?;
            }
            EntryType::Link => {
                let target = parts(&entry.link_name_bytes().unwrap_or_default())?;
                self.tree.put_link(kept, &target)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn add_file(
        &mut self,
        entry: &mut TarEntry,
        name: &[u8],
        kept: &[String],
        copy: &mut dyn Write,
    ) -> Result<(), ImageError> {
        // Before POSIX, a folder was a file whose name ends in a slash.
        if name.ends_with(b"/") {
            return self.tree.put_folder(kept, &meta(entry)?);
        }
        let meta = meta(entry)?;
        let expected = entry.size();
        let mut content = Content { inner: entry, copy, count: 0 };
        self.tree.put_file(kept, &meta, &mut content)?;
        if content.count != expected {
            return Err(refused(name, format!("cut off after {} of {expected} bytes", content.count)));
        }
        Ok(())
    }

    /// Makes it whole and gives it its name; its size and the bytes it takes.
    pub(super) fn finish(self, tools: &Tools, options: &Ext4Options) -> Result<(Mib, u64), ImageError> {
        let Self { tree, mut partial } = self;
        let inodes = tree.live();
        tree.close()?;
        let path = partial.path.clone();
        tools.settle(&path)?;
        resize(tools, &path, options)?;
        if options.journal {
            tools.add_journal(&path)?;
        }
        tools.verify(&path, inodes)?;
        partial.keep()
    }
}

fn resize(tools: &Tools, path: &Path, options: &Ext4Options) -> Result<(), ImageError> {
    let now = Mib::holding(fs::metadata(path).map_err(named("look at", path))?.len());
    let content = e2fs::used_bytes(path)? + if options.journal { e2fs::journal_bytes() } else { 0 };
    let wanted = match options.size {
        // A filesystem's own tables grow with it by less than a fiftieth.
        Some(size) if size.bytes() < content + content / 50 => {
            return Err(ImageError::TooSmall { size, needs: Mib::holding(content + content / 50) });
        }
        Some(size) => size,
        None => roomy(content, options.min).max(now),
    };
    if wanted == now { Ok(()) } else { tools.grow(path, wanted) }
}

/// A quarter more than `content` and 64 MiB, in steps of 64 MiB, at least `min`.
fn roomy(content: u64, min: Mib) -> Mib {
    let Mib(needed) = Mib::holding(content + content / 4 + (64 << 20));
    Mib(needed.div_ceil(64) * 64).max(min)
}

/// The bytes of an entry, counted and copied.
struct Content<'e, 'a, 'm> {
    inner: &'e mut TarEntry<'a, 'm>,
    copy: &'e mut dyn Write,
    count: u64,
}

impl Read for Content<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.copy.write_all(&buffer[..count])?;
        self.count += count as u64;
        Ok(count)
    }
}

/// A file beside its final name; removed when dropped before it was kept.
struct Partial {
    path: PathBuf,
    target: PathBuf,
}

impl Partial {
    fn beside(target: &Path) -> Self {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.{:x}", crate::os::random::number()));
        Self { path, target: target.to_owned() }
    }

    fn keep(&mut self) -> Result<(Mib, u64), ImageError> {
        let file = File::open(&self.path).map_err(named("open", &self.path))?;
        file.sync_all().map_err(named("sync", &self.path))?;
        let metadata = file.metadata().map_err(named("look at", &self.path))?;
        fs::rename(&self.path, &self.target).map_err(named("rename to", &self.target))?;
        let folder = self.target.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(named("sync", folder))?;
        Ok((Mib::holding(metadata.len()), metadata.blocks() * 512))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already when it was kept; otherwise the error that led here matters more.
        let _ = fs::remove_file(&self.path);
    }
}
