//! A tree → an ext4 filesystem, without root, without mounting, in one pass.
//!
//! Content goes to its final place while it streams by ([`Space`]); the tree stays in memory and is written
//! behind it at the end, when its size is known. The layout is an ordinary one, with journal, indexed folders
//! and room to grow while mounted, and needs no other program. The format: Documentation/filesystems/ext4.

/// Extended attributes.
mod attributes;
/// Block maps.
mod extents;
/// Folders' blocks.
mod folders;
/// Groups and fixed places.
mod geometry;
/// Names' hashes.
mod hash;
/// Inodes' records.
mod inodes;
/// What lies around the content.
mod layout;
/// The tree's inodes.
mod records;
/// Content.
mod space;
/// Superblock and descriptors.
mod superblock;

pub(super) use attributes::{Attribute, index_of as attribute_index};
pub(super) use space::{Content, ContentWriter};

use std::fs::File;
use std::io;

use self::geometry::Head;
use self::space::Space;
use super::tree::Tree;
use crate::model::Mib;

/// A filesystem under construction.
pub(super) struct Ext4 {
    space: Space,
}

/// How the finished filesystem shall be.
#[derive(Debug, Clone)]
pub(super) struct Form<'a> {
    /// Its size; `None`: what the content needs, a quarter, and some room.
    pub(super) size: Option<Mib>,
    /// The least size where `size` is `None`.
    pub(super) least: Mib,
    /// At most 16 bytes.
    pub(super) label: &'a str,
    /// Whether it gets a journal.
    pub(super) journal: bool,
}

/// Why a filesystem cannot be finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwritable {
    #[error(transparent)]
    File(#[from] io::Error),
    /// The content needs more than the size that was asked for.
    #[error("needs {0}")]
    Size(Mib),
    /// A folder has more names than its tree can point at.
    #[error("too many names in one folder")]
    Folder(Vec<u8>),
    /// An inode's extended attributes need more than a block.
    #[error("too many extended attributes")]
    Attributes(Vec<u8>),
}

impl Ext4 {
    /// An empty one in `file`, which is empty; `size` as later in [`Form`].
    pub(super) fn new(file: File, size: Option<Mib>) -> Self {
        Self { space: Space::new(file, Head::new(size)) }
    }

    /// Begins a file's content.
    pub(super) fn content(&mut self) -> ContentWriter<'_> {
        self.space.content()
    }

    /// Writes `tree` around the content; the file and the filesystem's size.
    pub(super) fn finish(self, tree: &Tree, form: &Form) -> Result<(File, Mib), Unwritable> {
        layout::write(self.space, tree, form)
    }
}
