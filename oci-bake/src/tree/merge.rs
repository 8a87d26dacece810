//! Several layers as one.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::finish::OVERLAY_OPAQUE;
use super::{Budget, Dir, Kind, Lower, Node, NodeId, Tree};
use crate::error::LayerError;
use crate::limits::Limits;

/// One step: a directory of the layer above, and the one it is merged into.
struct Pair {
    from: NodeId,
    into: NodeId,
}

impl Tree {
    /// What overlayfs shows of `layers`, finished trees with the bottom one
    /// first, as one layer on `lower`.
    pub(crate) fn merged<'a>(
        layers: impl IntoIterator<Item = &'a Self>,
        limits: &Limits,
        budget: &Rc<Budget>,
        lower: &mut dyn Lower,
    ) -> Result<Self, LayerError> {
        let mut tree = Self::new(limits, budget);
        for layer in layers {
            if layer.applied.root_opaque {
                tree = Self::new(limits, budget);
                tree.applied.root_opaque = true;
            }
            tree.put_on_top(layer)?;
        }
        tree.finish(lower)?;
        Ok(tree)
    }

    /// Merges a finished tree into this one, which is not finished.
    fn put_on_top(&mut self, layer: &Self) -> Result<(), LayerError> {
        if layer.nodes[layer.root()].explicit {
            self.copy_attributes(&layer.nodes[layer.root()], self.root());
        }
        // A node with several names stays one.
        let mut copied = BTreeMap::new();
        let mut pairs = vec![Pair {
            from: layer.root(),
            into: self.root(),
        }];
        while let Some(pair) = pairs.pop() {
            let Some(dir) = layer.nodes[pair.from].as_dir() else {
                continue;
            };
            for (name, &from) in &dir.children {
                let node = &layer.nodes[from];
                match &node.kind {
                    Kind::Char(0) => self.remove(pair.into, name)?,
                    Kind::Dir(above) => {
                        let into = self.merge_dir(pair.into, name, node, above.opaque)?;
                        pairs.push(Pair { from, into });
                    }
                    _ => {
                        let id = match copied.get(&from) {
                            Some(id) => *id,
                            None => self.copy(node)?,
                        };
                        copied.insert(from, id);
                        self.attach(pair.into, name, id)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A directory of the layer above under `name`, with or without what is
    /// there already.
    fn merge_dir(
        &mut self,
        parent: NodeId,
        name: &[u8],
        node: &Node,
        opaque: bool,
    ) -> Result<NodeId, LayerError> {
        let existing = self.child(parent, name);
        if let Some(id) = existing
            && self.nodes[id].as_dir().is_some()
            && !opaque
        {
            self.copy_attributes(node, id);
            return Ok(id);
        }
        let mut made = node.clone();
        made.explicit = true;
        made.xattrs.remove(OVERLAY_OPAQUE);
        made.kind = Kind::Dir(Dir {
            // What was there hid what the layers below have; it goes, and
            // they stay hidden.
            opaque: opaque || existing.is_some(),
            ..Dir::default()
        });
        let id = self.add(made)?;
        self.attach(parent, name, id)?;
        Ok(id)
    }

    fn copy(&mut self, node: &Node) -> Result<NodeId, LayerError> {
        self.charge_data(node)?;
        self.add(node.clone())
    }

    fn copy_attributes(&mut self, from: &Node, into: NodeId) {
        let into = &mut self.nodes[into];
        into.meta = from.meta;
        into.xattrs = from.xattrs.clone();
        into.xattrs.remove(OVERLAY_OPAQUE);
        into.explicit = true;
    }

    fn remove(&mut self, parent: NodeId, name: &[u8]) -> Result<(), LayerError> {
        self.charge_name(name)?;
        if let Kind::Dir(dir) = &mut self.nodes[parent].kind {
            dir.children.remove(name);
            dir.whiteouts.insert(name.to_vec());
        }
        Ok(())
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.nodes[parent].as_dir()?.children.get(name).copied()
    }
}
