//! A snapshot that machines are copied from.

use crate::engine::instance::Identity;
use crate::engine::protocol::Restore;
use crate::{Error, VmConfig, stamp};
use oci_bake::ImageConfig;
use serde::{Deserialize, Serialize};
use snapshot::{Resource, Snapshot, Store};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File of a generation that says what runs in the machine.
pub const IMAGE_FILE: &str = "image.json";
/// Kind of the resources that are read-only layers.
const LAYER: &str = "layer";
/// Longest [`IMAGE_FILE`] in bytes.
const MAX_IMAGE_FILE_BYTES: u64 = 1 << 20;

/// What a snapshot says about its image, beside the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    /// What the image was called when it was baked.
    pub reference: String,
    /// Digest of the image's config.
    pub digest: String,
    /// What the image says about running it.
    pub config: ImageConfig,
    /// vCPUs a copy can have.
    pub possible_vcpus: u32,
    /// What copies run by themselves.
    pub workload: Workload,
}

/// What a machine runs by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Workload {
    /// Nothing: it waits for commands.
    #[default]
    None,
    /// This, started by each copy.
    OnRestore(Vec<String>, Vec<String>),
    /// It was running when the snapshot was made.
    Running,
}

/// A generation, locked against removal, with everything a copy needs.
#[derive(Debug)]
pub struct Template {
    snapshot: Snapshot,
    image: ImageFile,
    config: Arc<ImageConfig>,
    layers: Vec<PathBuf>,
}

impl Template {
    /// Opens the snapshot of an image, or one generation of it.
    pub fn open(path: &Path, config: &VmConfig, layer_dir: &Path) -> Result<Self, Error> {
        let here = stamp::here(config.engine, &config.assets()?)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let snapshot = match (path.join("manifest.json").exists(), path.parent(), name) {
            (false, Some(root), Some(name)) => Store::new(root)?.open(name, &here),
            _ => Store::inspect_path(path).and_then(|found| found.admit(&here)),
        };
        let snapshot = snapshot.map_err(|error| {
            if error.wants_rebake() {
                Error::Rebake {
                    reason: error.to_string(),
                }
            } else {
                error.into()
            }
        })?;
        Self::new(snapshot, layer_dir)
    }

    pub fn new(snapshot: Snapshot, layer_dir: &Path) -> Result<Self, Error> {
        let damaged = |source| Error::Host {
            what: "cannot read the image's description",
            path: snapshot.path().join(IMAGE_FILE),
            source,
        };
        let mut text = Vec::new();
        snapshot
            .extra_file(IMAGE_FILE)?
            .take(MAX_IMAGE_FILE_BYTES)
            .read_to_end(&mut text)
            .map_err(damaged)?;
        let image: ImageFile =
            serde_json::from_slice(&text).map_err(|error| damaged(error.into()))?;
        // Names, not paths: where layers are is for this host to say.
        let resources = &snapshot.manifest().machine.resources;
        let mut layers = Vec::with_capacity(resources.len());
        for resource in resources.iter().filter(|resource| resource.kind == LAYER) {
            let plain = !resource.name.starts_with('.') && !resource.name.contains('/');
            let path = layer_dir.join(&resource.name);
            if !plain || !path.is_file() {
                return Err(Error::Rebake {
                    reason: format!("layer {} is not in the cache", resource.name),
                });
            }
            layers.push(path);
        }
        let config = Arc::new(image.config.clone());
        Ok(Self {
            snapshot,
            image,
            config,
            layers,
        })
    }

    /// Directory of the generation.
    pub fn path(&self) -> &Path {
        self.snapshot.path()
    }

    pub fn image(&self) -> &ImageFile {
        &self.image
    }

    pub fn config(&self) -> &Arc<ImageConfig> {
        &self.config
    }

    pub fn layers(&self) -> &[PathBuf] {
        &self.layers
    }

    pub fn memory_mib(&self) -> usize {
        usize::try_from(self.snapshot.manifest().memory_bytes() >> 20).unwrap_or(usize::MAX)
    }

    pub fn vcpus(&self) -> u32 {
        self.snapshot.manifest().machine.vcpus.into()
    }

    /// Whether a copy can have the memory that a configuration asks for.
    pub fn check_memory(&self, config: &VmConfig) -> Result<(), Error> {
        let Some(memory_mib) = config.memory_mib else {
            return Ok(());
        };
        let mib = |bytes: u64| usize::try_from(bytes >> 20).unwrap_or(usize::MAX);
        let range = vmm_core::machine::memory_range(self.snapshot.manifest().memory_bytes());
        let (min_mib, max_mib) = (mib(*range.start()), mib(*range.end()));
        if (min_mib..=max_mib).contains(&memory_mib) {
            return Ok(());
        }
        Err(Error::MemoryOutOfRange {
            memory_mib,
            min_mib,
            max_mib,
        })
    }

    /// What the worker is told to make a copy of a configuration.
    pub fn restore(&self, config: &VmConfig) -> Restore {
        Restore {
            snapshot: self.path().to_path_buf(),
            stamp: self.snapshot.manifest().machine.stamp.clone(),
            layers: self.layers.clone(),
            vcpus: config.vcpus.unwrap_or(0),
            memory_mib: config.memory_mib.unwrap_or(0),
        }
    }

    /// What a copy of a configuration is to be called and have.
    pub fn identity(&self, config: &VmConfig) -> Result<Identity, Error> {
        let vcpus = config.vcpus.unwrap_or(self.vcpus());
        Ok(Identity {
            hostname: config.hostname.clone(),
            machine_id: config.machine_id.resolve()?,
            vcpus: if vcpus == self.vcpus() { 0 } else { vcpus },
            memory_mib: config.memory_mib.filter(|mib| *mib != self.memory_mib()),
        })
    }
}

/// Layers as resources of a snapshot, by the names they have in the cache.
pub fn layer_resources(layers: &[PathBuf]) -> Vec<Resource> {
    let names = layers.iter().filter_map(|path| path.file_name());
    names
        .map(|name| Resource {
            kind: LAYER.to_owned(),
            name: name.to_string_lossy().into_owned(),
        })
        .collect()
}
