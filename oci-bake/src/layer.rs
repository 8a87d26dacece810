//! From a layer blob to its tree, and what the layers below contribute.

use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;

use crate::decompress::{Format, MAGIC_BYTES, unread};
use crate::digest::{Digest, Hasher};
use crate::error::{ImageError, LayerError};
use crate::limits::Limits;
use crate::progress::{Progress, Reported};
use crate::resolve::{LayerBlob, LayerContent};
use crate::section::{ReadAt, Section};
use crate::spool::Spools;
use crate::store::Store;
use crate::tar::{Reader, TarError};
use crate::tree::{Budget, Dir, Kind, Lower, Node, Tree};

/// Trees of layers up to this many uncompressed bytes are kept while the image
/// is baked.
const KEEP_BYTES: u64 = 256 << 20;
/// Bytes of a blob that are looked at before it is decompressed: a tar header.
const START_BYTES: usize = 512;

/// What a bake reads layers with.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) store: &'a Store,
    pub(crate) limits: &'a Limits,
    pub(crate) progress: Option<&'a dyn Progress>,
}

/// The layers of an image, their trees made when something asks for them.
pub(crate) struct Stack<'a> {
    blobs: &'a [LayerBlob<'a>],
    trees: Vec<Option<Rc<Tree>>>,
    means: Means<'a>,
    spools: Spools,
    budget: Rc<Budget>,
}

impl<'a> Stack<'a> {
    pub(crate) fn new(blobs: &'a [LayerBlob<'a>], means: Means<'a>) -> Self {
        Self {
            blobs,
            trees: blobs.iter().map(|_| None).collect(),
            means,
            spools: Spools::default(),
            budget: Budget::new(means.limits.max_image_tree_bytes),
        }
    }

    /// The tree of layer `at`, to be written. Kept for the layers above if
    /// that does not take much room; they rarely ask.
    pub(crate) fn build(&mut self, at: usize) -> Result<Rc<Tree>, LayerError> {
        if let Some(tree) = &self.trees[at] {
            return Ok(Rc::clone(tree));
        }
        let content = self.spool(at)?;
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

    /// Decompresses layer `at`, and checks the blob's length and digest and
    /// the DiffID before anything is made of the content.
    fn spool(&mut self, at: usize) -> Result<Section, LayerError> {
        let blob = &self.blobs[at];
        let wrong = |error| LayerError::Content(Box::new(error));
        let input: Box<dyn Read + '_> = match &blob.content {
            LayerContent::Archived(section) => Box::new(section.reader()),
            LayerContent::Blob(source, descriptor) => {
                let content = source.open(descriptor).map_err(wrong)?;
                Box::new(content.take(descriptor.size.saturating_add(1)))
            }
        };
        let bytes = blob.content.bytes();
        let mut input = Reported::new(input, self.means.progress, at, bytes);
        let (start, format) = checked_start(&mut input, blob.format)?;
        let mut input = start.chain(input);
        let sizes = (bytes, self.means.limits.max_layer_bytes);
        let algorithm = blob.diff_id.algorithm();
        let store = self.means.store;
        let mismatch = |expected: &Digest, actual| {
            wrong(ImageError::DigestMismatch {
                expected: expected.clone(),
                actual,
            })
        };
        let (content, diff_id) = if let LayerContent::Blob(_, descriptor) = &blob.content {
            let mut input = VerifyingReader::new(input, &descriptor.digest);
            let result = self.spools.add(store, &mut input, format, sizes, algorithm);
            // A damaged blob fails to decompress; the digest tells the reason
            // better, so see it through to the end.
            let mut rest = store.cancel().watch(input.by_ref());
            io::copy(&mut rest, &mut io::sink())?;
            let (actual, length) = input.finish();
            if length != descriptor.size {
                return Err(wrong(ImageError::SizeMismatch {
                    digest: descriptor.digest.clone(),
                    expected: descriptor.size,
                    actual: length,
                }));
            }
            if actual != descriptor.digest {
                return Err(mismatch(&descriptor.digest, actual));
            }
            result?
        } else {
            self.spools
                .add(store, &mut input, format, sizes, algorithm)?
        };
        if diff_id != blob.diff_id {
            return Err(mismatch(&blob.diff_id, diff_id));
        }
        Ok(content)
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
        // Whatever its size: asked for once, it will be asked for again.
        let content = self.spool(at)?;
        let tree = Rc::new(self.read(at, content)?);
        self.trees[at] = Some(Rc::clone(&tree));
        Ok(tree)
    }
}

/// The first bytes of a blob, and how it is compressed. They decide where no
/// media type does; where one does, they must agree, so that the error names
/// the real reason.
fn checked_start(
    input: &mut dyn Read,
    declared: Option<Format>,
) -> Result<(io::Cursor<Vec<u8>>, Format), LayerError> {
    let mut start = Vec::with_capacity(START_BYTES);
    input.take(START_BYTES as u64).read_to_end(&mut start)?;
    let magic = &start[..start.len().min(MAGIC_BYTES)];
    let unread = unread(magic);
    let sniffed = Format::sniff(magic);
    match declared {
        Some(declared) if declared != sniffed => Err(LayerError::WrongCompression {
            expected: declared.name(),
            found: match (sniffed, unread) {
                (_, Some(compression)) => compression.name,
                (Format::Plain, None) if !is_tar(&start) => {
                    "neither gzip nor zstd nor a tar archive"
                }
                (format, None) => format.name(),
            },
        }),
        Some(_) => Ok((io::Cursor::new(start), sniffed)),
        None => match unread {
            Some(compression) => Err(LayerError::UnreadCompression {
                compression: compression.name,
            }),
            None => Ok((io::Cursor::new(start), sniffed)),
        },
    }
}

/// Whether an archive can start so. It goes on behind what is seen here.
fn is_tar(start: &Vec<u8>) -> bool {
    start.len() >= START_BYTES
        && !matches!(
            Reader::new(start).next_entry(),
            Err(TarError::BadHeader { .. })
        )
}

/// Hashes and counts what something else reads.
struct VerifyingReader<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> VerifyingReader<R> {
    fn new(inner: R, digest: &Digest) -> Self {
        Self {
            inner,
            hasher: Hasher::new(digest.algorithm()),
            bytes: 0,
        }
    }

    /// Digest and length of everything that was read.
    fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.bytes)
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
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
