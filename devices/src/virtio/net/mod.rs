//! Network device (virtio 1.2 §5.1). What its frames go to is a [`NetBackend`]: the
//! device has queues and offloads, and no sockets.
//!
//! The driver's notifications only wake the backend, which takes and gives frames on
//! a thread of its own, through the device's [`NetPort`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use virtio_queue::{Queue, QueueState, QueueT};

use self::queues::Queues;
use super::{
    ActivateError, Activation, DeviceState, F_RING_EVENT_IDX, F_RING_INDIRECT_DESC, F_VERSION_1,
    RestoreError, SavedState, StateFormat, VirtioDevice, read_config_space,
};
use crate::{DeviceMemory, Ram};

mod queues;

/// Device type of a network device.
const DEVICE_ID: u32 = 1;
/// Receive and transmit queue. A frame of 64 KiB takes 17 receive buffers of a page.
const QUEUE_SIZES: [u16; 2] = [256, 256];
/// Bytes of an Ethernet header, which the MTU does not count.
const ETHERNET_BYTES: usize = 14;
/// Longest frame, with a whole IP packet in it.
pub const MAX_FRAME_BYTES: usize = ETHERNET_BYTES + u16::MAX as usize;
/// Longest saved state of a backend: that of tens of thousands of connections.
const MAX_BACKEND_BYTES: usize = 2 << 20;

/// Feature bits (virtio 1.2 §5.1.3).
mod feature {
    pub(super) const CSUM: u64 = 1 << 0;
    pub(super) const GUEST_CSUM: u64 = 1 << 1;
    pub(super) const MTU: u64 = 1 << 3;
    pub(super) const MAC: u64 = 1 << 5;
    pub(super) const GUEST_TSO4: u64 = 1 << 7;
    pub(super) const GUEST_TSO6: u64 = 1 << 8;
    pub(super) const HOST_TSO4: u64 = 1 << 11;
    pub(super) const HOST_TSO6: u64 = 1 << 12;
    pub(super) const MRG_RXBUF: u64 = 1 << 15;
    pub(super) const STATUS: u64 = 1 << 16;
}

/// `VIRTIO_NET_S_LINK_UP` (virtio 1.2 §5.1.4).
const LINK_UP: u16 = 1;

/// What a network device is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetConfig {
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Longest packet of the guest's, in bytes.
    pub mtu: u16,
}

/// What the driver takes over from whoever sends it frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetOffloads {
    /// Checksums may be left to it.
    pub checksum: bool,
    /// TCP over IPv4 may come in frames longer than a segment.
    pub segments_v4: bool,
    /// TCP over IPv6 may.
    pub segments_v6: bool,
}

/// How a frame longer than a segment is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetSegmentation {
    /// It is IPv6.
    pub is_v6: bool,
    /// Bytes of payload of each segment.
    pub segment_bytes: u16,
    /// Bytes of the frame before the payload.
    pub header_bytes: u16,
}

/// A frame for the guest.
#[derive(Debug, Clone, Copy)]
pub struct NetFrame<'a> {
    /// Its bytes, one piece after the other.
    pub parts: [&'a [u8]; 3],
    /// Where the bytes of a checksum that is not complete begin, and where it is
    /// from there. Only for drivers that take over checksums.
    pub checksum: Option<(u16, u16)>,
    /// Only for drivers that take over segments of its kind.
    pub segmentation: Option<NetSegmentation>,
}

/// A frame of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetSent {
    /// Its transport checksum was left to the receiver.
    pub is_unsummed: bool,
}

/// The device, as its backend sees it. All of it may be called on any thread, and
/// nothing waits.
pub trait NetPort: Send + Sync {
    /// Takes the next frame that the driver sent, in place of what is in `frame`:
    /// an empty one of what is too short or too long to be a frame. If there is none,
    /// the backend is woken when there is.
    fn take(&self, frame: &mut Vec<u8>) -> Option<NetSent>;

    /// Gives the driver a frame; false if it has no buffers for it now, and then
    /// the backend is woken when there are more.
    fn give(&self, frame: &NetFrame<'_>) -> bool;

    /// What the driver takes over.
    fn offloads(&self) -> NetOffloads;

    /// Tells the driver of what was taken and given.
    fn flush(&self);
}

/// What the guest's frames go to.
pub trait NetBackend: Send + Sync {
    /// The device that it serves; called once, by the device.
    fn attach(&self, port: Weak<dyn NetPort>);

    /// There may be frames to take, or room to give some. Called on threads of
    /// vCPUs, which are not to wait.
    fn wake(&self);

    /// Whether it has something to do though the driver has not: it is woken after
    /// a pause then.
    fn is_active(&self) -> bool;

    /// What is to be saved of it.
    fn save(&self) -> Vec<u8>;

    /// Takes over what was saved, which is not trusted; false if it is damaged.
    fn restore(&self, saved: &[u8]) -> bool;
}

/// Saved state of a [`Net`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetState {
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Longest packet of the guest's.
    pub mtu: u16,
    /// The backend's.
    pub backend: Vec<u8>,
}

