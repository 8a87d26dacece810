//! An image, ready to start machines from.

use crate::{Error, Vm, VmConfig};
use oci_bake::{BakeOptions, BakedImage, ImageConfig, Reference, Store, bake};
use std::path::{Path, PathBuf};

/// An OCI image whose layers are in the cache, ready to be mounted by guests.
#[derive(Clone, Debug)]
pub struct Image {
    baked: BakedImage,
}

impl Image {
    /// Loads `oci:DIR[:TAG]`, `oci-archive:FILE` or `docker-archive:FILE`.
    /// Layers not seen before are converted, which needs as much disk as they
    /// have content, in `images` below the user's cache directory.
    ///
    /// # Errors
    /// [`Error::Reference`] if `reference` is malformed or names a registry;
    /// [`Error::Image`] if there is no image, or it is damaged, not for
    /// linux/arm64 or beyond the limits; [`Error::Assets`] if the user has no
    /// cache directory.
    pub fn load(reference: &str) -> Result<Self, Error> {
        Self::load_with_cache(reference, default_cache()?)
    }

    /// As [`Image::load`], with layers cached in the directory `cache`, which
    /// is made if it is not there. Any number of processes may share one.
    ///
    /// # Errors
    /// As [`Image::load`].
    pub fn load_with_cache(reference: &str, cache: impl AsRef<Path>) -> Result<Self, Error> {
        let reference = Reference::parse(reference)?;
        let store = Store::open(cache.as_ref())?;
        let baked = bake(&reference, &BakeOptions::default(), &store)?;
        Ok(Self { baked })
    }

    /// What the image says about running it.
    pub fn config(&self) -> &ImageConfig {
        &self.baked.config
    }

    /// The layers as squashfs files in the cache, bottom first. Layers that a
    /// later one hides entirely are left out.
    pub fn layers(&self) -> &[PathBuf] {
        &self.baked.layers
    }

    /// Digest of the image's config (`sha256:` and hex digits), which
    /// identifies its content.
    pub fn digest(&self) -> String {
        self.baked.config_digest.to_string()
    }

    /// Boots a machine from the image. Returns when it serves commands.
    ///
    /// # Errors
    /// As [`Vm::start`].
    pub fn start(&self, config: &VmConfig) -> Result<Vm, Error> {
        Vm::start(self, config)
    }
}

fn default_cache() -> Result<PathBuf, Error> {
    Ok(kernel::cache_dir()?.join("images"))
}
