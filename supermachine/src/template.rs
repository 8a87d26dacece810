//! A snapshot that machines are copied from.

use crate::embedder::personalise::Personality;
use crate::link::passing::in_parts;
use crate::link::protocol::{GuestFiles, Restore};
use crate::mount::{self, MountPoint};
use crate::volume::kept::{self, KeptVolume};
use crate::{Error, TmpfsSpec, VmConfig, stamp, volume};
use net::policy::Policy;
use oci_bake::ImageConfig;
use serde::{Deserialize, Serialize};
use snapshot::{Draft, FileEntry, Resource, Snapshot, SnapshotError, Stamp, Store, SystemFiles};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File of a generation that says what runs in the machine.
pub const IMAGE_FILE: &str = "image.json";
/// What the engine noted of the code that the first steps of copies execute.
pub const CODE_NOTES_FILE: &str = "code.bin";
/// Longest [`CODE_NOTES_FILE`] in bytes.
pub const MAX_CODE_NOTES_BYTES: u64 = 128 << 10;
/// Kind of the resources that are read-only layers.
const LAYER: &str = "layer";
/// Longest [`IMAGE_FILE`] in bytes.
pub const MAX_IMAGE_FILE_BYTES: u64 = 1 << 20;

/// What a snapshot says about its image, beside the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    /// What the image was called when it was baked.
    pub reference: String,
    /// Digest of the image's config.
    pub digest: String,
    /// What else it is made of.
    #[serde(default)]
    pub chain: Chain,
    /// What the image says about running it.
    pub config: ImageConfig,
    /// vCPUs a copy can have.
    pub possible_vcpus: u32,
    /// What each copy runs without being asked.
    pub workload: Workload,
    /// Directories of the host that each copy needs, in the machine's order.
    pub mounts: Vec<MountPoint>,
    /// A copy has a network interface.
    #[serde(default)]
    pub network: bool,
    /// Disks for volumes.
    #[serde(default)]
    pub volumes: usize,
    /// What is mounted of the first of these, with content that is in the snapshot. The
    /// others are without content, and a copy may have volumes there.
    #[serde(default)]
    pub kept_volumes: Vec<KeptVolume>,
    /// Memory that the guest has mounted.
    #[serde(default)]
    pub tmpfs: Vec<TmpfsSpec>,
}

/// What an image is made of, from what its name led to down to its layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Digest of the manifest, if there is one.
    pub manifest: Option<String>,
    /// DiffIDs of the layers, bottom first, and that of the extra files.
    pub layers: Vec<String>,
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
    /// What guests boot from where it was found to fit.
    guest: GuestFiles,
    /// The store it was baked into and its name there, if whoever bakes it
    /// again gets another in its place.
    cached: Option<(Store, String)>,
    image: ImageFile,
    config: Arc<ImageConfig>,
    layers: Vec<PathBuf>,
}

impl Template {
    /// Opens the snapshot of an image, or one generation of it.
    pub fn open(path: &Path, config: &VmConfig) -> Result<Self, Error> {
        let here = stamp::here(config)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let snapshot = match (path.join("manifest.json").exists(), path.parent(), name) {
            (false, Some(root), Some(name)) => {
                // A path of one word is in the current directory.
                let is_here = root.as_os_str().is_empty();
                let root = if is_here { Path::new(".") } else { root };
                match Store::existing(root) {
                    Err(SnapshotError::Io { source, .. })
                        if source.kind() == ErrorKind::NotFound =>
                    {
                        return Err(missing(path));
                    }
                    store => store?.open(name, &here),
                }
            }
            _ => Store::inspect_path(path).and_then(|found| found.admit(&here)),
        };
        match snapshot {
            Err(SnapshotError::NotFound { .. }) => Err(missing(path)),
            found => Self::new(found.map_err(unusable)?, &here),
        }
    }

