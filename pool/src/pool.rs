//! The handles of a pool.

use crate::budget::Budget;
use crate::shared::Shared;
use crate::ticket::{Lease, Ticket};
use crate::worker::Factory;
use crate::{PoolConfig, PoolError, PoolMetrics, PoolStats, Unlimited};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A pool of workers. Clones are the same pool; with the last one it is closed.
pub struct Pool<F: Factory> {
    shared: Arc<Shared<F>>,
    _last: Arc<CloseOnDrop<F>>,
}

impl<F: Factory> Clone for Pool<F> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            _last: Arc::clone(&self._last),
        }
    }
}

impl<F: Factory> fmt::Debug for Pool<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

struct CloseOnDrop<F: Factory>(Arc<Shared<F>>);

impl<F: Factory> Drop for CloseOnDrop<F> {
    fn drop(&mut self) {
        self.0.change(|policy, now| policy.shut_down(None, now));
    }
}

impl<F: Factory> Pool<F> {
    /// A pool without a limit on memory.
    ///
    /// # Errors
    /// When the configuration is not valid.
    pub fn new(config: PoolConfig, factory: F) -> Result<Self, PoolError> {
        Self::with_budget(config, factory, Arc::new(Unlimited))
    }

    /// A pool that asks `budget` before it starts a worker. The first `min`
    /// workers are started at once, all others when someone waits.
    ///
    /// # Errors
    /// When the configuration is not valid.
    pub fn with_budget(
        config: PoolConfig,
        factory: F,
        budget: Arc<dyn Budget>,
    ) -> Result<Self, PoolError> {
        let shared = Shared::start(config, factory, budget)?;
        Ok(Self {
            _last: Arc::new(CloseOnDrop(Arc::clone(&shared))),
            shared,
        })
    }

    /// Gets in line for a worker. The ticket is a future, and can also be
    /// waited for; dropped, it leaves the line.
    pub fn request(&self) -> Ticket<F> {
        Ticket::new(Arc::clone(&self.shared), self.shared.request(None))
    }

    /// Gets in line for a worker as one of a tenant's, of which no more are served at
    /// once than [`PoolConfig::max_per_tenant`].
    pub fn request_for(&self, tenant: &str) -> Ticket<F> {
        let tenant = Some(Arc::from(tenant));
        Ticket::new(Arc::clone(&self.shared), self.shared.request(tenant))
    }

    /// Waits for a worker.
    ///
    /// # Errors
    /// At the acquire timeout, while workers fail to start, and after
    /// [`Pool::shutdown`].
    pub fn acquire(&self) -> Result<Lease<F>, PoolError> {
        self.request().wait()
    }

    /// Numbers of now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared.stats()
    }

    /// What was done so far.
    #[must_use]
    pub fn metrics(&self) -> PoolMetrics {
        self.shared.metrics()
    }

    /// Keeps at least `min` workers from now on, and has room for at least `max`.
    /// Neither becomes less.
    pub fn grow(&self, min: usize, max: usize) {
        self.shared.change(|policy, now| policy.grow(min, max, now));
    }

    /// Looks at all idle workers and replaces those that died: for whoever
    /// hears of the end of processes.
    pub fn check(&self) {
        self.shared.check();
    }

    /// What calls [`Pool::check`] as long as there is a pool, without keeping it.
    #[must_use]
    pub fn checker(&self) -> Checker<F> {
        Checker(Arc::downgrade(&self.shared))
    }

    /// Starts no more workers, refuses all who wait, and waits for leased
    /// workers to come back. After `patience` they are killed where they are.
    pub fn shutdown(&self, patience: Duration) {
        self.shared.shut_down(patience);
    }
}

/// Looks at the idle workers of a pool that others may close.
pub struct Checker<F: Factory>(Weak<Shared<F>>);

impl<F: Factory> fmt::Debug for Checker<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

impl<F: Factory> Checker<F> {
    /// As [`Pool::check`]; whether there still is a pool.
    pub fn check(&self) -> bool {
        let shared = self.0.upgrade();
        shared.map(|shared| shared.check()).is_some()
    }
}
