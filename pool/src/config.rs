//! How large a pool may be and how long things may take.

use crate::PoolError;
use std::time::Duration;

/// Size and patience of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Workers kept alive even when nobody wants one.
    pub min: usize,
    /// Most workers alive at any time.
    pub max: usize,
    /// Most workers that one tenant has at a time, of those who name one; nothing is as
    /// many as there are.
    pub max_per_tenant: Option<usize>,
    /// How long a worker above `min` may be idle; nothing keeps it forever.
    pub idle_timeout: Option<Duration>,
    /// How long an acquire waits; nothing is forever. Interfaces that count in
    /// milliseconds write 0 for forever: see
    /// [`PoolConfig::acquire_timeout_millis`].
    pub acquire_timeout: Option<Duration>,
    /// Whether a worker is reset before the next one gets it. Without it the
    /// next one finds what the last one left.
    pub restore_on_release: bool,
    /// How long a worker may take to start.
    pub spawn_timeout: Duration,
    /// How long a started worker may take to become usable.
    pub restore_timeout: Duration,
    /// How long a reset may take.
    pub reset_timeout: Duration,
    /// Failures in a row after which no worker is started for a while.
    pub failures_to_open: u32,
    /// The first such while; it doubles with each further failure.
    pub first_backoff: Duration,
    /// The longest such while.
    pub longest_backoff: Duration,
    /// Memory a worker is expected to need before one was measured, in bytes.
    pub worker_bytes: u64,
    /// How long to wait before asking again for memory that was refused.
    pub budget_retry: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            min: 0,
            max: 8,
            max_per_tenant: None,
            idle_timeout: Some(Duration::from_secs(60)),
            acquire_timeout: Some(Duration::from_secs(30)),
            restore_on_release: true,
            spawn_timeout: Duration::from_secs(10),
            restore_timeout: Duration::from_secs(30),
            reset_timeout: Duration::from_secs(5),
            failures_to_open: 3,
            first_backoff: Duration::from_millis(200),
            longest_backoff: Duration::from_secs(30),
            worker_bytes: 16 << 20,
            budget_retry: Duration::from_millis(100),
        }
    }
}

impl PoolConfig {
    /// Sets the acquire timeout in milliseconds, of which 0 is forever.
    #[must_use]
    pub fn acquire_timeout_millis(mut self, millis: u64) -> Self {
        self.acquire_timeout = (millis > 0).then(|| Duration::from_millis(millis));
        self
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// The first that does not.
    pub fn validate(&self) -> Result<(), PoolError> {
        let rules = [
            (self.max > 0, "max must be at least 1"),
            (
                self.max_per_tenant != Some(0),
                "a tenant must have at least 1",
            ),
            (self.min <= self.max, "min must not be above max"),
            (
                self.idle_timeout != Some(Duration::ZERO),
                "idle timeout must not be zero",
            ),
            (
                self.acquire_timeout != Some(Duration::ZERO),
                "acquire timeout must not be zero",
            ),
            (
                !self.spawn_timeout.is_zero()
                    && !self.restore_timeout.is_zero()
                    && !self.reset_timeout.is_zero(),
                "spawn, restore and reset timeouts must not be zero",
            ),
            (
                self.failures_to_open > 0,
                "at least one failure must be needed for a back-off",
            ),
            (
                !self.first_backoff.is_zero() && self.first_backoff <= self.longest_backoff,
                "back-off must not be zero, nor start above its longest",
            ),
            (
                !self.budget_retry.is_zero(),
                "memory must not be asked for without a pause",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(PoolError::Config(rule)),
            None => Ok(()),
        }
    }
}
