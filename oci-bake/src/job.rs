//! The layers of one image as files of the cache: what they are called there, looking for
//! them, and writing them.

use std::fs::File;
use std::io;

use crate::content::Means;
use crate::digest::{Algorithm, Hasher};
use crate::error::{BakeError, LayerError};
use crate::options::BakeOptions;
use crate::progress::Event;
use crate::resolve::LayerBlob;
use crate::squashfs;
use crate::store::{CachedLayer, Store};
use crate::tree::Tree;

/// What a bake works on.
pub(crate) struct Job<'a> {
    pub(crate) blobs: &'a [LayerBlob<'a>],
    /// Layers below this are files of their own; the others are one file.
    pub(crate) alone: usize,
    pub(crate) options: &'a BakeOptions,
    pub(crate) store: &'a Store,
}

/// What there is of a layer.
pub(crate) enum Claim {
    Cached(CachedLayer),
    /// Nothing: it is to be made while this lock is held.
    Missing(Option<File>),
}

impl<'a> Job<'a> {
    pub(crate) fn means(&self) -> Means<'a> {
        Means {
            store: self.store,
            limits: &self.options.limits,
            progress: self.options.progress.as_deref(),
        }
    }

    /// The number of the layer that a file is called by which has layer `at` in it.
    fn named_by(&self, at: usize) -> usize {
        match at < self.alone {
            true => at,
            false => self.blobs.len() - 1,
        }
    }

    /// The names that the file with layer `at` in it may have.
    fn names(&self, at: usize) -> (Names, Option<String>) {
        let names = Names::new(self.blobs, self.named_by(at), self.options);
        let merged = (at >= self.alone).then(|| names.merged_from(self.alone));
        (names, merged)
    }

    /// The file of layer `at`, if it is in the cache.
    pub(crate) fn find(&self, at: usize) -> io::Result<Option<CachedLayer>> {
        match self.names(at) {
            (_, Some(merged)) => self.find_named(at, &[&merged]),
            (names, None) => self.find_named(at, &[&names.alone, &names.on_these]),
        }
    }

    /// The file of layer `at`, or else its lock.
    pub(crate) fn claim(&self, at: usize) -> io::Result<Claim> {
        if let Some(cached) = self.find(at)? {
            return Ok(Claim::Cached(cached));
        }
        let lock = match self.names(at) {
            (_, Some(merged)) => self.store.lock(&merged)?,
            (names, None) => self.store.lock(&names.alone)?,
        };
        Ok(match self.find(at)? {
            Some(cached) => Claim::Cached(cached),
            None => Claim::Missing(lock),
        })
    }

    /// The first of `names` that is in the cache.
    fn find_named(&self, at: usize, names: &[&String]) -> io::Result<Option<CachedLayer>> {
        for name in names {
            if let Some(cached) = self.store.find(name, self.options.verify_cached_data)? {
                let layer = self.named_by(at);
                self.report(&Event::Cached {
                    layer,
                    diff_id: &self.blobs[layer].diff_id,
                });
                return Ok(Some(cached));
            }
        }
        Ok(None)
    }

    /// Writes the file with layer `at` in it, of which this is the tree.
    pub(crate) fn publish(&self, at: usize, tree: &Tree) -> Result<CachedLayer, LayerError> {
        let name = match (self.names(at), tree.applied().used_lower) {
            ((_, Some(merged)), _) => merged,
            ((names, None), true) => names.on_these,
            ((names, None), false) => names.alone,
        };
        let opaque = tree.applied().root_opaque;
        let cached = self.store.publish(&name, opaque, |out| {
            Ok(squashfs::write(tree, out, self.options.compression)?)
        })?;
        let layer = self.named_by(at);
        self.report(&Event::Baked {
            layer,
            diff_id: &self.blobs[layer].diff_id,
        });
        Ok(cached)
    }

    pub(crate) fn report(&self, event: &Event<'_>) {
        if let Some(progress) = &self.options.progress {
            progress.report(event);
        }
    }

    pub(crate) fn error(&self, at: usize, source: LayerError) -> BakeError {
        BakeError::Layer {
            diff_id: self.blobs[at].diff_id.clone(),
            source,
        }
    }
}

/// The names a layer can have in the cache: usually its content depends on
/// its DiffID alone, but a hard link into the layers below, a whiteout of
/// something there, or a directory it implies without describing, makes it
/// depend on those too.
struct Names {
    stem: String,
    below: String,
    suffix: &'static str,
    alone: String,
    on_these: String,
}

impl Names {
    fn new(blobs: &[LayerBlob<'_>], at: usize, options: &BakeOptions) -> Self {
        let suffix = options.compression.suffix();
        let stem = blobs[at].diff_id.file_stem();
        let mut chain = Hasher::new(Algorithm::Sha256);
        for below in &blobs[..at] {
            chain.update(below.diff_id.to_string().as_bytes());
            chain.update(b"\n");
        }
        // Half the hash: with a sha512 DiffID the whole would make file names
        // longer than file systems allow.
        let below = chain.finish().hex()[..32].to_owned();
        Self {
            on_these: format!("{stem}-on-{below}{suffix}"),
            alone: format!("{stem}{suffix}"),
            stem,
            below,
            suffix,
        }
    }

    /// The name of this layer and those below it down to layer `first`.
    fn merged_from(&self, first: usize) -> String {
        let Self {
            stem,
            below,
            suffix,
            ..
        } = self;
        format!("{stem}-from-{first}-on-{below}{suffix}")
    }
}
