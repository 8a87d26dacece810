//! Entropy device (virtio 1.2 §5.4).

use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState};

use super::served::{Answer, Served};
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
    served: Served,
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
                served: Served::default(),
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
    /// Answers requests, a queue's worth at most.
    fn serve(&mut self) {
        let Self { source, served } = self;
        let mut buf = [0; MAX_REQUEST_BYTES];
        served.serve(0, MAX_SEGMENTS, |chain, ram| {
            let len = chain.writable.len().min(buf.len());
            let len = source.read(&mut buf[..len]).unwrap_or(0).min(len);
            chain.writable.write(ram, 0, &buf[..len])?;
            Ok(Answer {
                written: len,
                work: 1,
            })
        });
    }
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
        inner.served.activate(activation);
        // A restored queue may hold requests the driver notified long ago.
        inner.serve();
        Ok(())
    }

    fn reset(&self) -> Vec<Queue> {
        self.lock().served.reset()
    }

    fn pause(&self) {
        self.lock().served.pause();
    }

    fn resume(&self) {
        let mut inner = self.lock();
        inner.served.resume();
        inner.serve();
    }

    fn notify(&self, _queue: u16) {
        self.lock().serve();
    }

    fn queue_states(&self) -> Vec<QueueState> {
        self.lock().served.queue_states()
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
