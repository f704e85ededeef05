//! The tree that archive entries build, and the formatter that writes it.
//!
//! The formatter resolves no symbolic links, cannot link to a link, and confuses the root with a hard
//! link when either is replaced. So this front end keeps its own picture of the tree, in which every
//! name is resolved *inside* the tree, as it would be under chroot(2), and hands the formatter plain
//! paths and only operations that it gets right.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use arcbox_ext4::constants::{file_mode, make_mode};
use arcbox_ext4::error::FormatError;
use arcbox_ext4::{FileTimestamps, FormatOptions, Formatter};

use super::ImageError;
use super::tar_name::refused;

/// Bytes of headers that one entry may have: long names, PAX records with extended attributes.
pub(super) const HEADER_BYTES: u64 = 1 << 20;
/// Links that one symbolic path may go through, as in Linux (`MAXSYMLINKS`, linux/namei.h).
const MOST_SYMLINKS: usize = 40;
/// Names in one folder. The formatter looks through a folder name by name, so that more would take
/// hours; no distribution comes near.
const MOST_NAMES: usize = 100_000;
/// Folders below each other: what removes a folder in the formatter recurses.
const MOST_DEPTH: usize = 256;
/// Names of one file (`EXT4_LINK_MAX`, fs/ext4/ext4.h).
const MOST_LINKS: u32 = 65_000;
/// Size that the filesystem starts with: one block group. It grows while it is written.
const FIRST_SIZE: u64 = 128 << 20;
/// Blocks kept free at the end of what the formatter wrote, for what e2fsck moves.
const SPARE_BYTES: u64 = 4 << 20;

/// Owner, mode, time and extended attributes of an entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Meta {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: HashMap<String, Vec<u8>>,
}

enum Node {
    Folder(HashMap<String, usize>),
    Symlink { target: String, file: usize },
    File { file: usize },
}

/// A file or symbolic link, however many names it has.
struct Inode {
    /// The name under which the formatter made it; `None` when that was replaced.
    first_name: Option<String>,
    links: u32,
}

/// The tree under construction.
pub(super) struct Tree {
    formatter: Formatter,
    nodes: Vec<Node>,
    inodes: Vec<Inode>,
    live: u64,
}

const ROOT: usize = 0;

impl Tree {
    /// An empty tree that is written to `path`.
    pub(super) fn create(path: &Path, label: &str) -> Result<Self, ImageError> {
        let options = FormatOptions::new(FIRST_SIZE).label(label);
        let formatter = Formatter::with_options(path, options).map_err(ImageError::Format)?;
        let mut tree = Self { formatter, nodes: vec![Node::Folder(HashMap::new())], inodes: Vec::new(), live: 0 };
        // The formatter makes it by itself; an archive that has one merges with it.
        let found = tree.add_node(Node::Folder(HashMap::new()));
        tree.insert(ROOT, "lost+found", found);
        tree.live = 1;
        Ok(tree)
    }

    /// Inodes in use beside the root and the reserved ones.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Writes out what is left, with some room for e2fsck.
    pub(super) fn close(mut self) -> Result<(), ImageError> {
        // A name that no archive can have guessed: making it replaces what has it.
        let spare = format!("/.spare-{:x}", crate::os::random::number());
        let spare = spare.as_str();
        self.formatter
            .create(
                spare,
                make_mode(file_mode::S_IFREG, 0),
                None,
                None,
                Some(&mut std::io::repeat(0).take(SPARE_BYTES)),
                Some(0),
                Some(0),
                None,
            )
            .and_then(|()| self.formatter.unlink(spare, false))
            .and_then(|()| self.formatter.close())
            .map_err(ImageError::Format)
    }

    /// A folder; one that is there already takes on mode and owner.
    pub(super) fn put_folder(&mut self, parts: &[String], meta: &Meta) -> Result<(), ImageError> {
        let mode = make_mode(file_mode::S_IFDIR, meta.mode);
        let Some((name, above)) = parts.split_last() else {
            return self.make("/", mode, None, meta, None);
        };
        let (parent, mut path) = self.resolve(above)?;
        push(&mut path, name);
        match self.child(parent, name) {
            Some(node) if matches!(self.nodes[node], Node::Folder(_)) => {}
            present => {
                self.replace(parent, name, &path, present)?;
                let node = self.add_node(Node::Folder(HashMap::new()));
                self.insert_checked(parent, name, node, &path)?;
                self.live += 1;
            }
        }
        self.make(&path, mode, None, meta, None)
    }

    /// A regular file with the bytes of `content`.
    pub(super) fn put_file(&mut self, parts: &[String], meta: &Meta, content: &mut dyn Read) -> Result<(), ImageError> {
        let (path, parent, name) = self.clear(parts)?;
        self.make(&path, make_mode(file_mode::S_IFREG, meta.mode), None, meta, Some(content))?;
        let file = self.add_inode(&path);
        let node = self.add_node(Node::File { file });
        self.insert_checked(parent, &name, node, &path)
    }

