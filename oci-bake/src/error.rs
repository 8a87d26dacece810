//! Errors, by what the reader can do about them.

use std::path::PathBuf;

use crate::digest::{Digest, InvalidDigest};
use crate::platform::Platform;
use crate::squashfs::SquashfsError;
use crate::tar::TarError;

/// Bytes from an image as text for a message: bounded, and with anything
/// that could speak to a terminal escaped.
pub(crate) fn show(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(200)];
    let mut text = cut.escape_ascii().to_string();
    if cut.len() < bytes.len() {
        text.push_str("...");
    }
    text
}

/// What is wrong with an image reference, or with the documents of an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// An image in a registry, where nothing is given that gets it from there.
    #[error(
        "`{name}` is in a registry, and this program was built without what pulls images; \
         build it with the feature `pull` of supermachine, or use oci:DIR:TAG after \
         `skopeo copy docker://{name} oci:DIR:TAG`"
    )]
    RegistryUnsupported {
        /// The reference as given.
        name: String,
    },
    /// A reference of no known form.
    #[error("invalid image reference `{reference}`: {reason}")]
    InvalidReference {
        /// The reference as given.
        reference: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file of the image could not be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The host path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The directory is no OCI image layout.
    #[error("{} is not an OCI image layout: {reason}", path.display())]
    NotALayout {
        /// The directory or archive.
        path: PathBuf,
        /// What is missing or wrong.
        reason: &'static str,
    },
    /// The file is no tar archive of an image.
    #[error("{} is not an image archive", path.display())]
    NotAnArchive {
        /// The file.
        path: PathBuf,
        /// What the tar reader found.
        #[source]
        source: TarError,
    },
    /// The archive is compressed in a way that is not read.
    #[error(
        "{} is compressed with {compression}, and only gzip and zstd are read here; \
         decompress it first: {program} -d FILE",
        path.display()
    )]
    UnreadCompression {
        /// The file.
        path: PathBuf,
        /// What it is compressed with.
        compression: &'static str,
        /// The program that decompresses it.
        program: &'static str,
    },
    /// The archive itself is compressed and could not be decompressed.
    #[error("cannot decompress {}", path.display())]
    ArchiveCompression {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<LayerError>,
    },
    /// No image has the requested tag.
    #[error("no image is tagged `{tag}`; there are: {}", list(available))]
    TagNotFound {
        /// The tag asked for.
        tag: String,
        /// The tags there are.
        available: Vec<String>,
    },
    /// Several images and no tag to choose by.
    #[error(
        "there are several images; add one of these tags to the reference: {}",
        list(available)
    )]
    Ambiguous {
        /// The tags there are.
        available: Vec<String>,
    },
    /// The layout or archive holds no image at all.
    #[error("there is no image inside")]
    NoImage,
    /// The image is for other machines.
    #[error("the image is for {}; get the one for {wanted}", list(found))]
    WrongPlatform {
        /// The platform asked for.
        wanted: Platform,
        /// The platforms there are, as `os/architecture[/variant]`.
        found: Vec<String>,
    },
    /// Malformed digest text.
    #[error(transparent)]
    InvalidDigest(#[from] InvalidDigest),
    /// The content of a blob could not be read to its end.
    #[error("cannot read {digest}")]
    Blob {
        /// The blob.
        digest: Digest,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A [`BlobSource`](crate::BlobSource) of another crate failed.
    #[error("cannot get the image")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A blob the image refers to is not there.
    #[error("the image is incomplete: {digest} is missing")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// A file the archive refers to is not there.
    #[error("the archive is incomplete: `{name}` is missing")]
    MissingFile {
        /// Its name in the archive.
        name: String,
    },
    /// The content is not what its digest says.
    #[error("digest mismatch: expected {expected}, the content has {actual}; get the image again")]
    DigestMismatch {
        /// The digest referred to.
        expected: Digest,
        /// The digest of what is there.
        actual: Digest,
    },
    /// The content is not as long as its descriptor says.
    #[error("{digest} should have {expected} bytes and has {actual}; get the image again")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Bytes according to the descriptor.
        expected: u64,
        /// Bytes found.
        actual: u64,
    },
    /// A descriptor with a size below zero.
    #[error("the descriptor of {digest} has the negative size {size}")]
    NegativeSize {
        /// The blob.
        digest: Digest,
        /// The size.
        size: i64,
    },
    /// A document larger than any real one.
    #[error("{what} has {size} bytes; the limit is {limit}")]
    DocumentTooLarge {
        /// Which document.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A document that is not the JSON it should be.
    #[error("{what} is not valid")]
    InvalidDocument {
        /// Which document.
        what: &'static str,
        /// The JSON error.
        #[source]
        source: serde_json::Error,
    },
    /// A media type this release does not handle.
    #[error("unsupported media type `{media_type}` for {what}")]
    UnsupportedMediaType {
        /// What has it.
        what: &'static str,
        /// The media type.
        media_type: String,
    },
    /// A document that could be read as two different things.
    #[error("{what} is ambiguous: {reason}")]
    MediaTypeConfusion {
        /// Which document.
        what: &'static str,
        /// How it contradicts itself.
        reason: String,
    },
    /// Manifest and config do not describe the same layers.
    #[error("the manifest has {layers} layers and the config {diff_ids}")]
    LayerCountMismatch {
        /// Layers in the manifest.
        layers: usize,
        /// DiffIDs in the config.
        diff_ids: usize,
    },
    /// More of something than allowed.
    #[error("the image has too many {what} (limit {limit})")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A config value no process could be started with.
    #[error("the image config has an invalid {field}")]
    InvalidConfig {
        /// Which field.
        field: &'static str,
    },
    /// An element of the config no process could be started with.
    #[error(
        "the image config's {field} has the entry `{entry}`, which {reason}; \
         build the image without it"
    )]
    InvalidConfigEntry {
        /// Which field.
        field: &'static str,
        /// The element, escaped and shortened.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More arguments and variables than a program can be given.
    #[error(
        "the image config's arguments and variables have {bytes} bytes (limit {limit}); \
         build the image with fewer"
    )]
    ConfigTooLarge {
        /// Their bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A file that an image was to get.
    #[error("the extra file `{guest}` {reason}; name another path")]
    ExtraFile {
        /// Its path in the guest, escaped and shortened.
        guest: String,
        /// What is wrong with it.
        reason: &'static str,
        /// The cause, if there is one.
        #[source]
        source: Option<Box<LayerError>>,
    },
    /// Nothing to run.
    #[error("the image names no command; give one")]
    NoCommand,
}

