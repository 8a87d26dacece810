//! Memory balloon (virtio 1.2 §5.5): takes RAM back from a guest that does not
//! need it, by inflating towards a target or as the guest reports free pages.
//!
//! All work is done on the thread that notifies. Memory that is given back
//! needs no permission: a page that was discarded is there again, empty, when
//! it is touched.
//!
//! A target is a limit. The device does not offer `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`
//! (virtio 1.2 §5.5.3), with which a guest takes pages back before it kills for
//! memory. Linux without it also takes the balloon's pages out of `MemTotal`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};

use self::pages::Discarder;
use super::served::{Answer, Served};
use super::{
    ActivateError, Activation, DeviceState, F_RING_EVENT_IDX, F_RING_INDIRECT_DESC, F_VERSION_1,
    RestoreError, VirtioDevice, read_config_space,
};
use crate::RamAdvisor;

mod pages;

pub use pages::PAGE_BYTES;

/// Device type of a traditional memory balloon.
const DEVICE_ID: u32 = 5;
/// Inflate, deflate and reporting queue. The standard numbers the last one 4,
/// counting queues that are not on offer; Linux, and QEMU with it, do not
/// count those. Linux wants room for 32 reports at a time.
const QUEUE_SIZES: [u16; 3] = [128, 128, 32];
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const REPORTING: u16 = 2;
/// Most descriptors in one request: the 32 reports of Linux.
const MAX_SEGMENTS: usize = 32;
/// Most page numbers in one request; Linux sends 256.
const MAX_PAGE_NUMBERS: usize = 4096;

/// Feature bits (virtio 1.2 §5.5.3).
mod feature {
    /// The guest reports pages that are free.
    pub(super) const PAGE_REPORTING: u64 = 1 << 5;
}

/// Saved state of a [`Balloon`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonState {
    /// Pages the guest was asked to give up.
    pub target_pages: u32,
    /// Pages it said it had given up.
    pub actual_pages: u32,
}

/// A memory balloon. Pages are of [`PAGE_BYTES`], whatever the host's.
pub struct Balloon {
    /// What the configuration space shows as `num_pages`.
    target: AtomicU32,
    /// What the driver wrote to `actual`.
    actual: AtomicU32,
    inner: Mutex<Inner>,
}

struct Inner {
    discarder: Discarder,
    served: Served,
}

impl Balloon {
    /// A balloon whose pages, and those reported free, go to `advisor`.
    pub fn new(advisor: Arc<dyn RamAdvisor>) -> Self {
        Self {
            target: AtomicU32::new(0),
            actual: AtomicU32::new(0),
            inner: Mutex::new(Inner {
                discarder: Discarder::new(advisor),
                served: Served::default(),
            }),
        }
    }

    /// Asks the guest to have given up `pages` pages in all. It does what it
    /// can, in its own time, or later if it has no driver yet.
    pub fn set_target_pages(&self, pages: u32) {
        // Under the lock, so that the interrupt is not sent to a driver that
        // has left.
        let inner = self.lock();
        if self.target.swap(pages, Ordering::SeqCst) != pages
            && let Some(active) = inner.served.active()
        {
            active.irq.config_changed();
        }
    }

    /// Pages the guest was asked to give up.
    pub fn target_pages(&self) -> u32 {
        self.target.load(Ordering::SeqCst)
    }

    /// Pages the guest says it has given up; only as good as its word.
    pub fn actual_pages(&self) -> u32 {
        self.actual.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Answers requests, a queue's worth at most.
    fn serve(&mut self, index: u16) {
        let Self { discarder, served } = self;
        served.serve(index, MAX_SEGMENTS, |chain, ram| {
            let work = match index {
                INFLATE => discarder.inflate(chain, ram)?,
                DEFLATE => discarder.check(chain, ram)?,
                _ => discarder.report(chain),
            };
            Ok(Answer { written: 0, work })
        });
    }

    fn serve_all(&mut self) {
        for index in [INFLATE, DEFLATE, REPORTING] {
            self.serve(index);
        }
    }
}

impl VirtioDevice for Balloon {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_VERSION_1 | F_RING_EVENT_IDX | F_RING_INDIRECT_DESC | feature::PAGE_REPORTING
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; 8];
        space[..4].copy_from_slice(&self.target_pages().to_le_bytes());
        space[4..].copy_from_slice(&self.actual_pages().to_le_bytes());
        read_config_space(&space, offset, data);
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        // `actual` is the one field to write (virtio 1.2 §5.5.4).
        if let (4, Ok(bytes)) = (offset, data.try_into()) {
            self.actual
                .store(u32::from_le_bytes(bytes), Ordering::SeqCst);
        }
    }

    fn activate(&self, activation: Activation) -> Result<(), ActivateError> {
        for (index, queue) in (0..REPORTING).zip(&activation.queues) {
            if !queue.ready() {
                return Err(ActivateError::QueueNotReady(index));
            }
        }
        let mut inner = self.lock();
        inner.served.activate(activation);
        // A restored queue may hold requests the driver notified long ago.
        inner.serve_all();
        Ok(())
    }

    fn reset(&self) -> Vec<Queue> {
        let queues = self.lock().served.reset();
        // Whoever drives it next knows of no page that was given up.
        self.actual.store(0, Ordering::SeqCst);
        queues
    }

    fn pause(&self) {
        self.lock().served.pause();
    }

    fn resume(&self) {
        let mut inner = self.lock();
        inner.served.resume();
        inner.serve_all();
    }

    fn notify(&self, queue: u16) {
        self.lock().serve(queue);
    }

    fn queue_states(&self) -> Vec<QueueState> {
        self.lock().served.queue_states()
    }

    fn state(&self) -> DeviceState {
        DeviceState::Balloon(BalloonState {
            target_pages: self.target_pages(),
            actual_pages: self.actual_pages(),
        })
    }

    fn restore(&self, state: &DeviceState) -> Result<(), RestoreError> {
        match state {
            // Each number is a possible one: the target is the owner's to set
            // and the other what a guest could have written.
            DeviceState::Balloon(state) => {
                self.target.store(state.target_pages, Ordering::SeqCst);
                self.actual.store(state.actual_pages, Ordering::SeqCst);
                Ok(())
            }
            _ => Err(RestoreError::Invalid("device")),
        }
    }
}

#[cfg(test)]
mod tests;
