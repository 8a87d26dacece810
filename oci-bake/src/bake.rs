//! Baking: every layer of an image as a squashfs file.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use crate::bare;
use crate::cancel::Cancel;
use crate::config::ImageConfig;
use crate::digest::{Digest, Hasher};
use crate::error::{BakeError, ImageError, LayerError};
use crate::layer::{Means, Stack};
use crate::limits::Limits;
use crate::platform::Platform;
use crate::progress::{Event, Progress};
use crate::reference::{Reference, Transport};
use crate::resolve::{LayerBlob, Resolved, resolve, saved};
use crate::source::{BlobSource, Files, Layout};
use crate::squashfs::{self, Compression};
use crate::store::{CachedLayer, Lease, Store};
use crate::tree::Tree;

/// Most files in [`BakedImage::layers`]. Each is a disk of the machine, with an
/// interrupt and a mount of its own, and common runtimes take 127 layers: of
/// an image with more than this, the topmost are merged into one file. With extra files
/// they are one more.
pub(crate) const MAX_STACK: usize = 63;

/// How to bake.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BakeOptions {
    /// How file data is stored in the layers.
    pub compression: Compression,
    /// Caps on what the image may ask of us.
    pub limits: Limits,
    /// Also checksum the file data of cached layers, not only their
    /// structure. Reads every layer whole.
    pub verify_cached_data: bool,
    /// Stops the bake from another thread. Keep a clone.
    pub cancel: Cancel,
    /// Which image is taken of those for several platforms.
    pub platform: Platform,
    /// Who is told of the progress.
    pub progress: Option<Arc<dyn Progress>>,
}

/// An image ready to mount.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BakedImage {
    /// The squashfs files to stack with overlayfs, bottom first: at most 63.
    /// Layers that a later layer hides completely are left out, and of more
    /// than 63 the topmost are merged into one file.
    pub layers: Vec<PathBuf>,
    /// What to run.
    pub config: ImageConfig,
    /// Digest of the manifest; archives of `docker save` have none.
    pub manifest_digest: Option<Digest>,
    /// Digest of the config, which identifies the image's content.
    pub config_digest: Digest,
    /// DiffIDs of all layers, bottom first, including hidden ones.
    pub diff_ids: Vec<Digest>,
    /// Keeps [`Store::gc`] from the layers, as long as there is a clone of it.
    pub lease: Lease,
}

/// Bakes the image that `reference` names, for [`BakeOptions::platform`]. Layers
/// already in `store` are used as they are.
///
/// # Errors
/// [`BakeError`], saying what is wrong with the image, one of its layers or
/// the cache, or that the bake was cancelled. Nothing of a layer that was not
/// finished stays behind.
pub fn bake(
    reference: &Reference,
    options: &BakeOptions,
    store: &Store,
) -> Result<BakedImage, BakeError> {
    cancellable(options, store, |store| {
        let (tag, limits, platform) = (reference.tag(), &options.limits, &options.platform);
        if let (Transport::Tar | Transport::Rootfs, Some(path)) =
            (reference.transport(), reference.path())
        {
            let image = match reference.transport() {
                Transport::Tar => bare::archive(path, platform, limits, store)?,
                _ => bare::directory(path, platform, limits, store)?,
            };
            return bake_layers(image, options, store);
        }
        let files = match (reference.transport(), reference.path()) {
            (Transport::OciLayout, Some(path)) => Files::open_dir(path)?,
            (_, Some(path)) => Files::open_archive(path, store, limits)?,
            (_, None) => {
                return Err(BakeError::Image(ImageError::RegistryUnsupported {
                    name: reference.to_string(),
                }));
            }
        };
        if reference.transport() == Transport::DockerArchive {
            let image = saved(&files, tag, platform, limits)?;
            return bake_layers(image, options, store);
        }
        let layout = Layout::open(files, tag, limits)?;
        bake_source(&layout, options, store)
    })
}

/// As [`bake()`], of an image from anywhere.
///
/// # Errors
/// As [`bake()`].
pub fn bake_from(
    source: &dyn BlobSource,
    options: &BakeOptions,
    store: &Store,
) -> Result<BakedImage, BakeError> {
    cancellable(options, store, |store| bake_source(source, options, store))
}

/// As [`bake()`], of the only image in an archive of `docker save` that comes from
/// anywhere. It is kept in a file without a name until the image is baked.
///
/// # Errors
/// As [`bake()`].
pub fn bake_saved(
    archive: &mut dyn Read,
    options: &BakeOptions,
    store: &Store,
) -> Result<BakedImage, BakeError> {
    cancellable(options, store, |store| {
        let files = Files::receive(archive, store, &options.limits)?;
        let image = saved(&files, None, &options.platform, &options.limits)?;
        bake_layers(image, options, store)
    })
}

fn cancellable(
    options: &BakeOptions,
    store: &Store,
    bake: impl FnOnce(&Store) -> Result<BakedImage, BakeError>,
) -> Result<BakedImage, BakeError> {
    bake(&store.cancelled_by(&options.cancel)).map_err(|error| {
        // Wherever it was noticed, and whatever it looks like there.
        if options.cancel.is_cancelled() {
            return BakeError::Cancelled;
        }
        error
    })
}

