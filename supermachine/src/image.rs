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
    /// have content.
    pub fn load(reference: &str) -> Result<Self, Error> {
        Self::load_with_cache(reference, default_cache()?)
    }

    /// As [`Image::load`], with layers cached in `cache`.
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

    /// The layers as squashfs files, bottom first.
    pub fn layers(&self) -> &[PathBuf] {
        &self.baked.layers
    }

    /// Digest of the image's config, which identifies its content.
    pub fn digest(&self) -> String {
        self.baked.config_digest.to_string()
    }

    /// Boots a machine from the image. Returns when it serves commands.
    pub fn start(&self, config: &VmConfig) -> Result<Vm, Error> {
        Vm::start(self, config)
    }
}

fn default_cache() -> Result<PathBuf, Error> {
    Ok(kernel::cache_dir()?.join("images"))
}
