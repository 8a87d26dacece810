//! Files of the host in an image: a small layer of their own on top of the others,
//! which are not read again for it, whatever they came from.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bare;
use crate::builder::LayerBuilder;
use crate::decompress::Format;
use crate::digest::Digest;
use crate::error::{BakeError, ImageError, LayerError, show};
use crate::layer::read_tree;
use crate::no_follow::open_in_cache;
use crate::options::BakeOptions;
use crate::section::{ReadAt, Section};
use crate::squashfs::{self, Compression, read};
use crate::store::{Lease, Store};
use crate::tree::{Budget, Kind, Lower, Node, OVERLAY_OPAQUE, normalise};

/// Most extra files: each is read whenever an image is asked for.
const MAX_FILES: usize = 4096;

/// A file of the host that an image gets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExtraFile {
    /// The file on the host.
    pub host: PathBuf,
    /// Its absolute path in the guest. Directories above it are made if need be.
    pub guest: String,
    /// Its permissions: those it has on the host, if this is `None`.
    pub mode: Option<u16>,
}

impl ExtraFile {
    /// A file with the permissions it has on the host. It belongs to root in the guest.
    pub fn new(host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            guest: guest.into(),
            mode: None,
        }
    }

    /// The same with permissions such as `0o600`.
    #[must_use]
    pub fn with_mode(self, mode: u16) -> Self {
        Self {
            mode: Some(mode),
            ..self
        }
    }
}

/// The layer that [`add_files`] has made or found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExtraLayer {
    /// The squashfs file, to stack on top of the others.
    pub layer: PathBuf,
    /// Digest of what is in it.
    pub diff_id: Digest,
    /// Keeps [`Store::gc`] from it.
    pub lease: Lease,
}

/// Makes one layer of `files` for the image whose layers are `below`, as
/// [`BakedImage::layers`](crate::BakedImage::layers) has them. It depends on what is in
/// the files, and where they go; those of the same content are not made again.
///
/// A file goes where its path leads in the image, links included, and directories above
/// it stay as they are. What is no directory there is replaced.
///
/// # Errors
/// [`ImageError::ExtraFile`] if one of them is no regular file, or has no place in the
/// guest; [`BakeError::Layer`] and [`BakeError::Store`] as for any layer.
pub fn add_files(
    below: &[PathBuf],
    files: &[ExtraFile],
    options: &BakeOptions,
    store: &Store,
) -> Result<ExtraLayer, BakeError> {
    let store = &store.cancelled_by(&options.cancel);
    let made = layer_of(below, files, options, store);
    made.map_err(|error| match options.cancel.is_cancelled() {
        true => BakeError::Cancelled,
        false => error,
    })
}

fn layer_of(
    below: &[PathBuf],
    files: &[ExtraFile],
    options: &BakeOptions,
    store: &Store,
) -> Result<ExtraLayer, BakeError> {
    let content = bare::spooled(&collect(files)?, Path::new("/"), store)?;
    let whole = |source| BakeError::Store {
        path: store.dir().to_owned(),
        source,
    };
    let diff_id = bare::digest(&content, Format::Plain, &options.limits, store).map_err(
        |source| match source {
            LayerError::Io(source) => whole(source),
            source => BakeError::Image(ImageError::ExtraFile {
                guest: "/".to_owned(),
                reason: "cannot be: all of them together are larger than a layer may be",
                source: Some(Box::new(source)),
            }),
        },
    )?;
    let failed = |source| BakeError::Layer {
        diff_id: diff_id.clone(),
        source,
    };
    let lease = store.lease(&mut std::iter::once(&diff_id)).map_err(whole)?;
    let name = name(&diff_id, below, options.compression);
    let find = || store.find(&name, options.verify_cached_data).map_err(whole);
    let mut found = find()?;
    if found.is_none() {
        let _lock = store.lock(&name).map_err(whole)?;
        found = find()?;
        if found.is_none() {
            let mut lower = Below(below);
            for file in files {
                lower.check(file)?;
            }
            let source: Arc<dyn ReadAt + Send + Sync> = Arc::new(content.clone());
            let budget = Budget::new(options.limits.max_image_tree_bytes);
            let content = store.cancel().watch(content);
            let tree = read_tree(&content, &source, &options.limits, &budget, &mut lower)
                .map_err(failed)?;
            let write = |out: &mut _| Ok(squashfs::write(&tree, out, options.compression)?);
            found = Some(store.publish(&name, false, write).map_err(failed)?);
        }
    }
    let layer = found.map(|found| found.path).unwrap_or_default();
    Ok(ExtraLayer {
        layer,
        diff_id,
        lease,
    })
}

