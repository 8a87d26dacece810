//! An image that is one layer without any documents: an archive, or a directory of
//! this machine.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use serde_json::json;

use crate::builder::{BuildError, LayerBuilder, Owner};
use crate::config;
use crate::decompress::{Format, MAGIC_BYTES, Windows, decompress, unread};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{BakeError, ImageError, LayerError};
use crate::limits::Limits;
use crate::platform::Platform;
use crate::resolve::{LayerBlob, LayerContent, Resolved};
use crate::section::{ReadAt, Section};
use crate::store::Store;

/// The image whose only layer is the archive at `path`, which may be compressed.
pub(crate) fn archive(
    path: &Path,
    platform: &Platform,
    limits: &Limits,
    store: &Store,
) -> Result<Resolved<'static>, BakeError> {
    let read = |source| ImageError::Read {
        path: path.to_owned(),
        source,
    };
    let content = Section::open(path).map_err(read)?;
    let mut start = [0; MAGIC_BYTES];
    let n = content.read_at(&mut start, 0).map_err(read)?;
    if let Some(compression) = unread(&start[..n]) {
        return Err(BakeError::Image(ImageError::UnreadCompression {
            path: path.to_owned(),
            compression: compression.name,
            program: compression.program,
        }));
    }
    image(
        content,
        Format::sniff(&start[..n]),
        path,
        platform,
        limits,
        store,
    )
}

/// The image whose only layer is what is in the directory at `path`, by owner, mode,
/// links and devices; not times, and not extended attributes.
pub(crate) fn directory(
    path: &Path,
    platform: &Platform,
    limits: &Limits,
    store: &Store,
) -> Result<Resolved<'static>, BakeError> {
    let read = |source| ImageError::Read {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(read)?.is_dir() {
        return Err(BakeError::Image(ImageError::NotALayout {
            path: path.to_owned(),
            reason: "it is not a directory (for an archive of one use tar:)",
        }));
    }
    let layer = LayerBuilder::new()
        .host_dir(path, Owner::Preserve)
        .map_err(|error| unbuilt(error, path))?;
    let content = spooled(&layer, path, store)?;
    image(content, Format::Plain, path, platform, limits, store)
}

/// Why files of this machine, which come from `path`, are no layer.
fn unbuilt(error: BuildError, path: &Path) -> ImageError {
    match error {
        BuildError::Io { path, source } => ImageError::Read { path, source },
        BuildError::Layer(source) => ImageError::Read {
            path: path.to_owned(),
            source,
        },
    }
}

/// A layer of files of this machine, which come from `path`, as an archive.
pub(crate) fn spooled(
    layer: &LayerBuilder,
    path: &Path,
    store: &Store,
) -> Result<Section, BakeError> {
    let spool = |source| BakeError::Store {
        path: store.dir().to_owned(),
        source,
    };
    let file = store.spool().map_err(spool)?;
    let out = store
        .cancel()
        .watch(BufWriter::with_capacity(1 << 20, file));
    let out = layer
        .write_whole(out)
        .map_err(|error| unbuilt(error, path))?;
    let flushed = out
        .into_inner()
        .into_inner()
        .map_err(|error| error.into_error());
    let file: File = flushed.map_err(spool)?;
    Section::whole(file).map_err(spool)
}

fn image(
    content: Section,
    format: Format,
    path: &Path,
    platform: &Platform,
    limits: &Limits,
    store: &Store,
) -> Result<Resolved<'static>, BakeError> {
    let diff_id = digest(&content, format, limits, store).map_err(|source| {
        ImageError::ArchiveCompression {
            path: path.to_owned(),
            source: Box::new(source),
        }
    })?;
    // What the layer says of itself is all that is known, and the same layer is the same
    // image.
    let document = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "variant": platform.variant,
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
    });
    let bytes = document.to_string().into_bytes();
    let (config, _) = config::parse(&bytes)?;
    Ok(Resolved {
        manifest_digest: None,
        config_digest: Digest::sha256_of(&bytes),
        config,
        layers: vec![LayerBlob {
            content: LayerContent::Archived(content),
            format: Some(format),
            diff_id,
        }],
    })
}

/// The digest of the archive inside. What is read later is compared with it.
pub(crate) fn digest(
    content: &Section,
    format: Format,
    limits: &Limits,
    store: &Store,
) -> Result<Digest, LayerError> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut bytes = 0u64;
    let input = store.cancel().watch(content.reader());
    decompress(input, format, &Windows::default(), &mut |chunk| {
        store.cancel().check()?;
        bytes = bytes.saturating_add(chunk.len() as u64);
        if bytes > limits.max_layer_bytes {
            return Err(LayerError::LimitExceeded {
                what: "uncompressed bytes",
                limit: limits.max_layer_bytes,
            });
        }
        hasher.update(chunk);
        Ok(())
    })?;
    Ok(hasher.finish())
}
