//! tar stream → kernel folder: `vmlinux`, `modules.cpio` for the initramfs, `modules.ext4` for the rest.
//!
//! One pass. What is needed early is known only when `modules.dep` has come by, so all module files are
//! kept in a nameless scratch file until then.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::model::identity::{MODULE_LIST_PATH, RELEASE_PATH};
use crate::os::files::named;

use super::archive::NewcWriter;
use super::decompress::{Compression, decompress};
use super::meter::Meter;
use super::modules::{ModuleSet, name_of};
use super::rootfs::{Ext4Options, Filesystem};
use super::tar_entries::{End, Tally, add_entries};
use super::tar_name::refused;
use super::tar_reader::TarEntry;
use super::vmlinux::extract_vmlinux;
use super::{ImageError, Progress};

/// Most bytes of a kernel file.
const KERNEL_BYTES: u64 = 512 << 20;
/// Most bytes of one of depmod's lists.
const LIST_BYTES: u64 = 16 << 20;

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedKernel {
    /// `modules.cpio` and `modules.ext4` are there beside `vmlinux`.
    pub has_modules_drive: bool,
    /// Bytes all files take on the host's disk.
    pub used_bytes: u64,
}

/// Makes a bootable kernel in the empty `folder` of a stream that holds `vmlinuz` or `vmlinux` and, where
/// the kernel has modules, `modules/**` as in `/lib/modules/RELEASE` after depmod(8). After an error the
/// folder holds nothing of worth.
pub fn import_kernel(
    stream: &mut dyn Read,
    folder: &Path,
    release: &str,
    progress: Progress,
) -> Result<ImportedKernel, ImageError> {
    check_release(release)?;
    let options = Ext4Options::read_only("modules");
    let meter = Meter::new(stream, progress);
    let mut import = Import { folder, options: options.clone(), kernel: None, modules: None };
    add_entries(&meter, options.limits(), &mut Tally::default(), End::Marked, |entry, kept| import.take(entry, kept))?;
    import.finish(release)
}

/// A release is a folder name and part of a command line.
pub(super) fn check_release(release: &str) -> Result<(), ImageError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    if release.len() > 64 || release.starts_with('.') || !release.chars().all(plain) {
        return Err(ImageError::Release(release.to_owned()));
    }
    Ok(())
}

struct Import<'a> {
    folder: &'a Path,
    options: Ext4Options,
    kernel: Option<Vec<u8>>,
    modules: Option<Modules>,
}

impl Import<'_> {
    fn take(&mut self, entry: &mut TarEntry, kept: &[Vec<u8>]) -> Result<bool, ImageError> {
        let parts: Vec<&[u8]> = kept.iter().map(Vec::as_slice).collect();
        match parts.as_slice() {
            [] => Ok(true),
            [b"vmlinuz" | b"vmlinux"] => self.take_kernel(entry).map(|()| true),
            [b"modules", ..] => self.modules()?.take(entry, &kept[1..]),
            _ => Err(refused(&kept.join(&b'/'), "only vmlinuz, vmlinux and modules/ belong here")),
        }
    }

    fn take_kernel(&mut self, entry: &mut TarEntry) -> Result<(), ImageError> {
        let name = entry.name().to_vec();
        let size = entry.size();
        if !entry.kind().is_file() || size > KERNEL_BYTES || self.kernel.is_some() {
            return Err(refused(&name, "one kernel is expected, a regular file of at most 512 MiB"));
        }
        let mut kernel = Vec::new();
        entry.read_to_end(&mut kernel).map_err(ImageError::Stream)?;
        if kernel.len() as u64 != size {
            return Err(refused(&name, format!("cut off after {} of {size} bytes", kernel.len())));
        }
        self.kernel = Some(kernel);
        Ok(())
    }

    fn modules(&mut self) -> Result<&mut Modules, ImageError> {
        match &mut self.modules {
            Some(modules) => Ok(modules),
            none => Ok(none.insert(Modules::create(self.folder, &self.options)?)),
        }
    }

    fn finish(self, release: &str) -> Result<ImportedKernel, ImageError> {
        let kernel = self.kernel.ok_or_else(|| ImageError::NotAKernel("the archive holds no vmlinuz".into()))?;
        let vmlinux = extract_vmlinux(&kernel)?;
        drop(kernel);
        write_file(&self.folder.join("vmlinux"), |out| out.write_all(&vmlinux))?;
        let has_modules_drive = self.modules.is_some();
        if let Some(modules) = self.modules {
            if release.is_empty() {
                return Err(ImageError::Release(String::new()));
            }
            check_version(&vmlinux, release)?;
            drop(vmlinux);
            modules.finish(self.folder, &self.options, release)?;
        }
        Ok(ImportedKernel { has_modules_drive, used_bytes: used_bytes(self.folder)? })
    }
}

/// Modules of another build do not load: better said now than by a guest without a disk.
fn check_version(vmlinux: &[u8], release: &str) -> Result<(), ImageError> {
    const BANNER: &[u8] = b"Linux version ";
    let found = vmlinux
        .windows(BANNER.len() + 1)
        .position(|w| w.starts_with(BANNER) && w[BANNER.len()].is_ascii_digit())
        .map(|at| &vmlinux[at + BANNER.len()..])
        .and_then(|rest| rest.split(|byte| *byte == b' ').next())
        .map(|version| String::from_utf8_lossy(&version[..version.len().min(80)]).into_owned());
    match found {
        Some(version) if version != release => {
            Err(ImageError::Modules(format!("they are of release `{release}`, the kernel is `{version}`")))
        }
        _ => Ok(()),
    }
}

