//! Images and their pools.

use std::path::PathBuf;

use supermachine::async_::{AsyncImage, AsyncPool};
use supermachine::{PoolMetrics, PoolStats};

use crate::warmup::{Complaint, with_warmup};
use crate::{
    BindingError, BuildOptions, Cancel, Machine, PoolOptions, Result, StartOptions, Warmup,
    installation,
};

/// A baked image. Clones are the same.
#[derive(Clone, Debug)]
pub struct Image(AsyncImage);

impl Image {
    pub(crate) fn new(image: AsyncImage) -> Self {
        Self(image)
    }

    /// Bakes an image, or finds it baked.
    ///
    /// # Errors
    /// As [`supermachine::OciImageBuilder::build`]; what `warmup` says.
    pub async fn build(options: BuildOptions, warmup: Option<Warmup>) -> Result<Self> {
        let mut builder = options.builder()?;
        let complaint = Complaint::default();
        if let Some(warmup) = warmup {
            builder = with_warmup(builder, warmup, complaint.clone());
        }
        match AsyncImage::build(builder).await {
            Ok(image) => Ok(Self(image)),
            Err(error) => Err(match complaint.take() {
                Some(said) => BindingError::warmup(format!("the warm-up failed: {said}")),
                None => error.into(),
            }),
        }
    }

    /// Opens a snapshot.
    ///
    /// # Errors
    /// As [`supermachine::Image::from_snapshot`].
    pub async fn from_snapshot(path: PathBuf) -> Result<Self> {
        let config = installation::config();
        let open = move || supermachine::Image::from_snapshot_with(path, &config);
        Ok(Self(blocking(open).await?.into()))
    }

    /// Makes a pool of its machines.
    ///
    /// # Errors
    /// As [`supermachine::PoolBuilder::build`].
    pub async fn pool(&self, options: PoolOptions) -> Result<Pool> {
        let builder = options.apply(self.0.image().pool())?;
        Ok(Pool(blocking(move || builder.build()).await?.into()))
    }

    /// Starts a machine of its own.
    ///
    /// # Errors
    /// As [`supermachine::Image::start`].
    pub async fn start(&self, options: StartOptions) -> Result<Machine> {
        Ok(Machine::owned(self.0.start(&options.config()?).await?))
    }

    /// Where its snapshot is; none of an image that was only loaded.
    #[must_use]
    pub fn snapshot_path(&self) -> Option<PathBuf> {
        self.0.image().snapshot_path().map(Into::into)
    }

    /// Memory of the machine that was captured.
    #[must_use]
    pub fn memory_mib(&self) -> Option<usize> {
        self.0.image().memory_mib()
    }

    /// Its virtual CPUs.
    #[must_use]
    pub fn vcpus(&self) -> Option<u32> {
        self.0.image().vcpus()
    }

    /// What identifies the image it was baked from.
    #[must_use]
    pub fn digest(&self) -> String {
        self.0.image().digest()
    }
}

/// A pool of machines. Clones are the same.
#[derive(Clone, Debug)]
pub struct Pool(AsyncPool);

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
        let leased = self.0.acquire();
        Cancel::or(cancel, async move { Ok(Machine::leased(leased.await?)) })
    }

    /// How many machines there are, and what they do.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.0.stats()
    }

    /// What it has done so far.
    #[must_use]
    pub fn metrics(&self) -> PoolMetrics {
        self.0.metrics()
    }

    /// Ends all its machines.
    pub async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}

/// Does what blocks on a thread of tokio for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, supermachine::Error> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        // The runtime is shutting down.
        Err(_) => Err(BindingError::aborted()),
    }
}
