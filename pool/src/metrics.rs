//! What a pool has done.

use std::time::Duration;

/// What a pool has done since it was made: numbers that only grow, for who reads them
/// now and then and looks at the difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolMetrics {
    /// Acquires that got a worker.
    pub granted: u64,
    /// For how long these waited, in all.
    pub waited: Duration,
    /// The longest of them.
    pub longest_wait: Duration,
    /// Acquires that got none: not in time, or because none could be started, or the
    /// pool was shut down.
    pub refused: u64,
    /// Workers that came back and were to be reset.
    pub reset: u64,
    /// Workers ever started.
    pub spawned: u64,
    /// Workers that failed, or were too late, in starting or being reset.
    pub failed: u64,
}

impl PoolMetrics {
    pub(crate) fn grant(&mut self, waited: Duration) {
        self.granted = self.granted.saturating_add(1);
        self.waited = self.waited.saturating_add(waited);
        self.longest_wait = self.longest_wait.max(waited);
    }

    /// A worker turned out dead when it was handed over: nobody got it. Who waits goes
    /// on, so that the longest wait is no shorter in the end.
    pub(crate) fn take_back(&mut self, waited: Duration) {
        self.granted = self.granted.saturating_sub(1);
        self.waited = self.waited.saturating_sub(waited);
    }

    pub(crate) fn refuse(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }
}
