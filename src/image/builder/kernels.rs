//! Kernels as tar streams: Debian's package, the host's own, files.
//!
//! Each stream is what [`crate::image::import_kernel`] takes: `vmlinuz`, then `modules/**` with depmod's
//! lists.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::os::files::named;

use super::super::ImageError;
use super::scratch::Scratch;
use super::stream::Build;
use super::tool;

/// A kernel on its way.
#[derive(Debug)]
pub struct KernelBuild {
    /// Its stream.
    pub build: Build,
    /// What `uname -r` says under it; empty where neither modules nor the file say it.
    pub release: String,
}

/// Where a bzImage's header and its texts are: before the kernel itself, at most 64 sectors.
const SETUP_BYTES: usize = 64 << 9;

/// Debian's packages that depend on the newest kernel, best first: `cloud` has what virtual machines
/// have and no more.
const META_PACKAGES: [&str; 2] = if cfg!(target_arch = "aarch64") {
    ["linux-image-cloud-arm64", "linux-image-arm64"]
} else {
    ["linux-image-cloud-amd64", "linux-image-amd64"]
};

/// The newest kernel of the host's Debian mirrors, fetched and unpacked below `cache` by the caller's own
/// `apt-get`; needs no root.
pub(super) fn debian_kernel(cache: &Path) -> Result<KernelBuild, ImageError> {
    check_debian()?;
    let scratch = Scratch::create(cache)?;
    let listed = Apt::of_host()?;
    match fetch(&listed, scratch.path()) {
        Ok(package) => unpack(scratch, &package),
        // The host's lists may be missing, or so old that the mirror has newer packages only.
        Err(_) => {
            let fresh = Apt::updated(scratch.path())?;
            let package = fetch(&fresh, scratch.path())?;
            unpack(scratch, &package)
        }
    }
}

/// Whether it can be fetched here.
pub(super) fn check_debian() -> Result<(), ImageError> {
    tool("dpkg-deb", "dpkg")?;
    Apt::of_host().map(drop)
}

/// The kernel that runs on this host.
pub fn host_kernel() -> Result<KernelBuild, ImageError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let vmlinuz = PathBuf::from(format!("/boot/vmlinuz-{release}"));
    if let Err(error) = File::open(&vmlinuz) {
        let cure = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "only root may read it: run this with sudo",
            _ => "give files with --vmlinuz and --modules, or take `banger kernel pull debian-bookworm`",
        };
        return Err(ImageError::Unavailable(format!("cannot open {}: {error}; {cure}", vmlinuz.display())));
    }
    let modules = PathBuf::from(format!("/lib/modules/{release}"));
    kernel_files(&vmlinuz, modules.is_dir().then_some(&modules))
}

/// A kernel of files: `vmlinuz` or `vmlinux`, and a folder like `/lib/modules/RELEASE`, whose name says
/// the release; without one, a `vmlinuz` says it by itself.
pub fn kernel_files(vmlinuz: &Path, modules: Option<&Path>) -> Result<KernelBuild, ImageError> {
    let kernel = File::open(vmlinuz).map_err(named("open", vmlinuz))?;
    let Some(modules) = modules else {
        let release = release_at(&kernel, 0).map_err(named("read", vmlinuz))?;
        return stream(kernel, None, release.unwrap_or_default(), None);
    };
    let folder = modules.canonicalize().map_err(named("open", modules))?;
    let release = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if folder.join("modules.dep").exists() {
        return stream(kernel, Some(folder), release, None);
    }
    let scratch = Scratch::create(&std::env::temp_dir())?;
    let copy = scratch.path().join("lib/modules").join(&release);
    copy_tree(&folder, &copy)?;
    depmod(scratch.path(), &release)?;
    stream(kernel, Some(copy), release, Some(scratch))
}

/// The release that a bzImage names in its header, when one begins at byte `begin`; the file stays where it is
/// read from (Documentation/arch/x86/boot.rst, `kernel_version`: an offset from 0x200 to a text that ends with a zero).
pub(super) fn release_at(kernel: &File, begin: u64) -> std::io::Result<Option<String>> {
    let mut start = vec![0; SETUP_BYTES];
    let length = kernel.read_at(&mut start, begin)?;
    start.truncate(length);
    let is_bzimage = start.get(0x202..0x206) == Some(b"HdrS");
    let offset =
        start.get(0x20e..0x210).filter(|_| is_bzimage).map(|two| usize::from(two[0]) | usize::from(two[1]) << 8);
    let text = offset.filter(|offset| *offset != 0).and_then(|offset| start.get(0x200 + offset..));
    let word = text.map(|text| text.split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default());
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(byte);
    let is_release =
        |word: &&[u8]| word.len() <= 64 && word.first().is_some_and(u8::is_ascii_digit) && word.iter().all(plain);
    Ok(word.filter(is_release).map(|word| String::from_utf8_lossy(word).into_owned()))
}

