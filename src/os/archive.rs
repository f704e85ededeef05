//! A file or folder as a tar stream, and back into a folder that nothing in the stream leads out of.
//!
//! Both ends of `vm cp`. The kernel does the containing: every name is resolved with openat2(2)
//! `RESOLVE_BENEATH` from the folder's descriptor, so neither `..` nor a link that the stream brought
//! reaches anything else. Owners are not carried: what is unpacked belongs to who unpacks; set-id bits
//! are dropped, devices, sockets and pipes are left out and counted.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tar::{Archive, Builder, EntryType, Header};

/// Most bytes between the content of two files: names and links of 4096 bytes, and what tar says of them.
const HEADERS: u64 = 64 << 10;

/// Most bytes of a file that says to have none.
const UNSIZED: u64 = 16 << 20;

/// Bytes that end an archive: two empty blocks (POSIX pax, "ustar Interchange Format").
const BLOCK: usize = 512;

/// Something could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file, with the path that it has here or in the stream.
    #[error("{verb} {path}: {source}")]
    File {
        /// `read`, `create`, …
        verb: &'static str,
        /// The path.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A name that no honest archiver writes.
    #[error("the archive names {0:?}, which leads out of its folder")]
    Outside(String),
    /// A file with holes, whose size the stream does not bear out.
    #[error("the archive holds {0:?} as a sparse file: write it without --sparse")]
    Sparse(String),
    /// The stream itself.
    #[error("the archive cannot be read: {0}")]
    Stream(io::Error),
    /// It stopped in the middle.
    #[error("the archive ends before its end")]
    Truncated,
}

/// What came of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Files, folders and links.
    pub entries: u64,
    /// What is none of those and was left out.
    pub skipped: u64,
}

fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::File { verb, path: path.display().to_string(), source }
}

/// Writes `name` of `folder`, and all below it, to `out` under the name `as_name`; without a name
/// to give, a `name` of `.` is the folder's content. `name` may be a link; those below it are not
/// followed.
pub fn pack(folder: &Path, name: &OsStr, as_name: &OsStr, out: impl Write) -> Result<Moved, ArchiveError> {
    let mut packing = Packing { builder: Builder::new(out), moved: Moved::default() };
    let path = folder.join(name);
    let path = fs::canonicalize(&path).map_err(at("find", &path))?;
    if as_name.is_empty() {
        packing.add_content(&path, Path::new(""))?;
    } else {
        packing.add(&path, Path::new(as_name))?;
        if packing.moved.entries == 0 {
            let why = io::Error::other("it is neither file nor folder");
            return Err(at("copy", &path)(why));
        }
    }
    let mut out = packing.builder.into_inner().map_err(ArchiveError::Stream)?;
    out.flush().map_err(ArchiveError::Stream)?;
    Ok(packing.moved)
}

/// A file that is not there yet.
#[derive(Debug, Clone, Copy)]
pub struct Text<'t> {
    /// Its path in the stream.
    pub name: &'t str,
    /// Its content.
    pub content: &'t [u8],
    /// Its permissions.
    pub mode: u32,
}

/// Writes `paths`, files and links below `root`, and behind them `texts`, which are no files here, to `out`.
/// What has gone meanwhile, or became a folder, is skipped and counted.
pub fn pack_listed<'p>(
    root: &Path,
    paths: impl IntoIterator<Item = &'p Path>,
    texts: &[Text<'_>],
    out: impl Write,
) -> Result<Moved, ArchiveError> {
    let mut packing = Packing { builder: Builder::new(out), moved: Moved::default() };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, flags, Mode::empty()).map_err(|e| at("open", root)(e.into()))?;
    for name in paths {
        match packing.add_beneath(&top, name) {
            Ok(()) => {}
            Err(ArchiveError::File { source, .. }) if is_missing(&source) => packing.moved.skipped += 1,
            Err(e) => return Err(e),
        }
    }
    for text in texts {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(text.mode);
        header.set_size(text.content.len() as u64);
        packing.builder.append_data(&mut header, text.name, text.content).map_err(ArchiveError::Stream)?;
        packing.moved.entries += 1;
    }
    let mut out = packing.builder.into_inner().map_err(ArchiveError::Stream)?;
    out.flush().map_err(ArchiveError::Stream)?;
    Ok(packing.moved)
}

