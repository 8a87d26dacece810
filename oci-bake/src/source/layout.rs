//! An OCI image layout as a source.

use std::io::Read;

use super::{BlobSource, Files};
use crate::document::{self, Descriptor};
use crate::error::ImageError;
use crate::limits::Limits;
use crate::section::{ReadAt, Section};

/// An OCI image layout, and the images in it that are meant.
#[derive(Debug)]
pub(crate) struct Layout {
    files: Files,
    roots: Vec<Descriptor>,
}

impl Layout {
    /// Reads the index of a layout, and takes what has the tag.
    pub(crate) fn open(
        files: Files,
        tag: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        let not_a_layout = |reason| ImageError::NotALayout {
            path: files.path().to_owned(),
            reason,
        };
        let marker = files
            .document("oci-layout", "oci-layout", limits)?
            .ok_or_else(|| not_a_layout("it has no file oci-layout"))?;
        if !document::layout_version_is_known(&marker) {
            return Err(not_a_layout("its oci-layout file names no 1.x version"));
        }
        let index = files
            .document("index.json", "index.json", limits)?
            .ok_or_else(|| not_a_layout("it has no file index.json"))?;
        let roots = by_tag(document::parse_index(&index, None)?, tag)?;
        Ok(Self { files, roots })
    }

    /// A blob of the right length; its content is not looked at.
    fn blob(&self, blob: &Descriptor) -> Result<Section, ImageError> {
        let Some(section) = self.files.file(&blob.digest.blob_path())? else {
            return Err(ImageError::MissingBlob {
                digest: blob.digest.clone(),
            });
        };
        if section.len() != blob.size {
            return Err(ImageError::SizeMismatch {
                digest: blob.digest.clone(),
                expected: blob.size,
                actual: section.len(),
            });
        }
        Ok(section)
    }
}

impl BlobSource for Layout {
    fn roots(&self) -> Result<Vec<Descriptor>, ImageError> {
        Ok(self.roots.clone())
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, ImageError> {
        Ok(Box::new(self.blob(blob)?.reader()))
    }

    fn check(&self, blob: &Descriptor) -> Result<(), ImageError> {
        self.blob(blob).map(|_| ())
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
