//! Where images come from.

mod files;
mod layout;

pub(crate) use files::Files;
pub(crate) use layout::Layout;

use std::fmt;
use std::io::Read;

use crate::document::Descriptor;
use crate::error::ImageError;

/// Somewhere an image comes from: a layout in a directory, an archive, a
/// registry. It gives bytes; whether they are the right ones, and what they
/// mean, is found out by whoever asked.
///
/// Errors that this crate has no name for go into [`ImageError::Source`].
pub trait BlobSource: fmt::Debug {
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
