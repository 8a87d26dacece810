//! A stack of layers: our trees, put together as overlayfs does, against the
//! model.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::model::{self, Object, Op, Path, World};
use crate::error::LayerError;
use crate::layer::{find_below, read_tree};
use crate::section::ReadAt;
use crate::squashfs::{self, Compression, read};
use crate::tar::{Entry, EntryKind, Writer};
use crate::tree::{Dir, FileData, Kind, Lower, Node, NodeId, Tree};

/// Reads an op list from the bytes, writes it as archives, bakes these into
/// trees, merges them the way overlayfs would, and compares with the model.
pub fn fuzz_layer_stack(data: &[u8]) {
    let mut world = World::new();
    let mut trees: Vec<Rc<Tree>> = Vec::new();
    for ops in parse(data) {
        let archive = archive(&ops);
        let source: Arc<dyn ReadAt + Send + Sync> = Arc::new(archive.clone());
        let mut below = Below(&trees);
        let budget = super::budget();
        let tree = read_tree(&archive, &source, &super::limits(), &budget, &mut below).ok();
        let after = model::apply(&world, &ops);
        assert_eq!(tree.is_some(), after.is_some(), "{ops:?}");
        let (Some(tree), Some(after)) = (tree, after) else {
            return;
        };
        read_back(&tree);
        trees.push(Rc::new(tree));
        world = after;
        assert_eq!(overlay(&trees), world, "{ops:?}");
        for first in 0..trees.len() {
            assert_eq!(overlay(&merged(&trees, first)), world, "{first} {ops:?}");
        }
    }
}

/// What is written of a layer is read as it was, and nothing else is found.
fn read_back(tree: &Tree) {
    let mut file = std::io::Cursor::new(Vec::new());
    squashfs::write(tree, &mut file, Compression::None).expect("a few members");
    let layer = read::Layer::open(Arc::new(file.into_inner())).expect("a layer of ours");
    let mut todo = vec![(tree.root(), layer.root().expect("a root"))];
    while let Some((id, found)) = todo.pop() {
        let (node, read) = (tree.node(id), &found.node);
        assert_eq!((node.meta, &node.xattrs), (read.meta, &read.xattrs));
        match (&node.kind, &read.kind) {
            (Kind::Dir(dir), Kind::Dir(_)) => {
                for name in [&b""[..], b"a", b"bb", b"c", b"zz"] {
                    let child = layer.child(&found, name).expect("a directory");
                    assert_eq!(child.is_some(), dir.children.contains_key(name));
                }
                for (name, child) in &dir.children {
                    let there = layer.child(&found, name).expect("a directory");
                    todo.push((*child, there.expect("what is in it")));
                }
            }
            (Kind::Symlink(target), Kind::Symlink(read)) => assert_eq!(target, read),
            (Kind::Char(device), Kind::Char(read)) => assert_eq!(device, read),
            (Kind::File(_), Kind::File(_)) | (Kind::Fifo, Kind::Fifo) => {}
            _ => panic!("another kind"),
        }
    }
}

/// The stack with all trees from `first` up merged into one.
fn merged(trees: &[Rc<Tree>], first: usize) -> Vec<Rc<Tree>> {
    let (below, above) = trees.split_at(first);
    let mut stack = below.to_vec();
    let one = Tree::merged(
        above.iter().map(Rc::as_ref),
        &super::limits(),
        &super::budget(),
        &mut Below(below),
    );
    // Nothing in a layer that was read can be too much for a merged one: the
    // limits are far above what these few members are.
    stack.extend(one.ok().map(Rc::new));
    stack
}

struct Below<'a>(&'a [Rc<Tree>]);

impl Lower for Below<'_> {
    fn find(&mut self, path: &[Vec<u8>]) -> Result<Option<Node>, LayerError> {
        let mut trees = self.0.iter().rev().map(|tree| Ok(Rc::clone(tree)));
        find_below(&mut trees, path)
    }
}

/// Up to three layers of up to twelve members over few and short names, so
/// that collisions are the rule.
fn parse(data: &[u8]) -> Vec<Vec<Op>> {
    let mut bytes = data.iter().copied();
    let mut layers = vec![Vec::new()];
    while let Some(code) = bytes.next() {
        let mut path = || -> Path {
            let byte = bytes.next().unwrap_or(0);
            let depth = usize::from(byte >> 6).clamp(1, 3);
            let name = |i: usize| vec![b'a' + ((byte >> (2 * i)) & 3)];
            (0..depth).map(name).collect()
        };
        let mode = 0o600 | u16::from(code >> 4);
        let op = match code % 9 {
            0 => Op::Put(path(), Object::Dir { mode }),
            1 | 2 => {
                let content = vec![code; usize::from(code) * 3];
                Op::Put(path(), Object::File { mode, content })
            }
            3 => {
                let at = path();
                Op::Put(at, Object::Link { target: path() })
            }
            4 => {
                let at = path();
                Op::HardLink(at, path())
            }
            5 => Op::Whiteout(path()),
            6 => Op::Opaque(path()),
            7 => Op::Put(path(), Object::Fifo { mode }),
            _ => {
                if layers.len() == 3 {
                    break;
                }
                layers.push(Vec::new());
                continue;
            }
        };
        if let Some(layer) = layers.last_mut().filter(|layer| layer.len() < 12) {
            layer.push(op);
        }
    }
    layers
}

