//! Baking: every layer of an image as a squashfs file.

use std::io::Read;
use std::path::PathBuf;
use std::thread;

use crate::ahead::{Ahead, Got};
use crate::bare;
use crate::config::ImageConfig;
use crate::decompress::Windows;
use crate::digest::Digest;
use crate::error::{BakeError, ImageError, LayerError};
use crate::job::Job;
use crate::layer::Stack;
use crate::options::BakeOptions;
use crate::progress::Event;
use crate::reference::{Reference, Transport};
use crate::resolve::{LayerContent, Resolved, resolve, saved};
use crate::section::Section;
use crate::source::{BlobSource, Files, Layout};
use crate::store::{CachedLayer, Lease, Store};

/// Most files in [`BakedImage::layers`]. Each is a disk of the machine, with an
/// interrupt and a mount of its own, and common runtimes take 127 layers: of
/// an image with more than this, the topmost are merged into one file. With extra files
/// they are one more.
pub(crate) const MAX_STACK: usize = 63;

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
    let lease = store
        .lease(&mut image.layers.iter().map(|layer| &layer.diff_id))
        .map_err(|source| BakeError::Store {
            path: store.dir().to_owned(),
            source,
        })?;
    let count = image.layers.len();
    // What fails ends what is done beside it.
    let failed = options.cancel.child();
    let store = store.cancelled_by(&failed);
    let job = Job {
        blobs: &image.layers,
        alone: match count > MAX_STACK {
            true => MAX_STACK - 1,
            false => count,
        },
        options,
        store: &store,
    };
    job.report(&Event::Resolved { layers: count });
    let windows = Windows::default();
    let ahead = Ahead::new(&job, &windows);
    let layers = thread::scope(|scope| {
        let _end = ahead
            .start(scope)
            .map_err(|(at, source)| job.error(at, source))?;
        let made = make(&job, &ahead, &windows);
        if made.is_err() {
            failed.cancel();
            if let Some(LayerContent::Blob(source, _)) = job.blobs.first().map(|b| &b.content) {
                source.abandon();
            }
        }
        made
    })?;
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

/// The files of all layers, each made when its content is here.
fn make<'a>(
    job: &'a Job<'a>,
    ahead: &'a Ahead<'a>,
    windows: &'a Windows,
) -> Result<Vec<PathBuf>, BakeError> {
    let mut stack = Stack::new(job.blobs, job.means(), windows, ahead);
    let mut layers = Vec::with_capacity(job.blobs.len().min(MAX_STACK));
    let files = job.blobs.len().min(job.alone + 1);
    for at in 0..files {
        let layer = match ahead
            .take(at)
            .map_err(|(at, source)| job.error(at, source))?
        {
            Some(Got::Cached(layer)) => layer,
            Some(Got::Content(content, _lock)) => {
                let layer = match at < job.alone {
                    true => stack
                        .build(at, content.section)
                        .and_then(|tree| job.publish(at, &tree)),
                    false => merged(job, &mut stack, at, content.section),
                };
                let at = stack.blamed().unwrap_or(at);
                let layer = layer.map_err(|source| job.error(at, source))?;
                if let Some(partial) = content.partial {
                    partial.remove();
                }
                layer
            }
            None => continue,
        };
        ahead.made(at);
        // overlayfs ignores "opaque" on the root of a layer.
        if layer.root_opaque {
            layers.clear();
        }
        layers.push(layer.path);
    }
    Ok(layers)
}

/// The layers from `first` up as one file.
fn merged(
    job: &Job<'_>,
    stack: &mut Stack<'_>,
    first: usize,
    content: Section,
) -> Result<CachedLayer, LayerError> {
    let mut trees = vec![stack.keep(first, content)?];
    for at in first + 1..job.blobs.len() {
        trees.push(stack.tree(at)?);
    }
    let tree = stack.merge(&trees, first)?;
    job.publish(first, &tree)
}