fn list(items: &[String]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = items
        .iter()
        .take(20)
        .map(|item| show(item.as_bytes()))
        .collect();
    shown.join(", ")
}

/// What is wrong inside a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The archive structure.
    #[error("invalid archive")]
    Tar(#[from] TarError),
    /// The layer could not be read or spooled.
    #[error("cannot read or spool the layer")]
    Io(#[from] std::io::Error),
    /// The compressed stream is damaged.
    #[error("damaged {format} stream: {reason}")]
    Compression {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The stream is not compressed as the media type says.
    #[error("the media type says {expected} and the data is {found}")]
    WrongCompression {
        /// According to the media type.
        expected: &'static str,
        /// According to the first bytes.
        found: &'static str,
    },
    /// The layer is compressed in a way that is not read.
    #[error(
        "it is compressed with {compression}, and only gzip and zstd are read here; \
         convert the image: skopeo copy --dest-compress-format gzip SOURCE oci:DIR:TAG"
    )]
    UnreadCompression {
        /// What it is compressed with.
        compression: &'static str,
    },
    /// A name or target that has no safe meaning.
    #[error("`{path}` {reason}")]
    UnsafePath {
        /// The entry, escaped and shortened.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A parent of the entry is no directory.
    #[error("`{path}` is inside something that is not a directory")]
    NotADirectory {
        /// The entry, escaped and shortened.
        path: String,
    },
    /// A whiteout of nothing that could exist.
    #[error("`{path}` is not a valid whiteout (of `{name}`)")]
    InvalidWhiteout {
        /// The entry, escaped and shortened.
        path: String,
        /// The name it would hide.
        name: String,
    },
    /// A hard link that cannot be made.
    #[error("cannot link `{path}` to `{target}`: {reason}")]
    HardLink {
        /// The entry, escaped and shortened.
        path: String,
        /// Its target.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// A cap of [`crate::Limits`].
    #[error("more than {limit} {what}; raise the limit if the image is trusted")]
    LimitExceeded {
        /// What there is too much of.
        what: &'static str,
        /// The cap.
        limit: u64,
    },
    /// The layer is fine but cannot be written as squashfs.
    #[error("cannot convert the layer")]
    Squashfs(#[from] SquashfsError),
    /// The layer's blob is not what the manifest says.
    #[error("wrong content")]
    Content(#[source] Box<ImageError>),
}

/// Why an image could not be baked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BakeError {
    /// The reference or the image's documents.
    #[error("cannot use the image")]
    Image(#[from] ImageError),
    /// One of its layers.
    #[error("cannot bake layer {diff_id}")]
    Layer {
        /// The layer.
        diff_id: Digest,
        /// What is wrong.
        #[source]
        source: LayerError,
    },
    /// [`Cancel`](crate::Cancel) was asked to stop it.
    #[error("baking was cancelled")]
    Cancelled,
    /// The cache directory.
    #[error("cannot use the layer cache at {}", path.display())]
    Store {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
