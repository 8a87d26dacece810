//! Memory device (virtio 1.2 §5.15): memory that a guest gets and gives back
//! in blocks of [`BLOCK_BYTES`] while it runs.
//!
//! The owner asks for an amount with [`Mem::request_bytes`]; the guest plugs
//! or unplugs blocks of the region until that is what it has. The region must
//! be part of the guest RAM that devices see, plugged or not: a driver puts
//! buffers there.
//!
//! All work is done on the thread that notifies.

use std::ops::Range;
use std::sync::Arc;

use self::blocks::Blocks;
use self::request::{REQUEST_BYTES, RESPONSE_BYTES, Request, Response};
use super::chain::{Chain, QueueError};
use super::served::{Answer, Served, Server};
use super::state::StateFields;
use super::{DeviceState, RestoreError, StateFormat, read_config_space};
use crate::{DeviceMemory, HotMemory, Ram};

mod blocks;
mod request;

pub use blocks::BLOCK_BYTES;

/// Blocks whose state is looked at, or changed, in the time of one unit of
/// work.
const BLOCKS_PER_WORK: usize = 1024;
/// Units of work that it takes the host to take a block back.
const UNPLUGGED_WORK: usize = 8;
/// Largest region there may be (1 TiB): 64 KiB of saved state.
const MAX_REGION_BYTES: u64 = 1 << 40;
/// `VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE` (virtio 1.2 §5.15.3): the guest
/// leaves memory alone that is not plugged.
const UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

/// Where a memory device's region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemConfig {
    /// Guest physical address of its first byte: a multiple of
    /// [`BLOCK_BYTES`]. Linux uses whole memory sections only, of 128 MiB on
    /// arm64 with 4 KiB pages, so better a multiple of that.
    pub address: u64,
    /// Its length in bytes: a multiple of [`BLOCK_BYTES`], at most 1 TiB, and
    /// like the address better one of 128 MiB.
    pub region_bytes: u64,
}

/// Why a memory device cannot be made, or cannot do what is asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemError {
    /// The region is empty, too long, or not made of whole blocks.
    #[error("memory region of {region_bytes} bytes at {address:#x} is not 1 to 524288 blocks")]
    BadRegion {
        /// Guest physical address of its first byte.
        address: u64,
        /// Its length in bytes.
        region_bytes: u64,
    },
    /// The amount is not made of whole blocks, or is more than the region.
    #[error("{requested_bytes} bytes are not whole blocks of a region of {region_bytes}")]
    BadRequest {
        /// Bytes asked for.
        requested_bytes: u64,
        /// Length of the region in bytes.
        region_bytes: u64,
    },
}

/// Saved state of a [`Mem`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemState {
    /// Guest physical address of the region.
    pub address: u64,
    /// Length of the region in bytes.
    pub region_bytes: u64,
    /// Bytes the guest was asked to have.
    pub requested_bytes: u64,
    /// One bit per block of the region, lowest first: whether it is plugged.
    pub plugged: Vec<u64>,
}

impl DeviceState for MemState {
    const FORMAT: StateFormat = StateFormat {
        kind: "mem",
        version: 1,
    };

    fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.address, self.region_bytes, self.requested_bytes];
        let numbers = numbers.iter().chain(&self.plugged);
        numbers.flat_map(|number| number.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = StateFields::new(bytes);
        Some(Self {
            address: fields.u64()?,
            region_bytes: fields.u64()?,
            requested_bytes: fields.u64()?,
            plugged: fields.u64s()?,
        })
    }
}

/// A memory device.
pub type Mem<M = Ram> = Served<Region, M>;

/// What the guest of a [`Mem`] has of its region.
pub struct Region {
    config: MemConfig,
    host: Arc<dyn HotMemory>,
    blocks: Blocks,
    requested_bytes: u64,
}

