//! From a reference to the layers of one linux/arm64 image.

use crate::config::{self, ImageConfig};
use crate::decompress::{Format, MAGIC_BYTES, unread};
use crate::digest::{Digest, Hasher};
use crate::document::{self, Descriptor, SavedImage, Target};
use crate::error::ImageError;
use crate::limits::Limits;
use crate::reference::{Reference, Transport};
use crate::section::{ReadAt, Section};
use crate::source::Source;
use crate::store::Store;

/// Indexes inside indexes that are followed.
const MAX_INDEX_DEPTH: usize = 4;
/// Manifests and indexes looked at in total.
const MAX_DOCUMENTS: usize = 128;

/// One layer, not read yet.
#[derive(Debug)]
pub(crate) struct LayerBlob {
    pub(crate) section: Section,
    /// Digest of the bytes in `section`; archives of `docker save` have none.
    pub(crate) digest: Option<Digest>,
    /// Compression by media type; without one the first bytes decide.
    pub(crate) format: Option<Format>,
    pub(crate) diff_id: Digest,
}

/// An image whose documents are verified.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) manifest_digest: Option<Digest>,
    pub(crate) config_digest: Digest,
    pub(crate) config: ImageConfig,
    /// Bottom first.
    pub(crate) layers: Vec<LayerBlob>,
}

/// Opens what `reference` names and chooses the image.
pub(crate) fn resolve(
    reference: &Reference,
    store: &Store,
    limits: &Limits,
) -> Result<Resolved, ImageError> {
    let path = reference.path();
    match reference.transport() {
        Transport::OciLayout => layout(&Source::open_dir(path)?, reference.tag(), limits),
        Transport::OciArchive => {
            let source = Source::open_archive(path, store, limits)?;
            layout(&source, reference.tag(), limits)
        }
        Transport::DockerArchive => {
            let source = Source::open_archive(path, store, limits)?;
            saved(&source, reference.tag(), limits)
        }
    }
}

fn layout(source: &Source, tag: Option<&str>, limits: &Limits) -> Result<Resolved, ImageError> {
    let not_a_layout = |reason| ImageError::NotALayout {
        path: source.path().to_owned(),
        reason,
    };
    let marker = source
        .document("oci-layout", "oci-layout", limits)?
        .ok_or_else(|| not_a_layout("it has no file oci-layout"))?;
    if !document::layout_version_is_known(&marker) {
        return Err(not_a_layout("its oci-layout file names no 1.x version"));
    }
    let index = source
        .document("index.json", "index.json", limits)?
        .ok_or_else(|| not_a_layout("it has no file index.json"))?;
    let all = document::parse_index(&index, None)?;
    let candidates = by_tag(all, tag)?;
    let mut search = Search {
        source,
        limits,
        documents: 0,
        found: Vec::new(),
    };
    match search.choose(candidates, 0)? {
        Some(resolved) => Ok(resolved),
        None if search.found.is_empty() => Err(ImageError::NoImage),
        None => Err(ImageError::WrongArchitecture {
            found: search.found,
        }),
    }
}

fn by_tag(all: Vec<Descriptor>, tag: Option<&str>) -> Result<Vec<Descriptor>, ImageError> {
    let mut names: Vec<String> = all
        .iter()
        .flat_map(|d| d.names())
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    let Some(tag) = tag else {
        let mut tags: Vec<Option<&str>> = all.iter().map(|d| d.names().next()).collect();
        tags.sort_unstable();
        tags.dedup();
        // The same image for several machines shares one tag, or has none.
        if tags.len() > 1 {
            return Err(ImageError::Ambiguous { available: names });
        }
        return Ok(all);
    };
    let own_names = |d: &Descriptor| d.names().map(str::to_owned).collect();
    let chosen = crate::names::choose(all, tag, own_names);
    if chosen.is_empty() {
        return Err(ImageError::TagNotFound {
            tag: tag.to_owned(),
            available: names,
        });
    }
    // One image for several machines has one name; a bare tag, or a short
    // form, may be that of several images.
    let mut available: Vec<String> = chosen
        .iter()
        .filter_map(|d| d.full_name().map(str::to_owned))
        .collect();
    available.sort();
    available.dedup();
    if available.len() > 1 {
        return Err(ImageError::Ambiguous { available });
    }
    Ok(chosen)
}

struct Search<'a> {
    source: &'a Source,
    limits: &'a Limits,
    documents: usize,
    /// Platforms that were passed over.
    found: Vec<String>,
}

