//! Where images come from.

mod files;
mod layout;

pub(crate) use files::Files;
pub(crate) use layout::Layout;

use std::fmt;
use std::io::{self, Read};

use crate::document::Descriptor;
use crate::error::ImageError;

/// Somewhere an image comes from: a layout in a directory, an archive, a
/// registry. It gives bytes; whether they are the right ones, and what they
/// mean, is found out by whoever asked.
///
/// Several threads ask at the same time: layers are read beside each other.
///
/// Errors that this crate has no name for go into [`ImageError::Source`].
pub trait BlobSource: fmt::Debug + Sync {
    /// The manifests and indexes that were asked for: one, or one for each of
    /// several platforms.
    ///
    /// # Errors
    /// When there is none, or it cannot be told which is meant.
    fn roots(&self) -> Result<Vec<Descriptor>, ImageError>;

    /// The content of a blob, from its first byte. It may end early or go on
    /// for ever: no more than [`Descriptor::size`] is believed.
    ///
    /// # Errors
    /// [`ImageError::MissingBlob`] when there is none.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, ImageError>;

    /// Whether getting a blob takes so long that what came of it is kept: a bake that ends
    /// too early then goes on there the next time, by [`Self::open_at`].
    fn is_slow(&self) -> bool {
        false
    }

    /// The content of a blob from byte `offset` on. As it comes, all of it is read and
    /// what is before is passed over.
    ///
    /// # Errors
    /// As [`Self::open`].
    fn open_at(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + '_>, ImageError> {
        let mut content = self.open(blob)?;
        let skipped = io::copy(&mut content.by_ref().take(offset), &mut io::sink());
        skipped.map_err(|source| ImageError::Blob {
            digest: blob.digest.clone(),
            source,
        })?;
        Ok(content)
    }

    /// Ends what other threads are reading, which nobody needs any more: the bake has
    /// failed.
    fn abandon(&self) {}

    /// Refuses a blob that [`Self::open`] would refuse, if that can be told
    /// without getting it.
    ///
    /// # Errors
    /// As [`Self::open`].
    fn check(&self, blob: &Descriptor) -> Result<(), ImageError> {
        let _ = blob;
        Ok(())
    }
}
