//! Memory that a running guest gives back or gets beyond its RAM.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::virtio::balloon::{self, Balloon};
use devices::virtio::mem::{self, Mem, MemConfig};
use devices::{HotMemory, RamAdvisor};

use super::error::MachineError;
use super::{Parts, RunningMachine};
use crate::arch::{self, Layout};
use crate::hypervisor::Architecture;
use crate::memory::{GuestMemory, host_page_bytes};

/// Least memory a guest is left with by its balloon, in bytes: below that its
/// kernel kills what it runs.
pub const MIN_LEFT_BYTES: u64 = 48 << 20;
/// Part of its RAM that a guest is left with in any case: its kernel's tables
/// of all pages alone, which no balloon can take, are a quarter of that.
const MIN_LEFT_PART: u64 = 16;
/// What more than its RAM a guest has comes in units of this, in bytes; a
/// request in between is rounded up.
pub const ADDED_UNIT_BYTES: u64 = mem::BLOCK_BYTES;
/// Unit of the balloon, in bytes.
const PAGE_BYTES: u64 = balloon::PAGE_BYTES as u64;
/// How often to look whether the guest has done what it was asked.
const POLL: Duration = Duration::from_micros(200);

/// How much memory a copy of a machine with `ram_bytes` of RAM can be told to
/// have, in bytes.
pub fn memory_range(architecture: Architecture, ram_bytes: u64) -> RangeInclusive<u64> {
    range_of(arch::of(architecture).layout(), ram_bytes)
}

fn range_of(layout: &Layout, ram_bytes: u64) -> RangeInclusive<u64> {
    let least = MIN_LEFT_BYTES.max(ram_bytes / MIN_LEFT_PART).min(ram_bytes);
    let (_, room) = layout.hot_region(ram_bytes);
    least..=ram_bytes.saturating_add(room)
}

/// The host's side of a machine's memory, for its devices.
struct Backing {
    layout: &'static Layout,
    memory: GuestMemory,
}

impl RamAdvisor for Backing {
    fn page_bytes(&self) -> u64 {
        host_page_bytes()
    }

    fn discard(&self, address: u64, bytes: u64) {
        // A page of a snapshot reads as the snapshot has it again, so that a
        // reset has nothing to bring back.
        self.memory.discard(address, bytes);
    }
}

impl HotMemory for Backing {
    fn plug(&self, address: u64, bytes: u64) -> bool {
        let (start, _) = self.layout.hot_region(self.memory.bytes());
        let end = address
            .checked_sub(start)
            .and_then(|at| at.checked_add(bytes));
        end.is_some_and(|end| end <= self.memory.hot_bytes())
    }

    fn unplug(&self, address: u64, bytes: u64) {
        self.memory.discard(address, bytes);
    }
}

/// The devices that change how much memory a guest has.
pub(super) struct Elastic {
    pub(super) balloon: Arc<Balloon>,
    pub(super) mem: Arc<Mem>,
}

impl Elastic {
    pub(super) fn new(layout: &'static Layout, memory: &GuestMemory) -> Result<Self, MachineError> {
        let backing = Arc::new(Backing {
            layout,
            memory: memory.clone(),
        });
        let (address, region_bytes) = layout.hot_region(memory.bytes());
        let config = MemConfig {
            address,
            // The largest machine has no room left but for an empty region.
            region_bytes: region_bytes.max(layout.hot_unit_bytes),
        };
        let mem = Mem::new(config, backing.clone()).map_err(|_| MachineError::Damaged {
            what: "the memory layout",
        })?;
        Ok(Self {
            balloon: Arc::new(Balloon::new(backing)),
            mem: Arc::new(mem),
        })
    }
}

/// How a guest's memory differs from the RAM it booted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBalance {
    /// Bytes its balloon holds.
    pub ballooned_bytes: u64,
    /// Bytes it got beside its RAM.
    pub added_bytes: u64,
}

impl Parts {
    pub(super) fn balance(&self) -> MemoryBalance {
        let elastic = &self.devices.elastic;
        MemoryBalance {
            ballooned_bytes: u64::from(elastic.balloon.actual_pages()) * PAGE_BYTES,
            added_bytes: elastic.mem.plugged_bytes(),
        }
    }
}

impl RunningMachine {
    /// How the guest's memory differs from the RAM it booted with.
    pub fn memory_balance(&self) -> MemoryBalance {
        self.parts()
            .as_ref()
            .map(Parts::balance)
            .unwrap_or_default()
    }

    /// Bytes of memory that the guest has: its RAM without what its balloon holds,
    /// and what was added.
    pub fn memory_bytes(&self) -> u64 {
        let parts = self.parts();
        let Some(parts) = parts.as_ref() else {
            return 0;
        };
        let balance = parts.balance();
        let ram = parts.memory.bytes();
        ram.saturating_sub(balance.ballooned_bytes)
            .saturating_add(balance.added_bytes)
    }

    /// Gives the guest `bytes` of memory: its balloon takes what is too much,
    /// and what is missing is added in units of [`ADDED_UNIT_BYTES`], as
    /// far as the machine was made with room for it and within
    /// [`memory_range`]. Waits until the guest is through.
    pub fn set_memory(
        &self,
        bytes: u64,
        patience: Duration,
    ) -> Result<MemoryBalance, MachineError> {
        let refused = || MachineError::Unsupported {
            what: "less memory than a guest needs, or more than the machine has room for",
        };
        let wanted = {
            let parts = self.parts();
            let parts = parts.as_ref().ok_or(MachineError::Gone)?;
            let ram = parts.memory.bytes();
            let wanted = MemoryBalance {
                ballooned_bytes: ram.saturating_sub(bytes),
                added_bytes: bytes
                    .saturating_sub(ram)
                    .checked_next_multiple_of(ADDED_UNIT_BYTES)
                    .ok_or_else(refused)?,
            };
            let range = range_of(parts.arch.layout(), ram);
            if bytes < *range.start() || wanted.added_bytes > parts.memory.hot_bytes() {
                return Err(refused());
            }
            let elastic = &parts.devices.elastic;
            elastic
                .mem
                .request_bytes(wanted.added_bytes)
                .map_err(|_| refused())?;
            let pages = u32::try_from(wanted.ballooned_bytes / PAGE_BYTES);
            elastic
                .balloon
                .set_target_pages(pages.map_err(|_| refused())?);
            wanted
        };
        let begun = Instant::now();
        loop {
            let now = self.memory_balance();
            if now == wanted {
                return Ok(now);
            }
            if begun.elapsed() > patience {
                return Err(MachineError::MemoryNotReached {
                    wanted_bytes: bytes,
                    ballooned_bytes: now.ballooned_bytes,
                    added_bytes: now.added_bytes,
                });
            }
            std::thread::sleep(POLL);
        }
    }
}