impl Search<'_> {
    /// The first image that runs here. Entries that say so come before
    /// entries that do not say anything.
    fn choose(
        &mut self,
        candidates: Vec<Descriptor>,
        depth: usize,
    ) -> Result<Option<Resolved>, ImageError> {
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
            if let Some(platform) = descriptor.platform.as_ref().filter(|p| !p.runs_here()) {
                self.found.push(platform.text());
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

    fn fetch(&self, descriptor: &Descriptor, what: &'static str) -> Result<Vec<u8>, ImageError> {
        self.source
            .verified_document(&descriptor.digest, descriptor.size, what, self.limits)
    }

    fn manifest(&mut self, descriptor: &Descriptor) -> Result<Option<Resolved>, ImageError> {
        let bytes = self.fetch(descriptor, "the image manifest")?;
        let manifest = document::parse_manifest(&bytes, &descriptor.media_type)?;
        let config_bytes = self.fetch(&manifest.config, "the image config")?;
        let (config, diff_ids) = config::parse(&config_bytes)?;
        if !runs_here(&config) {
            self.found.push(config.platform());
            return Ok(None);
        }
        let diff_ids = check_counts(manifest.layers.len(), &diff_ids, self.limits)?;
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (layer, diff_id) in manifest.layers.into_iter().zip(diff_ids) {
            let format = layer.layer_format()?;
            layers.push(LayerBlob {
                section: self.source.blob(&layer.digest, layer.size)?,
                digest: Some(layer.digest),
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

fn runs_here(config: &ImageConfig) -> bool {
    document::runs_here(&config.os, &config.architecture, config.variant.as_deref())
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
    diff_ids.iter().map(|id| id.parse()).collect()
}

fn saved(source: &Source, tag: Option<&str>, limits: &Limits) -> Result<Resolved, ImageError> {
    let bytes = source
        .document("manifest.json", "manifest.json", limits)?
        .ok_or_else(|| ImageError::NotALayout {
            path: source.path().to_owned(),
            reason: "it has no file manifest.json (for an archived OCI layout use oci-archive:)",
        })?;
    let images = document::parse_saved(&bytes)?;
    let image = choose_saved(images, tag)?;
    let config_bytes = source
        .document(&image.config, "the image config", limits)?
        .ok_or_else(|| ImageError::MissingFile {
            name: crate::error::show(image.config.as_bytes()),
        })?;
    let config_digest = Digest::sha256_of(&config_bytes);
    if let Some(expected) = digest_in_name(&image.config) {
        verify(&expected, &config_bytes)?;
    }
    let (config, diff_ids) = config::parse(&config_bytes)?;
    if !runs_here(&config) {
        return Err(ImageError::WrongArchitecture {
            found: vec![config.platform()],
        });
    }
    let names = image.layers.unwrap_or_default();
    let diff_ids = check_counts(names.len(), &diff_ids, limits)?;
    let mut layers = Vec::with_capacity(names.len());
    for (name, diff_id) in names.iter().zip(diff_ids) {
        let section = source.file(name)?.ok_or_else(|| ImageError::MissingFile {
            name: crate::error::show(name.as_bytes()),
        })?;
        layers.push(LayerBlob {
            section,
            digest: None,
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

/// Verifies a blob while something else reads it.
pub(crate) struct VerifyingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: std::io::Read> VerifyingReader<R> {
    pub(crate) fn new(inner: R, digest: &Digest) -> Self {
        Self {
            inner,
            hasher: Hasher::new(digest.algorithm()),
        }
    }

    /// The digest of everything that was read.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: std::io::Read> std::io::Read for VerifyingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}

impl LayerBlob {
    /// The first bytes decide where no media type does; where one does, they
    /// must agree, so that the error names the real reason.
    pub(crate) fn checked_format(&self) -> Result<Format, crate::LayerError> {
        let mut start = [0; MAGIC_BYTES];
        let n = self.section.read_at(&mut start, 0)?;
        let unread = unread(&start[..n]);
        let sniffed = Format::sniff(&start[..n]);
        match self.format {
            Some(declared) if declared != sniffed => Err(crate::LayerError::WrongCompression {
                expected: declared.name(),
                found: match (sniffed, unread) {
                    (_, Some(compression)) => compression.name,
                    (Format::Plain, None)
                        if crate::tar::Reader::new(&self.section).next_entry().is_err() =>
                    {
                        "neither gzip nor zstd nor a tar archive"
                    }
                    (format, None) => format.name(),
                },
            }),
            None if unread.is_some() => Err(crate::LayerError::UnreadCompression {
                compression: unread.map_or("", |compression| compression.name),
            }),
            _ => Ok(sniffed),
        }
    }
}
