//! Virtio 1.2 devices and the transport that shows them to the guest.
//!
//! A [`VirtioDevice`] knows its queues and its configuration space; the
//! transport ([`mmio::VirtioMmio`]) owns the registers and the status state
//! machine, and hands over queues only once the driver may use them.

use std::sync::Arc;

use virtio_queue::{Queue, QueueState};

use self::chain::QueueError;
use crate::{DeviceMemory, Ram};

#[cfg(feature = "balloon")]
pub mod balloon;
#[cfg(feature = "blk")]
pub mod blk;
pub mod chain;
#[cfg(feature = "fs")]
pub mod fs;
#[cfg(feature = "mem")]
pub mod mem;
pub mod mmio;
#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "rng")]
pub mod rng;
pub mod served;
mod state;
#[cfg(feature = "vsock")]
pub mod vsock;

pub use state::{DeviceState, RestoreError, SavedState, StateFields, StateFormat};

/// `VIRTIO_F_INDIRECT_DESC` (virtio 1.2 §6): chains may use indirect tables.
pub const F_RING_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX` (virtio 1.2 §6): `used_event` and `avail_event`.
pub const F_RING_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1` (virtio 1.2 §6): not a legacy device.
pub const F_VERSION_1: u64 = 1 << 32;

/// How a device tells its driver that something happened.
pub trait Interrupt: Send + Sync {
    /// Buffers of `queue` were used and the driver asked to hear of it.
    fn used_buffers(&self, queue: u16);
    /// The configuration space changed.
    fn config_changed(&self);
    /// The device stopped at its bound for one notification, with requests
    /// left in `queue`. The transport calls [`VirtioDevice::notify`] for it
    /// once more, from an access of the guest that cannot fail to come, so
    /// that each access takes a bounded time and none of the requests is
    /// forgotten.
    fn work_left(&self, queue: u16);
    /// The driver made a mistake the device cannot work around; it stops
    /// until it is reset (virtio 1.2 §2.1.2, `DEVICE_NEEDS_RESET`).
    fn needs_reset(&self, mistake: &QueueError);
    /// The host did not do what a request asked for. The driver hears of that
    /// in its answer; this is for the owner.
    fn host_failed(&self, _error: &std::io::Error) {}
}

/// Everything a device gets when its driver sets `DRIVER_OK`.
pub struct Activation<M = Ram> {
    /// Guest RAM, and what else of the guest's addresses buffers may be in.
    pub ram: Arc<M>,
    /// One queue per entry of [`VirtioDevice::queue_max_sizes`]. A queue the
    /// driver left alone is there too, but not `ready()`.
    pub queues: Vec<Queue>,
    /// The way back to the driver.
    pub irq: Arc<dyn Interrupt>,
    /// The features both sides agreed on.
    pub features: u64,
}

/// Why a device refused to start. The transport reports `NEEDS_RESET`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivateError {
    /// The driver left out a queue this device cannot work without.
    #[error("queue {0} is not ready")]
    QueueNotReady(u16),
    /// A queue's rings are not where rings can be.
    #[error("queue {0} has rings that are not in guest memory")]
    BadQueue(u16),
    /// The host had no thread to give.
    #[error("could not start a device thread")]
    Thread(#[source] std::io::Error),
}

/// Part of the guest's address space that a device fills: files mapped for a
/// guest, for example (virtio 1.2 §2.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedMemory {
    /// Guest physical address of its first byte.
    pub address: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// How much a device has moved between its guest and the host, for devices that
/// count that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that gave the guest data.
    pub reads: u64,
    /// Bytes of these.
    pub read_bytes: u64,
    /// Requests that took data from the guest.
    pub writes: u64,
    /// Bytes of these.
    pub written_bytes: u64,
}

