//! Finding the directory an entry belongs in.

use std::collections::BTreeMap;

use super::{Dir, Kind, Meta, Node, NodeId, Tree};
use crate::error::{LayerError, show};

/// Linux gives up after this many symlinks in one path walk.
const MAX_SYMLINKS: u32 = 40;

impl Tree {
    /// As [`Self::walk`], but creates nothing.
    pub(super) fn resolve(
        &self,
        parents: &[Vec<u8>],
        path: &[u8],
    ) -> Result<Option<NodeId>, LayerError> {
        let mut walk = Walk::new(self.root(), parents, path);
        while let Some(part) = walk.next_part() {
            let here = walk.here();
            match self.step(here, &part) {
                Step::Dir(id) => walk.enter(id),
                Step::Link(target) => walk.follow(self.root(), &target)?,
                Step::Missing | Step::Other => return Ok(None),
            }
        }
        Ok(Some(walk.here()))
    }

    /// The directory at `parents`, made if need be. Symlinks that this layer
    /// itself has are followed inside the tree, as they are when a runtime
    /// unpacks in a chroot; `..` in their targets stops at the root.
    pub(super) fn walk(&mut self, parents: &[Vec<u8>], path: &[u8]) -> Result<NodeId, LayerError> {
        let mut walk = Walk::new(self.root(), parents, path);
        while let Some(part) = walk.next_part() {
            let here = walk.here();
            match self.step(here, &part) {
                Step::Dir(id) => walk.enter(id),
                Step::Link(target) => walk.follow(self.root(), &target)?,
                Step::Other => return Err(LayerError::NotADirectory { path: show(path) }),
                Step::Missing => {
                    let id = self.add(Node {
                        meta: Meta::IMPLICIT_DIR,
                        xattrs: BTreeMap::new(),
                        kind: Kind::Dir(Dir::default()),
                        explicit: false,
                    })?;
                    self.attach(here, &part, id)?;
                    walk.enter(id);
                }
            }
        }
        Ok(walk.here())
    }

    fn step(&self, here: NodeId, part: &[u8]) -> Step {
        let child = self.nodes[here]
            .as_dir()
            .and_then(|dir| dir.children.get(part).copied());
        match child {
            None => Step::Missing,
            Some(id) => match &self.nodes[id].kind {
                Kind::Dir(_) => Step::Dir(id),
                Kind::Symlink(target) => Step::Link(target.clone()),
                _ => Step::Other,
            },
        }
    }
}

enum Step {
    Missing,
    Dir(NodeId),
    Link(Vec<u8>),
    Other,
}

/// A path walk: the directories passed, for `..`, and the parts to come.
struct Walk<'a> {
    passed: Vec<NodeId>,
    /// In reverse, the next part last.
    todo: Vec<Vec<u8>>,
    symlinks: u32,
    path: &'a [u8],
}

impl<'a> Walk<'a> {
    fn new(root: NodeId, parents: &[Vec<u8>], path: &'a [u8]) -> Self {
        Self {
            passed: vec![root],
            todo: parents.iter().rev().cloned().collect(),
            symlinks: 0,
            path,
        }
    }

    fn here(&self) -> NodeId {
        self.passed.last().copied().unwrap_or_default()
    }

    fn enter(&mut self, id: NodeId) {
        self.passed.push(id);
    }

    /// The next name to look up, `..` already acted on.
    fn next_part(&mut self) -> Option<Vec<u8>> {
        while let Some(part) = self.todo.pop() {
            if part != b".." {
                return Some(part);
            }
            if self.passed.len() > 1 {
                self.passed.pop();
            }
        }
        None
    }

    fn follow(&mut self, root: NodeId, target: &[u8]) -> Result<(), LayerError> {
        self.symlinks += 1;
        if self.symlinks > MAX_SYMLINKS {
            return Err(LayerError::UnsafePath {
                path: show(self.path),
                reason: "passes more than 40 symlinks",
            });
        }
        if target.first() == Some(&b'/') {
            self.passed = vec![root];
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
