//! A tree of files as text, a line for each name: what two trees are compared by. This program itself is copied
//! into guests for it, for their images have none of their own.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The first argument of a process that lists the tree of its second.
pub const FLAG: &str = "--tree";

/// Writes the tree below `root` to standard output.
pub fn print(root: &Path) -> std::process::ExitCode {
    let text = list(root);
    let written = std::io::stdout().write_all(text.as_bytes());
    if written.is_ok() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

/// Path, type, mode, owner, size, time, other names, device or target, attributes, sum of the content.
pub fn list(root: &Path) -> String {
    let mut all = vec![root.to_owned()];
    let mut at = 0;
    while let Some(path) = all.get(at).cloned() {
        at += 1;
        if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            all.extend(std::fs::read_dir(&path).expect("a folder can be listed").flatten().map(|e| e.path()));
        }
    }
    all.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    let mut first_names = HashMap::new();
    all.iter().map(|path| line(root, path, &mut first_names)).collect()
}

fn line(root: &Path, path: &Path, first_names: &mut HashMap<u64, PathBuf>) -> String {
    let about = path.symlink_metadata().expect("it can be looked at");
    let kind = about.file_type();
    let shown = |path: &Path| path.strip_prefix(root).expect("below").as_os_str().as_bytes().escape_ascii().to_string();
    let mut line = format!("/{} {:o} {}:{}", shown(path), about.mode(), about.uid(), about.gid());
    let mut add = |text: std::fmt::Arguments<'_>| write!(line, " {text}").expect("text");
    add(format_args!("{}.{:09}", about.mtime(), about.mtime_nsec()));
    if kind.is_block_device() || kind.is_char_device() {
        add(format_args!("device {}", about.rdev()));
    }
    if kind.is_symlink() {
        let target = std::fs::read_link(path).expect("a target");
        add(format_args!("-> {}", target.as_os_str().as_bytes().escape_ascii()));
    }
    if !kind.is_dir() {
        let first = first_names.entry(about.ino()).or_insert_with(|| path.to_owned()).clone();
        add(format_args!("links {} as /{}", about.nlink(), shown(&first)));
    }
    if kind.is_file() {
        add(format_args!("{} bytes {:016x}", about.len(), sum(path)));
    }
    for (name, value) in attributes(path) {
        add(format_args!("{}={}", name.escape_ascii(), value.escape_ascii()));
    }
    line.push('\n');
    line
}

/// A sum of a file's bytes; a gigabyte of zeros is read as well, so not a slow one.
fn sum(path: &Path) -> u64 {
    use std::io::Read;
    let mut file = std::fs::File::open(path).expect("a file can be opened");
    let (mut sum, mut piece) = (ring::digest::Context::new(&ring::digest::SHA256), vec![0; 1 << 18]);
    loop {
        match file.read(&mut piece).expect("a file can be read") {
            0 => break,
            count => sum.update(&piece[..count]),
        }
    }
    u64::from_be_bytes(sum.finish().as_ref()[..8].try_into().expect("eight bytes"))
}

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return Vec::new() };
    let mut all = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).expect("an attribute");
        value.truncate(length);
        all.push((name.to_vec(), value));
    }
    all.sort();
    all
}
