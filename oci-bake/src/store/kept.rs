//! Images whose documents are in the cache.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use super::Store;
use crate::bake::MAX_STACK;
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::limits::Limits;
use crate::platform::Platform;
use crate::resolve::resolve;
use crate::source::BlobSource;

impl Store {
    /// The documents of an image, by the names of their files, if nothing of it is
    /// missing.
    pub(super) fn documents_of(
        &self,
        root: Descriptor,
        present: &BTreeSet<String>,
    ) -> Option<BTreeSet<String>> {
        let kept = Kept {
            store: self,
            root,
            read: Mutex::default(),
        };
        let (platform, limits) = (Platform::default(), Limits::default());
        let is_whole = match resolve(&kept, &platform, &limits) {
            Ok(image) => {
                let last = image.layers.len().saturating_sub(1);
                // Above so many they are one file, which has the name of the topmost.
                let is_alone = |at: usize| last < MAX_STACK || at < MAX_STACK - 1 || at == last;
                let layers = image.layers.iter().enumerate();
                layers
                    .filter(|(at, _)| is_alone(*at))
                    .all(|(_, layer)| present.contains(&layer.diff_id.file_stem()))
            }
            // For another platform its layers may be here.
            Err(ImageError::WrongPlatform { .. }) => true,
            Err(_) => false,
        };
        let read = kept.read.into_inner();
        is_whole.then(|| read.unwrap_or_else(PoisonError::into_inner))
    }
}

/// An image whose documents are all in the cache.
#[derive(Debug)]
struct Kept<'a> {
    store: &'a Store,
    root: Descriptor,
    /// Names of the documents' files.
    read: Mutex<BTreeSet<String>>,
}

impl BlobSource for Kept<'_> {
    fn roots(&self) -> Result<Vec<Descriptor>, ImageError> {
        Ok(vec![self.root.clone()])
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, ImageError> {
        let missing = || ImageError::MissingBlob {
            digest: blob.digest.clone(),
        };
        if blob.size > Limits::default().max_document_bytes {
            return Err(missing());
        }
        let bytes = self.store.document(blob).ok_or_else(missing)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(blob.digest.file_stem());
        Ok(Box::new(io::Cursor::new(bytes)))
    }
}
