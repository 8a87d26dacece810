//! Applying archive entries to the tree.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::budget::{Budget, Share};
use super::{Dir, Extent, FileData, Kind, Meta, Node, NodeId, encode_dev, normalise};
use crate::error::{LayerError, show};
use crate::limits::Limits;
use crate::section::ReadAt;
use crate::squashfs::split_name;
use crate::tar::{Entry, EntryKind};

/// Prefix of whiteout entries (OCI image spec, layer.md "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Marks a directory as hiding everything below.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names with this prefix are AUFS bookkeeping, which is ignored.
const AUFS_META: &[u8] = b".wh..wh.";
/// Why a hard link cannot be made whose target is nowhere.
const NO_TARGET: &str = "neither this layer nor one below has the target";
/// What holding a name costs besides its bytes.
const NAME_OVERHEAD: u64 = 64;

/// Extended attributes by full name.
type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The layers below the one being applied.
pub(crate) trait Lower {
    /// The node at `path` as the merged layers below show it.
    fn find(&mut self, path: &[Vec<u8>]) -> Result<Option<Node>, LayerError>;
}

/// A tree with the counters that bound it.
pub(crate) struct Tree {
    pub(super) nodes: Vec<Node>,
    max_nodes: u64,
    max_data_bytes: u64,
    data_bytes: u64,
    max_metadata_bytes: u64,
    metadata_bytes: u64,
    share: Share,
    pub(super) applied: Applied,
}

/// What applying found out about the layer as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The layer hides everything below it: overlayfs has no way to say so
    /// about the root, so the layers below must be left out of the stack.
    pub(crate) root_opaque: bool,
    /// The layers below were consulted, so the result is only good on them.
    pub(crate) used_lower: bool,
    /// Attributes squashfs cannot hold, or that would speak to overlayfs.
    pub(crate) dropped_xattrs: u64,
}

impl Tree {
    pub(crate) fn new(limits: &Limits, budget: &Rc<Budget>) -> Self {
        Self {
            nodes: vec![Node {
                meta: Meta::IMPLICIT_DIR,
                xattrs: BTreeMap::new(),
                kind: Kind::Dir(Dir::default()),
                explicit: false,
            }],
            max_nodes: limits.max_entries,
            max_data_bytes: limits.max_layer_bytes,
            data_bytes: 0,
            max_metadata_bytes: limits.max_tree_bytes,
            metadata_bytes: 0,
            share: Share::new(budget),
            applied: Applied::default(),
        }
    }