/// What is not there any more, or only behind a link, which no path of a list leads through.
fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ISDIR))
}

/// Of an entry that belongs to nobody here; kind and size are still to be said.
fn header(mode: u32, mtime: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_mtime(mtime.try_into().unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header
}

struct Packing<W: Write> {
    builder: Builder<W>,
    moved: Moved,
}

impl<W: Write> Packing<W> {
    fn add(&mut self, path: &Path, name: &Path) -> Result<(), ArchiveError> {
        let about = fs::symlink_metadata(path).map_err(at("read", path))?;
        let kind = about.file_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            self.moved.skipped += 1;
            return Ok(());
        }
        let mut header = header(about.mode() & 0o777, about.mtime());
        self.moved.entries += 1;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            self.builder.append_data(&mut header, name, io::empty()).map_err(ArchiveError::Stream)?;
            return self.add_content(path, name);
        }
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(at("read", path))?;
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            return self.builder.append_link(&mut header, name, target).map_err(ArchiveError::Stream);
        }
        header.set_entry_type(EntryType::Regular);
        let mut file = File::open(path).map_err(at("read", path))?;
        // Files of the kernel's have no size and may have content (proc(5)).
        let mut unsized_content = Vec::new();
        if about.len() == 0 {
            (&mut file).take(UNSIZED).read_to_end(&mut unsized_content).map_err(at("read", path))?;
        }
        let size = about.len().max(unsized_content.len() as u64);
        header.set_size(size);
        // Exactly as long as announced, whatever somebody does to the file meanwhile.
        let content = unsized_content.as_slice().chain(file).chain(io::repeat(0)).take(size);
        self.builder.append_data(&mut header, name, content).map_err(ArchiveError::Stream)
    }

    /// A file or link below `top`, reached through folders alone.
    fn add_beneath(&mut self, top: &OwnedFd, name: &Path) -> Result<(), ArchiveError> {
        let failed = |verb: &'static str| move |e: Errno| at(verb, name)(e.into());
        let folder = name.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let folder = rustix::fs::openat2(top, folder, flags, Mode::empty(), beneath).map_err(failed("read"))?;
        let last = name.file_name().ok_or(Errno::ISDIR).map_err(failed("read"))?;
        let about = rustix::fs::statat(&folder, last, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("read"))?;
        let mut header = header(about.st_mode & 0o777, about.st_mtime);
        match FileType::from_raw_mode(about.st_mode) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&folder, last, Vec::new()).map_err(failed("read"))?;
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                self.builder.append_link(&mut header, name, target).map_err(ArchiveError::Stream)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&folder, last, flags, Mode::empty()).map_err(failed("read"))?;
                let size = about.st_size.try_into().unwrap_or(0);
                header.set_entry_type(EntryType::Regular);
                header.set_size(size);
                // Exactly as long as announced, whatever somebody does to the file meanwhile.
                let content = File::from(file).chain(io::repeat(0)).take(size);
                self.builder.append_data(&mut header, name, content).map_err(ArchiveError::Stream)?;
            }
            _ => {
                self.moved.skipped += 1;
                return Ok(());
            }
        }
        self.moved.entries += 1;
        Ok(())
    }

    fn add_content(&mut self, folder: &Path, name: &Path) -> Result<(), ArchiveError> {
        let read = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut entries = read.map_err(at("read", folder))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        entries.iter().try_for_each(|entry| self.add(&entry.path(), &name.join(entry.file_name())))
    }
}

