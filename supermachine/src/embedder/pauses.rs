//! How long a machine has stood still.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long a machine stood still because of orders to its worker. A
/// guest's time limits do not run then, so those of its host must not either.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<Stood>);

#[derive(Debug, Default)]
struct Stood {
    before: Duration,
    since: Option<Instant>,
}

/// A pause, until this is dropped.
#[derive(Debug)]
pub struct Paused<'a>(&'a Pauses);

impl Pauses {
    fn stood(&self) -> MutexGuard<'_, Stood> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine stands still from here on. Orders come one by one, so there
    /// is never a second pause in one.
    pub fn begin(&self) -> Paused<'_> {
        self.stood().since = Some(Instant::now());
        Paused(self)
    }

    /// All of them, the present one included.
    pub fn total(&self) -> Duration {
        let stood = self.stood();
        let now = stood.since.map_or(Duration::ZERO, |since| since.elapsed());
        stood.before.saturating_add(now)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let total = self.0.total();
        *self.0.stood() = Stood {
            before: total,
            since: None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_add_up_and_count_while_they_last() {
        let pauses = Pauses::default();
        assert_eq!(pauses.total(), Duration::ZERO);
        let step = Duration::from_millis(10);
        for round in 1..3 {
            let paused = pauses.begin();
            std::thread::sleep(step);
            assert!(pauses.total() >= step * round);
            drop(paused);
            let after = pauses.total();
            assert!(after >= step * round);
            std::thread::sleep(step);
            assert_eq!(pauses.total(), after);
        }
    }
}
