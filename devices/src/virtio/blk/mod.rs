//! Block device (virtio 1.2 §5.2) over a file.
//!
//! Requests run on a few worker threads that take chains straight off the
//! queues, so as many are in flight as there are workers and no request is
//! buffered twice. Threads start when there is work for them. Small reads that
//! the host has in its page cache are served at once on the thread that
//! notifies: that costs less than waking another.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use virtio_queue::{Queue, QueueState};

use self::disk::{Content, Disk};
pub use self::overlay::{Overlay, OverlayError};
use self::worker::Workers;
use super::state::StateFields;
use super::{
    ActivateError, Activation, DeviceState, F_RING_EVENT_IDX, F_RING_INDIRECT_DESC, F_VERSION_1,
    RestoreError, SavedState, StateFormat, Traffic, VirtioDevice, read_config_space,
};
use crate::{DeviceMemory, Ram};

mod disk;
mod feature;
mod host;
mod overlay;
mod request;
mod sync;
mod worker;

#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
pub(crate) use request::RequestRunner;

/// Device type of a block device.
const DEVICE_ID: u32 = 2;
/// Bytes in a sector, whatever the block size (virtio 1.2 §5.2.4).
pub const SECTOR_BYTES: u64 = 512;
/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// Data segments a request may have: a queue's worth without the header and
/// the status byte.
const SEG_MAX: u32 = 254;
/// Bytes a segment may have.
const SIZE_MAX: u32 = 1 << 20;
/// Sectors one DISCARD or WRITE_ZEROES range may cover (64 MiB), so that a
/// worker is never busy for long when the host must write the zeroes.
const MAX_ZERO_SECTORS: u32 = 1 << 17;
/// Ranges one DISCARD or WRITE_ZEROES request may have.
const MAX_ZERO_SEGMENTS: u32 = 16;
/// Zeroes written at once where the host cannot punch holes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
/// Length of the identity string (virtio 1.2 §5.2.6).
pub const ID_BYTES: usize = 20;
/// Most queues a device may have.
const MAX_QUEUES: u16 = 16;
/// Most worker threads a device may have.
const MAX_WORKERS: usize = 16;

/// What a block device is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlkConfig {
    /// Refuse every change on the host side, whatever the guest tries.
    pub read_only: bool,
    /// Identity the guest reads with `GET_ID`: at most [`ID_BYTES`] bytes of
    /// ASCII. Linux shows it as the disk's serial number.
    pub id: String,
    /// Number of request queues, 1 to 16.
    pub queues: u16,
    /// Most requests worked on at the same time, 1 to 16.
    pub workers: usize,
    /// The file may have no sector. What was saved of such a disk can be restored with
    /// any: its driver cannot have read anything that would be another's.
    pub may_be_empty: bool,
}

impl Default for BlkConfig {
    fn default() -> Self {
        Self {
            read_only: false,
            id: String::new(),
            queues: 1,
            workers: 4,
            may_be_empty: false,
        }
    }
}

/// Why a block device could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlkError {
    /// The size of the file could not be found out.
    #[error("could not read the size of the disk file")]
    Size(#[source] std::io::Error),
    /// There is not even one sector.
    #[error("disk file of {0} bytes is smaller than a sector")]
    TooSmall(u64),
    /// The identity does not fit its field.
    #[error("disk id {0:?} is not ASCII of at most 20 bytes")]
    BadId(String),
    /// The number of queues is out of range.
    #[error("number of disk queues {0} is not within 1 to 16")]
    BadQueues(u16),
    /// The number of workers is out of range.
    #[error("number of disk workers {0} is not within 1 to 16")]
    BadWorkers(usize),
}

/// Saved state of a [`Blk`]: what the driver saw of the disk, so that another
/// one is not put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlkState {
    /// Capacity in sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// Whether the disk was read-only.
    pub read_only: bool,
}

impl DeviceState for BlkState {
    const FORMAT: StateFormat = StateFormat {
        kind: "blk",
        version: 1,
    };

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.capacity_sectors.to_le_bytes().to_vec();
        bytes.push(self.read_only.into());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = StateFields::new(bytes);
        let state = Self {
            capacity_sectors: fields.u64()?,
            read_only: fields.bool()?,
        };
        fields.end().map(|()| state)
    }
}

/// A block device over a file.
pub struct Blk<M: DeviceMemory = Ram> {
    disk: Arc<Disk>,
    may_be_empty: bool,
    queue_sizes: Vec<u16>,
    features: u64,
    config_space: [u8; 60],
    workers: Workers<M>,
}

impl<M: DeviceMemory> Blk<M> {
    /// A device over `file`, which must be open for writing unless
    /// `config.read_only`. A tail shorter than a sector is padded with zeroes
    /// for a read-only disk and out of reach for a writable one.
    pub fn new(mut file: File, config: BlkConfig) -> Result<Self, BlkError> {
        // Seeking finds the size of block devices too, metadata does not.
        let len = file.seek(SeekFrom::End(0)).map_err(BlkError::Size)?;
        Self::with_content(Content::File(file), len, config)
    }