/// Unpacks `input` in `folder`, which is there. Files that are there are replaced, folders are added to.
/// With `as_name` the first part of every name becomes that one.
pub fn unpack(folder: &Path, as_name: Option<&OsStr>, input: impl Read) -> Result<Moved, ArchiveError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(folder, flags, Mode::empty()).map_err(|e| at("open", folder)(e.into()))?;
    let unpacking = Unpacking { root, as_name };
    let gauge = Gauge::default();
    let mut archive = Archive::new(Gauged { input, gauge: gauge.clone() });
    let mut moved = Moved::default();
    gauge.allow(Some(HEADERS));
    for entry in archive.entries().map_err(ArchiveError::Stream)? {
        let mut entry = entry.map_err(ArchiveError::Stream)?;
        gauge.allow(None);
        match unpacking.put(&mut entry)? {
            true => moved.entries += 1,
            false => moved.skipped += 1,
        }
        io::copy(&mut entry, &mut io::sink()).map_err(ArchiveError::Stream)?;
        gauge.allow(Some(HEADERS));
    }
    gauge.allow(None);
    to_its_end(archive.into_inner())?;
    Ok(moved)
}

/// The reader stops at the first empty block, and just as quietly where the stream was cut.
fn to_its_end(mut rest: Gauged<impl Read>) -> Result<(), ArchiveError> {
    if rest.gauge.has_ended.get() {
        return Err(ArchiveError::Truncated);
    }
    let mut block = [0; BLOCK];
    rest.read_exact(&mut block).map_err(|_| ArchiveError::Truncated)?;
    if block != [0; BLOCK] {
        return Err(ArchiveError::Truncated);
    }
    // What fills the last record: read, or its writer would meet a closed pipe.
    io::copy(&mut rest, &mut io::sink()).map(drop).map_err(ArchiveError::Stream)
}

struct Unpacking<'n> {
    root: OwnedFd,
    as_name: Option<&'n OsStr>,
}

impl Unpacking<'_> {
    /// Whether the entry is of a kind that is kept.
    fn put(&self, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, ArchiveError> {
        let bytes = entry.path_bytes().into_owned();
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        let path =
            inside(&entry.path().map_err(ArchiveError::Stream)?).ok_or_else(|| ArchiveError::Outside(shown()))?;
        let path = self.renamed(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            // The folder itself.
            return Ok(true);
        };
        let failed = |verb| move |e: Errno| ArchiveError::File { verb, path: shown(), source: e.into() };
        let parent = self.folder(parent).map_err(failed("create the folder of"))?;
        match entry.header().entry_type() {
            EntryType::Directory => make_folder(&parent, name, mode(entry)).map_err(failed("create")),
            EntryType::Regular | EntryType::Continuous => {
                clear_way(&parent, name).map_err(failed("replace"))?;
                write_file(&parent, name, entry).map_err(|e| at("write", &path)(e))
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                clear_way(&parent, name).map_err(failed("replace"))?;
                rustix::fs::symlinkat(target.as_slice(), &parent, name).map_err(failed("create"))
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(ArchiveError::Stream)?.unwrap_or_default().into_owned();
                let target = inside(&target).ok_or_else(|| ArchiveError::Outside(target.display().to_string()))?;
                let target = self.renamed(target);
                clear_way(&parent, name).map_err(failed("replace"))?;
                self.link(&target, &parent, name).map_err(failed("link"))
            }
            // Its holes are made here, out of nothing: one header could announce any number of zeros.
            EntryType::GNUSparse => return Err(ArchiveError::Sparse(shown())),
            _ => return Ok(false),
        }?;
        Ok(true)
    }

    fn renamed(&self, path: PathBuf) -> PathBuf {
        match (self.as_name, path.components().next()) {
            (Some(name), Some(first)) => Path::new(name).join(path.strip_prefix(first).unwrap_or(&path)),
            (Some(_), None) | (None, _) => path,
        }
    }

    /// The folder `path`, made where it is not there.
    fn folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let mut made = PathBuf::new();
        for part in path.components() {
            let parent = self.open(&made)?;
            made.push(part);
            match rustix::fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        self.open(path)
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), beneath)
    }

    /// A second name for a file of the same stream.
    fn link(&self, target: &Path, parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let folder = self.open(target.parent().unwrap_or(Path::new("")))?;
        let file = target.file_name().ok_or(Errno::ISDIR)?;
        rustix::fs::linkat(&folder, file, parent, name, AtFlags::empty())
    }
}

/// `path` in parts that stay inside; `None` when it does not.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut kept = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => kept.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(kept)
}

