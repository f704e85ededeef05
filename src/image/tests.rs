//! Hostile archives, and what e2fsprogs says of the results.

use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use tar::{EntryType, Header};

use super::*;
use crate::model::Mib;

/// An archive under construction, with whatever names it is told.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, kind: EntryType, name: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_gid(70_000);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.raw(EntryType::Regular, name.as_bytes(), b"", 0o644, content)
    }

    fn folder(self, name: &str) -> Self {
        self.raw(EntryType::Directory, name.as_bytes(), b"", 0o755, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, name.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Link, name.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    fn device(mut self, kind: EntryType, name: &str, major: u32, minor: u32) -> Self {
        let start = self.0.len();
        self = self.raw(kind, name.as_bytes(), b"", 0o666, b"");
        let mut header = Header::from_byte_slice(&self.0[start..start + 512]).clone();
        header.set_device_major(major).expect("a header with devices");
        header.set_device_minor(minor).expect("a header with devices");
        header.set_cksum();
        self.0[start..start + 512].copy_from_slice(header.as_bytes());
        self
    }

    /// A PAX header for the next entry.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|l| l - l.to_string().len() == rest).expect("a length");
            text.extend_from_slice(format!("{length} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.raw(EntryType::XHeader, b"pax", b"", 0o644, &text)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn options() -> Ext4Options {
    Ext4Options { max_bytes: 8 << 20, max_entries: 500, ..Ext4Options::read_only("test") }
}

fn make(archive: &[u8], target: &Path, options: &Ext4Options) -> Result<Written, ImageError> {
    let written = tar_to_ext4(&mut &archive[..], target, options, &mut |_| Ok(()))?;
    assert_sound(target);
    Ok(written)
}

/// What e2fsck has to say of an image: nothing.
fn assert_sound(image: &Path) {
    let output = Command::new("/usr/sbin/e2fsck").arg("-fn").arg(image).output().expect("e2fsck runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_quiet = said.lines().all(|l| l.starts_with("Pass ") || l.contains("non-contiguous") || l.trim().is_empty());
    assert!(output.status.success() && is_quiet, "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// The refusal of `archive`, after which nothing is left.
fn refusal(archive: &[u8], options: &Ext4Options) -> ImageError {
    let folder = tempfile::tempdir().expect("a folder");
    let error = make(archive, &folder.path().join("x.ext4"), options).expect_err("refused");
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "something was left by {error}");
    error
}

fn debugfs(image: &Path, request: &str) -> String {
    let output = Command::new("/usr/sbin/debugfs").arg("-R").arg(request).arg(image).output().expect("debugfs runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn made(archive: &[u8]) -> (tempfile::TempDir, std::path::PathBuf, Written) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.ext4");
    let written = make(archive, &path, &options()).expect("made");
    (folder, path, written)
}

#[test]
fn keeps_content_owners_modes_times_links_and_attributes() {
    let acl =
        [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255];
    let long = "n".repeat(200);
    let archive = Tar::default()
        .folder("./")
        .folder("bin/")
        .raw(EntryType::Regular, b"bin/su", b"", 0o4755, b"setuid")
        .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0"), ("mtime", b"1000000000.25")])
        .file("bin/ping", &[7; 10_000])
        .pax(&[("SCHILY.xattr.user.big", &[9; 2000]), ("SCHILY.xattr.system.posix_acl_access", &acl)])
        .file("acl", b"x")
        .link("bin/su2", "bin/su")
        .link("bin/su3", "./bin/su2")
        .symlink("sh", "/bin/su")
        .pax(&[("path", long.as_bytes())])
        .file("short", b"long name")
        .device(EntryType::Char, "null", 1, 3)
        .raw(EntryType::Fifo, b"fifo", b"", 0o666, b"")
        .end();
    let (_folder, path, written) = made(&archive);
    assert_eq!(written.skipped, 0);
    assert!(debugfs(&path, "stat /fifo").contains("Type: FIFO"));
    assert!(debugfs(&path, "stat /null").contains("Device major/minor number: 01:03"));
    assert_eq!(debugfs(&path, "cat /bin/su3"), "setuid");
    assert_eq!(debugfs(&path, &format!("cat /{long}")), "long name");
    let su = debugfs(&path, "stat /bin/su2");
    assert!(su.contains("Mode:  04755") && su.contains("Links: 3") && su.contains("User:  1234"), "{su}");
    assert!(su.contains("Group: 70000"), "{su}");
    let ping = debugfs(&path, "stat /bin/ping");
    assert!(ping.contains("mtime: 0x3b9aca00:3b9aca00"), "{ping}");
    assert!(ping.contains("security.capability (12)"), "{ping}");
    assert!(debugfs(&path, "stat /sh").contains("Fast link dest: \"/bin/su\""));
    let acl = debugfs(&path, "stat /acl");
    assert!(acl.contains("user.big (2000)") && acl.contains("posix_acl_access"), "{acl}");
}

#[test]
fn the_digest_is_of_the_whole_stream() {
    let mut archive = Tar::default().file("a", b"a").end();
    archive.resize(10_240, 0);
    let (_folder, _path, written) = made(&archive);
    let hex: String =
        ring::digest::digest(&ring::digest::SHA256, &archive).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(written.digest, format!("sha256:{hex}"));
}

#[test]
fn names_are_resolved_inside_the_tree() {
    let archive = Tar::default()
        .symlink("lib", "usr/lib")
        .symlink("escape", "../../../../etc")
        .symlink("absolute", "/etc")
        .file("lib/a", b"in usr/lib")
        .file("escape/b", b"in etc")
        .file("absolute/c", b"also")
        .file("/rooted", b"below the root")
        .file("./dotted", b"too")
        .end();
    let (_folder, path, _) = made(&archive);
    assert_eq!(debugfs(&path, "cat /usr/lib/a"), "in usr/lib");
    assert_eq!(debugfs(&path, "cat /etc/b"), "in etc");
    assert_eq!(debugfs(&path, "cat /etc/c"), "also");
    assert_eq!(debugfs(&path, "cat /rooted"), "below the root");
    assert_eq!(debugfs(&path, "cat /dotted"), "too");
    assert!(debugfs(&path, "stat /lib").contains("usr/lib"));
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let archive = Tar::default()
        .folder("d")
        .file("d/old", b"old")
        .file("a", b"first")
        .link("b", "a")
        .file("a", b"second")
        .file("d", b"was a folder")
        .symlink("s", "a")
        .folder("s")
        .file("s/in", b"now a folder")
        .link("a2", "a")
        .link("a2", "a2")
        .folder("b")
        .end();
    let (_folder, path, _) = made(&archive);
    assert_eq!(debugfs(&path, "cat /a2"), "second");
    assert_eq!(debugfs(&path, "cat /d"), "was a folder");
    assert_eq!(debugfs(&path, "cat /s/in"), "now a folder");
    assert!(debugfs(&path, "stat /b").contains("Type: directory"));
    assert!(debugfs(&path, "stat /").contains("Mode:  0755"));
}

#[test]
fn an_archive_cut_off_anywhere_is_refused() {
    let archive = Tar::default()
        .folder("d")
        .file("d/f", &[1; 700])
        .pax(&[("path", b"long")])
        .file("x", b"x")
        .link("l", "long")
        .end();
    // The last block of zeros is what the end marker needs; what fills the record may be missing.
    for length in
        (0..archive.len()).step_by(61).chain([512, 1024, archive.len() - 513, archive.len() - 512, archive.len() - 1])
    {
        let error = refusal(&archive[..length], &options());
        assert!(
            matches!(error, ImageError::Truncated(_) | ImageError::Stream(_) | ImageError::Entry { .. }),
            "{error}"
        );
    }
}

#[test]
fn climbing_names_are_refused() {
    for name in ["../x", "a/../../x", "..", "a/.."] {
        let error = refusal(&Tar::default().file(name, b"x").end(), &options());
        assert!(error.to_string().contains("climbs"), "{error}");
        refusal(&Tar::default().folder(name).end(), &options());
        refusal(&Tar::default().file("t", b"").link(name, "t").end(), &options());
        refusal(&Tar::default().link("l", name).end(), &options());
    }
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let archives = [
        Tar::default().raw(EntryType::Char, b"no-numbers", b"", 0o644, b"").device(EntryType::Char, "x", 5000, 1),
        Tar::default().symlink("empty", ""),
        Tar::default().link("l", "missing"),
        Tar::default().folder("d").link("l", "d"),
        Tar::default().file("f", b"").file("f/x", b""),
        Tar::default().symlink("loop", "loop").file("loop/x", b""),
        Tar::default().file("lost+found", b"x"),
        Tar::default().file(".", b"x"),
        Tar::default().pax(&[("path", "x/".repeat(3000).as_bytes())]).folder("deep"),
        Tar::default().pax(&[("GNU.sparse.major", b"1")]).file("sparse", b"x"),
        Tar::default().pax(&[("SCHILY.xattr.user.huge", &[1; 5000])]).file("x", b""),
        Tar::default().pax(&[("uid", b"99999999999")]).file("x", b""),
    ];
    for (number, archive) in archives.into_iter().enumerate() {
        let error = refusal(&archive.end(), &options());
        assert!(matches!(error, ImageError::Entry { .. }), "archive {number}: {error:?}");
    }
}

#[test]
fn limits_hold_while_streaming() {
    let many = (0..600).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), b"")).end();
    assert!(matches!(refusal(&many, &options()), ImageError::Limit { what: "entries", .. }));
    let big = Tar::default().file("big", &vec![0; 9 << 20]).end();
    assert!(matches!(refusal(&big, &options()), ImageError::Limit { what: "bytes of content", .. }));
    let mut claim = Tar::default().file("claim", b"");
    let mut header = Header::from_byte_slice(&claim.0[..512]).clone();
    header.set_size(1 << 60);
    header.set_cksum();
    claim.0[..512].copy_from_slice(header.as_bytes());
    assert!(matches!(refusal(&claim.end(), &options()), ImageError::Limit { what: "bytes of content", .. }));
}

#[test]
fn an_endless_header_is_not_kept_in_memory() {
    for kind in [EntryType::XHeader, EntryType::GNULongName, EntryType::GNULongLink] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(1 << 40);
        header.set_cksum();
        let mut endless = (&header.as_bytes()[..]).chain(io::repeat(b'x'));
        let folder = tempfile::tempdir().expect("a folder");
        let error =
            tar_to_ext4(&mut endless, &folder.path().join("x"), &options(), &mut |_| Ok(())).expect_err("refused");
        assert!(matches!(error, ImageError::Limit { .. }), "{error}");
    }
}

#[test]
fn cancelling_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = Tar::default().file("big", &vec![1; 4 << 20]).end();
    let mut calls = 0;
    let error = tar_to_ext4(&mut &archive[..], &folder.path().join("x"), &options(), &mut |_| {
        calls += 1;
        if calls > 3 { Err(Cancelled) } else { Ok(()) }
    })
    .expect_err("cancelled");
    assert!(matches!(error, ImageError::Cancelled), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
}

#[test]
fn a_size_too_small_says_what_is_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = Tar::default().file("big", &vec![1; 4 << 20]).end();
    let options = Ext4Options { size: Some(Mib(16)), journal: true, ..options() };
    let error = make(&archive, &folder.path().join("x"), &options).expect_err("too small");
    assert!(matches!(error, ImageError::TooSmall { .. }), "{error}");
}