/// apt-get and apt-cache with options.
struct Apt {
    get: PathBuf,
    cache: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// With the host's package lists.
    fn of_host() -> Result<Self, ImageError> {
        // Without the sandbox user, who may not write into the caller's folder.
        let options = vec!["-oAPT::Sandbox::User=".into()];
        Ok(Self { get: tool("apt-get", "apt")?, cache: tool("apt-cache", "apt")?, options })
    }

    /// With lists of its own below `folder`, fetched now.
    fn updated(folder: &Path) -> Result<Self, ImageError> {
        let mut apt = Self::of_host()?;
        let own = folder.join("apt");
        fs::create_dir_all(own.join("lists/partial")).map_err(named("create folder", &own))?;
        apt.options.push(format!("-oDir::State::lists={}", own.join("lists").display()));
        apt.options.push(format!("-oDir::Cache={}", own.display()));
        run(Command::new(&apt.get).args(&apt.options).args(["-qq", "update"]))?;
        Ok(apt)
    }

    /// The package with the kernel itself, on which `meta` depends.
    fn real_package(&self, meta: &str) -> Result<String, ImageError> {
        let text = run(Command::new(&self.cache).args(&self.options).args(["depends", "--important", meta]))?;
        let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        package
            .map(|rest| format!("linux-image-{rest}"))
            .ok_or_else(|| ImageError::Unavailable(format!("apt knows no kernel package `{meta}`")))
    }
}

/// Downloads the first kernel package that there is into `folder`.
fn fetch(apt: &Apt, folder: &Path) -> Result<PathBuf, ImageError> {
    let mut real = apt.real_package(META_PACKAGES[0]);
    if real.is_err() {
        real = apt.real_package(META_PACKAGES[1]);
    }
    let package = real.map_err(|error| {
        let cure = "this host's apt sources have no Debian kernel; take `banger kernel import --host`";
        ImageError::Unavailable(format!("{error}: {cure}"))
    })?;
    run(Command::new(&apt.get).args(&apt.options).args(["-qq", "download", &package]).current_dir(folder))?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|e| e == "deb");
    let entries = fs::read_dir(folder).map_err(named("list", folder))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(is_package)
        .ok_or_else(|| ImageError::Unavailable(format!("apt-get downloaded nothing for `{package}`")))
}

fn unpack(scratch: Scratch, package: &Path) -> Result<KernelBuild, ImageError> {
    let tree = scratch.path().join("tree");
    run(Command::new(tool("dpkg-deb", "dpkg")?).arg("-x").arg(package).arg(&tree))?;
    let base = if tree.join("lib/modules").is_dir() { tree.clone() } else { tree.join("usr") };
    let modules = only_entry(&base.join("lib/modules"))?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    depmod(&base, &release)?;
    let vmlinuz = tree.join("boot").join(format!("vmlinuz-{release}"));
    let kernel = File::open(&vmlinuz).map_err(named("open", &vmlinuz))?;
    stream(kernel, Some(modules), release, Some(scratch))
}

fn only_entry(folder: &Path) -> Result<PathBuf, ImageError> {
    let mut entries = fs::read_dir(folder).map_err(named("list", folder))?.flatten();
    let first = entries.next().map(|entry| entry.path());
    first.ok_or_else(|| ImageError::Unavailable(format!("{} is empty", folder.display())))
}

/// A package has no lists of dependencies: depmod(8) makes them when it is installed.
fn depmod(base: &Path, release: &str) -> Result<(), ImageError> {
    run(Command::new(tool("depmod", "kmod")?).arg("-b").arg(base).arg(release)).map(drop)
}

pub(super) fn stream(
    kernel: File,
    modules: Option<PathBuf>,
    release: String,
    scratch: Option<Scratch>,
) -> Result<KernelBuild, ImageError> {
    let name = if release.is_empty() { "kernel".to_owned() } else { format!("kernel {release}") };
    let build = Build::of_thread(&name, move |out| {
        let result = write_tar(BufWriter::with_capacity(1 << 17, out), kernel, modules.as_deref());
        drop(scratch);
        Ok(result?)
    })?;
    Ok(KernelBuild { build, release })
}

fn write_tar(out: impl Write, mut kernel: File, modules: Option<&Path>) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(out);
    append_file(&mut archive, "vmlinuz", &mut kernel)?;
    if let Some(modules) = modules {
        append_folder(&mut archive, "modules", modules)?;
    }
    archive.into_inner()?.flush()
}