/// The files as a layer without the directories above them, in the order of their paths.
fn collect(files: &[ExtraFile]) -> Result<LayerBuilder, BakeError> {
    if files.len() > MAX_FILES {
        return Err(BakeError::Image(ImageError::TooMany {
            what: "extra files",
            limit: MAX_FILES,
        }));
    }
    let mut sorted: Vec<&ExtraFile> = files.iter().collect();
    sorted.sort_by(|one, other| one.guest.cmp(&other.guest));
    let mut layer = LayerBuilder::new();
    let mut last = Vec::new();
    for file in sorted {
        let wrong = |reason| refused(file, reason);
        let parts = normalise(file.guest.as_bytes())
            .map_err(|_| wrong("is no path that a file can have"))?;
        if !file.guest.starts_with('/') || file.guest.ends_with('/') || parts.is_empty() {
            return Err(wrong("is no absolute path of a file"));
        }
        // A marker would remove something, and say nothing of it.
        if parts.iter().any(|part| part.starts_with(b".wh.")) {
            return Err(wrong(
                "has a name that begins with .wh., which means a removal",
            ));
        }
        if parts == last {
            return Err(wrong("is given twice"));
        }
        let read = |source| ImageError::Read {
            path: file.host.clone(),
            source,
        };
        let metadata = fs::metadata(&file.host).map_err(read)?;
        if !metadata.is_file() {
            return Err(wrong("comes from something that is no regular file"));
        }
        let own = u16::try_from(metadata.permissions().mode() & 0o777).unwrap_or(0o644);
        let mode = file.mode.unwrap_or(own) & 0o7777;
        let path = parts.join(&b'/');
        layer = layer.host_file(path, &file.host, mode, metadata.len());
        last = parts;
    }
    Ok(layer)
}

fn refused(file: &ExtraFile, reason: &'static str) -> BakeError {
    BakeError::Image(ImageError::ExtraFile {
        guest: show(file.guest.as_bytes()),
        reason,
        source: None,
    })
}

/// The layer's name in the cache: what it is made of, and on what.
fn name(diff_id: &Digest, below: &[PathBuf], compression: Compression) -> String {
    let names = below.iter().filter_map(|path| path.file_name());
    let mut chain = Vec::new();
    for name in names {
        chain.extend_from_slice(name.as_encoded_bytes());
        chain.push(b'\n');
    }
    let below = Digest::sha256_of(&chain);
    let suffix = compression.suffix();
    format!(
        "{}-over-{}{suffix}",
        diff_id.file_stem(),
        &below.hex()[..32]
    )
}

/// Layers in the cache, bottom first.
struct Below<'a>(&'a [PathBuf]);

impl Below<'_> {
    /// Refuses a file in the place of a directory.
    fn check(&mut self, file: &ExtraFile) -> Result<(), BakeError> {
        let parts = normalise(file.guest.as_bytes()).unwrap_or_default();
        let found = self.find(&parts).map_err(|source| match source {
            LayerError::Io(source) => BakeError::Store {
                path: PathBuf::from(&file.guest),
                source,
            },
            _ => refused(file, "has no place in the image"),
        })?;
        match found {
            Some(node) if node.as_dir().is_some() => {
                Err(refused(file, "is a directory in the image"))
            }
            _ => Ok(()),
        }
    }
}

impl Lower for Below<'_> {
    fn find(&mut self, path: &[Vec<u8>]) -> Result<Option<Node>, LayerError> {
        // One after the other: they are up to 64, and descriptors are few.
        'layers: for layer in self.0.iter().rev() {
            let file = open_in_cache(OpenOptions::new().read(true), layer)?;
            let layer = read::Layer::open(Arc::new(Section::whole(file)?))?;
            let mut here = layer.root()?;
            let mut hides = false;
            for name in path {
                if here.node.as_dir().is_none() {
                    return Ok(None);
                }
                hides |= here.node.xattrs.contains_key(OVERLAY_OPAQUE);
                match layer.child(&here, name)? {
                    Some(child) => here = child,
                    None if hides => return Ok(None),
                    None => continue 'layers,
                }
            }
            return Ok(match here.node.kind {
                // A whiteout.
                Kind::Char(0) => None,
                _ => Some(here.node),
            });
        }
        Ok(None)
    }
}