/// The module folder while it streams by.
struct Modules {
    filesystem: Filesystem,
    scratch: Scratch,
    lists: HashMap<String, Vec<u8>>,
}

impl Modules {
    fn create(folder: &Path, options: &Ext4Options) -> Result<Self, ImageError> {
        Ok(Self {
            filesystem: Filesystem::create(&folder.join("modules.ext4"), options)?,
            scratch: Scratch::create(folder)?,
            lists: HashMap::new(),
        })
    }

    fn take(&mut self, entry: &mut TarEntry, kept: &[Vec<u8>]) -> Result<bool, ImageError> {
        let path = String::from_utf8_lossy(&kept.join(&b'/')).into_owned();
        if !entry.kind().is_file() {
            return self.filesystem.add(entry, kept, &mut io::sink());
        }
        if matches!(path.as_str(), "modules.dep" | "modules.builtin" | "modules.softdep") {
            if entry.size() > LIST_BYTES {
                return Err(refused(path.as_bytes(), "a list of modules has at most 16 MiB"));
            }
            let mut list = Vec::new();
            let taken = self.filesystem.add(entry, kept, &mut list);
            self.lists.insert(path, list);
            return taken;
        }
        if is_module(&path) {
            return self.scratch.keep(path, |copy| self.filesystem.add(entry, kept, copy));
        }
        self.filesystem.add(entry, kept, &mut io::sink())
    }

    fn finish(self, folder: &Path, options: &Ext4Options, release: &str) -> Result<(), ImageError> {
        let order = self.load_order()?;
        write_file(&folder.join("modules.cpio"), |out| write_cpio(out, release, &order, &self.scratch))?;
        self.filesystem.finish(options).map(drop)
    }

    fn load_order(&self) -> Result<Vec<String>, ImageError> {
        let list = |name: &str| String::from_utf8_lossy(self.lists.get(name).map_or(&[][..], Vec::as_slice));
        if !self.lists.contains_key("modules.dep") {
            return Err(ImageError::Modules("modules.dep is missing: run depmod over them first".into()));
        }
        ModuleSet::parse(&list("modules.dep"), &list("modules.builtin"), &list("modules.softdep")).load_order()
    }
}

fn is_module(path: &str) -> bool {
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|end| path.ends_with(end))
}

/// Modules in load order, uncompressed (finit_module(2) takes them so from every kernel), the list of
/// them, and the release whose drive is attached.
fn write_cpio(out: &mut dyn Write, release: &str, order: &[String], scratch: &Scratch) -> io::Result<()> {
    let mut archive = NewcWriter::new(out);
    let names = order.iter().map(|path| archived_name(path)).collect::<io::Result<Vec<_>>>()?;
    let list: String = names.iter().map(|name| format!("{name}\n")).collect();
    archive.folder("banger", 0o700)?;
    archive.file(MODULE_LIST_PATH, 0o600, list.len() as u64, &mut list.as_bytes())?;
    archive.file(RELEASE_PATH, 0o600, release.len() as u64, &mut release.as_bytes())?;
    archive.folder("modules", 0o755)?;
    for (path, name) in order.iter().zip(&names) {
        let module = scratch.read(path)?;
        archive.file(name, 0o644, module.len() as u64, &mut &module[..])?;
    }
    archive.end()
}

/// `kernel/fs/ext4/ext4.ko.xz` → `modules/ext4.ko`. The path is text from the archive.
fn archived_name(path: &str) -> io::Result<String> {
    let name = name_of(path);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is no name of a module")));
    }
    Ok(format!("modules/{name}.ko"))
}

/// Module files by path, in one file that has no name any more.
struct Scratch {
    file: File,
    places: HashMap<String, (u64, u64)>,
}

impl Scratch {
    fn create(folder: &Path) -> Result<Self, ImageError> {
        let path = folder.join(format!(".scratch.{:x}", crate::os::random::number()));
        let file =
            File::options().read(true).write(true).create_new(true).open(&path).map_err(named("create", &path))?;
        std::fs::remove_file(&path).map_err(named("remove", &path))?;
        Ok(Self { file, places: HashMap::new() })
    }

    /// Remembers what `fill` writes as the file at `path`.
    fn keep<T>(
        &mut self,
        path: String,
        fill: impl FnOnce(&mut dyn Write) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let start = self.file.seek(SeekFrom::End(0))?;
        let result = fill(&mut self.file)?;
        let end = self.file.stream_position()?;
        self.places.insert(path, (start, end - start));
        Ok(result)
    }

    /// The module at `path`, uncompressed.
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, format!("modules.dep names {path:?}, which is not there"));
        let (start, length) = *self.places.get(path).ok_or_else(missing)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, start)?;
        match Compression::of(&bytes) {
            Some(compression) => decompress(compression, &bytes),
            None => Ok(bytes),
        }
    }
}

/// Writes a file that is on the disk when this returns.
fn write_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), ImageError> {
    let mut out = BufWriter::new(File::create(path).map_err(named("create", path))?);
    fill(&mut out).map_err(named("write", path))?;
    let file = out.into_inner().map_err(|e| named("write", path)(e.into_error()))?;
    file.sync_all().map_err(named("sync", path))?;
    Ok(())
}

fn used_bytes(folder: &Path) -> Result<u64, ImageError> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).map_err(named("list", folder))? {
        let path: PathBuf = entry.map_err(named("list", folder))?.path();
        sum += std::fs::metadata(&path).map_err(named("look at", &path))?.blocks() * 512;
    }
    Ok(sum)
}