fn bake_source(
    source: &dyn BlobSource,
    options: &BakeOptions,
    store: &Store,
) -> Result<BakedImage, BakeError> {
    let image = resolve(source, &options.platform, &options.limits)?;
    bake_layers(image, options, store)
}

fn bake_layers(
    image: Resolved<'_>,
    options: &BakeOptions,
    store: &Store,
) -> Result<BakedImage, BakeError> {
    let count = image.layers.len();
    let alone = if count > MAX_STACK {
        MAX_STACK - 1
    } else {
        count
    };
    let lease = store
        .lease(&mut image.layers.iter().map(|layer| &layer.diff_id))
        .map_err(|source| BakeError::Store {
            path: store.dir().to_owned(),
            source,
        })?;
    let progress = options.progress.as_deref();
    let means = Means {
        store,
        limits: &options.limits,
        progress,
    };
    let mut bake = Bake {
        stack: Stack::new(&image.layers, means),
        blobs: &image.layers,
        options,
        store,
    };
    bake.report(&Event::Resolved { layers: count });
    let mut layers = Vec::with_capacity(count.min(MAX_STACK));
    let mut add = |layer: CachedLayer| {
        // overlayfs ignores "opaque" on the root of a layer.
        if layer.root_opaque {
            layers.clear();
        }
        layers.push(layer.path);
    };
    for at in 0..alone {
        add(bake
            .layer(at)
            .map_err(|source| error(bake.blobs, at, source))?);
    }
    if alone < count {
        add(bake.merged(alone)?);
    }
    Ok(BakedImage {
        layers,
        config: image.config,
        manifest_digest: image.manifest_digest,
        config_digest: image.config_digest,
        diff_ids: image
            .layers
            .into_iter()
            .map(|layer| layer.diff_id)
            .collect(),
        lease,
    })
}

/// What a bake in progress needs.
struct Bake<'a> {
    stack: Stack<'a>,
    blobs: &'a [LayerBlob<'a>],
    options: &'a BakeOptions,
    store: &'a Store,
}

impl Bake<'_> {
    /// Layer `at` as a file of its own.
    fn layer(&mut self, at: usize) -> Result<CachedLayer, LayerError> {
        let names = Names::new(self.blobs, at, self.options.compression);
        let known = [&names.alone, &names.on_these];
        if let Some(cached) = self.find(at, &known)? {
            return Ok(cached);
        }
        let _lock = self.store.lock(&names.alone)?;
        if let Some(cached) = self.find(at, &known)? {
            return Ok(cached);
        }
        let tree = self.stack.build(at)?;
        let name = match tree.applied().used_lower {
            true => &names.on_these,
            false => &names.alone,
        };
        self.publish(at, name, &tree)
    }

    /// The layers from `first` up as one file.
    fn merged(&mut self, first: usize) -> Result<CachedLayer, BakeError> {
        let last = self.blobs.len() - 1;
        let name = Names::new(self.blobs, last, self.options.compression).merged_from(first);
        let on_top = |source| BakeError::Layer {
            diff_id: self.blobs[last].diff_id.clone(),
            source,
        };
        let io = |source| on_top(LayerError::Io(source));
        if let Some(cached) = self.find(last, &[&name]).map_err(io)? {
            return Ok(cached);
        }
        let _lock = self.store.lock(&name).map_err(io)?;
        if let Some(cached) = self.find(last, &[&name]).map_err(io)? {
            return Ok(cached);
        }
        let mut trees = Vec::with_capacity(self.blobs.len() - first);
        for at in first..=last {
            trees.push(
                self.stack
                    .tree(at)
                    .map_err(|source| error(self.blobs, at, source))?,
            );
        }
        let tree = self.stack.merge(&trees, first).map_err(on_top)?;
        self.publish(last, &name, &tree).map_err(on_top)
    }

    fn report(&self, event: &Event<'_>) {
        if let Some(progress) = &self.options.progress {
            progress.report(event);
        }
    }

    /// The first of `names` that is in the cache.
    fn find(&self, at: usize, names: &[&String]) -> std::io::Result<Option<CachedLayer>> {
        for name in names {
            if let Some(cached) = self.store.find(name, self.options.verify_cached_data)? {
                self.report(&Event::Cached {
                    layer: at,
                    diff_id: &self.blobs[at].diff_id,
                });
                return Ok(Some(cached));
            }
        }
        Ok(None)
    }

    fn publish(&self, at: usize, name: &str, tree: &Tree) -> Result<CachedLayer, LayerError> {
        let opaque = tree.applied().root_opaque;
        let layer = self.store.publish(name, opaque, |out| {
            Ok(squashfs::write(tree, out, self.options.compression)?)
        })?;
        self.report(&Event::Baked {
            layer: at,
            diff_id: &self.blobs[at].diff_id,
        });
        Ok(layer)
    }
}

fn error(blobs: &[LayerBlob<'_>], at: usize, source: LayerError) -> BakeError {
    BakeError::Layer {
        diff_id: blobs[at].diff_id.clone(),
        source,
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
    fn new(blobs: &[LayerBlob<'_>], at: usize, compression: Compression) -> Self {
        let suffix = compression.suffix();
        let stem = blobs[at].diff_id.file_stem();
        let mut chain = Hasher::new(crate::digest::Algorithm::Sha256);
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
