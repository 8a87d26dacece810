//! Finding the directory an entry belongs in.

use std::collections::BTreeMap;

use super::{Dir, Kind, Lower, Meta, Node, NodeId, Tree};
use crate::error::{LayerError, show};

/// Linux gives up after this many symlinks in one path walk.
const MAX_SYMLINKS: u32 = 40;

/// A directory that a name from the archive leads to.
pub(super) struct Place {
    /// Its node, if this layer has it.
    pub(super) id: Option<NodeId>,
    /// Its path without symlinks.
    pub(super) path: Vec<Vec<u8>>,
}

impl Tree {
    /// The directory at `parents`, of this layer or one below; nothing is
    /// made. `None` when neither has one.
    pub(super) fn resolve(
        &mut self,
        parents: &[Vec<u8>],
        path: &[u8],
        lower: &mut dyn Lower,
    ) -> Result<Option<Place>, LayerError> {
        let mut walk = Walk::new(self, parents, path);
        while let Some(part) = walk.next_part() {
            match self.step(&walk, &part, lower)? {
                Step::Dir(id) => walk.enter(self, part, Some(id)),
                Step::Below => walk.enter(self, part, None),
                Step::Link(target) => walk.follow(&target)?,
                Step::Missing | Step::Other => return Ok(None),
            }
        }
        Ok(Some(Place {
            id: walk.here().id,
            path: walk.names(),
        }))
    }

    /// The directory at `parents`, made if need be. Symlinks of this layer and
    /// of those below are followed inside the tree, as they are when a runtime
    /// unpacks in a chroot; `..` in their targets stops at the root.
    pub(super) fn walk(
        &mut self,
        parents: &[Vec<u8>],
        path: &[u8],
        lower: &mut dyn Lower,
    ) -> Result<NodeId, LayerError> {
        let mut walk = Walk::new(self, parents, path);
        while let Some(part) = walk.next_part() {
            let id = match self.step(&walk, &part, lower)? {
                Step::Dir(id) => id,
                Step::Link(target) => {
                    walk.follow(&target)?;
                    continue;
                }
                Step::Other => return Err(LayerError::NotADirectory { path: show(path) }),
                Step::Missing | Step::Below => self.imply(walk.here_made(), &part)?,
            };
            walk.enter(self, part, Some(id));
        }
        Ok(walk.here_made())
    }

    /// As [`Self::walk`], for a whiteout. `None` where a file is in the way,
    /// in which there is nothing to remove: umoci writes a directory that
    /// became a file with whiteouts of all that was in it.
    pub(super) fn walk_to_remove(
        &mut self,
        parents: &[Vec<u8>],
        path: &[u8],
        lower: &mut dyn Lower,
    ) -> Result<Option<NodeId>, LayerError> {
        match self.walk(parents, path, lower) {
            Err(LayerError::NotADirectory { .. }) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Makes a directory because something is in it.
    fn imply(&mut self, parent: NodeId, name: &[u8]) -> Result<NodeId, LayerError> {
        let id = self.add(Node {
            meta: Meta::IMPLICIT_DIR,
            xattrs: BTreeMap::new(),
            kind: Kind::Dir(Dir::default()),
            explicit: false,
        })?;
        self.attach(parent, name, id)?;
        Ok(id)
    }

    /// What `part` is where the walk has come to.
    fn step(
        &mut self,
        walk: &Walk<'_>,
        part: &[u8],
        lower: &mut dyn Lower,
    ) -> Result<Step, LayerError> {
        let here = walk.here();
        let dir = here.id.and_then(|id| self.nodes[id].as_dir());
        if let Some(&id) = dir.and_then(|dir| dir.children.get(part)) {
            return Ok(match &self.nodes[id].kind {
                Kind::Dir(_) => Step::Dir(id),
                Kind::Symlink(target) => Step::Link(target.clone()),
                _ => Step::Other,
            });
        }
        if here.hidden || dir.is_some_and(|dir| dir.hides(part)) {
            return Ok(Step::Missing);
        }
        self.applied.used_lower = true;
        let mut path = walk.names();
        path.push(part.to_vec());
        Ok(match lower.find(&path)?.map(|node| node.kind) {
            None => Step::Missing,
            Some(Kind::Dir(_)) => Step::Below,
            Some(Kind::Symlink(target)) => Step::Link(target),
            Some(_) => Step::Other,
        })
    }
}

enum Step {
    Missing,
    /// A directory of this layer.
    Dir(NodeId),
    /// A directory of the layers below.
    Below,
    Link(Vec<u8>),
    Other,
}

/// A directory the walk has come through.
struct Passed {
    name: Vec<u8>,
    /// Its node, if this layer has it.
    id: Option<NodeId>,
    /// This layer hides what the layers below have in it.
    hidden: bool,
}

/// A path walk: the directories passed, for `..`, and the parts to come.
struct Walk<'a> {
    root: NodeId,
    root_hidden: bool,
    /// Without the root.
    passed: Vec<Passed>,
    /// In reverse, the next part last.
    todo: Vec<Vec<u8>>,
    symlinks: u32,
    path: &'a [u8],
}

/// Where a walk is.
#[derive(Clone, Copy)]
struct Here {
    id: Option<NodeId>,
    hidden: bool,
}

impl<'a> Walk<'a> {
    fn new(tree: &Tree, parents: &[Vec<u8>], path: &'a [u8]) -> Self {
        Self {
            root: tree.root(),
            root_hidden: tree.applied.root_opaque,
            passed: Vec::new(),
            todo: parents.iter().rev().cloned().collect(),
            symlinks: 0,
            path,
        }
    }

    fn here(&self) -> Here {
        self.passed.last().map_or(
            Here {
                id: Some(self.root),
                hidden: self.root_hidden,
            },
            |last| Here {
                id: last.id,
                hidden: last.hidden,
            },
        )
    }

    /// Where the walk is, if it enters nothing but directories of this layer.
    fn here_made(&self) -> NodeId {
        self.here().id.unwrap_or(self.root)
    }

    fn names(&self) -> Vec<Vec<u8>> {
        self.passed.iter().map(|dir| dir.name.clone()).collect()
    }

    fn enter(&mut self, tree: &Tree, name: Vec<u8>, id: Option<NodeId>) {
        let here = self.here();
        let dir = here.id.and_then(|id| tree.nodes[id].as_dir());
        let hidden = here.hidden || dir.is_some_and(|dir| dir.hides(&name));
        self.passed.push(Passed { name, id, hidden });
    }

    /// The next name to look up, `..` already acted on.
    fn next_part(&mut self) -> Option<Vec<u8>> {
        while let Some(part) = self.todo.pop() {
            if part != b".." {
                return Some(part);
            }
            self.passed.pop();
        }
        None
    }

    fn follow(&mut self, target: &[u8]) -> Result<(), LayerError> {
        self.symlinks += 1;
        if self.symlinks > MAX_SYMLINKS {
            return Err(LayerError::UnsafePath {
                path: show(self.path),
                reason: "passes more than 40 symlinks",
            });
        }
        if target.first() == Some(&b'/') {
            self.passed.clear();
        }
        for part in target.rsplit(|byte| *byte == b'/') {
            if part.len() > crate::squashfs::NAME_MAX {
                return Err(LayerError::UnsafePath {
                    path: show(self.path),
                    reason: "passes a symlink with a component longer than 255 bytes",
                });
            }
            if !part.is_empty() && part != b"." {
                self.todo.push(part.to_vec());
            }
        }
        Ok(())
    }
}