#[test]
fn a_root_image_has_a_journal_and_can_grow() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.ext4");
    let archive = Tar::default().file("a", b"a").end();
    let written = make(&archive, &path, &Ext4Options::root(Some(Mib(700)))).expect("made");
    assert_eq!(written.size, Mib(700));
    assert!(written.used_bytes < 100 << 20, "{written:?}");
    let features = debugfs(&path, "features");
    let resized = Command::new("/usr/sbin/resize2fs").arg(&path).arg("20G").output().expect("resize2fs runs");
    assert!(resized.status.success(), "{}", String::from_utf8_lossy(&resized.stderr));
    assert_sound(&path);
    for feature in ["has_journal", "resize_inode", "dir_index", "sparse_super"] {
        assert!(features.split_whitespace().any(|f| f == feature), "{feature} in {features}");
    }
    assert!(!features.contains("sparse_super2"), "{features}");
}

#[test]
fn kernels_are_imported_with_what_a_guest_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut gzip = Vec::new();
    flate2::read::GzEncoder::new(&b"blk"[..], flate2::Compression::fast()).read_to_end(&mut gzip).expect("compressed");
    let archive = Tar::default()
        .file("vmlinuz", b"\x7fELF Linux version 6.1.0-x (somebody)")
        .folder("modules")
        .file("modules/kernel/virtio_blk.ko.gz", &gzip)
        .file("modules/kernel/virtio-mmio.ko", b"mmio")
        .file("modules/modules.dep", b"kernel/virtio_blk.ko.gz: kernel/virtio-mmio.ko\nkernel/virtio-mmio.ko:\n")
        .file("modules/modules.builtin", b"kernel/fs/ext4/ext4.ko\n");
    let archive = archive.end();
    let made = import_kernel(&mut &archive[..], folder.path(), "6.1.0-x", &mut |_| Ok(())).expect("imported");
    assert!(made.has_modules_drive && made.used_bytes > 0);
    let cpio = std::fs::read(folder.path().join("modules.cpio")).expect("there");
    let text = String::from_utf8_lossy(&cpio);
    assert!(text.contains("modules/virtio_mmio.ko\nmodules/virtio_blk.ko\n"));
    assert!(text.contains("6.1.0-x") && text.contains("blk"));
    assert_eq!(debugfs(&folder.path().join("modules.ext4"), "cat /modules.builtin"), "kernel/fs/ext4/ext4.ko\n");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    for (release, reason) in
        [("6.2", "the kernel is `6.1.0-x`"), ("../x", "no kernel release"), ("", "no kernel release")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let error = import_kernel(&mut &archive[..], folder.path(), release, &mut |_| Ok(())).expect_err("refused");
        let error = error.to_string().replace("is not a kernel release", "no kernel release");
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_monolithic_kernel_needs_no_modules() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = Tar::default().file("vmlinux", b"\x7fELF kernel").end();
    let made = import_kernel(&mut &archive[..], folder.path(), "", &mut |_| Ok(())).expect("imported");
    assert!(!made.has_modules_drive);
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
}

