//! What a stack of layers means, in the plainest terms: a map from path to
//! object, changed by one operation after the other. Written without a look
//! at the tree, so that the two can disagree.

use std::collections::{BTreeMap, BTreeSet};

/// A path as its components.
pub(super) type Path = Vec<Vec<u8>>;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    Dir { mode: u16 },
    File { mode: u16, content: Vec<u8> },
    Link { target: Path },
    Fifo { mode: u16 },
}

/// One archive member.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Put(Path, Object),
    HardLink(Path, Path),
    Whiteout(Path),
    Opaque(Path),
}

/// A file system as every process sees it.
pub(super) type World = BTreeMap<Path, Object>;

/// What a layer says, before it meets the layers below.
#[derive(Default)]
struct Diff {
    objects: BTreeMap<Path, Object>,
    /// Directories that exist only because something is in them.
    implied: BTreeSet<Path>,
    whiteouts: BTreeSet<Path>,
    opaque: BTreeSet<Path>,
    /// A path had more links than Linux follows.
    circular: bool,
}

/// The world after a layer, or `None` when the layer cannot be applied.
pub(super) fn apply(below: &World, ops: &[Op]) -> Option<World> {
    let mut diff = Diff::default();
    for op in ops {
        match op {
            Op::Put(path, object) => {
                let path = diff.place(below, path)?;
                let both_dirs = matches!(object, Object::Dir { .. })
                    && matches!(diff.objects.get(&path), Some(Object::Dir { .. }));
                if !both_dirs {
                    diff.remove(&path);
                }
                diff.implied.remove(&path);
                diff.objects.insert(path, object.clone());
            }
            Op::HardLink(path, target) => diff.hard_link(below, path, target)?,
            Op::Whiteout(path) => {
                let path = diff.place(below, path);
                if path.is_none() && diff.circular {
                    return None;
                }
                // There is nothing to remove in a file.
                diff.whiteouts.extend(path);
            }
            Op::Opaque(path) => {
                let path = diff.directory(below, path);
                if path.is_none() && diff.circular {
                    return None;
                }
                diff.opaque.extend(path);
            }
        }
    }
    Some(diff.merge(below))
}

impl Diff {
    /// `path` with its parents made real.
    fn place(&mut self, below: &World, path: &Path) -> Option<Path> {
        let (name, parents) = path.split_last()?;
        let mut path = self.directory(below, parents)?;
        path.push(name.clone());
        Some(path)
    }

    /// Follows links, the layer's own and those below; makes what is missing.
    fn directory(&mut self, below: &World, path: &[Vec<u8>]) -> Option<Path> {
        self.follow(below, path, true)?
    }

    /// Whether the layer has said so far that what is below there is gone.
    fn hides(&self, path: &Path) -> bool {
        let opaque = |dir: &Path| dir.len() < path.len() && path.starts_with(dir);
        self.opaque.iter().any(opaque) || self.whiteouts.iter().any(|w| path.starts_with(w))
    }

    /// Outer `None`: impossible. Inner `None`: not there.
    #[allow(
        clippy::option_option,
        reason = "impossible and absent are different answers"
    )]
    fn follow(&mut self, below: &World, path: &[Vec<u8>], make: bool) -> Option<Option<Path>> {
        let mut todo: Vec<Vec<u8>> = path.to_vec();
        let mut here = Path::new();
        let mut links = 0;
        while !todo.is_empty() {
            let mut next = here.clone();
            next.push(todo.remove(0));
            let own = self.objects.get(&next);
            let seen = own.or_else(|| below.get(&next).filter(|_| !self.hides(&next)));
            match seen {
                Some(Object::Dir { .. }) if own.is_some() || !make => here = next,
                Some(Object::Link { target }) => {
                    links += 1;
                    if links > 40 {
                        self.circular = true;
                        return None;
                    }
                    // Targets are absolute in this model.
                    let mut path = target.clone();
                    path.append(&mut todo);
                    todo = path;
                    here = Path::new();
                }
                None | Some(Object::Dir { .. }) if make => {
                    self.objects
                        .insert(next.clone(), Object::Dir { mode: 0o755 });
                    self.implied.insert(next.clone());
                    here = next;
                }
                Some(_) if make => return None,
                _ => return Some(None),
            }
        }
        Some(Some(here))
    }

    fn hard_link(&mut self, below: &World, path: &Path, target: &Path) -> Option<()> {
        let path = self.place(below, path)?;
        let (name, parents) = target.split_last()?;
        let mut target = self.follow(below, parents, false)??;
        target.push(name.clone());
        let object = match self.objects.get(&target).cloned() {
            Some(object) => object,
            None => {
                let object = below.get(&target)?.clone();
                if matches!(object, Object::Dir { .. }) {
                    return None;
                }
                let up = self.place(below, &target)?;
                self.objects.insert(up, object.clone());
                object
            }
        };
        if matches!(object, Object::Dir { .. }) {
            return None;
        }
        self.remove(&path);
        self.objects.insert(path, object);
        Some(())
    }

    /// Removes a path and all inside, with what was said about it.
    fn remove(&mut self, path: &Path) {
        let inside = |p: &Path| p.starts_with(path);
        self.objects.retain(|p, _| !inside(p));
        self.implied.retain(|p| !inside(p));
        self.opaque.retain(|p| !inside(p));
        self.whiteouts.retain(|p| p == path || !inside(p));
    }

    /// OCI image spec, layer.md: first what the layer removes from the layers
    /// below, then what it adds.
    fn merge(self, below: &World) -> World {
        let mut world = below.clone();
        for path in &self.opaque {
            world.retain(|p, _| p == path || !p.starts_with(path));
        }
        for path in &self.whiteouts {
            world.retain(|p, _| !p.starts_with(path));
        }
        for (path, object) in self.objects {
            match (&object, world.get(&path)) {
                (Object::Dir { .. }, Some(Object::Dir { .. })) => {
                    if self.implied.contains(&path) {
                        continue;
                    }
                }
                _ => world.retain(|p, _| !p.starts_with(&path)),
            }
            world.insert(path, object);
        }
        world
    }
}
