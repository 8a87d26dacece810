//! Entropy device (virtio 1.2 §5.4).

use std::io::Read;

use super::chain::{Chain, QueueError};
use super::served::{Answer, Served, Server};
use super::{DeviceState, RestoreError, StateFormat};
use crate::{DeviceMemory, Ram};

/// Most bytes given for one request. The driver may offer gigabytes, but asks
/// again when it gets less than it wanted.
const MAX_REQUEST_BYTES: usize = 4096;

/// Saved state of an [`Rng`]: there is nothing beyond its queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RngState {}

impl DeviceState for RngState {
    const FORMAT: StateFormat = StateFormat {
        kind: "rng",
        version: 1,
    };

    fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(Self {})
    }
}

/// An entropy device fed by any reader.
pub type Rng<M = Ram> = Served<Entropy, M>;

/// What an [`Rng`] answers requests with.
pub struct Entropy {
    source: Box<dyn Read + Send>,
    buffer: [u8; MAX_REQUEST_BYTES],
}

/// The operating system's random numbers as a reader.
struct HostRandom;

impl Read for HostRandom {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        getrandom::fill(buf)?;
        Ok(buf.len())
    }
}

impl<M: DeviceMemory> Served<Entropy, M> {
    /// A device that gives out what `source` yields. At the end of the source
    /// or on its errors requests come back empty.
    pub fn new(source: Box<dyn Read + Send>) -> Self {
        Self::of(Entropy {
            source,
            buffer: [0; MAX_REQUEST_BYTES],
        })
    }

    /// A device fed by the operating system.
    pub fn host() -> Self {
        Self::new(Box::new(HostRandom))
    }
}

impl Server for Entropy {
    const DEVICE_ID: u32 = 4;
    /// One queue; Linux keeps one request in flight.
    const QUEUE_SIZES: &'static [u16] = &[16];
    const NEEDED_QUEUES: u16 = 0;
    const MAX_SEGMENTS: usize = 16;
    type State = RngState;

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn answer<M: DeviceMemory>(
        &mut self,
        _queue: u16,
        request: &Chain,
        ram: &M,
    ) -> Result<Answer, QueueError> {
        let len = request.writable.len().min(self.buffer.len());
        let buffer = &mut self.buffer[..len];
        let len = self.source.read(buffer).unwrap_or(0).min(len);
        request.writable.write(ram, 0, &self.buffer[..len])?;
        Ok(Answer {
            written: len,
            work: 1,
        })
    }

    fn state(&self) -> RngState {
        RngState {}
    }

    fn restore(&mut self, _state: &RngState) -> Result<(), RestoreError> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "rng_tests.rs"]
mod tests;