/// Permissions without set-id and sticky bits, and always some for the owner.
fn mode(entry: &tar::Entry<'_, impl Read>) -> Mode {
    let least = if entry.header().entry_type() == EntryType::Directory { 0o700 } else { 0o400 };
    Mode::from_raw_mode(entry.header().mode().unwrap_or(0o644) & 0o777 | least)
}

fn make_folder(parent: &OwnedFd, name: &OsStr, mode: Mode) -> Result<(), Errno> {
    match rustix::fs::mkdirat(parent, name, mode) {
        Err(Errno::EXIST) => {
            let about = rustix::fs::statat(parent, name, AtFlags::empty())?;
            let is_folder = FileType::from_raw_mode(about.st_mode).is_dir();
            if is_folder { Ok(()) } else { Err(Errno::NOTDIR) }
        }
        other => other,
    }
}

/// Removes the file or link that is called so; anything else stays, a device above all.
fn clear_way(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let kind = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(about) => FileType::from_raw_mode(about.st_mode),
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e),
    };
    match kind {
        FileType::RegularFile | FileType::Symlink => rustix::fs::unlinkat(parent, name, AtFlags::empty()),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::EXIST),
    }
}

fn write_file(parent: &OwnedFd, name: &OsStr, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(parent.as_fd(), name, flags, mode(entry))?);
    let (size, mtime) = (entry.size(), entry.header().mtime().unwrap_or(0));
    if io::copy(entry, &mut file)? != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match UNIX_EPOCH.checked_add(Duration::from_secs(mtime)) {
        Some(time) => file.set_modified(time),
        None => Ok(()),
    }
}

/// How much may be read before something is asked again.
#[derive(Debug, Clone, Default)]
struct Gauge {
    left: Rc<Cell<Option<u64>>>,
    has_ended: Rc<Cell<bool>>,
}

impl Gauge {
    fn allow(&self, bytes: Option<u64>) {
        self.left.set(bytes);
    }
}

struct Gauged<R> {
    input: R,
    gauge: Gauge,
}

