//! The tree that archive entries build, layer over layer.
//!
//! Every name is resolved *inside* the tree, as it would be under chroot(2): no symbolic link and no name
//! leads out of it. Content lies in the filesystem's file already; here are names, owners, modes, links.

use std::collections::BTreeMap;

use super::ImageError;
use super::ext4::{Attribute, Content};
use super::tar_name::refused;

/// Links that one symbolic path may go through, as in Linux (`MAXSYMLINKS`, linux/namei.h).
const MOST_SYMLINKS: usize = 40;
/// Names of one file (`EXT4_LINK_MAX`, fs/ext4/ext4.h).
const MOST_LINKS: u32 = 65_000;
/// The layer of what no whiteout takes away, as it is above them all.
const ABOVE_ALL: u32 = u32::MAX;

/// Owner, permissions, time and extended attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// Permissions, set-id bits and the sticky bit.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub(super) mtime: (i64, u32),
    pub(super) attributes: Vec<Attribute>,
}

/// A node of the tree, by its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(u32);

/// A name in a folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) node: NodeId,
    /// The layer that put it there.
    layer: u32,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Kind {
    Folder(BTreeMap<Box<[u8]>, Entry>),
    File(Content),
    Symlink(Box<[u8]>),
    BlockDevice { major: u32, minor: u32 },
    CharacterDevice { major: u32, minor: u32 },
    Fifo,
}

impl Kind {
    fn folder() -> Self {
        Self::Folder(BTreeMap::new())
    }
}

/// A file, folder, link or device.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) meta: Meta,
    pub(super) kind: Kind,
    /// Names that it has.
    links: u32,
}

/// The tree under construction.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    layer: u32,
}

/// Where something is to be put.
#[derive(Debug)]
pub(super) struct Place {
    folder: NodeId,
    name: Box<[u8]>,
}

impl Tree {
    /// The node that everything lies in.
    pub(super) const ROOT: NodeId = NodeId(0);

    /// An empty one, with the folder that ext4 expects.
    pub(super) fn new() -> Self {
        let mut tree = Self { nodes: Vec::new(), layer: 0 };
        let root = tree.add(Meta { mode: 0o755, ..Meta::default() }, Kind::folder());
        let found = tree.add(Meta { mode: 0o700, ..Meta::default() }, Kind::folder());
        tree.insert(Place { folder: root, name: b"lost+found".as_slice().into() }, found);
        tree.raise(root, b"lost+found", ABOVE_ALL);
        tree
    }

