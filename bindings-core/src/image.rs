//! Images and their pools.

use std::path::PathBuf;

use supermachine::async_::{AsyncImage, AsyncPool};
use supermachine::{PoolMetrics, PoolStats};

use crate::blocking::blocking;
use crate::warmup::{Complaint, with_warmup};
use crate::{
    BindingError, BuildOptions, Cancel, Machine, PoolOptions, Result, StartOptions, Warmup,
    installation,
};

/// A baked image. Clones are the same.
#[derive(Clone, Debug)]
pub struct Image {
    image: AsyncImage,
    scope: Cancel,
}

impl Image {
    pub(crate) fn new(image: AsyncImage, scope: Cancel) -> Self {
        Self { image, scope }
    }

    /// Bakes an image, or finds it baked. All that is asked of the image, and of what is
    /// made of it, ends when `scope` is cancelled.
    ///
    /// # Errors
    /// As [`supermachine::OciImageBuilder::build`]; what `warmup` says.
    pub async fn build(
        options: BuildOptions,
        warmup: Option<Warmup>,
        scope: Cancel,
    ) -> Result<Self> {
        let mut builder = options.builder()?;
        let complaint = Complaint::default();
        if let Some(warmup) = warmup {
            builder = with_warmup(builder, warmup, complaint.clone());
        }
        match AsyncImage::build(builder).await {
            Ok(image) => Ok(Self::new(image, scope)),
            Err(error) => Err(match complaint.take() {
                Some(said) => BindingError::warmup(format!("the warm-up failed: {said}")),
                None => error.into(),
            }),
        }
    }

    /// Opens a snapshot, for as long as [`Image::build`] says.
    ///
    /// # Errors
    /// As [`supermachine::Image::from_snapshot`].
    pub async fn from_snapshot(path: PathBuf, scope: Cancel) -> Result<Self> {
        let config = installation::config();
        let open = move || supermachine::Image::from_snapshot_with(path, &config);
        Ok(Self::new(blocking(open).await?.into(), scope))
    }

    /// Makes a pool of its machines.
    ///
    /// # Errors
    /// As [`supermachine::PoolBuilder::build`].
    pub async fn pool(&self, options: PoolOptions) -> Result<Pool> {
        let builder = options.apply(self.image.image().pool())?;
        let pool = blocking(move || builder.build()).await?.into();
        let scope = self.scope.clone();
        Ok(Pool { pool, scope })
    }

    /// Starts a machine of its own.
    ///
    /// # Errors
    /// As [`supermachine::Image::start`].
    pub async fn start(&self, options: StartOptions) -> Result<Machine> {
        let (config, scope) = (options.config()?, self.scope.clone());
        let started = async { Ok(self.image.start(&config).await?) };
        let vm = Cancel::or(Some(scope.clone()), started).await?;
        Ok(Machine::owned(vm, scope))
    }

    /// Where its snapshot is; none of an image that was only loaded.
    #[must_use]
    pub fn snapshot_path(&self) -> Option<PathBuf> {
        self.image.image().snapshot_path().map(Into::into)
    }

    /// Memory of the machine that was captured.
    #[must_use]
    pub fn memory_mib(&self) -> Option<usize> {
        self.image.image().memory_mib()
    }

    /// Its virtual CPUs.
    #[must_use]
    pub fn vcpus(&self) -> Option<u32> {
        self.image.image().vcpus()
    }

    /// What identifies the image it was baked from.
    #[must_use]
    pub fn digest(&self) -> String {
        self.image.image().digest()
    }
}

/// A pool of machines. Clones are the same.
#[derive(Clone, Debug)]
pub struct Pool {
    pool: AsyncPool,
    scope: Cancel,
}

impl Pool {
    /// Leases a machine. Callers are served in the order of their calls, whenever the
    /// futures are polled first.
    ///
    /// # Errors
    /// As [`supermachine::Pool::acquire`].
    pub fn acquire(
        &self,
        cancel: Option<Cancel>,
    ) -> impl Future<Output = Result<Machine>> + Send + use<> {
        let (leased, scope) = (self.pool.acquire(), self.scope.clone());
        let machine = async move {
            let leased = async { Ok(leased.await?) };
            let vm = Cancel::or(Some(scope.clone()), leased).await?;
            Ok(Machine::leased(vm, scope))
        };
        Cancel::or(cancel, machine)
    }

    /// How many machines there are, and what they do.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// What it has done so far.
    #[must_use]
    pub fn metrics(&self) -> PoolMetrics {
        self.pool.metrics()
    }

    /// Ends all its machines.
    pub async fn shutdown(&self) {
        self.pool.shutdown().await;
    }
}