impl<R: Read> Read for Gauged<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.gauge.has_ended.set(count == 0 && !buffer.is_empty());
        if let Some(left) = self.gauge.left.get() {
            let left = left.checked_sub(count as u64);
            self.gauge.left.set(Some(left.ok_or_else(|| io::Error::other("a header is larger than 64 KiB"))?));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn stream(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, name, link, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o6755);
            // By hand: the crate itself refuses what a hostile archive may name.
            let old = header.as_old_mut();
            old.name[..name.len()].copy_from_slice(name.as_bytes());
            old.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            builder.append(&header, *content).expect("written");
        }
        builder.into_inner().expect("written")
    }

    #[test]
    fn a_folder_arrives_as_it_was() {
        let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let tree = from.path().join("tree");
        fs::create_dir_all(tree.join("deep/er")).expect("made");
        fs::write(tree.join("deep/file"), "content").expect("written");
        fs::write(tree.join("x".repeat(200)), "long").expect("written");
        fs::set_permissions(tree.join("deep/file"), fs::Permissions::from_mode(0o755)).expect("set");
        symlink("deep/file", tree.join("link")).expect("made");
        symlink("/etc/passwd", tree.join("away")).expect("made");
        rustix::fs::mknodat(rustix::fs::CWD, tree.join("pipe"), FileType::Fifo, Mode::RWXU, 0).expect("made");
        let mut bytes = Vec::new();
        let packed = pack(from.path(), "tree".as_ref(), "tree".as_ref(), &mut bytes).expect("packed");
        assert_eq!(packed, Moved { entries: 7, skipped: 1 });
        assert_eq!(unpack(to.path(), None, bytes.as_slice()).expect("unpacked"), Moved { entries: 7, skipped: 0 });
        let there = to.path().join("tree");
        assert_eq!(fs::read(there.join("link")).expect("read"), b"content");
        assert_eq!(fs::read(there.join("x".repeat(200))).expect("read"), b"long");
        assert_eq!(fs::read_link(there.join("away")).expect("read"), Path::new("/etc/passwd"));
        assert_eq!(fs::metadata(there.join("deep/file")).expect("read").mode() & 0o7777, 0o755);
        unpack(to.path(), Some("other".as_ref()), bytes.as_slice()).expect("under another name");
        assert_eq!(fs::read(to.path().join("other/link")).expect("read"), b"content");
        let mut content = Vec::new();
        pack(&tree, ".".as_ref(), "".as_ref(), &mut content).expect("packed");
        let mut linked = Vec::new();
        pack(&tree, "link".as_ref(), "file".as_ref(), &mut linked).expect("packed");
        unpack(to.path(), None, linked.as_slice()).expect("unpacked");
        assert!(fs::symlink_metadata(to.path().join("file")).expect("there").is_file());
        unpack(&there, None, content.as_slice()).expect("a second time");
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("in");
        fs::create_dir(&folder).expect("made");
        fs::write(above.path().join("secret"), "untouched").expect("written");
        let attacks = [
            stream(&[(EntryType::Regular, "../secret", "", b"x")]),
            stream(&[(EntryType::Regular, "/tmp/x", "", b"x")]),
            stream(&[(EntryType::Symlink, "up", "..", b""), (EntryType::Regular, "up/secret", "", b"x")]),
            stream(&[(EntryType::Symlink, "root", "/", b""), (EntryType::Regular, "root/x", "", b"x")]),
            stream(&[(EntryType::Symlink, "s", "../secret", b""), (EntryType::Directory, "s", "", b"")]),
            stream(&[(EntryType::Link, "hard", "../secret", b"")]),
            stream(&[(EntryType::Symlink, "u", "..", b""), (EntryType::Link, "hard", "u/secret", b"")]),
        ];
        for bytes in attacks {
            let result = unpack(&folder, None, bytes.as_slice());
            assert!(result.is_err(), "{result:?}");
        }
        // A link that is there is replaced, not followed.
        unpack(&folder, None, stream(&[(EntryType::Regular, "s", "", b"x")]).as_slice()).expect("unpacked");
        assert_eq!(fs::read(above.path().join("secret")).expect("read"), b"untouched");
        let mode = fs::metadata(folder.join("s")).expect("there").mode();
        assert_eq!(mode & 0o7777, 0o755, "no set-id bits");
    }

    #[test]
    fn a_file_of_the_kernels_has_content_and_a_device_is_no_file() {
        let mut bytes = Vec::new();
        pack(Path::new("/proc"), "version".as_ref(), "v".as_ref(), &mut bytes).expect("packed");
        let folder = tempfile::tempdir().expect("a folder");
        unpack(folder.path(), None, bytes.as_slice()).expect("unpacked");
        let version = fs::read("/proc/version").expect("read");
        assert_eq!(fs::read(folder.path().join("v")).expect("read"), version);
        assert!(pack(Path::new("/dev"), "null".as_ref(), "n".as_ref(), Vec::new()).is_err());
    }

    #[test]
    fn a_pipe_is_not_replaced_and_a_sparse_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).expect("made");
        let bytes = stream(&[(EntryType::Regular, "pipe", "", b"x")]);
        assert!(matches!(unpack(folder.path(), None, bytes.as_slice()), Err(ArchiveError::File { .. })));
        assert!(!fs::symlink_metadata(&pipe).expect("there").is_file());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_size(0);
        let gnu = header.as_gnu_mut().expect("the kind of header");
        gnu.name[..1].copy_from_slice(b"s");
        gnu.set_real_size(1 << 62);
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, io::empty()).expect("written");
        let bytes = builder.into_inner().expect("written");
        assert!(unpack(folder.path(), None, bytes.as_slice()).is_err());
    }

    #[test]
    fn a_cut_archive_is_never_whole_and_a_huge_header_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = stream(&[(EntryType::Regular, "a", "", b"content"), (EntryType::Directory, "b", "", b"")]);
        for cut in (0..whole.len() - BLOCK).step_by(100) {
            assert!(unpack(folder.path(), None, &whole[..cut]).is_err(), "{cut}");
        }
        assert_eq!(unpack(folder.path(), None, whole.as_slice()).expect("whole").entries, 2);
        let long = stream(&[(EntryType::GNULongName, "x", "", &[b'a'; 100_000])]);
        assert!(unpack(folder.path(), None, long.as_slice()).is_err());
    }
}
