//! From a reference to the layers of one image.

use std::io::Read;

use crate::config::{self, ImageConfig};
use crate::decompress::Format;
use crate::digest::{Digest, Hasher, InvalidDigest};
use crate::document::{self, Descriptor, SavedImage, Target};
use crate::error::ImageError;
use crate::limits::Limits;
use crate::platform::Platform;
use crate::section::{ReadAt, Section};
use crate::source::{BlobSource, Files};

/// Indexes inside indexes that are followed.
const MAX_INDEX_DEPTH: usize = 4;
/// Manifests and indexes looked at in total.
const MAX_DOCUMENTS: usize = 128;

/// One layer, not read yet.
#[derive(Debug)]
pub(crate) struct LayerBlob<'a> {
    pub(crate) content: LayerContent<'a>,
    /// Compression by media type; without one the first bytes decide.
    pub(crate) format: Option<Format>,
    pub(crate) diff_id: Digest,
}

/// Where the content of a layer is.
#[derive(Debug)]
pub(crate) enum LayerContent<'a> {
    /// In the image's source, opened when it is read.
    Blob(&'a dyn BlobSource, Descriptor),
    /// In an archive of `docker save`, which knows no digests.
    Archived(Section),
}

impl LayerContent<'_> {
    /// Length of the blob in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Blob(_, descriptor) => descriptor.size,
            Self::Archived(section) => section.len(),
        }
    }
}

/// An image whose documents are verified.
#[derive(Debug)]
pub(crate) struct Resolved<'a> {
    pub(crate) manifest_digest: Option<Digest>,
    pub(crate) config_digest: Digest,
    pub(crate) config: ImageConfig,
    /// Bottom first.
    pub(crate) layers: Vec<LayerBlob<'a>>,
}

/// The image for `platform` among those of `source`.
pub(crate) fn resolve<'a>(
    source: &'a dyn BlobSource,
    platform: &'a Platform,
    limits: &'a Limits,
) -> Result<Resolved<'a>, ImageError> {
    let mut search = Search {
        source,
        platform,
        limits,
        documents: 0,
        found: Vec::new(),
    };
    match search.choose(source.roots()?, 0)? {
        Some(resolved) => Ok(resolved),
        None if search.found.is_empty() => Err(ImageError::NoImage),
        None => Err(search.wrong_platform()),
    }
}

struct Search<'a> {
    source: &'a dyn BlobSource,
    platform: &'a Platform,
    limits: &'a Limits,
    documents: usize,
    /// Platforms that were passed over.
    found: Vec<String>,
}

impl<'a> Search<'a> {
    /// The first image that runs here. Entries that say so come before
    /// entries that do not say anything.
    fn choose(
        &mut self,
        candidates: Vec<Descriptor>,
        depth: usize,
    ) -> Result<Option<Resolved<'a>>, ImageError> {
        if depth > MAX_INDEX_DEPTH {
            return Err(ImageError::TooMany {
                what: "nested indexes",
                limit: MAX_INDEX_DEPTH,
            });
        }
        let mut candidates: Vec<Descriptor> = candidates
            .into_iter()
            .filter(|d| !d.is_attestation())
            .collect();
        candidates.sort_by_key(|d| d.platform.is_none());
        let only = candidates.len() == 1;
        for descriptor in candidates {
            if let Some(platform) = descriptor
                .platform
                .as_ref()
                .filter(|p| !self.platform.takes(p))
            {
                self.found.push(platform.to_string());
                continue;
            }
            let target = match descriptor.target() {
                Ok(target) => target,
                // An artifact beside the image is no reason to fail.
                Err(_) if !only => continue,
                Err(error) => return Err(error),
            };
            self.documents += 1;
            if self.documents > MAX_DOCUMENTS {
                return Err(ImageError::TooMany {
                    what: "manifests",
                    limit: MAX_DOCUMENTS,
                });
            }
            let chosen = match target {
                Target::Manifest => self.manifest(&descriptor)?,
                Target::Index => {
                    let bytes = self.fetch(&descriptor, "the image index")?;
                    let inner = document::parse_index(&bytes, Some(&descriptor.media_type))?;
                    self.choose(inner, depth + 1)?
                }
            };
            if chosen.is_some() {
                return Ok(chosen);
            }
        }
        Ok(None)
    }

    fn wrong_platform(&mut self) -> ImageError {
        self.found.sort();
        self.found.dedup();
        ImageError::WrongPlatform {
            wanted: self.platform.clone(),
            found: std::mem::take(&mut self.found),
        }
    }

    /// Reads and verifies a document.
    fn fetch(&self, descriptor: &Descriptor, what: &'static str) -> Result<Vec<u8>, ImageError> {
        if descriptor.size > self.limits.max_document_bytes {
            return Err(ImageError::DocumentTooLarge {
                what,
                size: descriptor.size,
                limit: self.limits.max_document_bytes,
            });
        }
        let mut bytes = Vec::new();
        let content = self.source.open(descriptor)?;
        content
            .take(descriptor.size.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| ImageError::Blob {
                digest: descriptor.digest.clone(),
                source,
            })?;
        if bytes.len() as u64 != descriptor.size {
            return Err(ImageError::SizeMismatch {
                digest: descriptor.digest.clone(),
                expected: descriptor.size,
                actual: bytes.len() as u64,
            });
        }
        verify(&descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    fn manifest(&mut self, descriptor: &Descriptor) -> Result<Option<Resolved<'a>>, ImageError> {
        let bytes = self.fetch(descriptor, "the image manifest")?;
        let manifest = document::parse_manifest(&bytes, &descriptor.media_type)?;
        let config_bytes = self.fetch(&manifest.config, "the image config")?;
        let (config, diff_ids) = config::parse(&config_bytes)?;
        if !self.platform.takes(&config.platform()) {
            self.found.push(config.platform().to_string());
            return Ok(None);
        }
        let diff_ids = check_counts(manifest.layers.len(), &diff_ids, self.limits)?;
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (layer, diff_id) in manifest.layers.into_iter().zip(diff_ids) {
            let format = layer.layer_format()?;
            self.source.check(&layer)?;
            layers.push(LayerBlob {
                content: LayerContent::Blob(self.source, layer),
                format: Some(format),
                diff_id,
            });
        }
        Ok(Some(Resolved {
            manifest_digest: Some(descriptor.digest.clone()),
            config_digest: manifest.config.digest,
            config,
            layers,
        }))
    }
}

