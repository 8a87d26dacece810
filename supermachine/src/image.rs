//! An image, ready to start machines from.

use crate::assets::home;
use crate::limits::UNNAMED_POOL_IDLE_TIMEOUT;
use crate::pool::{DEFAULT_POOL_MAX, Pool, PoolBuilder, PooledVm};
use crate::pull::Fetch;
use crate::template::{Chain, Template};
use crate::{Error, OciImageBuilder, Vm, VmConfig};
use oci_bake::{BakeOptions, ExtraFile, ImageConfig, Lease, Reference, Store};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::debug;

/// An image to start machines from: the layers of an OCI image, which boot, or
/// a snapshot made of one, which is copied.
#[derive(Clone, Debug)]
pub struct Image {
    config: Arc<ImageConfig>,
    layers: Vec<PathBuf>,
    digest: String,
    reference: String,
    chain: Arc<Chain>,
    /// Keeps its layers in the cache.
    lease: Lease,
    template: Option<Arc<Template>>,
    /// The machine that was baked, for the first who wants one.
    baked: Arc<Mutex<Option<Vm>>>,
    /// The pools behind [`Image::acquire_with`].
    pools: Arc<Mutex<Vec<(VmConfig, Pool)>>>,
}

impl Image {
    /// Loads an image: `nginx`, `ghcr.io/owner/image:tag`, `host:5000/image@sha256:…` or
    /// any other name in a registry as users of Docker write it; `oci:DIR[:TAG]`,
    /// `oci-archive:FILE` or `docker-archive:FILE`; `docker:NAME` for what Docker or podman
    /// has on this machine.
    ///
    /// What is not here of an image in a registry is pulled, with the credentials of
    /// `docker login`, `podman login` or `supermachine login`. Layers not seen before are
    /// converted, which needs as much disk as they have content, in `images` below the
    /// user's cache directory.
    ///
    /// # Errors
    /// [`Error::Reference`] if `reference` is malformed; [`Error::Registry`] if a
    /// registry does not give the image; [`Error::Image`] if there is no image, or it is
    /// damaged, not for linux/arm64 or beyond the limits; [`Error::Assets`] if the user has no
    /// cache directory.
    pub fn load(reference: &str) -> Result<Self, Error> {
        Self::load_with_cache(reference, default_cache()?)
    }

    /// Loads an image as [`Image::load`] does, with layers cached in the directory
    /// `cache`, which is made if it is not there. Any number of processes may share
    /// one.
    ///
    /// # Errors
    /// As [`Image::load`].
    pub fn load_with_cache(reference: &str, cache: impl AsRef<Path>) -> Result<Self, Error> {
        let fetch = Fetch::default();
        Self::load_with(reference, cache.as_ref(), &fetch, &BakeOptions::default())
    }

    pub(crate) fn load_with(
        reference: &str,
        cache: &Path,
        fetch: &Fetch,
        options: &BakeOptions,
    ) -> Result<Self, Error> {
        let text = reference;
        let reference = Reference::parse(text)?;
        let store = Store::open(cache)?;
        let baked = fetch.bake(&reference, options, &store)?;
        debug!(
            reference = text,
            digest = %baked.config_digest,
            layers = baked.layers.len(),
            "image loaded"
        );
        Ok(Self {
            config: Arc::new(baked.config),
            layers: baked.layers,
            digest: baked.config_digest.to_string(),
            reference: text.to_owned(),
            chain: Arc::new(Chain {
                manifest: baked.manifest_digest.map(|digest| digest.to_string()),
                layers: baked.diff_ids.iter().map(ToString::to_string).collect(),
            }),
            lease: baked.lease,
            template: None,
            baked: Arc::default(),
            pools: Arc::default(),
        })
    }

    /// Prepares to bake a snapshot of the image `reference` names; see
    /// [`OciImageBuilder`].
    pub fn builder(reference: impl Into<String>) -> OciImageBuilder {
        OciImageBuilder::new(reference.into())
    }

    /// Begins a bake as [`Image::builder`] does, whose reference is set later.
    pub fn build() -> OciImageBuilder {
        OciImageBuilder::new(String::new())
    }