    /// A symbolic link. Its target is kept as it is: only a guest will follow it.
    pub(super) fn put_symlink(&mut self, parts: &[String], meta: &Meta, target: &str) -> Result<(), ImageError> {
        let (path, parent, name) = self.clear(parts)?;
        self.make(&path, make_mode(file_mode::S_IFLNK, 0o777), Some(target), meta, None)?;
        let file = self.add_inode(&path);
        let node = self.add_node(Node::Symlink { target: target.to_owned(), file });
        self.insert_checked(parent, &name, node, &path)
    }

    /// Another name for the file called `target`, which came before.
    pub(super) fn put_link(&mut self, parts: &[String], target: &[String]) -> Result<(), ImageError> {
        let shown = parts.join("/");
        let missing =
            || refused(shown.as_bytes(), format!("it is a hard link to `{}`, which is not there", target.join("/")));
        let (last, above) = target.split_last().ok_or_else(missing)?;
        let (parent, _) = self.resolve(above)?;
        let node = self.child(parent, last).ok_or_else(missing)?;
        let (file, copy) = match &self.nodes[node] {
            Node::Folder(_) => return Err(refused(shown.as_bytes(), "it is a hard link to a folder")),
            Node::Symlink { target, file } => (*file, Node::Symlink { target: target.clone(), file: *file }),
            Node::File { file } => (*file, Node::File { file: *file }),
        };
        let (name, above) = parts.split_last().ok_or_else(missing)?;
        let (parent, mut path) = self.resolve(above)?;
        push(&mut path, name);
        let present = self.child(parent, name);
        if present.is_some_and(|present| self.file_of(present) == Some(file)) {
            return Ok(());
        }
        self.replace(parent, name, &path, present)?;
        self.link(file, &path)?;
        let node = self.add_node(copy);
        self.insert_checked(parent, name, node, &path)
    }

    fn link(&mut self, file: usize, path: &str) -> Result<(), ImageError> {
        let inode = &mut self.inodes[file];
        if inode.links >= MOST_LINKS {
            return Err(refused(path.as_bytes(), "the file it links to has 65000 names already"));
        }
        let Some(first) = &inode.first_name else {
            return Err(refused(path.as_bytes(), "it is a hard link to a file whose first name was replaced"));
        };
        self.formatter.link(path, first).map_err(|e| refusal(path, e))?;
        inode.links += 1;
        Ok(())
    }

    /// Makes room for `parts`: parents made, what had the name removed.
    fn clear(&mut self, parts: &[String]) -> Result<(String, usize, String), ImageError> {
        let (name, above) = parts.split_last().ok_or_else(|| refused(b"/", "the root must be a folder"))?;
        let (parent, mut path) = self.resolve(above)?;
        push(&mut path, name);
        if path == "/lost+found" {
            return Err(refused(b"lost+found", "ext4 needs a folder of that name"));
        }
        let present = self.child(parent, name);
        self.replace(parent, name, &path, present)?;
        Ok((path, parent, name.clone()))
    }