#[test]
fn a_kernel_stream_of_something_else_is_refused() {
    let bad = [
        Tar::default().end(),
        Tar::default().file("vmlinuz", b"text").end(),
        Tar::default().file("etc/passwd", b"x").end(),
        Tar::default().symlink("vmlinuz", "/etc/shadow").end(),
        Tar::default().file("vmlinuz", b"\x7fELF").file("vmlinux", b"\x7fELF").end(),
        Tar::default().file("vmlinuz", b"\x7fELF").file("modules/a.ko", b"x").end(),
        Tar::default().file("vmlinuz", b"\x7fELF").file("modules/modules.dep", b"a.ko:\n").end(),
    ];
    for (number, archive) in bad.iter().enumerate() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(import_kernel(&mut &archive[..], folder.path(), "6.1", &mut |_| Ok(())).is_err(), "archive {number}");
    }
}

#[test]
fn folders_of_many_names_are_trees_that_e2fsck_agrees_with() {
    for count in [10, 150, 20_000, 70_000] {
        let names = (0..count).map(|n| format!("d/{}-{n:x}-\u{e9}", "name".repeat(n % 9)));
        let archive = names.fold(Tar::default(), |tar, name| tar.file(&name, b"")).end();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.ext4");
        let options = Ext4Options { max_entries: 100_000, ..options() };
        make(&archive, &path, &options).expect("made");
        let shown = debugfs(&path, &format!("stat /d/{}-{:x}-\u{e9}", "name".repeat((count - 1) % 9), count - 1));
        assert!(shown.contains("Type: regular"), "{count}: {shown}");
        let tree = debugfs(&path, "htree_dump /d");
        assert_eq!(tree.contains("Root node dump"), count > 100, "{count}: {tree}");
        assert_eq!(tree.contains("Indirect levels: 1"), count > 50_000, "{count}");
    }
}