    /// What comes from here on lies over what is there.
    pub(super) fn begin_layer(&mut self) {
        self.layer += 1;
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// A folder; one that is there already takes on owner, mode, time and attributes.
    pub(super) fn put_folder(&mut self, parts: &[Vec<u8>], meta: Meta) -> Result<(), ImageError> {
        let Some((name, above)) = parts.split_last() else {
            self.node_mut(Self::ROOT).meta = meta;
            return Ok(());
        };
        let folder = self.resolve(above)?;
        if let Some(entry) = self.entry(folder, name)
            && matches!(self.node(entry.node).kind, Kind::Folder(_))
        {
            self.node_mut(entry.node).meta = meta;
            // A whiteout of this layer, before it or after, is about what lower ones have.
            self.raise(folder, name, self.layer);
            return Ok(());
        }
        self.remove(folder, name);
        let node = self.add(meta, Kind::folder());
        self.insert(Place { folder, name: name.as_slice().into() }, node);
        Ok(())
    }

    /// Where `parts` are, and nothing there any more; folders above that nobody named yet are made.
    pub(super) fn clear(&mut self, parts: &[Vec<u8>]) -> Result<Place, ImageError> {
        let (name, above) = parts.split_last().ok_or_else(|| refused(b"/", "the root must be a folder"))?;
        let folder = self.resolve(above)?;
        if folder == Self::ROOT && name == b"lost+found" {
            return Err(refused(name, "ext4 needs a folder of that name"));
        }
        self.remove(folder, name);
        Ok(Place { folder, name: name.as_slice().into() })
    }

    /// Anything but a folder.
    pub(super) fn put(&mut self, place: Place, meta: Meta, kind: Kind) {
        let node = self.add(meta, kind);
        self.insert(place, node);
    }

    /// Another name for what `target` is the name of.
    pub(super) fn put_link(&mut self, parts: &[Vec<u8>], target: &[Vec<u8>]) -> Result<(), ImageError> {
        let shown = parts.join(&b'/');
        let missing = || {
            let target = target.join(&b'/');
            refused(&shown, format!("it is a hard link to `{}`, which is not there", target.escape_ascii()))
        };
        let (last, above) = target.split_last().ok_or_else(missing)?;
        let above = self.find(above)?.ok_or_else(missing)?;
        let node = self.entry(above, last).ok_or_else(missing)?.node;
        match (&self.node(node).kind, self.node(node).links) {
            (Kind::Folder(_), _) => return Err(refused(&shown, "it is a hard link to a folder")),
            (_, MOST_LINKS..) => return Err(refused(&shown, "the file it links to has 65000 names already")),
            _ => {}
        }
        // A name that is its own target would otherwise be removed before it is linked to.
        self.node_mut(node).links += 1;
        let place = self.clear(parts);
        self.node_mut(node).links -= 1;
        self.insert(place?, node);
        Ok(())
    }

    /// Takes away what lower layers have put under `parts`.
    pub(super) fn whiteout(&mut self, parts: &[Vec<u8>]) -> Result<(), ImageError> {
        let Some((name, above)) = parts.split_last() else { return Ok(()) };
        let Some(folder) = self.find(above)? else { return Ok(()) };
        let Some(entry) = self.entry(folder, name) else { return Ok(()) };
        self.hide(folder, name, entry);
        Ok(())
    }

    /// Takes away all that lower layers have put into the folder `parts`.
    pub(super) fn make_opaque(&mut self, parts: &[Vec<u8>]) -> Result<(), ImageError> {
        if let Some(folder) = self.find(parts)? {
            self.hide_below(folder);
        }
        Ok(())
    }

    /// Removes an entry of a lower layer. A folder stays while this layer has something in it.
    fn hide(&mut self, folder: NodeId, name: &[u8], entry: Entry) {
        if matches!(self.node(entry.node).kind, Kind::Folder(_)) {
            self.hide_below(entry.node);
        }
        let is_empty = match &self.node(entry.node).kind {
            Kind::Folder(names) => names.is_empty(),
            _ => true,
        };
        if entry.layer < self.layer && is_empty {
            self.remove(folder, name);
        }
    }

    fn hide_below(&mut self, top: NodeId) {
        // From the leaves up, without recursion: the tree may be as deep as names are long.
        let mut folders = vec![top];
        let mut at = 0;
        while let Some(folder) = folders.get(at).copied() {
            at += 1;
            if let Kind::Folder(names) = &self.node(folder).kind {
                folders.extend(names.values().map(|e| e.node).filter(|n| self.is_folder(*n)));
            }
        }
        for folder in folders.into_iter().rev() {
            let Kind::Folder(names) = &self.node(folder).kind else { continue };
            let is_hidden = |entry: &Entry| match &self.node(entry.node).kind {
                Kind::Folder(names) => entry.layer < self.layer && names.is_empty(),
                _ => entry.layer < self.layer,
            };
            let hidden: Vec<Box<[u8]>> =
                names.iter().filter(|(_, entry)| is_hidden(entry)).map(|(name, _)| name.clone()).collect();
            hidden.iter().for_each(|name| self.remove(folder, name));
        }
    }

    fn is_folder(&self, id: NodeId) -> bool {
        matches!(self.node(id).kind, Kind::Folder(_))
    }

    /// The folder that `parts` lead to, symbolic links followed inside the tree.
    fn resolve(&mut self, parts: &[Vec<u8>]) -> Result<NodeId, ImageError> {
        loop {
            match self.walk(parts)? {
                Walk::Folder(id) => return Ok(id),
                Walk::Missing { folder, name } => self.imply(folder, name)?,
            }
        }
    }

    /// The same without making anything.
    fn find(&self, parts: &[Vec<u8>]) -> Result<Option<NodeId>, ImageError> {
        match self.walk(parts)? {
            Walk::Folder(id) => Ok(Some(id)),
            Walk::Missing { .. } => Ok(None),
        }
    }

    fn walk(&self, parts: &[Vec<u8>]) -> Result<Walk, ImageError> {
        let shown = || parts.join(&b'/');
        let mut left: Vec<&[u8]> = parts.iter().rev().map(Vec::as_slice).collect();
        let mut trail = vec![Self::ROOT];
        let mut symlinks = 0;
        while let Some(part) = left.pop() {
            if part == b".." {
                trail.truncate((trail.len() - 1).max(1));
                continue;
            }
            let here = trail.last().copied().unwrap_or(Self::ROOT);
            let Some(entry) = self.entry(here, part) else {
                return Ok(Walk::Missing { folder: here, name: part.into() });
            };
            match &self.node(entry.node).kind {
                Kind::Folder(_) => trail.push(entry.node),
                Kind::Symlink(target) => {
                    symlinks += 1;
                    if symlinks > MOST_SYMLINKS {
                        return Err(refused(&shown(), "too many symbolic links above it"));
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    left.extend(target.rsplit(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b"."));
                }
                Kind::File(_) | Kind::BlockDevice { .. } | Kind::CharacterDevice { .. } | Kind::Fifo => {
                    return Err(refused(&shown(), format!("`{}` above it is not a folder", part.escape_ascii())));
                }
            }
        }
        Ok(Walk::Folder(trail.last().copied().unwrap_or(Self::ROOT)))
    }

    /// The own name of the file that `parts` lead to, all links followed.
    pub(super) fn program(&self, parts: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut parts = parts.to_vec();
        for _ in 0..MOST_SYMLINKS {
            let (name, above) = parts.split_last()?;
            let folder = self.find(above).ok()??;
            match &self.node(self.entry(folder, name)?.node).kind {
                Kind::File(_) => return Some(name.clone()),
                Kind::Symlink(target) => {
                    let from = if target.starts_with(b"/") { &[][..] } else { above };
                    let names = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
                    parts = from.iter().cloned().chain(names.map(<[u8]>::to_vec)).collect();
                    parts.retain(|part| part != b".");
                }
                Kind::Folder(_) | Kind::BlockDevice { .. } | Kind::CharacterDevice { .. } | Kind::Fifo => return None,
            }
        }
        None
    }

    /// A folder that an entry lies in without having been named itself.
    fn imply(&mut self, folder: NodeId, name: Box<[u8]>) -> Result<(), ImageError> {
        if name.len() > 255 {
            return Err(refused(&name[..80], "a part of its name exceeds 255 bytes"));
        }
        let node = self.add(Meta { mode: 0o755, ..Meta::default() }, Kind::folder());
        self.insert(Place { folder, name }, node);
        Ok(())
    }

    fn entry(&self, folder: NodeId, name: &[u8]) -> Option<Entry> {
        match &self.node(folder).kind {
            Kind::Folder(names) => names.get(name).copied(),
            _ => None,
        }
    }

    fn add(&mut self, meta: Meta, kind: Kind) -> NodeId {
        self.nodes.push(Node { meta, kind, links: 0 });
        NodeId((self.nodes.len() - 1) as u32)
    }

    fn insert(&mut self, place: Place, node: NodeId) {
        self.node_mut(node).links += 1;
        let entry = Entry { node, layer: self.layer };
        if let Kind::Folder(names) = &mut self.node_mut(place.folder).kind {
            names.insert(place.name, entry);
        }
    }

    /// The name is `layer`'s as well.
    fn raise(&mut self, folder: NodeId, name: &[u8], layer: u32) {
        if let Kind::Folder(names) = &mut self.node_mut(folder).kind
            && let Some(entry) = names.get_mut(name)
        {
            entry.layer = entry.layer.max(layer);
        }
    }

    /// Takes a name away, with all below it; nothing where there is none.
    fn remove(&mut self, folder: NodeId, name: &[u8]) {
        let Kind::Folder(names) = &mut self.node_mut(folder).kind else { return };
        let mut left: Vec<NodeId> = names.remove(name).map(|entry| entry.node).into_iter().collect();
        while let Some(id) = left.pop() {
            let node = self.node_mut(id);
            node.links -= 1;
            if node.links == 0 {
                // What has no name takes no memory for long trees of many layers.
                if let Kind::Folder(names) = std::mem::replace(&mut node.kind, Kind::Fifo) {
                    left.extend(names.into_values().map(|entry| entry.node));
                }
                node.meta.attributes = Vec::new();
            }
        }
    }

    /// A name that leads to `id`, for messages.
    pub(super) fn name_of(&self, id: NodeId) -> Vec<u8> {
        let mut left = vec![(Self::ROOT, Vec::new())];
        while let Some((folder, path)) = left.pop() {
            if folder == id {
                return path;
            }
            let Kind::Folder(names) = &self.node(folder).kind else { continue };
            left.extend(names.iter().map(|(name, entry)| (entry.node, [&path[..], b"/", name].concat())));
        }
        Vec::new()
    }
}

/// Where names lead.
enum Walk {
    Folder(NodeId),
    Missing { folder: NodeId, name: Box<[u8]> },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Vec<Vec<u8>> {
        path.split('/').map(|part| part.as_bytes().to_vec()).collect()
    }

    fn put(tree: &mut Tree, path: &str) {
        let place = tree.clear(&parts(path)).expect("a place");
        tree.put(place, Meta::default(), Kind::Fifo);
    }

    /// All names, in order.
    fn names(tree: &Tree) -> String {
        let mut found = Vec::new();
        let mut left = vec![(Tree::ROOT, String::new())];
        while let Some((id, path)) = left.pop() {
            if let Kind::Folder(names) = &tree.node(id).kind {
                for (name, entry) in names {
                    let path = format!("{path}/{}", String::from_utf8_lossy(name));
                    found.push(path.clone());
                    left.push((entry.node, path));
                }
            }
        }
        found.retain(|name| name != "/lost+found");
        found.sort();
        found.join(" ")
    }

    #[test]
    fn a_whiteout_hides_lower_layers_alone() {
        let mut tree = Tree::new();
        put(&mut tree, "a/old");
        put(&mut tree, "b");
        tree.begin_layer();
        put(&mut tree, "a/new");
        put(&mut tree, "c");
        tree.whiteout(&parts("a/old")).expect("hidden");
        tree.whiteout(&parts("c")).expect("not hidden");
        tree.whiteout(&parts("nothing/here")).expect("nothing");
        tree.whiteout(&parts("b")).expect("hidden");
        assert_eq!(names(&tree), "/a /a/new /c");
    }

    #[test]
    fn an_opaque_folder_keeps_what_its_own_layer_brings_before_and_after() {
        let mut tree = Tree::new();
        put(&mut tree, "d/x/old");
        put(&mut tree, "d/y/old");
        put(&mut tree, "e/old");
        tree.begin_layer();
        put(&mut tree, "d/x/new");
        tree.make_opaque(&parts("d")).expect("opaque");
        put(&mut tree, "d/late");
        tree.whiteout(&parts("e")).expect("hidden");
        assert_eq!(names(&tree), "/d /d/late /d/x /d/x/new");
    }

    #[test]
    fn a_folder_that_a_layer_names_again_is_no_lower_layers() {
        let mut tree = Tree::new();
        put(&mut tree, "p/d/old");
        put(&mut tree, "o/d/old");
        tree.begin_layer();
        for folder in ["p/d", "o/d"] {
            tree.put_folder(&parts(folder), Meta::default()).expect("there");
        }
        tree.whiteout(&parts("p/d")).expect("hidden");
        tree.make_opaque(&parts("o")).expect("opaque");
        assert_eq!(names(&tree), "/o /o/d /p /p/d");
        tree.begin_layer();
        tree.whiteout(&parts("p/d")).expect("hidden");
        assert_eq!(names(&tree), "/o /o/d /p");
    }

    #[test]
    fn no_whiteout_takes_away_the_folder_that_ext4_expects() {
        let mut tree = Tree::new();
        put(&mut tree, "lost+found/old");
        tree.begin_layer();
        tree.put_folder(&parts("lost+found"), Meta::default()).expect("there");
        tree.begin_layer();
        tree.make_opaque(&[]).expect("opaque");
        tree.whiteout(&parts("lost+found")).expect("not hidden");
        let found = tree.entry(Tree::ROOT, b"lost+found").expect("there").node;
        assert!(matches!(&tree.node(found).kind, Kind::Folder(names) if names.is_empty()));
    }

    #[test]
    fn a_link_to_a_lower_layers_file_keeps_it() {
        let mut tree = Tree::new();
        put(&mut tree, "a");
        tree.begin_layer();
        tree.put_link(&parts("b"), &parts("a")).expect("linked");
        tree.whiteout(&parts("a")).expect("hidden");
        tree.put_link(&parts("b"), &parts("b")).expect("the same");
        assert_eq!(names(&tree), "/b");
        let node = tree.entry(Tree::ROOT, b"b").expect("there").node;
        assert_eq!(tree.node(node).links, 1);
    }

    #[test]
    fn a_program_is_found_through_links() {
        let mut tree = Tree::new();
        let link = |tree: &mut Tree, path: &str, target: &[u8]| {
            let place = tree.clear(&parts(path)).expect("a place");
            tree.put(place, Meta::default(), Kind::Symlink(target.into()));
        };
        link(&mut tree, "sbin", b"usr/sbin");
        link(&mut tree, "usr/sbin/init", b"../lib/systemd/systemd");
        assert_eq!(tree.program(&parts("sbin/init")), None);
        let place = tree.clear(&parts("usr/lib/systemd/systemd")).expect("a place");
        tree.put(place, Meta::default(), Kind::File(Content::default()));
        assert_eq!(tree.program(&parts("sbin/init")).as_deref(), Some(&b"systemd"[..]));
        link(&mut tree, "loop", b"loop");
        assert_eq!(tree.program(&parts("loop")), None);
    }

    #[test]
    fn a_deep_tree_is_removed_without_recursion() {
        let mut tree = Tree::new();
        let deep = vec!["d"; 2000].join("/");
        put(&mut tree, &deep);
        tree.begin_layer();
        tree.whiteout(&parts("d")).expect("hidden");
        assert_eq!(names(&tree), "");
    }
}