    #[allow(
        clippy::unused_self,
        reason = "the root's id is an invariant of this type"
    )]
    pub(crate) fn root(&self) -> NodeId {
        0
    }

    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    pub(crate) fn applied(&self) -> Applied {
        self.applied
    }

    /// Applies one archive entry whose data lies in `source`.
    pub(crate) fn apply(
        &mut self,
        entry: Entry,
        source: &Arc<dyn ReadAt + Send + Sync>,
        lower: &mut dyn Lower,
    ) -> Result<(), LayerError> {
        let path = normalise(&entry.path)?;
        let Some((name, parents)) = path.split_last() else {
            return self.apply_root(entry);
        };
        if is_aufs_metadata(&path) {
            return Ok(());
        }
        if let Some(bad) = parents.iter().find(|part| part.starts_with(WHITEOUT)) {
            return Err(LayerError::InvalidWhiteout {
                path: show(&entry.path),
                name: show(bad),
            });
        }
        if name == OPAQUE {
            let Some(dir) = self.walk_to_remove(parents, &entry.path, lower)? else {
                return Ok(());
            };
            if dir == self.root() {
                self.applied.root_opaque = true;
            }
            self.dir_mut(dir, &entry.path)?.opaque = true;
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(hidden, parents, &entry.path, lower);
        }
        let parent = self.walk(parents, &entry.path, lower)?;
        if let EntryKind::HardLink = entry.kind {
            return self.hard_link(&entry, parent, name, lower);
        }
        let node = self.node_from(entry, source)?;
        self.place(parent, name, node)
    }

    fn apply_root(&mut self, entry: Entry) -> Result<(), LayerError> {
        if !matches!(entry.kind, EntryKind::Dir) {
            return Err(LayerError::UnsafePath {
                path: show(&entry.path),
                reason: "replaces the root directory",
            });
        }
        let (meta, xattrs) = self.attributes(entry)?;
        let root = &mut self.nodes[0];
        root.meta = meta;
        root.xattrs = xattrs;
        root.explicit = true;
        Ok(())
    }

    fn whiteout(
        &mut self,
        hidden: &[u8],
        parents: &[Vec<u8>],
        path: &[u8],
        lower: &mut dyn Lower,
    ) -> Result<(), LayerError> {
        // Names a directory lookup cannot yield: taken literally, `.wh...`
        // would remove the parent directory.
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(LayerError::InvalidWhiteout {
                path: show(path),
                name: show(hidden),
            });
        }
        let Some(dir) = self.walk_to_remove(parents, path, lower)? else {
            return Ok(());
        };
        self.charge_name(hidden)?;
        self.dir_mut(dir, path)?.whiteouts.insert(hidden.to_vec());
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        parent: NodeId,
        name: &[u8],
        lower: &mut dyn Lower,
    ) -> Result<(), LayerError> {
        let target = normalise(&entry.link)?;
        let missing = |reason| LayerError::HardLink {
            path: show(&entry.path),
            target: show(&entry.link),
            reason,
        };
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(missing("the target is the root directory"));
        };
        let Some(place) = self.resolve(target_parents, &entry.path, lower)? else {
            return Err(missing(NO_TARGET));
        };
        let found = place
            .id
            .and_then(|dir| self.nodes[dir].as_dir()?.children.get(target_name).copied());
        let id = match found {
            Some(id) => id,
            None => {
                self.applied.used_lower = true;
                // overlayfs cannot link across layers: bring the file up, as
                // a write in a running container would.
                let mut target = place.path;
                target.push(target_name.clone());
                let node = lower.find(&target)?.ok_or_else(|| missing(NO_TARGET))?;
                if node.as_dir().is_some() {
                    return Err(missing("the target is a directory"));
                }
                let up = self.walk(&target[..target.len() - 1], &entry.path, lower)?;
                self.charge_data(&node)?;
                let id = self.add(node)?;
                self.attach(up, target_name, id)?;
                id
            }
        };
        if self.nodes[id].as_dir().is_some() {
            return Err(missing("the target is a directory"));
        }
        self.attach(parent, name, id)
    }

    /// Counts a name that is held in memory.
    pub(super) fn charge_name(&mut self, name: &[u8]) -> Result<(), LayerError> {
        self.charge(name.len() as u64 + NAME_OVERHEAD)
    }

    pub(super) fn charge_data(&mut self, node: &Node) -> Result<(), LayerError> {
        if let Kind::File(data) = &node.kind {
            self.data_bytes = self.data_bytes.saturating_add(data.size);
            if self.data_bytes > self.max_data_bytes {
                return Err(LayerError::LimitExceeded {
                    what: "file bytes",
                    limit: self.max_data_bytes,
                });
            }
        }
        Ok(())
    }

    fn charge(&mut self, bytes: u64) -> Result<(), LayerError> {
        self.metadata_bytes = self.metadata_bytes.saturating_add(bytes);
        if self.metadata_bytes > self.max_metadata_bytes {
            return Err(LayerError::LimitExceeded {
                what: "bytes of names, links and attributes",
                limit: self.max_metadata_bytes,
            });
        }
        self.share.take(bytes)
    }

    pub(super) fn add(&mut self, node: Node) -> Result<NodeId, LayerError> {
        if self.nodes.len() as u64 >= self.max_nodes {
            return Err(LayerError::LimitExceeded {
                what: "files and directories",
                limit: self.max_nodes,
            });
        }
        self.share.take(size_of::<Node>() as u64)?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn attributes(&mut self, entry: Entry) -> Result<(Meta, Xattrs), LayerError> {
        let mut xattrs = BTreeMap::new();
        for (name, value) in entry.xattrs {
            // The overlay attributes are how we talk to the guest's
            // overlayfs; an image must not be able to speak in our place.
            let private = name.starts_with(b"trusted.overlay.");
            if private || split_name(&name).is_none() {
                self.applied.dropped_xattrs += 1;
                continue;
            }
            self.charge((name.len() + value.len()) as u64)?;
            // POSIX.1 (pax, "Extended Header"): a record without a value takes back an
            // earlier one. Other readers have no empty attributes either.
            if value.is_empty() {
                xattrs.remove(&name);
                continue;
            }
            xattrs.insert(name, value);
        }
        let meta = Meta {
            mode: entry.mode & 0o7777,
            uid: entry.uid,
            gid: entry.gid,
            mtime: u32::try_from(entry.mtime.max(0)).unwrap_or(u32::MAX),
        };
        Ok((meta, xattrs))
    }

    fn node_from(
        &mut self,
        mut entry: Entry,
        source: &Arc<dyn ReadAt + Send + Sync>,
    ) -> Result<Node, LayerError> {
        let kind = match entry.kind {
            EntryKind::Dir => Kind::Dir(Dir::default()),
            EntryKind::File => {
                let extents = std::mem::take(&mut entry.extents);
                self.charge(extents.len() as u64 * size_of::<Extent>() as u64)?;
                Kind::File(FileData {
                    source: Arc::clone(source),
                    size: entry.size,
                    extents,
                })
            }
            // `apply` handles hard links before it comes here.
            EntryKind::Symlink | EntryKind::HardLink => {
                if entry.link.is_empty() || entry.link.len() > 4095 || entry.link.contains(&0) {
                    return Err(LayerError::UnsafePath {
                        path: show(&entry.path),
                        reason: "has an empty, overlong or NUL-bearing symlink target",
                    });
                }
                self.charge(entry.link.len() as u64)?;
                Kind::Symlink(std::mem::take(&mut entry.link))
            }
            EntryKind::Char { major, minor } => Kind::Char(device(&entry, major, minor)?),
            EntryKind::Block { major, minor } => Kind::Block(device(&entry, major, minor)?),
            EntryKind::Fifo => Kind::Fifo,
        };
        let (meta, xattrs) = self.attributes(entry)?;
        let node = Node {
            meta,
            xattrs,
            kind,
            explicit: true,
        };
        self.charge_data(&node)?;
        Ok(node)
    }

    /// Puts a new node under a name. A directory over a directory keeps what
    /// is inside; anything else replaces: the last entry wins.
    fn place(&mut self, parent: NodeId, name: &[u8], node: Node) -> Result<(), LayerError> {
        if node.as_dir().is_some() {
            let existing = self.nodes[parent]
                .as_dir()
                .and_then(|dir| dir.children.get(name).copied());
            if let Some(id) = existing.filter(|id| self.nodes[*id].as_dir().is_some()) {
                let old = &mut self.nodes[id];
                old.meta = node.meta;
                old.xattrs = node.xattrs;
                old.explicit = true;
                return Ok(());
            }
        }
        let id = self.add(node)?;
        self.attach(parent, name, id)
    }

    pub(super) fn attach(
        &mut self,
        parent: NodeId,
        name: &[u8],
        id: NodeId,
    ) -> Result<(), LayerError> {
        self.charge_name(name)?;
        self.dir_mut(parent, name)?
            .children
            .insert(name.to_vec(), id);
        Ok(())
    }

    fn dir_mut(&mut self, id: NodeId, path: &[u8]) -> Result<&mut Dir, LayerError> {
        match &mut self.nodes[id].kind {
            Kind::Dir(dir) => Ok(dir),
            _ => Err(LayerError::NotADirectory { path: show(path) }),
        }
    }
}

fn is_aufs_metadata(path: &[Vec<u8>]) -> bool {
    let last = path.len() - 1;
    path.iter()
        .enumerate()
        .any(|(at, part)| part.starts_with(AUFS_META) && !(at == last && part == OPAQUE))
}

fn device(entry: &Entry, major: u32, minor: u32) -> Result<u32, LayerError> {
    encode_dev(major, minor).ok_or_else(|| LayerError::UnsafePath {
        path: show(&entry.path),
        reason: "has a device number Linux cannot represent",
    })
}
