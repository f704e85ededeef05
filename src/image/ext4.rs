//! tar stream → ext4 file, in one pass, without root.
//!
//! The result appears under its name only when it is whole, clean and on the disk. Device nodes and
//! fifos are left out (the formatter has none; a guest's devtmpfs makes what it needs) and counted.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use crate::model::Mib;
use crate::os::files::named;

use super::e2fs::{self, Tools};
use super::meter::Meter;
use super::tar_name::{link_target, parts, refused};
use super::tar_tree::{HEADER_BYTES, Meta, Tree};
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
    let skipped = add_entries(&meter, options, |entry, kept| filesystem.add(entry, kept, &mut io::sink()))?;
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

/// An entry of a metered archive.
pub(super) type TarEntry<'a, 'm> = Entry<'a, Meter<'m>>;

/// Hands every entry of the archive to `add`, with its name in parts; how many `add` left out.
/// The stream must end as an archive does.
pub(super) fn add_entries<'m>(
    meter: &Meter<'m>,
    options: &Ext4Options,
    mut add: impl FnMut(&mut TarEntry<'_, 'm>, &[String]) -> Result<bool, ImageError>,
) -> Result<u64, ImageError> {
    let mut archive = Archive::new(meter.clone());
    let mut entries = archive.entries().map_err(|e| meter.explain(e))?;
    let (mut count, mut bytes, mut skipped) = (0, 0, 0);
    loop {
        meter.allow(Some(HEADER_BYTES));
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|e| meter.explain(e))?;
        meter.allow(None);
        count += 1;
        bytes = entry.size().saturating_add(bytes);
        check_limits(options, count, bytes)?;
        if entry.header().entry_type().is_pax_global_extensions() {
            drain(meter, &mut entry)?;
            continue;
        }
        let kept = parts(&entry.path_bytes())?;
        match add(&mut entry, &kept) {
            Ok(true) => {}
            Ok(false) => {
                skipped += 1;
                drain(meter, &mut entry)?;
            }
            Err(error) => return Err(meter.refusal().unwrap_or(error)),
        }
        // What `add` did not care to read, so that the next headers are all that the next step reads.
        drain(meter, &mut entry)?;
    }
    end_of_archive(meter)?;
    Ok(skipped)
}

fn check_limits(options: &Ext4Options, count: u64, bytes: u64) -> Result<(), ImageError> {
    if count > options.max_entries {
        return Err(ImageError::Limit { what: "entries", limit: options.max_entries });
    }
    if bytes > options.max_bytes {
        return Err(ImageError::Limit { what: "bytes of content", limit: options.max_bytes });
    }
    Ok(())
}

fn drain(meter: &Meter, entry: &mut TarEntry) -> Result<(), ImageError> {
    io::copy(entry, &mut io::sink()).map(drop).map_err(|e| meter.explain(e))
}

/// An archive ends with two blocks of zeros (POSIX pax, "ustar Interchange Format") and then whatever
/// fills its last record. The reader stops at the first block, and just as quietly at the end of the
/// stream.
fn end_of_archive(meter: &Meter) -> Result<(), ImageError> {
    let truncated = || ImageError::Truncated(meter.total());
    if meter.has_ended() {
        return Err(truncated());
    }
    meter.allow(Some(HEADER_BYTES));
    let mut rest = Vec::new();
    meter.clone().read_to_end(&mut rest).map_err(|e| meter.explain(e))?;
    if rest.len() < 512 || rest[..512].iter().any(|byte| *byte != 0) {
        return Err(truncated());
    }
    Ok(())
}

fn meta(entry: &mut TarEntry) -> Result<Meta, ImageError> {
    let name = entry.path_bytes().into_owned();
    let number = |what: &str, value: io::Result<u64>| {
        value
            .ok()
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| refused(&name, format!("its {what} is no number of 32 bits")))
    };
    let header = entry.header();
    let mut meta = Meta {
        mode: (number("mode", header.mode().map(u64::from))? & 0o7777) as u16,
        uid: number("owner", header.uid())?,
        gid: number("group", header.gid())?,
        mtime: (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0),
        ..Meta::default()
    };
    add_pax_records(entry, &name, &mut meta)?;
    Ok(meta)
}

/// Time and extended attributes, which GNU tar, bsdtar and star put into PAX records.
fn add_pax_records(entry: &mut TarEntry, name: &[u8], meta: &mut Meta) -> Result<(), ImageError> {
    let Some(records) = entry.pax_extensions().map_err(ImageError::Stream)? else { return Ok(()) };
    for record in records {
        let record = record.map_err(ImageError::Stream)?;
        let Ok(key) = record.key() else { continue };
        if key == "mtime" {
            meta.mtime = std::str::from_utf8(record.value_bytes()).ok().and_then(pax_time).unwrap_or(meta.mtime);
        } else if key.starts_with("GNU.sparse.") {
            return Err(refused(name, "it is a sparse file of the PAX kind: write the archive without --sparse"));
        } else if let Some(attribute) = key.strip_prefix("SCHILY.xattr.").filter(|a| is_kept(a)) {
            meta.xattrs.insert(attribute.to_owned(), record.value_bytes().to_vec());
        }
    }
    Ok(())
}

/// `system.` attributes (ACLs) have another form on the disk than in an archive.
fn is_kept(attribute: &str) -> bool {
    let known = ["user.", "trusted.", "security."].iter().any(|prefix| attribute.starts_with(prefix));
    known && attribute.len() <= 255
}

/// Seconds with a fraction, before the epoch with a minus (POSIX pax, "mtime").
fn pax_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (seconds.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((whole.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((whole, nanoseconds)),
    }
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
