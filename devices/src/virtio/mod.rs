//! Virtio 1.2 devices and the transport that shows them to the guest.
//!
//! A [`VirtioDevice`] knows its queues and its configuration space; the
//! transport ([`mmio::VirtioMmio`]) owns the registers and the status state
//! machine, and hands over queues only once the driver may use them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState};

use crate::GuestRam;

pub mod balloon;
pub mod blk;
pub mod chain;
pub mod mem;
pub mod mmio;
pub mod rng;
pub mod served;
pub mod vsock;

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
    fn needs_reset(&self);
}

/// Everything a device gets when its driver sets `DRIVER_OK`.
pub struct Activation {
    /// Guest RAM.
    pub ram: GuestRam,
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
    /// The host had no thread to give.
    #[error("could not start a device thread")]
    Thread(#[source] std::io::Error),
}

/// Why a saved state cannot become a running device. Saved states are
/// untrusted: every field is checked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// The state belongs to another device type.
    #[error("state is of device type {found}, expected {expected}")]
    WrongDevice {
        /// Type of this device.
        expected: u32,
        /// Type the state names.
        found: u32,
    },
    /// A field holds what no running device could have saved.
    #[error("field {0} of the saved device state is invalid")]
    Invalid(&'static str),
    /// The device is already in use by a driver.
    #[error("device is active, only an idle one can be restored")]
    Active,
    /// The device could not start from the state.
    #[error("device refused to start from the saved state")]
    Refused,
}

/// The part of a saved machine that belongs to one device behind a transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeviceState {
    /// See [`blk::Blk`].
    Blk(blk::BlkState),
    /// See [`rng::Rng`].
    Rng(rng::RngState),
    /// See [`vsock::Vsock`].
    Vsock(vsock::VsockState),
    /// See [`balloon::Balloon`].
    Balloon(balloon::BalloonState),
    /// See [`mem::Mem`].
    Mem(mem::MemState),
}

/// A virtio device, free of any transport.
///
/// Methods take `&self` and lock inside: several vCPU threads and the
/// device's own threads meet here. A device must not call back into its
/// transport other than through [`Interrupt`].
pub trait VirtioDevice: Send + Sync {
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
    /// Starts the device with validated queues.
    fn activate(&self, activation: Activation) -> Result<(), ActivateError>;
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
    /// The driver made buffers available in `queue`.
    fn notify(&self, queue: u16);
    /// Ring positions of a started device, after waiting for requests in
    /// flight; the caller has stopped the vCPUs. Empty if not started.
    fn queue_states(&self) -> Vec<QueueState>;
    /// What is not in queues or features.
    fn state(&self) -> DeviceState;
    /// Takes over a saved state, which is not trusted; called right after
    /// `activate` if the saved device was active, else on an idle device, and
    /// in either case while paused.
    fn restore(&self, state: &DeviceState) -> Result<(), RestoreError>;
}

/// A device that its owner keeps a hand on while a transport has it.
impl<D: VirtioDevice + ?Sized> VirtioDevice for Arc<D> {
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
    fn activate(&self, activation: Activation) -> Result<(), ActivateError> {
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
    fn notify(&self, queue: u16) {
        (**self).notify(queue);
    }
    fn queue_states(&self) -> Vec<QueueState> {
        (**self).queue_states()
    }
    fn state(&self) -> DeviceState {
        (**self).state()
    }
    fn restore(&self, state: &DeviceState) -> Result<(), RestoreError> {
        (**self).restore(state)
    }
}

/// Serves a read at `offset` from a configuration space laid out in `space`.
pub(crate) fn read_config_space(space: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let Ok(offset) = usize::try_from(offset) else {
        return;
    };
    if let Some(rest) = space.get(offset..) {
        let len = rest.len().min(data.len());
        data[..len].copy_from_slice(&rest[..len]);
    }
}

#[cfg(test)]
mod tests;