fn archive(ops: &[Op]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for op in ops {
        let (path, kind, mode, link, content): (Vec<u8>, _, _, Vec<u8>, &[u8]) = match op {
            Op::Put(path, Object::Dir { mode }) => {
                (join(path), EntryKind::Dir, *mode, Vec::new(), &[])
            }
            Op::Put(path, Object::File { mode, content }) => {
                (join(path), EntryKind::File, *mode, Vec::new(), content)
            }
            Op::Put(path, Object::Fifo { mode }) => {
                (join(path), EntryKind::Fifo, *mode, Vec::new(), &[])
            }
            Op::Put(path, Object::Link { target }) => {
                let target = [&b"/"[..], &join(target)].concat();
                (join(path), EntryKind::Symlink, 0o777, target, &[])
            }
            Op::HardLink(path, target) => (join(path), EntryKind::HardLink, 0, join(target), &[]),
            Op::Whiteout(path) => {
                let mut path = path.clone();
                if let Some(name) = path.last_mut() {
                    *name = [b".wh.", name.as_slice()].concat();
                }
                (join(&path), EntryKind::File, 0o644, Vec::new(), &[])
            }
            Op::Opaque(path) => {
                let path = [&join(path)[..], b"/.wh..wh..opq"].concat();
                (path, EntryKind::File, 0o644, Vec::new(), &[])
            }
        };
        let entry = Entry {
            path,
            link,
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: content.len() as u64,
            extents: Vec::new(),
            xattrs: Vec::new(),
        };
        // Writing to memory does not fail.
        let _ = writer.append(&entry, &mut &*content);
    }
    writer.finish().unwrap_or_default()
}

fn join(path: &Path) -> Vec<u8> {
    path.join(&b'/')
}

/// What overlayfs shows of the stack (Documentation/filesystems/overlayfs).
fn overlay(trees: &[Rc<Tree>]) -> World {
    let mut world = World::new();
    let roots: Vec<(&Tree, NodeId)> = trees.iter().rev().map(|t| (&**t, t.root())).collect();
    merge(&roots, &mut Path::new(), &mut world);
    world
}

/// Merges directories, topmost first.
fn merge(dirs: &[(&Tree, NodeId)], path: &mut Path, world: &mut World) {
    let mut names: BTreeMap<&[u8], Vec<(&Tree, NodeId)>> = BTreeMap::new();
    let mut merged = 0;
    for &(tree, id) in dirs {
        let node = tree.node(id);
        let Some(Dir { children, .. }) = node.as_dir() else {
            continue;
        };
        merged += 1;
        for (name, &child) in children {
            names.entry(name).or_default().push((tree, child));
        }
        if node.xattrs.contains_key(&b"trusted.overlay.opaque"[..]) {
            break;
        }
    }
    for (name, stack) in names {
        let (tree, id) = stack[0];
        path.push(name.to_vec());
        let object = object(tree.node(id));
        // Linux lists what it finds in a directory of one layer, whiteouts
        // and all. The root is never that: the writable layer has one too.
        assert!(
            object.is_some() || merged > 1 || path.len() == 1,
            "a whiteout of nothing is seen at {path:?}"
        );
        if let Some(object) = object {
            let is_dir = matches!(object, Object::Dir { .. });
            world.insert(path.clone(), object);
            if is_dir {
                let merged: Vec<_> = stack
                    .iter()
                    .take_while(|(tree, id)| tree.node(*id).as_dir().is_some())
                    .copied()
                    .collect();
                merge(&merged, path, world);
            }
        }
        path.pop();
    }
}

/// The node as an object, or `None` for a whiteout.
fn object(node: &Node) -> Option<Object> {
    let mode = node.meta.mode;
    match &node.kind {
        Kind::Dir(_) => Some(Object::Dir { mode }),
        Kind::File(data) => Some(Object::File {
            mode,
            content: content(data),
        }),
        Kind::Symlink(target) => {
            let parts = target.split(|byte| *byte == b'/').skip(1);
            Some(Object::Link {
                target: parts.map(<[u8]>::to_vec).collect(),
            })
        }
        Kind::Fifo => Some(Object::Fifo { mode }),
        Kind::Char(_) | Kind::Block(_) => None,
    }
}

fn content(data: &FileData) -> Vec<u8> {
    let mut out = Vec::new();
    for extent in &data.extents {
        let len = usize::try_from(extent.len).unwrap_or(0);
        let mut piece = vec![0; len];
        if data.source.read_exact_at(&mut piece, extent.source).is_ok() {
            out.append(&mut piece);
        }
    }
    out
}