#[test]
fn odd_names_long_links_and_deep_folders_are_kept() {
    let deep = "d/".repeat(1500);
    let target = "t/".repeat(1000);
    let archive = Tar::default()
        .raw(EntryType::Regular, b"caf\xe9", b"", 0o644, b"latin")
        .raw(EntryType::Symlink, b"link", b"caf\xe9", 0o777, b"")
        .pax(&[("path", deep.as_bytes())])
        .folder("deep")
        .pax(&[("linkpath", target.as_bytes())])
        .symlink("long", "short")
        .file("a", b"1")
        .link("b", "a")
        .file("a", b"2")
        .link("c", "b")
        .device(EntryType::Block, "loop300", 7, 300)
        .end();
    let (_folder, path, _) = made(&archive);
    assert_eq!(debugfs(&path, "cat /c"), "1");
    assert!(debugfs(&path, "stat /loop300").contains("Device major/minor number: 07:300 (hex 07:12c)"));
    let listed = Command::new("/usr/sbin/debugfs").args(["-R", "ls -p /"]).arg(&path).output().expect("runs").stdout;
    assert!(listed.windows(6).any(|w| w == b"/caf\xe9/"), "{}", String::from_utf8_lossy(&listed));
    assert!(debugfs(&path, "stat /long").contains("Size: 2000"));
}

