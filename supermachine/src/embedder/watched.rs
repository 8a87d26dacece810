//! A worker, as those see it who wait for its guest.

use super::handle::Worker;
use super::pauses::Pauses;
use crate::Error;
use crate::deadline::Deadline;
use crate::exec::Liveness;
use crate::limits::LOCK_PAUSE;
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::time::Duration;

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