impl<M: DeviceMemory> Served<Region, M> {
    /// A device with nothing plugged and nothing asked for.
    pub fn new(config: MemConfig, memory: Arc<dyn HotMemory>) -> Result<Self, MemError> {
        let MemConfig {
            address,
            region_bytes,
        } = config;
        let whole = address.is_multiple_of(BLOCK_BYTES) && region_bytes.is_multiple_of(BLOCK_BYTES);
        let bounded = (BLOCK_BYTES..=MAX_REGION_BYTES).contains(&region_bytes)
            && address.checked_add(region_bytes).is_some();
        if !whole || !bounded {
            return Err(MemError::BadRegion {
                address,
                region_bytes,
            });
        }
        Ok(Self::of(Region {
            config,
            host: memory,
            blocks: Blocks::new(address, region_bytes),
            requested_bytes: 0,
        }))
    }

    /// Asks the guest to have `bytes` bytes plugged in all. More may take it
    /// some milliseconds, and less may not be possible: memory in use stays.
    pub fn request_bytes(&self, bytes: u64) -> Result<(), MemError> {
        let mut refused = Ok(());
        self.configure(|region| {
            let region_bytes = region.config.region_bytes;
            if bytes > region_bytes || !bytes.is_multiple_of(BLOCK_BYTES) {
                refused = Err(MemError::BadRequest {
                    requested_bytes: bytes,
                    region_bytes,
                });
                return false;
            }
            std::mem::replace(&mut region.requested_bytes, bytes) != bytes
        });
        refused
    }

    /// Bytes the guest was asked to have.
    pub fn requested_bytes(&self) -> u64 {
        self.ask(|region| region.requested_bytes)
    }

    /// Bytes the guest has plugged.
    pub fn plugged_bytes(&self) -> u64 {
        self.ask(|region| region.blocks.plugged_bytes())
    }
}

impl Region {
    /// Carries out a request (virtio 1.2 §5.15.6); how much work it was.
    fn carry_out(&mut self, request: Option<Request>) -> (Response, usize) {
        let range = |address, blocks| self.blocks.range(address, blocks);
        match request {
            Some(Request::Plug { address, blocks }) => match range(address, blocks) {
                Some(range) => (self.plug(&range), 1 + range.len() / BLOCKS_PER_WORK),
                None => (Response::Error, 1),
            },
            Some(Request::Unplug { address, blocks }) => match range(address, blocks) {
                Some(range) if self.blocks.all(&range, true) => {
                    (Response::Ack, self.unplug(&range))
                }
                _ => (Response::Error, 1 + usize::from(blocks) / BLOCKS_PER_WORK),
            },
            Some(Request::UnplugAll) => {
                let plugged = self.blocks.plugged_runs();
                let calls: usize = plugged.iter().map(|run| self.unplug(run)).sum();
                (
                    Response::Ack,
                    calls + 1 + self.blocks.len() / BLOCKS_PER_WORK,
                )
            }
            Some(Request::State { address, blocks }) => {
                let response = match range(address, blocks) {
                    Some(range) if self.blocks.all(&range, true) => Response::Plugged,
                    Some(range) if self.blocks.all(&range, false) => Response::Unplugged,
                    Some(_) => Response::Mixed,
                    None => Response::Error,
                };
                (response, 1 + usize::from(blocks) / BLOCKS_PER_WORK)
            }
            None => (Response::Error, 1),
        }
    }

    /// Takes plugged blocks from the guest; how much work it was.
    fn unplug(&mut self, range: &Range<usize>) -> usize {
        self.blocks.set(range, false);
        let (address, bytes) = self.blocks.extent(range);
        self.host.unplug(address, bytes);
        // The host looks at each page of 4 KiB, of which a block has 512.
        1 + range.len().saturating_mul(UNPLUGGED_WORK)
    }

