//! A worker, as those see it who wait for its guest.

use super::handle::Worker;
use crate::Error;
use crate::deadline::Deadline;
use crate::exec::Liveness;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

/// How long to wait before looking again whether a worker is free.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

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

/// A worker for those who may outlive the machine's owner.
#[derive(Debug)]
pub struct WeakWorker {
    worker: Weak<Mutex<Worker>>,
    pauses: Arc<Pauses>,
}

impl WeakWorker {
    /// `pauses` are those of `worker`.
    pub fn new(worker: &Arc<Mutex<Worker>>, pauses: &Arc<Pauses>) -> Self {
        Self {
            worker: Arc::downgrade(worker),
            pauses: pauses.clone(),
        }
    }
}

impl Liveness for WeakWorker {
    fn paused(&self) -> Duration {
        self.pauses.total()
    }

    /// `None` also if the owner is gone.
    fn end_within(&self, patience: Duration) -> Option<Error> {
        end_within(&*self.worker.upgrade()?, patience)
    }

    /// A worker that carries out an order is watched by whoever gave that, and one
    /// that is gone breaks its connections.
    fn probe(&self, patience: Duration) -> Result<(), Error> {
        let Some(worker) = self.worker.upgrade() else {
            return Ok(());
        };
        let mut worker = match worker.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(worker) => worker,
        };
        worker.inspect(Deadline::within(patience)).map(drop)
    }
}

/// As [`Worker::end_within`]; `None` also if the worker carries out an order for
/// all of that time: whoever gave it learns of an end.
pub fn end_within(worker: &Mutex<Worker>, patience: Duration) -> Option<Error> {
    let deadline = Deadline::within(patience);
    let mut worker = loop {
        match worker.try_lock() {
            Ok(worker) => break worker,
            Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if deadline.has_passed() => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    };
    worker.end_within(deadline.left_of(patience))
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