    /// Opens a snapshot: the directory of a baked image or of one generation
    /// of it. Its machines are copied from what is there now, also if it is
    /// baked again.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`] if there is none; [`Error::Rebake`] if it does not
    /// fit this host, kernel or version, or is damaged; [`Error::Snapshot`] if it
    /// cannot be read.
    pub fn from_snapshot(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_snapshot_with(path, &VmConfig::new())
    }

    /// Opens a snapshot as [`Image::from_snapshot`] does, for the engine and the assets
    /// of `config`.
    ///
    /// # Errors
    /// As [`Image::from_snapshot`].
    pub fn from_snapshot_with(path: impl AsRef<Path>, config: &VmConfig) -> Result<Self, Error> {
        let template = Template::open(path.as_ref(), config)?;
        Ok(Self::from_template(Arc::new(template), None))
    }

    pub(crate) fn from_template(template: Arc<Template>, baked: Option<Vm>) -> Self {
        Self {
            config: template.config().clone(),
            layers: template.layers().to_vec(),
            digest: template.image().digest.clone(),
            reference: template.image().reference.clone(),
            chain: Arc::new(template.image().chain.clone()),
            // The layers are in the snapshot.
            lease: Lease::default(),
            template: Some(template),
            baked: Arc::new(Mutex::new(baked)),
            pools: Arc::default(),
        }
    }

    /// The same with another config, which nothing was baked of yet.
    pub(crate) fn with_config(&self, config: ImageConfig) -> Self {
        Self {
            config: Arc::new(config),
            ..self.detached()
        }
    }

    /// The same with files of the host, in a layer of their own on top.
    pub(crate) fn with_files(&self, files: &[ExtraFile], cache: &Path) -> Result<Self, Error> {
        let store = Store::open(cache)?;
        let added = oci_bake::add_files(&self.layers, files, &BakeOptions::default(), &store)?;
        debug!(files = files.len(), digest = %added.diff_id, "extra files added");
        let mut image = self.detached();
        image.layers.push(added.layer);
        Arc::make_mut(&mut image.chain)
            .layers
            .push(added.diff_id.to_string());
        image.lease = image.lease.and(added.lease);
        Ok(image)
    }

    /// Nothing to run in a machine.
    pub(crate) fn bare() -> Self {
        Self {
            config: Arc::default(),
            layers: Vec::new(),
            digest: String::new(),
            reference: String::new(),
            chain: Arc::default(),
            lease: Lease::default(),
            template: None,
            baked: Arc::default(),
            pools: Arc::default(),
        }
    }

    pub(crate) fn template(&self) -> Option<&Arc<Template>> {
        self.template.as_ref()
    }

    /// The same image without the machines it keeps: for those machines, which
    /// would keep themselves alive otherwise.
    pub(crate) fn detached(&self) -> Self {
        Self {
            baked: Arc::default(),
            pools: Arc::default(),
            ..self.clone()
        }
    }

    /// The machine that was baked, once, if it is what `config` asks for: a
    /// copy that is made with `config` would differ in nothing. It goes back to the
    /// snapshot here, and not where it was baked: not all who bake want a machine.
    pub(crate) fn take_baked(&self, config: &VmConfig) -> Option<Vm> {
        let template = self.template.as_ref()?;
        // It was baked without them: they are given to copies.
        if !config.volumes.is_empty() {
            return None;
        }
        let mut baked = self.baked.lock().unwrap_or_else(PoisonError::into_inner);
        let has = baked.as_ref()?.config();
        let of_copy = |config: &VmConfig| VmConfig {
            memory_mib: config.memory_mib.or(Some(template.memory_mib())),
            vcpus: config.vcpus.or(Some(template.vcpus())),
            // A copy without one has that of the snapshot.
            hostname: config.hostname.clone().or_else(|| has.hostname.clone()),
            // Not of one machine, and of none that is not booted.
            pool_warm: 0,
            boot_timeout: Duration::ZERO,
            starts_idle: false,
            volume_slots: 0,
            ..config.clone()
        };
        if of_copy(config) != of_copy(has) {
            return None;
        }
        let vm = baked.take()?;
        drop(baked);
        vm.reset(template).is_ok().then_some(vm)
    }

