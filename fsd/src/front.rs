//! What a client asks for, and the device that it gets.
//!
//! The client describes its rings piece by piece and changes its mind while they run.
//! The device has queues of its own: it is stopped for a change that they have to hear
//! of, and started again on what is there then. What its guest has open it keeps.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use devices::virtio::fs::{Fs, FsConfig, FsError};
use devices::virtio::{Activation, F_RING_EVENT_IDX, VirtioDevice};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_queue::QueueT;

use crate::memory::{MAX_REGIONS, Memory, Regions};
use crate::ring::{self, Addresses, Calls, MAX_ENTRIES, Ring};

/// Rings that a client may use: one for what the guest forgets, and some for requests.
/// Threads take from all of them, so more than two gain nothing.
pub const RINGS: usize = 9;

/// The device of one client.
pub struct Front {
    device: Fs<Memory>,
    rings: Vec<Ring>,
    calls: Arc<Calls>,
    regions: Regions,
    features: u64,
    is_running: bool,
}

impl Front {
    /// A device for a client that has said nothing yet, over an open directory or file.
    pub fn new(directory: OwnedFd, config: FsConfig) -> std::result::Result<Self, FsError> {
        Ok(Self {
            device: Fs::new(directory, config)?,
            rings: (0..RINGS).map(|_| Ring::default()).collect(),
            calls: Arc::new(Calls::new(RINGS)),
            regions: Regions::default(),
            features: 0,
            is_running: false,
        })
    }

    /// The events by which the client speaks of the rings that the device works on.
    pub(crate) fn kicks(&self) -> impl Iterator<Item = Option<&Arc<File>>> {
        let live = |ring: &Ring| ring.is_live();
        self.rings
            .iter()
            .map(move |ring| ring.kick.as_ref().filter(|_| live(ring)))
    }

    /// The client speaks of a ring.
    pub(crate) fn kicked(&mut self, index: usize) -> Result<()> {
        let Some(kick) = self.rings.get(index).and_then(|ring| ring.kick.clone()) else {
            return Ok(());
        };
        if !ring::drain(&kick) {
            return self.change(|front| front.ring(index).map(|ring| ring.kick = None));
        }
        if self.is_running {
            VirtioDevice::notify(&self.device, u16::try_from(index).unwrap_or(0));
        }
        Ok(())
    }

    fn ring(&mut self, index: impl TryInto<usize>) -> Result<&mut Ring> {
        let index = index.try_into().map_err(|_| Error::InvalidParam)?;
        self.rings.get_mut(index).ok_or(Error::InvalidParam)
    }

    /// Changes something that the device's queues are made of.
    fn change<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.stop();
        let changed = act(self)?;
        self.start()?;
        Ok(changed)
    }

    /// On return the device touches neither the client's memory nor its guest.
    fn stop(&mut self) {
        if !std::mem::take(&mut self.is_running) {
            return;
        }
        let queues = self.device.release();
        let live = self.rings.iter_mut().zip(queues);
        for (ring, queue) in live.filter(|(ring, _)| ring.is_live()) {
            ring.next_available = queue.next_avail();
        }
    }

    fn start(&mut self) -> Result<()> {
        if !self.rings.iter().any(Ring::is_live) {
            return Ok(());
        }
        let has_event_index = self.features & F_RING_EVENT_IDX != 0;
        let queues = self
            .rings
            .iter()
            .map(|ring| ring.queue(&self.regions, has_event_index));
        let activation = Activation {
            queues: queues.collect::<Result<_>>()?,
            ram: self.regions.memory().clone(),
            irq: self.calls.clone(),
            features: self.features,
        };
        let activated = VirtioDevice::activate(&self.device, activation);
        activated.map_err(|error| Error::ReqHandlerError(std::io::Error::other(error)))?;
        self.is_running = true;
        Ok(())
    }
}

/// What a client asks for that is offered to none.
fn not_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("it is not offered"))
}

impl VhostUserBackendReqHandlerMut for Front {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop();
        // Its queues are back already.
        drop(VirtioDevice::reset(&self.device));
        for ring in &mut self.rings {
            *ring = Ring::default();
        }
        self.features = 0;
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        let own = VirtioDevice::features(&self.device);
        Ok(own | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 {
            return Err(Error::InvalidParam);
        }
        self.change(|front| {
            front.features = features;
            // Who does not know of enabling has all of them enabled.
            if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
                front
                    .rings
                    .iter_mut()
                    .for_each(|ring| ring.is_enabled = true);
            }
            Ok(())
        })
    }

    fn set_mem_table(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        self.change(|front| front.regions.set(regions, files))
    }

    fn set_vring_num(&mut self, index: u32, entries: u32) -> Result<()> {
        let entries = u16::try_from(entries).map_err(|_| Error::InvalidParam)?;
        if !entries.is_power_of_two() || entries > MAX_ENTRIES {
            return Err(Error::InvalidParam);
        }
        self.change(|front| front.ring(index).map(|ring| ring.entries = entries))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        // Pages that are written are noted for a migration, which is not offered.
        if flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG) {
            return not_offered();
        }
        let addresses = Addresses {
            descriptors,
            used,
            available,
        };
        self.change(|front| {
            front
                .ring(index)
                .map(|ring| ring.addresses = Some(addresses))
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.change(|front| front.ring(index).map(|ring| ring.next_available = base))
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let next = self.change(|front| {
            let ring = front.ring(index)?;
            ring.kick = None;
            Ok(ring.next_available)
        })?;
        Ok(VhostUserVringState::new(index, next.into()))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        // Without an event rings would have to be looked at all the time.
        let kick = Arc::new(ring::event(kick.ok_or(Error::InvalidParam)?)?);
        self.change(|front| front.ring(index).map(|ring| ring.kick = Some(kick)))
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        self.ring(index)?;
        let call = call.map(ring::event).transpose()?;
        self.calls.set_call(index.into(), call);
        // What was done meanwhile, nobody was told of.
        devices::virtio::Interrupt::used_buffers(&*self.calls, index.into());
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, error: Option<File>) -> Result<()> {
        self.ring(index)?;
        let error = error.map(ring::event).transpose()?;
        self.calls.set_error(index.into(), error);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(RINGS as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.change(|front| front.ring(index).map(|ring| ring.is_enabled = enable))
    }

    fn get_config(
        &mut self,
        _offset: u32,
        _size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        // The tag, which is all that there is, is the client's.
        not_offered()
    }

    fn set_config(
        &mut self,
        _offset: u32,
        _bytes: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> Result<()> {
        not_offered()
    }

    fn set_gpu_socket(&mut self, _socket: GpuBackend) -> Result<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _object: VhostUserSharedMsg) -> Result<File> {
        not_offered()
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> Result<(VhostUserInflight, File)> {
        not_offered()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        not_offered()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(&mut self, region: &VhostUserSingleMemoryRegion, file: File) -> Result<()> {
        self.change(|front| front.regions.add(region, file))
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.change(|front| front.regions.remove(region))
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        not_offered()
    }
}