    /// A device over content that it has in common with others until it writes. Whoever
    /// has the overlay besides uses it only while the device is paused.
    pub fn over(overlay: Arc<Overlay>, config: BlkConfig) -> Result<Self, BlkError> {
        let len = overlay.bytes();
        Self::with_content(Content::Overlay(overlay), len, config)
    }

    fn with_content(content: Content, len: u64, config: BlkConfig) -> Result<Self, BlkError> {
        if !config.id.is_ascii() || config.id.len() > ID_BYTES {
            return Err(BlkError::BadId(config.id));
        }
        if !(1..=MAX_QUEUES).contains(&config.queues) {
            return Err(BlkError::BadQueues(config.queues));
        }
        if !(1..=MAX_WORKERS).contains(&config.workers) {
            return Err(BlkError::BadWorkers(config.workers));
        }
        let mut id = [0; ID_BYTES];
        id[..config.id.len()].copy_from_slice(config.id.as_bytes());
        let disk = Arc::new(Disk::new(content, len, config.read_only, id));
        if disk.sectors() == 0 && !config.may_be_empty {
            return Err(BlkError::TooSmall(len));
        }
        Ok(Self {
            may_be_empty: config.may_be_empty,
            features: features(&config),
            config_space: config_space(config.queues),
            queue_sizes: vec![QUEUE_SIZE; usize::from(config.queues)],
            workers: Workers::new(disk.clone(), config.workers),
            disk,
        })
    }
}

fn features(config: &BlkConfig) -> u64 {
    let mut features = F_VERSION_1
        | F_RING_EVENT_IDX
        | F_RING_INDIRECT_DESC
        | feature::SIZE_MAX
        | feature::SEG_MAX
        | feature::BLK_SIZE
        | feature::FLUSH;
    if config.read_only {
        features |= feature::RO;
    } else {
        features |= feature::DISCARD | feature::WRITE_ZEROES;
    }
    if config.queues > 1 {
        features |= feature::MQ;
    }
    features
}

/// `struct virtio_blk_config` (virtio 1.2 §5.2.4), without the capacity.
fn config_space(queues: u16) -> [u8; 60] {
    let mut space = [0; 60];
    let mut put = |offset: usize, bytes: &[u8]| {
        space[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(8, &SIZE_MAX.to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &512u32.to_le_bytes()); // blk_size
    put(34, &queues.to_le_bytes());
    put(36, &MAX_ZERO_SECTORS.to_le_bytes()); // max_discard_sectors
    put(40, &MAX_ZERO_SEGMENTS.to_le_bytes()); // max_discard_seg
    put(44, &8u32.to_le_bytes()); // discard_sector_alignment: 4 KiB
    put(48, &MAX_ZERO_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
    put(52, &MAX_ZERO_SEGMENTS.to_le_bytes()); // max_write_zeroes_seg
    put(56, &[1]); // write_zeroes_may_unmap
    space
}

impl<M: DeviceMemory> VirtioDevice<M> for Blk<M> {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = self.config_space;
        space[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        read_config_space(&space, offset, data);
    }

    fn activate(&self, activation: Activation<M>) -> Result<(), ActivateError> {
        self.workers.start(activation)
    }

    fn reset(&self) -> Vec<Queue> {
        self.workers.stop()
    }

    fn pause(&self) {
        self.workers.pause();
    }

    fn resume(&self) {
        self.workers.resume();
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(self.disk.moved.traffic())
    }

    fn backing_changed(&self) {
        match self.disk.look_again() {
            Ok(true) => self.workers.tell_news(),
            Ok(false) => {}
            Err(error) => self.workers.host_failed(&error),
        }
    }

    fn notify(&self, _queue: u16) {
        self.workers.wake();
    }

    fn queue_states(&self) -> Vec<QueueState> {
        self.workers.drain()
    }

    fn state_format(&self) -> StateFormat {
        BlkState::FORMAT
    }

    fn state(&self) -> SavedState {
        // What the driver knows of.
        let capacity_sectors = match self.workers.has_news() {
            true => 0,
            false => self.disk.sectors(),
        };
        SavedState::of(&BlkState {
            capacity_sectors,
            read_only: self.disk.read_only,
        })
    }

    fn restore(&self, state: &SavedState) -> Result<(), RestoreError> {
        let state: BlkState = state.read()?;
        let is_another = state.capacity_sectors != self.disk.sectors();
        if is_another && !(self.may_be_empty && state.capacity_sectors == 0) {
            return Err(RestoreError::Invalid("capacity_sectors"));
        }
        if state.read_only != self.disk.read_only {
            return Err(RestoreError::Invalid("read_only"));
        }
        self.workers.set_news(is_another);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
