//! From a layer blob to its tree, and what the layers below contribute.

use std::rc::Rc;
use std::sync::Arc;

use crate::ahead::Ahead;
use crate::content::{Getter, Means};
use crate::decompress::Windows;
use crate::error::LayerError;
use crate::limits::Limits;
use crate::resolve::LayerBlob;
use crate::section::{ReadAt, Section};
use crate::tar::Reader;
use crate::tree::{Budget, Dir, Kind, Lower, Node, Tree};

/// Trees of layers up to this many uncompressed bytes are kept while the image
/// is baked.
const KEEP_BYTES: u64 = 256 << 20;

/// The layers of an image, their trees made when something asks for them.
pub(crate) struct Stack<'a> {
    blobs: &'a [LayerBlob<'a>],
    trees: Vec<Option<Rc<Tree>>>,
    means: Means<'a>,
    getter: Getter<'a>,
    /// What gets layers before they are asked for.
    ahead: &'a Ahead<'a>,
    /// The layer that could not be got.
    failed: Option<usize>,
    budget: Rc<Budget>,
}

impl<'a> Stack<'a> {
    pub(crate) fn new(
        blobs: &'a [LayerBlob<'a>],
        means: Means<'a>,
        windows: &'a Windows,
        ahead: &'a Ahead<'a>,
    ) -> Self {
        Self {
            blobs,
            trees: blobs.iter().map(|_| None).collect(),
            means,
            getter: Getter::new(means, windows),
            ahead,
            failed: None,
            budget: Budget::new(means.limits.max_image_tree_bytes),
        }
    }

    /// The tree of layer `at` with this content, to be written. Kept for the layers above
    /// if that does not take much room; they rarely ask.
    pub(crate) fn build(&mut self, at: usize, content: Section) -> Result<Rc<Tree>, LayerError> {
        if let Some(tree) = &self.trees[at] {
            return Ok(Rc::clone(tree));
        }
        let small = content.len() <= KEEP_BYTES;
        let tree = Rc::new(self.read(at, content)?);
        if small && self.budget.is_ample() {
            self.trees[at] = Some(Rc::clone(&tree));
        }
        Ok(tree)
    }

    fn read(&mut self, at: usize, content: Section) -> Result<Tree, LayerError> {
        let source: Arc<dyn ReadAt + Send + Sync> = Arc::new(content.clone());
        let budget = Rc::clone(&self.budget);
        read_tree(
            &self.means.store.cancel().watch(content),
            &source,
            self.means.limits,
            &budget,
            &mut Below { stack: self, at },
        )
    }

    /// The content of layer `at`: what is got ahead of this, or else got now.
    fn content(&mut self, at: usize) -> Result<Section, LayerError> {
        let ahead = self.ahead.content(at).map_err(|(failed, error)| {
            self.failed = Some(failed);
            error
        })?;
        if let Some(section) = ahead {
            return Ok(section);
        }
        let got = self.getter.get(at, &self.blobs[at]);
        if got.is_err() {
            self.failed = Some(at);
        }
        let content = got?;
        // It is in the cache already, and asked for by a layer above it.
        Ok(content.into_section())
    }

    /// The layers from `first` up, whose trees are `trees`, as one layer.
    pub(crate) fn merge(&mut self, trees: &[Rc<Tree>], first: usize) -> Result<Tree, LayerError> {
        let limits = self.means.limits;
        let budget = Rc::clone(&self.budget);
        let mut below = Below {
            stack: self,
            at: first,
        };
        Tree::merged(trees.iter().map(Rc::as_ref), limits, &budget, &mut below)
    }

    /// The tree of layer `at`, for the layers above it.
    pub(crate) fn tree(&mut self, at: usize) -> Result<Rc<Tree>, LayerError> {
        if let Some(tree) = &self.trees[at] {
            return Ok(Rc::clone(tree));
        }
        let content = self.content(at)?;
        self.keep(at, content)
    }

    /// The layer to blame for an error, if it is not the one that was asked for.
    pub(crate) fn blamed(&self) -> Option<usize> {
        self.failed
    }

    /// The tree of layer `at` with this content, kept for the layers above whatever its
    /// size: asked for once, it will be asked for again.
    pub(crate) fn keep(&mut self, at: usize, content: Section) -> Result<Rc<Tree>, LayerError> {
        let tree = Rc::new(self.read(at, content)?);
        self.trees[at] = Some(Rc::clone(&tree));
        Ok(tree)
    }
}

/// Reads an archive into a finished tree.
pub(crate) fn read_tree<R: ReadAt + ?Sized>(
    archive: &R,
    source: &Arc<dyn ReadAt + Send + Sync>,
    limits: &Limits,
    budget: &Rc<Budget>,
    lower: &mut dyn Lower,
) -> Result<Tree, LayerError> {
    let mut tree = Tree::new(limits, budget);
    let mut reader = Reader::new(archive);
    while let Some(entry) = reader.next_entry()? {
        tree.apply(entry, source, lower)?;
    }
    tree.finish(lower)?;
    Ok(tree)
}

/// The layers under layer `at`.
struct Below<'s, 'a> {
    stack: &'s mut Stack<'a>,
    at: usize,
}

impl Lower for Below<'_, '_> {
    fn find(&mut self, path: &[Vec<u8>]) -> Result<Option<Node>, LayerError> {
        find_below(&mut (0..self.at).rev().map(|at| self.stack.tree(at)), path)
    }
}

/// The node at `path` in a stack of trees, which come topmost first.
pub(crate) fn find_below(
    trees: &mut dyn Iterator<Item = Result<Rc<Tree>, LayerError>>,
    path: &[Vec<u8>],
) -> Result<Option<Node>, LayerError> {
    for tree in trees {
        match find_in(&*tree?, path) {
            Found::Here(node) => return Ok(Some(node)),
            Found::Hidden => return Ok(None),
            Found::Deeper => {}
        }
    }
    Ok(None)
}

enum Found {
    Here(Node),
    /// This layer hides what the layers below have there.
    Hidden,
    /// This layer says nothing about it.
    Deeper,
}

fn find_in(tree: &Tree, path: &[Vec<u8>]) -> Found {
    let mut id = tree.root();
    let mut opaque = tree.applied().root_opaque;
    for name in path {
        let Some(dir) = tree.node(id).as_dir() else {
            return Found::Hidden;
        };
        opaque |= dir.opaque;
        match dir.children.get(name) {
            Some(&child) => id = child,
            None if opaque => return Found::Hidden,
            None => return Found::Deeper,
        }
    }
    let node = tree.node(id);
    if let Kind::Char(0) = node.kind {
        return Found::Hidden;
    }
    let mut node = node.clone();
    if let Kind::Dir(dir) = &mut node.kind {
        // Its ids mean nothing in another tree.
        *dir = Dir::default();
    }
    Found::Here(node)
}
