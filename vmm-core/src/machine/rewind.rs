//! Bringing guest memory back to what the snapshot has.

use std::sync::{MutexGuard, PoisonError};

use super::Parts;
use super::error::MachineError;
use crate::memory::{GuestMemory, PageSet};

/// Most pages of 4 KiB that a reset copies. Beyond that, mapping all memory
/// afresh is faster, and gives the host its pages back.
const MAX_PAGES_COPIED: u64 = 4096;

/// What resets have done to memory.
pub(super) struct Rewound {
    /// Pages that hold what the snapshot has, as copies of this process, if
    /// they were not written to since.
    copied: PageSet,
    /// Pages that were written to since the last reset, as far as that was
    /// asked for already.
    written: PageSet,
}

impl Rewound {
    pub(super) fn new(memory: &GuestMemory) -> Self {
        let none = PageSet::new(memory.base(), memory.bytes());
        Self {
            copied: none.clone(),
            written: none,
        }
    }
}

impl Parts {
    pub(super) fn rewound(&self) -> MutexGuard<'_, Rewound> {
        self.rewound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`RunningMachine::give_back`](super::RunningMachine::give_back).
    pub(super) fn give_back(&self) -> Result<u64, MachineError> {
        let mut rewound = self.rewound();
        let now = self.take_written()?;
        rewound.written.union(&now);
        let none = PageSet::new(self.memory.base(), self.memory.bytes());
        let mut same = std::mem::replace(&mut rewound.copied, none);
        same.subtract(&rewound.written);
        for run in same.runs() {
            self.memory.discard(run.start, run.end - run.start);
        }
        Ok(same.count())
    }

    /// Brings memory back to the snapshot: the pages that were written, or all
    /// of it if those are many; how many pages it were.
    pub(super) fn rewind_memory(&self) -> Result<Option<u64>, MachineError> {
        let mut rewound = self.rewound();
        let mut written = self.take_written()?;
        written.union(&rewound.written);
        rewound.written.clear();
        let count = written.count();
        self.memory.discard_hot();
        let host = self.memory.host();
        let few = count <= MAX_PAGES_COPIED;
        if few {
            for run in written.runs() {
                host.copy_back(run.start - self.memory.base(), run.end - run.start)
                    .map_err(MachineError::Rewind)?;
            }
            rewound.copied.union(&written);
        } else {
            host.map_afresh().map_err(MachineError::Rewind)?;
            rewound.copied.clear();
        }
        self.vm.content_replaced(&written)?;
        Ok(few.then_some(count))
    }

    /// The pages of RAM written since writes are followed, and starts over.
    pub(super) fn take_written(&self) -> Result<PageSet, MachineError> {
        let mut written = PageSet::new(self.memory.base(), self.memory.bytes());
        self.vm.take_written(&mut written)?;
        self.memory.take_device_written(&mut written);
        Ok(written)
    }
}