#[test]
fn sparse_files_of_all_kinds_are_the_same_file() {
    let (size, at) = (300_000_000u64, 200_000_000u64);
    let map = format!("2\n0\n3\n{at}\n4\n");
    let mut first = map.clone().into_bytes();
    first.resize(512, 0);
    first.extend_from_slice(b"abcdefg");
    let size_text = size.to_string();
    let list = format!("0,3,{at},4");
    let archive = Tar::default()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"one"),
            ("GNU.sparse.realsize", size_text.as_bytes()),
        ])
        .file("GNUSparseFile.0/one", &first)
        .pax(&[("GNU.sparse.size", size_text.as_bytes()), ("GNU.sparse.map", list.as_bytes())])
        .file("two", b"abcdefg")
        .pax(&[
            ("GNU.sparse.size", size_text.as_bytes()),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", at.to_string().as_bytes()),
            ("GNU.sparse.numbytes", b"4"),
        ])
        .file("three", b"abcdefg")
        .end();
    let (_folder, path, written) = made(&archive);
    assert!(written.used_bytes < 10 << 20, "{written:?}");
    for name in ["one", "two", "three"] {
        assert!(debugfs(&path, &format!("stat /{name}")).contains(&format!("Size: {size}")), "{name}");
        let out = path.with_extension("out");
        debugfs(&path, &format!("dump /{name} {}", out.display()));
        let content = std::fs::read(&out).expect("dumped");
        assert_eq!((&content[..4], &content[at as usize..at as usize + 5]), (&b"abc\0"[..], &b"defg\0"[..]), "{name}");
    }
    for (map, size) in [("0,3,1,9", "100"), ("0,3,98,4", "100"), ("0", "100"), ("0,x", "100"), ("0,3", "")] {
        let bad = [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
        let error = refusal(&Tar::default().pax(&bad).file("bad", b"abcdefg").end(), &options());
        assert!(matches!(error, ImageError::Entry { .. }), "{map}: {error}");
    }
}