    /// The folder that `parts` lead to, symbolic links followed inside the tree, and its plain path.
    /// Folders that nobody named yet are made.
    fn resolve(&mut self, parts: &[String]) -> Result<(usize, String), ImageError> {
        let mut left: Vec<String> = parts.iter().rev().cloned().collect();
        let mut trail: Vec<(usize, String)> = Vec::new();
        let mut symlinks = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                trail.pop();
                continue;
            }
            let here = trail.last().map_or(ROOT, |(node, _)| *node);
            let node = match self.child(here, &part) {
                Some(node) => node,
                None => self.imply(&trail, &part)?,
            };
            match &self.nodes[node] {
                Node::Folder(_) if trail.len() >= MOST_DEPTH => {
                    return Err(refused(
                        parts.join("/").as_bytes(),
                        format!("more than {MOST_DEPTH} folders above it"),
                    ));
                }
                Node::Folder(_) => trail.push((node, part)),
                Node::File { .. } => {
                    return Err(refused(parts.join("/").as_bytes(), format!("`{part}` above it is not a folder")));
                }
                Node::Symlink { target, .. } => {
                    symlinks += 1;
                    if symlinks > MOST_SYMLINKS {
                        return Err(refused(parts.join("/").as_bytes(), "too many symbolic links above it"));
                    }
                    if target.starts_with('/') {
                        trail.clear();
                    }
                    left.extend(target.split('/').rev().filter(|p| !p.is_empty() && *p != ".").map(str::to_owned));
                }
            }
        }
        let mut path = String::new();
        for (_, part) in &trail {
            push(&mut path, part);
        }
        Ok((trail.last().map_or(ROOT, |(node, _)| *node), path))
    }

    /// A folder that an entry lies in without having been named itself.
    fn imply(&mut self, trail: &[(usize, String)], name: &str) -> Result<usize, ImageError> {
        if name.len() > 255 {
            return Err(refused(name.as_bytes(), "a part of its name exceeds 255 bytes"));
        }
        let mut path = String::new();
        for (_, part) in trail {
            push(&mut path, part);
        }
        push(&mut path, name);
        let meta = Meta { mode: 0o755, ..Meta::default() };
        self.make(&path, make_mode(file_mode::S_IFDIR, 0o755), None, &meta, None)?;
        let node = self.add_node(Node::Folder(HashMap::new()));
        self.live += 1;
        self.insert_checked(trail.last().map_or(ROOT, |(node, _)| *node), name, node, &path)?;
        Ok(node)
    }

    fn make(
        &mut self,
        path: &str,
        mode: u16,
        target: Option<&str>,
        meta: &Meta,
        content: Option<&mut dyn Read>,
    ) -> Result<(), ImageError> {
        let xattrs = (!meta.xattrs.is_empty()).then_some(&meta.xattrs);
        self.formatter
            .create(path, mode, target, Some(times(meta.mtime)), content, Some(meta.uid), Some(meta.gid), xattrs)
            .map_err(|e| refusal(path, e))
    }

    fn replace(&mut self, parent: usize, name: &str, path: &str, present: Option<usize>) -> Result<(), ImageError> {
        let Some(node) = present else { return Ok(()) };
        self.formatter.unlink(path, false).map_err(|e| refusal(path, e))?;
        if let Node::Folder(children) = &mut self.nodes[parent] {
            children.remove(name);
        }
        self.forget(node, path);
        Ok(())
    }

    /// Takes a removed node, with all below it, out of the account.
    fn forget(&mut self, node: usize, path: &str) {
        let mut left = vec![(node, path.to_owned())];
        while let Some((node, path)) = left.pop() {
            match std::mem::replace(&mut self.nodes[node], Node::Folder(HashMap::new())) {
                Node::Folder(children) => {
                    self.live -= 1;
                    left.extend(children.into_iter().map(|(name, child)| (child, format!("{path}/{name}"))));
                }
                Node::Symlink { file, .. } | Node::File { file } => self.drop_name(file, &path),
            }
        }
    }

    fn drop_name(&mut self, file: usize, path: &str) {
        let inode = &mut self.inodes[file];
        inode.links -= 1;
        if inode.links == 0 {
            self.live -= 1;
        }
        if inode.first_name.as_deref() == Some(path) {
            inode.first_name = None;
        }
    }

    fn child(&self, folder: usize, name: &str) -> Option<usize> {
        match &self.nodes[folder] {
            Node::Folder(children) => children.get(name).copied(),
            Node::Symlink { .. } | Node::File { .. } => None,
        }
    }

    fn file_of(&self, node: usize) -> Option<usize> {
        match &self.nodes[node] {
            Node::Folder(_) => None,
            Node::Symlink { file, .. } | Node::File { file } => Some(*file),
        }
    }

    fn add_node(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn add_inode(&mut self, path: &str) -> usize {
        self.live += 1;
        self.inodes.push(Inode { first_name: Some(path.to_owned()), links: 1 });
        self.inodes.len() - 1
    }

    fn insert(&mut self, parent: usize, name: &str, node: usize) -> usize {
        match &mut self.nodes[parent] {
            Node::Folder(children) => {
                children.insert(name.to_owned(), node);
                children.len()
            }
            Node::Symlink { .. } | Node::File { .. } => 0,
        }
    }

    fn insert_checked(&mut self, parent: usize, name: &str, node: usize, path: &str) -> Result<(), ImageError> {
        if self.insert(parent, name, node) > MOST_NAMES {
            return Err(refused(path.as_bytes(), format!("its folder holds more than {MOST_NAMES} names")));
        }
        Ok(())
    }
}

fn push(path: &mut String, part: &str) {
    path.push('/');
    path.push_str(part);
}

fn refusal(path: &str, error: FormatError) -> ImageError {
    match error {
        FormatError::Io(_) => ImageError::Format(error),
        other => refused(path.as_bytes(), other.to_string()),
    }
}

/// ext4's times: 32 bits of seconds, then two more above 30 bits of nanoseconds
/// (Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps").
fn times((seconds, nanoseconds): (i64, u32)) -> FileTimestamps {
    let seconds = seconds.clamp(i64::from(i32::MIN), (3 << 32) + i64::from(i32::MAX));
    let low = seconds as u32;
    let epoch = ((seconds - i64::from(low as i32)) >> 32) as u32 & 3;
    let high = epoch | (nanoseconds << 2);
    FileTimestamps {
        access_lo: low,
        access_hi: high,
        modification_lo: low,
        modification_hi: high,
        creation_lo: low,
        creation_hi: high,
        now_lo: low,
        now_hi: high,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2038_survive() {
        let decode = |t: FileTimestamps| {
            let low = i64::from(t.modification_lo as i32);
            low + (i64::from(t.modification_hi & 3) << 32)
        };
        for seconds in [-1, 0, 1 << 31, (1 << 31) - 1, (1 << 32) + 5, i64::from(i32::MIN), 9_000_000_000] {
            assert_eq!(decode(times((seconds, 7))), seconds);
        }
    }
}
