//! What whoever bakes may choose.

use std::sync::Arc;

use crate::cancel::Cancel;
use crate::limits::Limits;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::squashfs::Compression;

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