    /// A snapshot that was found to fit `here`.
    pub fn new(snapshot: Snapshot, here: &Stamp) -> Result<Self, Error> {
        // Checked as a whole before any of it is believed: it says which user
        // runs what.
        let text = snapshot.read_extra_file(IMAGE_FILE, MAX_IMAGE_FILE_BYTES);
        let image: ImageFile =
            serde_json::from_slice(&text.map_err(unusable)?).map_err(|error| Error::Rebake {
                reason: format!("{IMAGE_FILE} does not describe an image: {error}"),
            })?;
        let manifest = snapshot.manifest();
        let damaged = |reason| Error::Rebake {
            reason: format!("{IMAGE_FILE} tells of volumes that no machine has: {reason}"),
        };
        kept::check(&image.kept_volumes, image.volumes).map_err(damaged)?;
        for number in 0..image.kept_volumes.len() {
            let name = kept::file_name(number);
            if !manifest.files.contains_key(&name) {
                return Err(damaged(format!("{name} is not in the snapshot")));
            }
        }
        // The manifest names them in the order they are mounted in. Files it
        // lists were looked at when it was opened.
        let resources = manifest.machine.resources.iter();
        let mut layers = Vec::new();
        for resource in resources.filter(|resource| resource.kind == LAYER) {
            if !manifest.files.contains_key(&resource.name) {
                return Err(Error::Rebake {
                    reason: format!("layer {} is not in the snapshot", resource.name),
                });
            }
            layers.push(snapshot.path().join(&resource.name));
        }
        let config = Arc::new(image.config.clone());
        Ok(Self {
            snapshot,
            guest: GuestFiles::of(here),
            cached: None,
            image,
            config,
            layers,
        })
    }

    /// The same as `image` of a store, where it is baked anew if it turns out to
    /// be damaged.
    pub fn cached_in(self, store: Store, image: String) -> Self {
        Self {
            cached: Some((store, image)),
            ..self
        }
    }