/// Everything below `folder` but its links `build` and `source`, which lead to headers elsewhere.
fn append_folder(archive: &mut tar::Builder<impl Write>, name: &str, folder: &Path) -> std::io::Result<()> {
    let mut header = header(tar::EntryType::Directory, 0o755, fs::metadata(folder)?.mtime());
    archive.append_data(&mut header, format!("{name}/"), std::io::empty())?;
    let mut entries = fs::read_dir(folder).map_err(named("list", folder))?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            append_folder(archive, &name, &path)?;
        } else if kind.is_file() {
            append_file(archive, &name, &mut File::open(&path).map_err(named("open", &path))?)?;
        }
    }
    Ok(())
}

fn append_file(archive: &mut tar::Builder<impl Write>, name: &str, file: &mut File) -> std::io::Result<()> {
    let metadata = file.metadata()?;
    let mut header = header(tar::EntryType::Regular, 0o644, metadata.mtime());
    header.set_size(metadata.len());
    archive.append_data(&mut header, name, file)
}

fn header(kind: tar::EntryType, mode: u32, mtime: i64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), ImageError> {
    fs::create_dir_all(to).map_err(named("create folder", to))?;
    for entry in fs::read_dir(from).map_err(named("list", from))?.flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(named("look at", &path))?;
        if kind.is_dir() {
            copy_tree(&path, &target)?;
        } else if kind.is_file() {
            fs::copy(&path, &target).map_err(named("copy", &path))?;
        }
    }
    Ok(())
}

/// Runs `command` to its end; what it printed.
fn run(command: &mut Command) -> Result<String, ImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(named("start", Path::new(&program)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let output_text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(ImageError::Tool { program, status: output.status.to_string(), output: output_text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn names(build: &mut Build) -> Vec<String> {
        let mut bytes = Vec::new();
        build.read_to_end(&mut bytes).expect("read");
        let mut archive = tar::Archive::new(&bytes[..]);
        archive
            .entries()
            .expect("an archive")
            .map(|e| e.expect("an entry").path().expect("a path").display().to_string())
            .collect()
    }

    #[test]
    fn files_become_a_stream_without_links_to_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let modules = folder.path().join("6.1.0-test");
        fs::create_dir_all(modules.join("kernel/fs")).expect("made");
        fs::write(modules.join("kernel/fs/a.ko"), b"elf").expect("written");
        fs::write(modules.join("modules.dep"), b"kernel/fs/a.ko:\n").expect("written");
        std::os::unix::fs::symlink("/usr/src/x", modules.join("build")).expect("linked");
        let vmlinuz = folder.path().join("vmlinuz");
        fs::write(&vmlinuz, b"kernel").expect("written");
        let mut kernel = kernel_files(&vmlinuz, Some(&modules)).expect("starts");
        assert_eq!(kernel.release, "6.1.0-test");
        let expected = [
            "vmlinuz",
            "modules/",
            "modules/kernel/",
            "modules/kernel/fs/",
            "modules/kernel/fs/a.ko",
            "modules/modules.dep",
        ];
        assert_eq!(names(&mut kernel.build), expected);
        kernel.build.finish().expect("finished");
    }

    #[test]
    fn a_kernel_alone_has_no_release() {
        let folder = tempfile::tempdir().expect("a folder");
        let vmlinuz = folder.path().join("vmlinuz");
        fs::write(&vmlinuz, b"kernel").expect("written");
        let mut kernel = kernel_files(&vmlinuz, None).expect("starts");
        assert_eq!(kernel.release, "");
        assert_eq!(names(&mut kernel.build), ["vmlinuz"]);
    }
    #[test]
    fn a_bzimage_says_its_release() {
        let folder = tempfile::tempdir().expect("a folder");
        let vmlinuz = folder.path().join("vmlinuz");
        let says = |text: &[u8], offset: u16| {
            let mut image = vec![0; 0x1000];
            image[0x202..0x206].copy_from_slice(b"HdrS");
            image[0x20e..0x210].copy_from_slice(&offset.to_le_bytes());
            image[0x500..0x500 + text.len()].copy_from_slice(text);
            fs::write(&vmlinuz, image).expect("written");
            let kernel = kernel_files(&vmlinuz, None).expect("starts");
            kernel.release
        };
        assert_eq!(says(b"6.1.192-banger (who@where) #1", 0x300), "6.1.192-banger");
        for (text, offset) in
            [(&b"6.1"[..], 0), (b"6.1", 0xfff), (b"../6", 0x300), (b"6/..", 0x300), (b"", 0x300), (&[b'6'; 65], 0x300)]
        {
            assert_eq!(says(text, offset), "", "{text:?} {offset}");
        }
    }
}