impl DeviceState for NetState {
    const FORMAT: StateFormat = StateFormat {
        kind: "net",
        version: 1,
    };

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.mac.to_vec();
        bytes.extend(self.mtu.to_le_bytes());
        bytes.extend(&self.backend);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (mac, rest) = bytes.split_first_chunk::<6>()?;
        let (mtu, backend) = rest.split_first_chunk::<2>()?;
        (backend.len() <= MAX_BACKEND_BYTES).then(|| Self {
            mac: *mac,
            mtu: u16::from_le_bytes(*mtu),
            backend: backend.to_vec(),
        })
    }
}

/// A network device.
pub struct Net<M: DeviceMemory = Ram> {
    config: NetConfig,
    shared: Arc<Shared<M>>,
    backend: Arc<dyn NetBackend>,
}

struct Shared<M> {
    inner: Mutex<Inner<M>>,
}

struct Inner<M> {
    active: Option<Queues<M>>,
    paused: bool,
}

impl<M: DeviceMemory> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the queues of a device that may use them.
    fn with<T>(&self, what: impl FnOnce(&mut Queues<M>) -> T) -> Option<T> {
        match &mut *self.lock() {
            Inner {
                active: Some(queues),
                paused: false,
            } => Some(what(queues)),
            _ => None,
        }
    }
}

impl<M: DeviceMemory> NetPort for Shared<M> {
    fn take(&self, frame: &mut Vec<u8>) -> Option<NetSent> {
        self.with(|queues| queues.take(frame))?
    }

    fn give(&self, frame: &NetFrame<'_>) -> bool {
        self.with(|queues| queues.give(frame)).unwrap_or(false)
    }

    fn offloads(&self) -> NetOffloads {
        let inner = self.lock();
        inner
            .active
            .as_ref()
            .map(Queues::offloads)
            .unwrap_or_default()
    }

    fn flush(&self) {
        self.with(Queues::interrupt);
    }
}

impl<M: DeviceMemory> Net<M> {
    /// A device whose frames go to `backend`.
    pub fn new(config: NetConfig, backend: Arc<dyn NetBackend>) -> Self {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                active: None,
                paused: false,
            }),
        });
        let port: Arc<dyn NetPort> = shared.clone();
        backend.attach(Arc::downgrade(&port));
        Self {
            config,
            shared,
            backend,
        }
    }

    /// `struct virtio_net_config` up to `mtu` (virtio 1.2 §5.1.4).
    fn config_space(&self) -> [u8; 12] {
        let mut space = [0; 12];
        space[..6].copy_from_slice(&self.config.mac);
        space[6..8].copy_from_slice(&LINK_UP.to_le_bytes());
        // One pair of queues; the driver does not look without VIRTIO_NET_F_MQ.
        space[8..10].copy_from_slice(&1_u16.to_le_bytes());
        space[10..].copy_from_slice(&self.config.mtu.to_le_bytes());
        space
    }
}

impl<M: DeviceMemory> VirtioDevice<M> for Net<M> {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_VERSION_1
            | F_RING_EVENT_IDX
            | F_RING_INDIRECT_DESC
            | feature::CSUM
            | feature::GUEST_CSUM
            | feature::MTU
            | feature::MAC
            | feature::GUEST_TSO4
            | feature::GUEST_TSO6
            | feature::HOST_TSO4
            | feature::HOST_TSO6
            | feature::MRG_RXBUF
            | feature::STATUS
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config_space(), offset, data);
    }

    fn activate(&self, activation: Activation<M>) -> Result<(), ActivateError> {
        for (index, queue) in (0_u16..).zip(&activation.queues) {
            if !queue.ready() {
                return Err(ActivateError::QueueNotReady(index));
            }
        }
        let queues = Queues::new(activation).ok_or(ActivateError::QueueNotReady(0))?;
        self.shared.lock().active = Some(queues);
        // Buffers that are there already were not told of. A backend with nothing to
        // do finds them when it has.
        if self.backend.is_active() {
            self.backend.wake();
        }
        Ok(())
    }

    fn reset(&self) -> Vec<Queue> {
        let active = self.shared.lock().active.take();
        active.map_or(Vec::new(), Queues::into_queues)
    }

    fn pause(&self) {
        self.shared.lock().paused = true;
    }

    fn resume(&self) {
        let has_frames = {
            let mut inner = self.shared.lock();
            inner.paused = false;
            inner.active.as_mut().is_some_and(Queues::has_frames)
        };
        // The driver does not notify again of what it did before.
        if has_frames || self.backend.is_active() {
            self.backend.wake();
        }
    }

    fn notify(&self, _queue: u16) {
        self.backend.wake();
    }

    fn queue_states(&self) -> Vec<QueueState> {
        let inner = self.shared.lock();
        inner.active.as_ref().map_or(Vec::new(), Queues::states)
    }

    fn state_format(&self) -> StateFormat {
        NetState::FORMAT
    }

    fn state(&self) -> SavedState {
        SavedState::of(&NetState {
            mac: self.config.mac,
            mtu: self.config.mtu,
            backend: self.backend.save(),
        })
    }

    fn restore(&self, state: &SavedState) -> Result<(), RestoreError> {
        let state: NetState = state.read()?;
        if state.mac != self.config.mac {
            return Err(RestoreError::Invalid("mac"));
        }
        if state.mtu != self.config.mtu {
            return Err(RestoreError::Invalid("mtu"));
        }
        match self.backend.restore(&state.backend) {
            true => Ok(()),
            false => Err(RestoreError::Invalid("backend")),
        }
    }
}

#[cfg(test)]
mod tests;