/// A virtio device, free of any transport.
///
/// Methods take `&self` and lock inside: several vCPU threads and the
/// device's own threads meet here. A device must not call back into its
/// transport other than through [`Interrupt`].
pub trait VirtioDevice<M = Ram>: Send + Sync {
    /// Device type (virtio 1.2 §5).
    fn device_id(&self) -> u32;
    /// The largest size of each queue; each a power of two.
    fn queue_max_sizes(&self) -> &[u16];
    /// Every feature on offer, [`F_VERSION_1`] among them.
    fn features(&self) -> u64;
    /// Reads the configuration space; bytes past its end read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// Writes the configuration space; most devices have nothing writable.
    fn write_config(&self, _offset: u64, _data: &[u8]) {}
    /// The shared memory region with this number; most devices have none.
    fn shared_memory(&self, _id: u8) -> Option<SharedMemory> {
        None
    }
    /// Starts the device with validated queues.
    fn activate(&self, activation: Activation<M>) -> Result<(), ActivateError>;
    /// Stops the device, waits for requests in flight, and gives the queues
    /// back. On return the device touches neither guest RAM nor interrupts.
    fn reset(&self) -> Vec<Queue>;
    /// Leaves guest RAM and interrupts alone from its return on, until
    /// [`VirtioDevice::resume`], resets and activations in between included;
    /// requests in flight are waited for. The caller has stopped the vCPUs, so
    /// a device that works on their threads alone has nothing to do here.
    fn pause(&self) {}
    /// Goes on after a pause, with what came in the meantime.
    fn resume(&self) {}
    /// How much it has moved since it was made; `None` if it does not count.
    fn traffic(&self) -> Option<Traffic> {
        None
    }

    /// What is behind it on the host has changed, as a file that was grown: it looks,
    /// and tells the driver. Most have nothing that could.
    fn backing_changed(&self) {}
    /// The driver made buffers available in `queue`.
    fn notify(&self, queue: u16);
    /// Ring positions of a started device, after waiting for requests in
    /// flight; the caller has stopped the vCPUs. Empty if not started.
    fn queue_states(&self) -> Vec<QueueState>;
    /// Which saved states it takes.
    fn state_format(&self) -> StateFormat;
    /// What is not in queues or features, in that format.
    fn state(&self) -> SavedState;
    /// Takes over a saved state, which is not trusted; called right after
    /// `activate` if the saved device was active, else on an idle device, and
    /// in either case while paused.
    fn restore(&self, state: &SavedState) -> Result<(), RestoreError>;
}

/// A device that its owner keeps a hand on while a transport has it.
impl<M: DeviceMemory, D: VirtioDevice<M> + ?Sized> VirtioDevice<M> for Arc<D> {
    fn device_id(&self) -> u32 {
        (**self).device_id()
    }
    fn queue_max_sizes(&self) -> &[u16] {
        (**self).queue_max_sizes()
    }
    fn features(&self) -> u64 {
        (**self).features()
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        (**self).read_config(offset, data);
    }
    fn write_config(&self, offset: u64, data: &[u8]) {
        (**self).write_config(offset, data);
    }
    fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        (**self).shared_memory(id)
    }
    fn activate(&self, activation: Activation<M>) -> Result<(), ActivateError> {
        (**self).activate(activation)
    }
    fn reset(&self) -> Vec<Queue> {
        (**self).reset()
    }
    fn pause(&self) {
        (**self).pause();
    }
    fn resume(&self) {
        (**self).resume();
    }
    fn traffic(&self) -> Option<Traffic> {
        (**self).traffic()
    }
    fn backing_changed(&self) {
        (**self).backing_changed();
    }
    fn notify(&self, queue: u16) {
        (**self).notify(queue);
    }
    fn queue_states(&self) -> Vec<QueueState> {
        (**self).queue_states()
    }
    fn state_format(&self) -> StateFormat {
        (**self).state_format()
    }
    fn state(&self) -> SavedState {
        (**self).state()
    }
    fn restore(&self, state: &SavedState) -> Result<(), RestoreError> {
        (**self).restore(state)
    }
}

/// Serves a read at `offset` from a configuration space laid out in `space`.
pub fn read_config_space(space: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let Ok(offset) = usize::try_from(offset) else {
        return;
    };
    if let Some(rest) = space.get(offset..) {
        let len = rest.len().min(data.len());
        data[..len].copy_from_slice(&rest[..len]);
    }
}

#[cfg(all(test, feature = "default"))]
mod tests;
