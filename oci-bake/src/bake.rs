//! Baking: every layer of an image as a squashfs file.

use std::path::PathBuf;

use crate::cancel::Cancel;
use crate::config::ImageConfig;
use crate::digest::{Digest, Hasher};
use crate::error::{BakeError, LayerError};
use crate::layer::Stack;
use crate::limits::Limits;
use crate::reference::Reference;
use crate::resolve::{LayerBlob, resolve};
use crate::squashfs::{self, Compression};
use crate::store::{CachedLayer, Store};

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
}

/// An image ready to mount.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BakedImage {
    /// The squashfs files to stack with overlayfs, bottom first. Layers that
    /// a later layer hides completely are left out.
    pub layers: Vec<PathBuf>,
    /// What to run.
    pub config: ImageConfig,
    /// Digest of the manifest; archives of `docker save` have none.
    pub manifest_digest: Option<Digest>,
    /// Digest of the config, which identifies the image's content.
    pub config_digest: Digest,
    /// DiffIDs of all layers, bottom first, including hidden ones.
    pub diff_ids: Vec<Digest>,
}

/// Bakes the linux/arm64 image that `reference` names. Layers already in
/// `store` are used as they are.
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
    let store = store.cancelled_by(&options.cancel);
    bake_layers(reference, options, &store).map_err(|error| {
        // Wherever it was noticed, and whatever it looks like there.
        if options.cancel.is_cancelled() {
            return BakeError::Cancelled;
        }
        error
    })
}

fn bake_layers(
    reference: &Reference,
    options: &BakeOptions,
    store: &Store,
) -> Result<BakedImage, BakeError> {
    let image = resolve(reference, store, &options.limits)?;
    let mut stack = Stack::new(&image.layers, store, &options.limits);
    let mut layers = Vec::with_capacity(image.layers.len());
    for at in 0..image.layers.len() {
        let layer = layer(&mut stack, &image.layers, at, options, store).map_err(|source| {
            BakeError::Layer {
                diff_id: image.layers[at].diff_id.clone(),
                source,
            }
        })?;
        // overlayfs ignores "opaque" on the root of a layer.
        if layer.root_opaque {
            layers.clear();
        }
        layers.push(layer.path);
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
    })
}

fn layer(
    stack: &mut Stack<'_>,
    blobs: &[LayerBlob],
    at: usize,
    options: &BakeOptions,
    store: &Store,
) -> Result<CachedLayer, LayerError> {
    let names = Names::new(blobs, at, options.compression);
    if let Some(cached) = names.find(store, options)? {
        return Ok(cached);
    }
    let _lock = store.lock(&names.alone)?;
    if let Some(cached) = names.find(store, options)? {
        return Ok(cached);
    }
    let tree = stack.build(at)?;
    let applied = tree.applied();
    let name = match applied.used_lower {
        true => &names.on_these,
        false => &names.alone,
    };
    store.publish(name, applied.root_opaque, |out| {
        Ok(squashfs::write(&tree, out, options.compression)?)
    })
}

/// The two names a layer can have in the cache: usually its content depends
/// on its DiffID alone, but a hard link into the layers below, or a directory
/// it implies without describing, makes it depend on those too.
struct Names {
    alone: String,
    on_these: String,
}

impl Names {
    fn new(blobs: &[LayerBlob], at: usize, compression: Compression) -> Self {
        let suffix = match compression {
            Compression::None => "",
            Compression::Lz4 => ".lz4",
        };
        let stem = blobs[at].diff_id.file_stem();
        let mut chain = Hasher::new(crate::digest::Algorithm::Sha256);
        for below in &blobs[..at] {
            chain.update(below.diff_id.to_string().as_bytes());
            chain.update(b"\n");
        }
        Self {
            // Half the hash: with a sha512 DiffID the whole would make file
            // names longer than file systems allow.
            on_these: format!("{stem}-on-{}{suffix}", &chain.finish().hex()[..32]),
            alone: format!("{stem}{suffix}"),
        }
    }

    fn find(&self, store: &Store, options: &BakeOptions) -> std::io::Result<Option<CachedLayer>> {
        for name in [&self.alone, &self.on_these] {
            if let Some(cached) = store.find(name, options.verify_cached_data)? {
                return Ok(Some(cached));
            }
        }
        Ok(None)
    }
}
