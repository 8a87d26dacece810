//! Entropy device (virtio 1.2 §5.4).

use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};

use super::chain::{Chain, QueueError, add_used, wants_interrupt};
use super::{
    ActivateError, Activation, DeviceState, F_RING_EVENT_IDX, F_RING_INDIRECT_DESC, F_VERSION_1,
    RestoreError, VirtioDevice,
};

/// Device type of an entropy source.
const DEVICE_ID: u32 = 4;
/// One queue; Linux keeps one request in flight.
const QUEUE_SIZES: [u16; 1] = [16];
/// Most bytes given for one request. The driver may offer gigabytes, but asks
/// again when it gets less than it wanted.
const MAX_REQUEST_BYTES: usize = 4096;
/// Most descriptors in one request.
const MAX_SEGMENTS: usize = 16;

/// Saved state of an [`Rng`]: there is nothing beyond its queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {}

/// An entropy device fed by any reader.
pub struct Rng {
    inner: Mutex<Inner>,
}

struct Inner {
    source: Box<dyn Read + Send>,
    active: Option<Activation>,
}

/// The operating system's random numbers as a reader.
struct HostRandom;

impl Read for HostRandom {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        getrandom::fill(buf)?;
        Ok(buf.len())
    }
}

impl Rng {
    /// A device that gives out what `source` yields. At the end of the source
    /// or on its errors requests come back empty.
    pub fn new(source: Box<dyn Read + Send>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                source,
                active: None,
            }),
        }
    }

    /// A device fed by the operating system.
    pub fn host() -> Self {
        Self::new(Box::new(HostRandom))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn serve(&mut self) {
        let Self { source, active } = self;
        let Some(active) = active else { return };
        let Some(queue) = active.queues.first_mut() else {
            return;
        };
        match drain(source, queue, &active.ram) {
            Ok(true) => active.irq.used_buffers(0),
            Ok(false) => {}
            Err(_) => {
                queue.set_ready(false);
                active.irq.needs_reset();
            }
        }
    }
}

/// Answers every request in the queue; true if the driver wants to know.
fn drain(
    source: &mut Box<dyn Read + Send>,
    queue: &mut Queue,
    ram: &crate::Ram,
) -> Result<bool, QueueError> {
    let mut buf = [0; MAX_REQUEST_BYTES];
    let mut used = false;
    while queue.ready() {
        queue.disable_notification(ram).map_err(QueueError::Ring)?;
        while let Some(chain) = Chain::pop(queue, ram, MAX_SEGMENTS)? {
            let len = chain.writable.len().min(buf.len());
            let len = source.read(&mut buf[..len]).unwrap_or(0).min(len);
            chain.writable.write(ram, 0, &buf[..len])?;
            add_used(queue, ram, chain.head, len)?;
            used = true;
        }
        if !queue.enable_notification(ram).map_err(QueueError::Ring)? {
            break;
        }
    }
    Ok(used && wants_interrupt(queue, ram)?)
}

impl VirtioDevice for Rng {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_VERSION_1 | F_RING_EVENT_IDX | F_RING_INDIRECT_DESC
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&self, activation: Activation) -> Result<(), ActivateError> {
        let mut inner = self.lock();
        inner.active = Some(activation);
        // A restored queue may hold requests the driver notified long ago.
        inner.serve();
        Ok(())
    }

    fn reset(&self) -> Vec<Queue> {
        self.lock().active.take().map_or(Vec::new(), |a| a.queues)
    }

    fn notify(&self, _queue: u16) {
        self.lock().serve();
    }

    fn queue_states(&self) -> Vec<QueueState> {
        let inner = self.lock();
        let queues = inner.active.iter().flat_map(|a| &a.queues);
        queues.map(Queue::state).collect()
    }

    fn state(&self) -> DeviceState {
        DeviceState::Rng(RngState {})
    }

    fn restore(&self, state: &DeviceState) -> Result<(), RestoreError> {
        match state {
            DeviceState::Rng(RngState {}) => Ok(()),
            _ => Err(RestoreError::Invalid("device")),
        }
    }
}

#[cfg(test)]
#[path = "rng_tests.rs"]
mod tests;