    fn plug(&mut self, range: &Range<usize>) -> Response {
        if !self.blocks.all(range, false) {
            return Response::Error;
        }
        let (address, bytes) = self.blocks.extent(range);
        if self.blocks.plugged_bytes() + bytes > self.requested_bytes {
            return Response::Nack;
        }
        if !self.host.plug(address, bytes) {
            return Response::Busy;
        }
        self.blocks.set(range, true);
        Response::Ack
    }

    /// Plugs and unplugs until the blocks are those of `wanted`; false if the
    /// host has not the memory for that.
    fn become_like(&mut self, wanted: &Blocks) -> bool {
        // What goes first makes room for what comes.
        for run in self.blocks.runs_beyond(wanted) {
            self.unplug(&run);
        }
        for run in wanted.runs_beyond(&self.blocks) {
            let (address, bytes) = self.blocks.extent(&run);
            if !self.host.plug(address, bytes) {
                return false;
            }
            self.blocks.set(&run, true);
        }
        true
    }
}

impl Server for Region {
    /// A memory device.
    const DEVICE_ID: u32 = 24;
    /// One queue for requests; Linux has one in flight.
    const QUEUE_SIZES: &'static [u16] = &[16];
    const NEEDED_QUEUES: u16 = 1;
    /// A request is 34 bytes in all.
    const MAX_SEGMENTS: usize = 16;
    const FEATURES: u64 = UNPLUGGED_INACCESSIBLE;
    type State = MemState;

    /// `struct virtio_mem_config` (virtio 1.2 §5.15.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let MemConfig {
            address,
            region_bytes,
        } = self.config;
        let mut space = [0; 56];
        // At 8 is the node, which needs a feature that is not on offer.
        for (at, value) in [
            (0, BLOCK_BYTES),
            (16, address),
            (24, region_bytes),
            // All of the region is usable from the start.
            (32, region_bytes),
            (40, self.blocks.plugged_bytes()),
            (48, self.requested_bytes),
        ] {
            space[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        read_config_space(&space, offset, data);
    }

    fn answer<M: DeviceMemory>(
        &mut self,
        _queue: u16,
        request: &Chain,
        ram: &M,
    ) -> Result<Answer, QueueError> {
        let mut bytes = [0; REQUEST_BYTES];
        // Checked before anything is done: an answer that has no place would
        // leave the guest in doubt about its memory.
        if !request.readable.read(ram, 0, &mut bytes)? || request.writable.len() < RESPONSE_BYTES {
            return Err(QueueError::BadRequest);
        }
        let (response, work) = self.carry_out(Request::decode(&bytes));
        request.writable.write(ram, 0, &response.encode())?;
        Ok(Answer {
            written: RESPONSE_BYTES,
            work,
        })
    }

    // Without `reset`, blocks stay as they are (virtio 1.2 §5.15.5.1): their
    // memory may be in use by a guest that changes drivers.

    fn state(&self) -> MemState {
        MemState {
            address: self.config.address,
            region_bytes: self.config.region_bytes,
            requested_bytes: self.requested_bytes,
            plugged: self.blocks.words().to_vec(),
        }
    }

    fn restore(&mut self, state: &MemState) -> Result<(), RestoreError> {
        let MemConfig {
            address,
            region_bytes,
        } = self.config;
        if state.address != address {
            return Err(RestoreError::Invalid("address"));
        }
        if state.region_bytes != region_bytes {
            return Err(RestoreError::Invalid("region_bytes"));
        }
        let requested = state.requested_bytes;
        if requested > region_bytes || !requested.is_multiple_of(BLOCK_BYTES) {
            return Err(RestoreError::Invalid("requested_bytes"));
        }
        let wanted = Blocks::from_words(address, region_bytes, &state.plugged)
            .ok_or(RestoreError::Invalid("plugged"))?;
        self.requested_bytes = requested;
        if self.become_like(&wanted) {
            Ok(())
        } else {
            Err(RestoreError::Refused)
        }
    }
}

#[cfg(test)]
mod tests;
