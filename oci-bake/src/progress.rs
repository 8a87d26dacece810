//! What a bake tells of its progress.

use std::fmt;
use std::io::{self, Read};

use crate::digest::Digest;

/// Bytes of a blob between two [`Event::Read`].
const STEP_BYTES: u64 = 1 << 20;

/// Is told how far a bake is: a progress bar, a log.
pub trait Progress: fmt::Debug + Send + Sync {
    /// Called on one of the threads that bake, which goes on when it returns. Layers are
    /// read beside each other, so that what is told of them comes in any order.
    fn report(&self, event: &Event<'_>);
}

/// A step of a bake. Layers count from 0, the bottom one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The image is known.
    Resolved {
        /// How many layers it has.
        layers: usize,
    },
    /// The layer is in the cache already.
    Cached {
        /// Which layer.
        layer: usize,
        /// What it is.
        diff_id: &'a Digest,
    },
    /// So much of a layer's blob was read. A layer may be read although it is
    /// in the cache, because one above it depends on it.
    Read {
        /// Which layer.
        layer: usize,
        /// What it is.
        diff_id: &'a Digest,
        /// Bytes read.
        bytes: u64,
        /// Bytes there are.
        total_bytes: u64,
    },
    /// The layer was converted, and is in the cache now.
    Baked {
        /// Which layer; the topmost of those that were merged.
        layer: usize,
        /// What it is.
        diff_id: &'a Digest,
    },
}

/// Tells how much of a layer's blob was read.
pub(crate) struct Reported<'a, R> {
    inner: R,
    progress: Option<&'a dyn Progress>,
    layer: usize,
    diff_id: &'a Digest,
    bytes: u64,
    total_bytes: u64,
    told: u64,
}

impl<'a, R> Reported<'a, R> {
    pub(crate) fn new(
        inner: R,
        progress: Option<&'a dyn Progress>,
        (layer, diff_id): (usize, &'a Digest),
        total_bytes: u64,
    ) -> Self {
        Self {
            inner,
            progress,
            layer,
            diff_id,
            bytes: 0,
            total_bytes,
            told: 0,
        }
    }
}

impl<R: Read> Read for Reported<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        let is_end = n == 0 && !buf.is_empty() && self.told < self.bytes;
        if self.bytes - self.told >= STEP_BYTES || is_end {
            self.told = self.bytes;
            if let Some(progress) = self.progress {
                progress.report(&Event::Read {
                    layer: self.layer,
                    diff_id: self.diff_id,
                    bytes: self.bytes,
                    total_bytes: self.total_bytes,
                });
            }
        }
        Ok(n)
    }
}