fn check_counts(
    layers: usize,
    diff_ids: &[String],
    limits: &Limits,
) -> Result<Vec<Digest>, ImageError> {
    if layers != diff_ids.len() {
        return Err(ImageError::LayerCountMismatch {
            layers,
            diff_ids: diff_ids.len(),
        });
    }
    if layers > limits.max_layers {
        return Err(ImageError::TooMany {
            what: "layers",
            limit: limits.max_layers,
        });
    }
    let parsed: Result<_, InvalidDigest> = diff_ids.iter().map(|id| id.parse()).collect();
    Ok(parsed?)
}

/// The image for `platform` in an archive of `docker save`.
pub(crate) fn saved(
    files: &Files,
    tag: Option<&str>,
    platform: &Platform,
    limits: &Limits,
) -> Result<Resolved<'static>, ImageError> {
    let bytes = files
        .document("manifest.json", "manifest.json", limits)?
        .ok_or_else(|| ImageError::NotALayout {
            path: files.path().to_owned(),
            reason: "it has no file manifest.json (for an archived OCI layout use oci-archive:)",
        })?;
    let images = document::parse_saved(&bytes)?;
    let image = choose_saved(images, tag)?;
    let config_bytes = files
        .document(&image.config, "the image config", limits)?
        .ok_or_else(|| ImageError::MissingFile {
            name: crate::error::show(image.config.as_bytes()),
        })?;
    let config_digest = Digest::sha256_of(&config_bytes);
    if let Some(expected) = digest_in_name(&image.config) {
        verify(&expected, &config_bytes)?;
    }
    let (config, diff_ids) = config::parse(&config_bytes)?;
    if !platform.takes(&config.platform()) {
        return Err(ImageError::WrongPlatform {
            wanted: platform.clone(),
            found: vec![config.platform().to_string()],
        });
    }
    let names = image.layers.unwrap_or_default();
    let diff_ids = check_counts(names.len(), &diff_ids, limits)?;
    let mut layers = Vec::with_capacity(names.len());
    for (name, diff_id) in names.iter().zip(diff_ids) {
        let section = files.file(name)?.ok_or_else(|| ImageError::MissingFile {
            name: crate::error::show(name.as_bytes()),
        })?;
        layers.push(LayerBlob {
            content: LayerContent::Archived(section),
            format: None,
            diff_id,
        });
    }
    Ok(Resolved {
        manifest_digest: None,
        config_digest,
        config,
        layers,
    })
}

fn choose_saved(images: Vec<SavedImage>, tag: Option<&str>) -> Result<SavedImage, ImageError> {
    let mut available: Vec<String> = images
        .iter()
        .flat_map(|image| image.repo_tags.iter().flatten().cloned())
        .collect();
    available.sort();
    let own_names = |image: &SavedImage| image.repo_tags.clone().unwrap_or_default();
    let mut chosen = match tag {
        None => images,
        Some(tag) => crate::names::choose(images, tag, own_names),
    };
    match (chosen.pop(), chosen.is_empty(), tag) {
        (Some(image), true, _) => Ok(image),
        (Some(_), false, _) => Err(ImageError::Ambiguous { available }),
        (None, _, Some(tag)) => Err(ImageError::TagNotFound {
            tag: tag.to_owned(),
            available,
        }),
        (None, _, None) => Err(ImageError::NoImage),
    }
}

/// The digest a file name promises: `HEX.json` or `blobs/sha256/HEX`.
fn digest_in_name(name: &str) -> Option<Digest> {
    let hex = name
        .strip_suffix(".json")
        .or_else(|| name.strip_prefix("blobs/sha256/"))?;
    format!("sha256:{hex}").parse().ok()
}

fn verify(expected: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual != *expected {
        return Err(ImageError::DigestMismatch {
            expected: expected.clone(),
            actual,
        });
    }
    Ok(())
}