    /// The store it was baked into, and its name there.
    pub fn cached(&self) -> Option<&(Store, String)> {
        self.cached.as_ref()
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

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Its layers for a further snapshot, with the checksums they have here.
    pub fn layer_files(&self) -> LayerFiles {
        let files = &self.snapshot.manifest().files;
        let layers = layer_resources(&self.layers).into_iter().zip(&self.layers);
        layers
            .filter_map(|(layer, path)| {
                let entry = files.get(&layer.name)?;
                Some((layer.name, (path.clone(), *entry)))
            })
            .collect()
    }

    /// Makes what its `number`th volume began with that of a further snapshot, in place of
    /// the empty file there: nobody writes to it.
    pub fn link_volume(&self, draft: &mut Draft, number: usize) -> Result<(), Error> {
        let name = kept::file_name(number);
        let empty = draft.path().join(&name);
        std::fs::remove_file(&empty).map_err(Error::host("cannot remove", &empty))?;
        let files = &self.snapshot.manifest().files;
        let entry = files.get(&name).ok_or(SnapshotError::Malformed {
            what: "list of files without a volume's",
        })?;
        Ok(draft.link(&name, &self.path().join(&name), *entry)?)
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
        let range = vmm_core::machine::memory_range(
            vmm_core::hypervisor::Architecture::Aarch64,
            self.snapshot.manifest().memory_bytes(),
        );
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

    /// What the worker is told to make a copy of a configuration, and what it is
    /// given: the files that were checked here, and not what their paths lead to
    /// by then. `id` is the machine's. Its read-only disks are the snapshot's layers, and
    /// then `more`, where the snapshot's machine had disks without content.
    pub fn restore(
        &self,
        config: &VmConfig,
        id: &str,
        more: Vec<(String, File)>,
    ) -> Result<(Restore, Vec<File>), Error> {
        let wanted = mount::for_copy(&config.mounts, &self.image.mounts)?;
        let (mut names, mut files) = in_parts(self.snapshot.open_files().map_err(unusable)?);
        let mut layers: Vec<String> = layer_resources(&self.layers)
            .into_iter()
            .map(|layer| layer.name)
            .collect();
        for (name, file) in more {
            files.push(file);
            names.push(name.clone());
            layers.push(name);
        }
        let (mounts, directories) = mount::open(&wanted)?;
        files.extend(directories);
        let places = config.volume_places();
        let kept = &self.image.kept_volumes;
        kept::check_for_copy(kept, &config.volumes)?;
        let slots = self.image.volumes.saturating_sub(kept.len());
        let mut disks = kept::open_for_copy(kept, places.dir)?;
        disks.extend(volume::open_for_copy(&config.volumes, places, slots, id)?);
        let (volumes, disks): (Vec<_>, Vec<_>) = disks.into_iter().unzip();
        files.extend(disks);
        let restore = Restore {
            snapshot: self.path().to_string_lossy().into_owned(),
            files: names,
            mounts,
            volumes,
            bases: (0..kept.len()).map(kept::file_name).collect(),
            guest: self.guest.clone(),
            layers,
            vcpus: config.vcpus.unwrap_or(0),
            memory_mib: config.memory_mib.unwrap_or(0),
            starts_idle: config.starts_idle,
            network: self.network(config)?,
            secrets: None,
        };
        Ok((restore, files))
    }

    /// What a copy may reach, if it has a network interface: nothing where the
    /// configuration says so, though its snapshot has one.
    fn network(&self, config: &VmConfig) -> Result<Option<Policy>, Error> {
        match (self.image.network, config.network.policy()) {
            (true, policy) => Ok(Some(policy.unwrap_or(Policy::deny_all()))),
            (false, None) => Ok(None),
            (false, Some(_)) if config.network_is_optional => Ok(None),
            (false, Some(_)) => Err(Error::Unsuitable {
                what: "a network in a copy",
                needs: "a snapshot of a machine with one: bake the image with a network",
            }),
        }
    }

    /// What personalises a copy: its name, ids, vCPUs, memory and clock.
    pub fn identity(&self, config: &VmConfig) -> Result<Personality, Error> {
        let vcpus = config.vcpus.unwrap_or(self.vcpus());
        Ok(Personality {
            hostname: config.hostname.clone(),
            machine_id: config.machine_id.resolve()?,
            vcpus: if vcpus == self.vcpus() { 0 } else { vcpus },
            memory_mib: config.memory_mib,
            clock: config.clock.clone(),
        })
    }
}

fn missing(path: &Path) -> Error {
    Error::NoSnapshot {
        path: path.to_owned(),
    }
}

/// The error for a snapshot that was found and cannot be used.
fn unusable(error: SnapshotError) -> Error {
    if error.wants_rebake() {
        return Error::Rebake {
            reason: error.to_string(),
        };
    }
    error.into()
}

/// Layers as resources of a snapshot, by the names of their files.
pub fn layer_resources(layers: &[PathBuf]) -> Vec<Resource> {
    let names = layers.iter().filter_map(|path| path.file_name());
    names
        .map(|name| Resource {
            kind: LAYER.to_owned(),
            name: name.to_string_lossy().into_owned(),
        })
        .collect()
}

/// Layers as files of a snapshot: their names there, where they are, and their
/// checksums.
pub type LayerFiles = BTreeMap<String, (PathBuf, FileEntry)>;

/// Reads all of `layers`, which takes a while.
pub fn read_layers(layers: &[PathBuf]) -> Result<LayerFiles, SnapshotError> {
    let names = layer_resources(layers).into_iter();
    names
        .zip(layers)
        .map(|(layer, path)| {
            let entry = FileEntry::of(&SystemFiles, path)?;
            Ok((layer.name, (path.clone(), entry)))
        })
        .collect()
}

/// Puts layers into a snapshot, which shares them with the cache and with
/// other snapshots as long as all are on one file system.
pub fn link_layers(draft: &mut Draft, layers: &LayerFiles) -> Result<(), SnapshotError> {
    layers
        .iter()
        .try_for_each(|(name, (path, entry))| draft.link(name, path, *entry))
}
