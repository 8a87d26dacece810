//! From a layer blob to its tree, and what the layers below contribute.

use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{ImageError, LayerError};
use crate::limits::Limits;
use crate::resolve::{LayerBlob, VerifyingReader};
use crate::section::{ReadAt, Section};
use crate::store::Store;
use crate::tar::Reader;
use crate::tree::{Dir, Kind, Lower, Node, Tree};

/// Trees of layers up to this many uncompressed bytes are kept while the image
/// is baked.
const KEEP_BYTES: u64 = 256 << 20;

/// The layers of an image, their trees made when something asks for them.
pub(crate) struct Stack<'a> {
    blobs: &'a [LayerBlob],
    trees: Vec<Option<Rc<Tree>>>,
    store: &'a Store,
    limits: &'a Limits,
}

impl<'a> Stack<'a> {
    pub(crate) fn new(blobs: &'a [LayerBlob], store: &'a Store, limits: &'a Limits) -> Self {
        Self {
            blobs,
            trees: blobs.iter().map(|_| None).collect(),
            store,
            limits,
        }
    }

    /// The tree of layer `at`, to be written. Kept for the layers above if
    /// its spool does not take much room; they rarely ask.
    pub(crate) fn build(&mut self, at: usize) -> Result<Rc<Tree>, LayerError> {
        if let Some(tree) = &self.trees[at] {
            return Ok(Rc::clone(tree));
        }
        let content = self.spool(&self.blobs[at])?;
        let small = content.len() <= KEEP_BYTES;
        let tree = Rc::new(self.read(at, content)?);
        if small {
            self.trees[at] = Some(Rc::clone(&tree));
        }
        Ok(tree)
    }

    fn read(&mut self, at: usize, content: Section) -> Result<Tree, LayerError> {
        let source: Arc<dyn ReadAt + Send + Sync> = Arc::new(content.clone());
        read_tree(
            &self.store.cancel().watch(content),
            &source,
            self.limits,
            &mut Below { stack: self, at },
        )
    }

    /// Decompresses a layer, and checks the blob's digest and the DiffID
    /// before anything is made of the content.
    fn spool(&self, blob: &LayerBlob) -> Result<Section, LayerError> {
        let format = blob.checked_format()?;
        let input = blob.section.reader();
        let limit = self.limits.max_layer_bytes;
        let algorithm = blob.diff_id.algorithm();
        let mismatch = |expected: &crate::Digest, actual| {
            LayerError::Content(Box::new(ImageError::DigestMismatch {
                expected: expected.clone(),
                actual,
            }))
        };
        let (content, diff_id) = if let Some(digest) = &blob.digest {
            let mut input = VerifyingReader::new(input, digest);
            let result = self
                .store
                .spool_hashed(&mut input, format, limit, algorithm);
            // A damaged blob fails to decompress; the digest tells the reason
            // better, so see it through to the end.
            let mut rest = self.store.cancel().watch(input.by_ref());
            std::io::copy(&mut rest, &mut std::io::sink())?;
            let actual = input.finish();
            if actual != *digest {
                return Err(mismatch(digest, actual));
            }
            result?
        } else {
            self.store.spool_hashed(input, format, limit, algorithm)?
        };
        if diff_id != blob.diff_id {
            return Err(mismatch(&blob.diff_id, diff_id));
        }
        Ok(content)
    }

    /// The layers from `first` up, whose trees are `trees`, as one layer.
    pub(crate) fn merge(&mut self, trees: &[Rc<Tree>], first: usize) -> Result<Tree, LayerError> {
        let limits = self.limits;
        let mut below = Below {
            stack: self,
            at: first,
        };
        Tree::merged(trees.iter().map(Rc::as_ref), limits, &mut below)
    }

    /// The tree of layer `at`, for the layers above it.
    pub(crate) fn tree(&mut self, at: usize) -> Result<Rc<Tree>, LayerError> {
        if let Some(tree) = &self.trees[at] {
            return Ok(Rc::clone(tree));
        }
        // Whatever its size: asked for once, it will be asked for again.
        let content = self.spool(&self.blobs[at])?;
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
    lower: &mut dyn Lower,
) -> Result<Tree, LayerError> {
    let mut tree = Tree::new(limits);
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
