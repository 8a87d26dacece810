//! Manifests, indexes and the layout marker as JSON.
//!
//! The types are ours rather than a general OCI library's: what matters here
//! is refusing documents that could be read in two ways, which a permissive
//! deserializer hides.

use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

use crate::decompress::Format;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::platform::Platform;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Annotation with the tag of an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's annotation with the full name.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// BuildKit marks provenance manifests with this.
const ATTESTATION: &str = "vnd.docker.reference.type";

#[derive(Deserialize, Debug, Clone)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// A checked reference to a blob (OCI image specification, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// The digest the content must have.
    pub digest: Digest,
    /// The length in bytes it must have.
    pub size: u64,
    /// The platform it is for, if that is said.
    pub platform: Option<Platform>,
    /// What else is said.
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A reference to a blob that says nothing but what it must be.
    #[must_use]
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    fn check(raw: RawDescriptor) -> Result<Self, ImageError> {
        let digest: Digest = raw.digest.parse()?;
        let size = u64::try_from(raw.size).map_err(|_| ImageError::NegativeSize {
            digest: digest.clone(),
            size: raw.size,
        })?;
        Ok(Self {
            media_type: raw.media_type,
            digest,
            size,
            platform: raw.platform,
            annotations: raw.annotations.unwrap_or_default(),
        })
    }

    /// Whether this names a manifest or an index, which registries keep apart from
    /// everything else.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.target().is_ok()
    }

    /// Whether this names a document, which is small, and not a layer.
    #[must_use]
    pub fn is_document(&self) -> bool {
        self.is_image() || [OCI_CONFIG, DOCKER_CONFIG].contains(&self.media_type.as_str())
    }

    /// The media types of manifests and indexes that can be baked.
    pub const IMAGE_TYPES: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

    /// The names a user may choose this image by.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [REF_NAME, IMAGE_NAME]
            .into_iter()
            .filter_map(|key| self.annotations.get(key).map(String::as_str))
    }

    /// The name that says most.
    pub(crate) fn full_name(&self) -> Option<&str> {
        let name = |key| self.annotations.get(key).map(String::as_str);
        name(IMAGE_NAME).or_else(|| name(REF_NAME))
    }

    /// Provenance and similar, which is no image although it is listed.
    pub(crate) fn is_attestation(&self) -> bool {
        let is_unknown = self.platform.as_ref().is_some_and(Platform::is_unknown);
        self.annotations.contains_key(ATTESTATION) || is_unknown
    }

    /// Whether this names an index, a manifest, or neither.
    pub(crate) fn target(&self) -> Result<Target, ImageError> {
        match self.media_type.as_str() {
            OCI_MANIFEST | DOCKER_MANIFEST => Ok(Target::Manifest),
            OCI_INDEX | DOCKER_LIST => Ok(Target::Index),
            other => Err(ImageError::UnsupportedMediaType {
                what: "the image",
                media_type: other.to_owned(),
            }),
        }
    }

    /// How the layer this names is compressed.
    pub(crate) fn layer_format(&self) -> Result<Format, ImageError> {
        match self.media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Format::Plain),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(Format::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Format::Zstd),
            other => Err(ImageError::UnsupportedMediaType {
                what: "a layer",
                media_type: other.to_owned(),
            }),
        }
    }
}

/// What an image descriptor leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Manifest,
    Index,
}

/// Every field that tells a manifest from an index, for both.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: Option<i64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    /// Only in manifests of schema 1, which signs rather than hashes.
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// A manifest: the config and the layers, bottom first.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

fn parse(
    bytes: &[u8],
    what: &'static str,
    declared: Option<&str>,
    allowed: [&str; 2],
) -> Result<RawDocument, ImageError> {
    let document: RawDocument = serde_json::from_slice(bytes)
        .map_err(|source| ImageError::InvalidDocument { what, source })?;
    let confused = |reason: String| ImageError::MediaTypeConfusion { what, reason };
    if document.fs_layers.is_some() || document.schema_version == Some(1) {
        return Err(ImageError::UnsupportedMediaType {
            what,
            media_type: "Docker image manifest, schema 1".to_owned(),
        });
    }
    // CVE-2021-41190: the same bytes taken for a manifest by one program and
    // for an index by another.
    if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
        return Err(confused(
            "it has the fields of an index and of a manifest".into(),
        ));
    }
    if let Some(inside) = &document.media_type
        && (!allowed.contains(&inside.as_str()) || declared.is_some_and(|d| d != inside))
    {
        return Err(confused(format!(
            "it calls itself `{}` and was referred to as `{}`",
            crate::error::show(inside.as_bytes()),
            crate::error::show(declared.unwrap_or(allowed[0]).as_bytes()),
        )));
    }
    Ok(document)
}

/// Parses an index; `declared` is the media type that led here.
pub(crate) fn parse_index(
    bytes: &[u8],
    declared: Option<&str>,
) -> Result<Vec<Descriptor>, ImageError> {
    const WHAT: &str = "the image index";
    let document = parse(bytes, WHAT, declared, [OCI_INDEX, DOCKER_LIST])?;
    let Some(manifests) = document.manifests else {
        return Err(ImageError::MediaTypeConfusion {
            what: WHAT,
            reason: "it lists no manifests".into(),
        });
    };
    manifests.into_iter().map(Descriptor::check).collect()
}

/// Parses a manifest; `declared` is the media type that led here.
pub(crate) fn parse_manifest(bytes: &[u8], declared: &str) -> Result<Manifest, ImageError> {
    const WHAT: &str = "the image manifest";
    let document = parse(bytes, WHAT, Some(declared), [OCI_MANIFEST, DOCKER_MANIFEST])?;
    let (Some(config), Some(layers)) = (document.config, document.layers) else {
        return Err(ImageError::MediaTypeConfusion {
            what: WHAT,
            reason: "it has no config or no layers".into(),
        });
    };
    let config = Descriptor::check(config)?;
    if ![OCI_CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()) {
        return Err(ImageError::UnsupportedMediaType {
            what: "the image config",
            media_type: config.media_type,
        });
    }
    let layers: Result<_, _> = layers.into_iter().map(Descriptor::check).collect();
    Ok(Manifest {
        config,
        layers: layers?,
    })
}

/// One image in the `manifest.json` of `docker save`.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SavedImage {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}

/// Parses the `manifest.json` of `docker save`.
pub(crate) fn parse_saved(bytes: &[u8]) -> Result<Vec<SavedImage>, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::InvalidDocument {
        what: "manifest.json",
        source,
    })
}

/// Checks the `oci-layout` marker.
pub(crate) fn layout_version_is_known(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    serde_json::from_slice::<Layout>(bytes)
        .is_ok_and(|layout| layout.image_layout_version.starts_with("1."))
}
