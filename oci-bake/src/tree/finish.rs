//! From OCI's marker files to what overlayfs understands.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{Applied, Lower};
use super::{Kind, Meta, Node, NodeId, Tree};
use crate::error::LayerError;

/// What overlayfs reads as "opaque".
pub(crate) const OVERLAY_OPAQUE: &[u8] = b"trusted.overlay.opaque";

impl Tree {
    /// Turns whiteouts and opaque directories into nodes and attributes, and
    /// settles directories nothing described.
    pub(crate) fn finish(&mut self, lower: &mut dyn Lower) -> Result<Applied, LayerError> {
        // The last field: this layer hides what the layers below have there,
        // so there is nothing to adopt and nothing to remove.
        let mut stack = vec![(self.root(), Vec::new(), self.applied.root_opaque)];
        while let Some((id, path, hidden)) = stack.pop() {
            if !self.nodes[id].explicit && !hidden {
                self.adopt_lower(id, &path, lower)?;
            }
            let Some(dir) = self.nodes[id].as_dir() else {
                continue;
            };
            for (name, &child) in &dir.children {
                if self.nodes[child].as_dir().is_some() {
                    let hidden = hidden || dir.hides(name);
                    let mut path = path.clone();
                    path.push(name.clone());
                    stack.push((child, path, hidden));
                }
            }
            self.settle(id, path, hidden, lower)?;
        }
        Ok(self.applied)
    }

    /// Expresses a directory's whiteouts and opacity as overlayfs reads them.
    fn settle(
        &mut self,
        id: NodeId,
        mut path: Vec<Vec<u8>>,
        hidden: bool,
        lower: &mut dyn Lower,
    ) -> Result<(), LayerError> {
        let mut whiteouts = self.take_devices(id);
        let Kind::Dir(dir) = &mut self.nodes[id].kind else {
            return Ok(());
        };
        let opaque = dir.opaque;
        whiteouts.append(&mut dir.whiteouts);
        for name in whiteouts {
            path.push(name);
            self.settle_whiteout(id, &path, hidden || opaque, lower)?;
            path.pop();
        }
        if opaque && id != self.root() {
            self.nodes[id]
                .xattrs
                .insert(OVERLAY_OPAQUE.to_vec(), b"y".to_vec());
        }
        Ok(())
    }

    /// Takes out the names of character devices 0:0. overlayfs sees whiteouts
    /// in them wherever they come from, and so do the runtimes that unpack
    /// layers for it.
    fn take_devices(&mut self, id: NodeId) -> BTreeSet<Vec<u8>> {
        let Some(dir) = self.nodes[id].as_dir() else {
            return BTreeSet::new();
        };
        let is_whiteout = |child: NodeId| matches!(self.nodes[child].kind, Kind::Char(0));
        let names: BTreeSet<Vec<u8>> = dir
            .children
            .iter()
            .filter(|(_, child)| is_whiteout(**child))
            .map(|(name, _)| name.clone())
            .collect();
        if let Kind::Dir(dir) = &mut self.nodes[id].kind {
            dir.children.retain(|name, _| !names.contains(name));
        }
        names
    }

    /// A whiteout beside an entry of the same name concerns the layers below
    /// only (layer.md): a file hides them anyway, a directory must be opaque.
    /// A whiteout of nothing goes: overlayfs looks for whiteouts only in
    /// directories that several layers have, and lists the others as they are.
    fn settle_whiteout(
        &mut self,
        id: NodeId,
        path: &[Vec<u8>],
        hidden: bool,
        lower: &mut dyn Lower,
    ) -> Result<(), LayerError> {
        let Some(name) = path.last() else {
            return Ok(());
        };
        let present = self.nodes[id]
            .as_dir()
            .and_then(|dir| dir.children.get(name).copied());
        if let Some(child) = present {
            if let Kind::Dir(dir) = &mut self.nodes[child].kind {
                dir.opaque = true;
            }
            return Ok(());
        }
        if hidden {
            return Ok(());
        }
        self.applied.used_lower = true;
        if lower.find(path)?.is_none() {
            return Ok(());
        }
        // overlayfs: a whiteout is a character device with number 0:0.
        let node = self.add(Node {
            meta: Meta {
                mode: 0,
                ..Meta::IMPLICIT_DIR
            },
            xattrs: BTreeMap::new(),
            kind: Kind::Char(0),
            explicit: true,
        })?;
        if let Kind::Dir(dir) = &mut self.nodes[id].kind {
            dir.children.insert(name.clone(), node);
        }
        Ok(())
    }

    /// A directory that is only implied must not change the one below it.
    fn adopt_lower(
        &mut self,
        id: NodeId,
        path: &[Vec<u8>],
        lower: &mut dyn Lower,
    ) -> Result<(), LayerError> {
        // Seldom does a layer describe the root, and one that does not is to be the
        // same file on any layers: the guest's init looks which of them does.
        if id == self.root() {
            return Ok(());
        }
        self.applied.used_lower = true;
        if let Some(below) = lower.find(path)?
            && below.as_dir().is_some()
        {
            self.nodes[id].meta = below.meta;
            self.nodes[id].xattrs = below.xattrs;
            self.nodes[id].xattrs.remove(OVERLAY_OPAQUE);
        }
        Ok(())
    }
}
