//! Bounds on what an image may make us do.

/// Caps that turn a decompression bomb into an error. The defaults are far
/// above any image in use; a service that bakes strangers' images may want
/// smaller ones.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Uncompressed bytes of one layer, and the sum of its files' sizes
    /// (which sparse files make a different number).
    pub max_layer_bytes: u64,
    /// Uncompressed bytes of a layer for each compressed one, beyond the first 16 MiB.
    /// gzip reaches 1,032; zstd some ten thousand for what is all zeros.
    pub max_ratio: u64,
    /// Files and directories in one layer, implied directories included.
    pub max_entries: u64,
    /// Bytes of names, link targets and attributes of one layer, which are
    /// held in memory.
    pub max_tree_bytes: u64,
    /// Bytes that the trees of all layers hold in memory at the same time:
    /// names, link targets, attributes and inodes.
    pub max_image_tree_bytes: u64,
    /// Bytes of one JSON document: manifest, index or config.
    pub max_document_bytes: u64,
    /// Layers of an image. Usual runtimes stop at 127.
    pub max_layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_layer_bytes: 64 << 30,
            max_ratio: 1 << 16,
            max_entries: 4_000_000,
            max_tree_bytes: 512 << 20,
            max_image_tree_bytes: 2 << 30,
            max_document_bytes: 4 << 20,
            max_layers: 256,
        }
    }
}