fn layered(layers: &[Vec<u8>]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.ext4");
    let mut stream = Vec::new();
    let mut writer = LayerWriter::new(&mut stream);
    layers.iter().for_each(|layer| writer.layer(&mut &layer[..]).expect("written"));
    writer.finish().expect("written");
    layers_to_ext4(&mut &stream[..], &path, &options(), &mut |_| Ok(())).expect("made");
    assert_sound(&path);
    (folder, path)
}

#[test]
fn layers_lie_over_each_other() {
    let lower = Tar::default()
        .folder("etc/")
        .file("etc/gone", b"x")
        .file("etc/kept", b"lower")
        .folder("opaque/")
        .file("opaque/old", b"x")
        .file("linked", b"shared")
        .raw(EntryType::Directory, b"changed/", b"", 0o755, b"")
        .file("changed/in", b"stays")
        .end();
    let upper = Tar::default()
        .file("etc/.wh.gone", b"")
        .file("opaque/new", b"new")
        .file("opaque/.wh..wh..opq", b"")
        .file(".wh..wh.plnk", b"")
        .link("link", "linked")
        .file(".wh.linked", b"")
        .raw(EntryType::Directory, b"changed/", b"", 0o700, b"")
        .end();
    // A layer may hold nothing, and need not have an end marker.
    let (_folder, path) = layered(&[lower, upper, Vec::new(), vec![0; 1024], Tar::default().file("last", b"x").0]);
    let names = |folder: &str| {
        let listed = debugfs(&path, &format!("ls -p {folder}"));
        let names = listed.lines().filter_map(|line| line.split('/').nth(5)).filter(|n| !n.starts_with('.'));
        names.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("/"), "changed etc last link lost+found opaque");
    assert_eq!(names("/etc"), "kept");
    assert_eq!(names("/opaque"), "new");
    assert_eq!(debugfs(&path, "cat /link"), "shared");
    assert_eq!(debugfs(&path, "cat /changed/in"), "stays");
    assert!(debugfs(&path, "stat /changed").contains("Mode:  0700"));
    assert!(debugfs(&path, "stat /link").contains("Links: 1"));
}

#[test]
fn a_layer_that_is_cut_off_makes_no_image() {
    let mut stream = Vec::new();
    let mut writer = LayerWriter::new(&mut stream);
    writer.layer(&mut &Tar::default().file("a", &[1; 5000]).end()[..]).expect("written");
    writer.finish().expect("written");
    for length in (0..stream.len()).step_by(501) {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("x");
        layers_to_ext4(&mut &stream[..length], &target, &options(), &mut |_| Ok(())).expect_err("refused");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
    }
    let bad = Tar::default().file("a/.wh...", b"").end();
    let mut stream = Vec::new();
    let mut writer = LayerWriter::new(&mut stream);
    writer.layer(&mut &bad[..]).expect("written");
    writer.finish().expect("written");
    let folder = tempfile::tempdir().expect("a folder");
    layers_to_ext4(&mut &stream[..], &folder.path().join("x"), &options(), &mut |_| Ok(())).expect_err("refused");
}

#[test]
fn what_was_replaced_gives_its_room_back() {
    let big = vec![7; 3 << 20];
    let lower = Tar::default().file("big", &big).end();
    let upper = Tar::default().file("big", b"small").end();
    let (_folder, path) = layered(&[lower, upper]);
    let used = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).expect("there")) * 512;
    assert!(used < 1 << 20, "{used} bytes");
}