    /// What the image says about running it.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// The layers as squashfs files in the cache, bottom first. Layers that a
    /// later one hides entirely are left out.
    pub fn layers(&self) -> &[PathBuf] {
        &self.layers
    }

    /// Digest of the image's config (`sha256:` and hex digits), which
    /// identifies its content.
    pub fn digest(&self) -> String {
        self.digest.clone()
    }

    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Digest of the manifest that the image's name led to, if there was one: images from
    /// archives of `docker save` have none.
    pub fn manifest_digest(&self) -> Option<&str> {
        self.chain.manifest.as_deref()
    }

    /// Digests of the layers' contents (DiffIDs), bottom first, and at the end that of
    /// extra files, if there are any.
    pub fn diff_ids(&self) -> &[String] {
        &self.chain.layers
    }

    /// What the image was called when it was loaded or baked.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Directory of the snapshot's generation, if there is a snapshot.
    pub fn snapshot_path(&self) -> Option<&Path> {
        self.template.as_ref().map(|template| template.path())
    }

    /// Memory of the snapshot's machine in MiB, if there is a snapshot.
    pub fn memory_mib(&self) -> Option<usize> {
        self.template.as_ref().map(|template| template.memory_mib())
    }

    /// vCPUs of the snapshot's machine, if there is a snapshot.
    pub fn vcpus(&self) -> Option<u32> {
        self.template.as_ref().map(|template| template.vcpus())
    }

    /// Starts a machine of the image. Returns when it serves commands. After a
    /// bake, the first one is the machine that was baked, which runs already.
    ///
    /// # Errors
    /// As [`Vm::start`].
    pub fn start(&self, config: &VmConfig) -> Result<Vm, Error> {
        match self.take_baked(config) {
            Some(vm) => Ok(vm),
            None => Vm::start(self, config),
        }
    }
}

impl Image {
    /// A pool of machines of this image, to be configured.
    pub fn pool(&self) -> PoolBuilder {
        PoolBuilder::new(self.clone())
    }

    /// A machine of this image, from a pool of its own that starts them as
    /// needed and keeps them for a minute; it goes back there when dropped.
    ///
    /// # Errors
    /// [`Error::Pool`] if there is none in time, [`Error::Unsuitable`] if the
    /// image has no snapshot.
    pub fn acquire(&self) -> Result<PooledVm, Error> {
        self.acquire_with(&VmConfig::new())
    }

    /// Leases a machine as [`Image::acquire`] does, with a configuration.
    /// Configurations that differ in more than [`VmConfig::with_pool_warm`] have pools
    /// of their own; `pool_warm` says how many machines that pool keeps ready from then
    /// on, for all who acquire from it: the most that was ever asked for.
    ///
    /// # Errors
    /// As [`Image::acquire`].
    pub fn acquire_with(&self, config: &VmConfig) -> Result<PooledVm, Error> {
        self.pool_for(config)?.acquire()
    }

    /// A pool of exactly so many machines, which are kept for ever.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    #[deprecated(note = "build a pool that grows and shrinks with Image::pool")]
    pub fn warm_pool(&self, machines: usize) -> Result<Pool, Error> {
        self.pool().min(machines).max(machines).build()
    }

    /// The pool behind [`Image::acquire_with`].
    pub(crate) fn pool_for(&self, config: &VmConfig) -> Result<Pool, Error> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let warm = config.pool_warm;
        let max = warm.max(DEFAULT_POOL_MAX);
        let config = config.clone().with_pool_warm(0);
        if let Some((_, pool)) = pools.iter().find(|(known, _)| *known == config) {
            pool.grow(warm, max);
            return Ok(pool.clone());
        }
        let pool = self.pool().vm_config(config.clone()).min(warm).max(max);
        let pool = pool.idle_timeout(UNNAMED_POOL_IDLE_TIMEOUT).build()?;
        pools.push((config, pool.clone()));
        Ok(pool)
    }
}

pub(crate) fn default_cache() -> Result<PathBuf, Error> {
    match home()? {
        Some(home) => Ok(home.join("images")),
        None => Ok(kernel::cached("images")?),
    }
}
